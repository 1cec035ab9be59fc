"""The toybox's language: captions of scenes, and the true distribution of scenes given a prompt.

caption = toy [on | next to toy] [, view view]         toy = a [colour] kind | a [colour] toy | something colour
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ..scene.views import OVERHEAD_SHARE, SECTORS
from .kinds import COLOURS, KINDS

VIEWS = (*SECTORS, "overhead")  # "side" is said of either side
SUPPORTS = ("table", "cube")  # what another toy can stand on
RELATIONS = ("on", "next to")
WORDS = sorted(
    {w for name in (*KINDS, *COLOURS, *VIEWS, *RELATIONS) for w in name.split()}
    | {"a", "an", "toy", "something", "view"}
)


@dataclass(frozen=True)
class Label:
    """What a picture shows: one or two (kind, colour) names, their relation, and the view; None means not said."""

    toys: tuple[tuple[str | None, str | None], ...]
    relation: str | None = None
    view: str | None = None


def _article(words: str) -> str:
    return ("an " if words[0] in "aeiou" else "a ") + words


def caption(label: Label) -> str:
    """The sentence for a label; toys without kind and colour are "a toy", with a colour alone "something red"."""
    names = []
    for kind, colour in label.toys:
        if kind is None and colour is not None and label.relation is None:
            names.append(f"something {colour}")
        else:
            names.append(_article(" ".join(w for w in (colour, kind or "toy") if w)))
    text = f" {label.relation} ".join(names)
    return f"{text}, {label.view} view" if label.view else text


def drop(label: Label, generator: torch.Generator) -> str:
    """A random true caption of a full label: the view is left out 1 time in 6, a colour 1 in 5, a kind 1 in 8 (only of
    toys that stand alone), everything 1 in 10; a sideways view is called plainly "side" 1 time in 3.  Each choice is
    independent of what the picture shows, so that what is left out keeps its distribution."""
    u = torch.rand(6, generator=generator).tolist()
    if u[0] < 0.1:
        return ""
    view = None if u[1] < 1 / 6 else label.view
    if view in ("left side", "right side") and u[2] < 1 / 3:
        view = "side"
    alone = len(label.toys) == 1
    toys = tuple(
        (None if alone and u[5] < 1 / 8 else kind, None if u[3 + i] < 0.2 else colour)
        for i, (kind, colour) in enumerate(label.toys)
    )
    return caption(Label(toys, label.relation, view))


def check_words(prompt: str, known: Sequence[str] = WORDS) -> None:
    """ValueError for a word the toybox never saw: names it, suggests near ones, points to the real SDXL."""
    for word in re.findall(r"[^\W_]+", prompt.lower()):
        if word not in known:
            near = difflib.get_close_matches(word, known, n=3, cutoff=0.6)
            hint = (
                f"did you mean {' or '.join(near)}?"
                if near
                else f"it knows the toys {', '.join(KINDS)}; the colours {', '.join(COLOURS)}."
            )
            raise ValueError(
                f'the toybox was never taught the word "{word}": {hint} For any other prompt use model="sdxl".'
            )


def parse(prompt: str) -> Label:
    """The label that a prompt says.  Raises ValueError for an empty prompt, a word the toybox never saw, or an order of
    words that makes no toybox sentence; the message names the word and suggests near ones."""
    words = re.findall(r"[^\W_]+", prompt.lower())
    if not words:
        raise ValueError('the prompt is empty: say what to make, as "a red mushroom"')
    check_words(prompt)
    if odd := re.search(r"[^\w\s,.;:!?'\"-]|_", prompt):
        raise ValueError(f'"{prompt}" is no toybox sentence: it knows no sign {odd[0]!r}; write "a red mushroom"')
    text = " ".join(words)
    kinds = "|".join(sorted(KINDS, key=len, reverse=True))
    toy = rf"(?:(?:an? )?(?:({'|'.join(COLOURS)}) )?({kinds}|toy)|something ({'|'.join(COLOURS)}))"
    views = "|".join(sorted((*VIEWS, "side"), key=len, reverse=True))
    match = re.fullmatch(rf"{toy}(?: ({'|'.join(RELATIONS)}) {toy})?(?: ({views}) view)?", text)
    if match is None:
        raise ValueError(
            f'"{prompt}" is no toybox sentence; write for example "a red mushroom", "something blue" '
            'or "a duck next to a tree"'
        )
    c1, k1, s1, relation, c2, k2, s2, view = match.groups()
    toys = [(None if k in (None, "toy") else k, c or s) for k, c, s in ((k1, c1, s1), (k2, c2, s2))]
    return Label(tuple(toys[: 2 if relation else 1]), relation, view)


def attributes(prompt: str) -> list[dict[str, dict[str, float]]]:
    """The true p(kind, colour, view | prompt) of the training pictures: one dict per toy with keys "kind", "colour" and
    "view", each mapping names to probabilities that sum to 1 (independent, and uniform over what is not said).

    Raises ValueError as `parse` does.
    """
    label = parse(prompt)
    if label.view is None:
        view = dict.fromkeys(SECTORS, (1 - OVERHEAD_SHARE) / 8) | {"overhead": OVERHEAD_SHARE}
    elif label.view == "side":
        view = {"left side": 0.5, "right side": 0.5}
    else:
        view = {label.view: 1.0}
    result = []
    for kind, colour in label.toys:
        kinds = {kind: 1.0} if kind else {k: 1 / len(KINDS) for k in KINDS}
        colours = {colour: 1.0} if colour else {c: 1 / len(COLOURS) for c in COLOURS}
        result.append({"kind": kinds, "colour": colours, "view": view})
    return result
