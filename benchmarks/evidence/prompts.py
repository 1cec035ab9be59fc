"""What is asked for: three sets after T3Bench's (arXiv 2310.02977, not re-read) with every attribute named, and one
set of ambiguous prompts, whose true distribution over kinds and colours is known (`captions.attributes`).

Fixed before any run: prompts at even places of their set are for development (choosing settings), those at odd places
for confirmation.
"""

from __future__ import annotations

from dataclasses import dataclass

from jsdsd.toybox.captions import parse
from jsdsd.toybox.scenes import Toy, next_to, on

_TEXTS = {
    "single": "a red mushroom, a yellow duck, a blue car, a green chair, "
    "a purple mug, a white snowman, an orange fish, a pink house",
    "surroundings": "a red ball on a blue table, a yellow duck on a green cube, "  # a toy on something
    "a green tree on a white cube, a white teapot on a purple table, a purple robot on an orange cube, "
    "a blue rocket on a pink table, a pink star on a yellow cube, an orange mug on a red table",
    "several": "a yellow duck next to a green tree, a red car next to a white house, "
    "a blue boat next to an orange fish, a pink castle next to a purple rocket, a white mug next to a red teapot, "
    "a green cactus next to a yellow cone, an orange airplane next to a blue lamp, a purple chair next to a pink donut",
    "ambiguous": "a mug, a ball, a duck, a car, something red, something blue, a toy, a green toy",
}
SETS: dict[str, list[str]] = {name: texts.split(", ") for name, texts in _TEXTS.items()}


@dataclass(frozen=True)
class Prompt:
    """A prompt, the set it is from, and which half of the set."""

    text: str
    set: str
    split: str  # "development" or "confirmation"

    @property
    def toys(self) -> tuple[tuple[str | None, str | None], ...]:
        """(kind, colour) of each toy, None for what is not said."""
        return parse(self.text).toys

    @property
    def ambiguous(self) -> bool:
        """True where the prompt leaves a kind or a colour open: then there is no one true scene."""
        return any(None in toy for toy in self.toys)

    def scene(self) -> tuple[Toy, ...]:
        """The true toys.  ValueError for an ambiguous prompt."""
        label = parse(self.text)
        if self.ambiguous:
            raise ValueError(f'"{self.text}" has many true scenes: see captions.attributes')
        toys = [Toy(str(kind), str(colour)) for kind, colour in label.toys]
        if label.relation is None:
            return tuple(toys)
        return tuple((on if label.relation == "on" else next_to)(toys[0], toys[1]))


PROMPTS: dict[str, Prompt] = {
    text: Prompt(text, name, ("development", "confirmation")[place % 2])
    for name, texts in SETS.items()
    for place, text in enumerate(texts)
}


def chosen(words: list[str] | None) -> list[Prompt]:
    """The prompts that `words` name - a prompt, a set or a split each; None: all - in the benchmark's order, which
    takes the first of every set, then the second, so that a run that was stopped has seen all sets alike.

    ValueError for a word that names nothing.
    """
    turns = [PROMPTS[text] for turn in zip(*SETS.values(), strict=True) for text in turn]
    for word in words or []:
        if not any(word in (p.text, p.set, p.split) for p in turns):
            raise ValueError(f'"{word}" is no prompt of the benchmark, nor a set ({", ".join(SETS)}) or a split')
    return [p for p in turns if words is None or {p.text, p.set, p.split} & set(words)]
