"""`Run`: everything that decides an asset's bytes, in one place: checked once, written to run.json and checkpoints,
compared with == when a run goes on.  The command line's options are made from its fields.

A field that is None is not decided yet: `generate` fills it in when the model is known.
"""

from __future__ import annotations

import hashlib
import math
import numbers
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .scene.views import ViewWords

Check = Callable[[str, Any], Any]  # (name, value) -> the value as it is kept; ValueError in one sentence
LONGEST = 2000  # letters of a prompt; a model's tokenizer reads far fewer


def setting(default: Any, check: Check, says: str = "", *, same: bool = True, **option: Any) -> Any:
    """A field of Run.  says: its help on the command line, where it is an option; option: argparse's further words.

    same: whether a run that goes on must have the same value.
    """
    return field(default=default, compare=same, metadata={"check": check, "help": says, "option": option})


def text(name: str, value: Any, empty: bool = False) -> str:
    """A text that a tokenizer can read: no control characters, no half of a surrogate pair, not too long."""
    if not isinstance(value, str):
        raise ValueError(f"{name} must be a text, got {value!r}")
    if not empty and not value.strip():
        raise ValueError(f'the {name} is empty: say what to make, as "a red mushroom"')
    if len(value) > LONGEST:
        raise ValueError(f"{name} is too long: {len(value)} letters, at most {LONGEST} are allowed")
    if odd := next((c for c in value if not c.isprintable()), None):
        raise ValueError(f"{name} holds a character that is no text: {ascii(odd)}")
    return value


def whole(least: int, most: int) -> Check:
    """A whole number in least ... most; numpy's are taken, True and 1.0 are not."""

    def check(name: str, value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, numbers.Integral) or not least <= int(value) <= most:
            raise ValueError(f"{name} must be a whole number of at least {least} and at most {most}, got {value!r}")
        return int(value)

    return check


def number(least: float, most: float) -> Check:
    """A finite number in least ... most."""

    def check(name: str, value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, numbers.Real):
            raise ValueError(f"{name} must be a number, got {value!r}")
        if not math.isfinite(value):
            raise ValueError(f"{name} must be finite, got {value!r}")
        if not least <= float(value) <= most:
            raise ValueError(f"{name} must be at least {least:g} and at most {most:g}, got {value!r}")
        return float(value)

    return check


def truth(name: str, value: Any) -> bool:
    """True or False."""
    if not isinstance(value, bool):
        raise ValueError(f"{name} is True, False or None (the preset's), got {value!r}")
    return value


def sizes(name: str, value: Any) -> tuple[int, ...]:
    """Pixels of renders, each 16 ... 4096."""
    if isinstance(value, (str, bytes)) or not isinstance(value, Sequence) or not value:
        raise ValueError(f"{name} are whole numbers of pixels, at least 16, as (96,), got {value!r}")
    return tuple(whole(16, 4096)(name, n) for n in value)


def views(name: str, value: Any) -> ViewWords:
    """View words, or the text that writes them."""
    from .scene.views import ViewWords

    if isinstance(value, str):
        return ViewWords.parse(value)
    if not isinstance(value, ViewWords):
        raise ValueError(f'{name} must be ViewWords or a text like "front:0, side:90, back:180", got {value!r}')
    return value


def anything(name: str, value: Any) -> Any:
    """What the library itself has written."""
    return value


@dataclass(frozen=True)
class Run:
    """One asset's settings.  Raises ValueError, in one sentence, for a value of another type or out of its range."""

    prompt: str = setting("", text)
    seed: int = setting(0, whole(0, 2**63 - 1), "same seed and machine, same object", type=int)
    model: str | None = setting(None, anything)  # as it was asked for
    weights: str | None = setting(None, anything)  # a digest: another model by the same name is another run
    objective: str | None = setting(None, anything)  # its `identity`
    steps: int | None = setting(
        None, whole(1, 10**7), "optimiser steps (default: depends on model and objective)", same=False, type=int,
        metavar="N",
    )  # fmt: skip
    negative_prompt: str | None = setting(
        None, lambda name, value: text(name, value, empty=True), "what to move away from (default: nothing)",
        metavar="TEXT",
    )  # fmt: skip
    guidance_scale: float | None = setting(
        None, number(-1000, 1000), "how closely to follow PROMPT; 1 = not more than trained (default: the model's)",
        type=float, metavar="S",
    )  # fmt: skip
    views_per_step: int | None = setting(
        None, whole(1, 4096), "pictures looked at in each step (default: depends on model)", type=int, metavar="N"
    )
    resolution: int | None = setting(
        None, whole(8, 1024), "voxels along each axis (default: depends on model)", type=int, metavar="R"
    )
    render_sizes: tuple[int, ...] | None = setting(None, sizes)  # pixels, in equal shares of the run
    view_words: ViewWords | None = setting(
        None, views, 'words for the views, as "front:0, side:90, back:180, side:270; overhead:60" (default: the '
        "model's own)", metavar="WORD:DEGREES,...",
    )  # fmt: skip
    perp_neg: float = setting(
        0.0, number(0, 1000), "other views' words as negatives, weight", type=float, metavar="W"
    )
    latent: bool | None = setting(None, truth, "a grid of latents, no VAE: less memory, worse shapes", action="bool")
    memory_gb: int | None = setting(None, anything)
    numerics: str | None = setting(None, anything)
    recipe: str | None = setting(None, anything)  # the loop's own numbers, see `optimise`
    dtype: str | None = setting(None, anything)
    device: str | None = setting(None, anything, same=False)
    versions: Mapping[str, str] | None = setting(None, anything, same=False)

    def __post_init__(self) -> None:
        for f in fields(self):
            if (value := getattr(self, f.name)) is not None or f.default is not None:
                object.__setattr__(self, f.name, f.metadata["check"](f.name, value))

    def filled(self, **values: Any) -> Run:
        """With `values` where nothing was decided."""
        return replace(self, **{name: value for name, value in values.items() if getattr(self, name) is None})

    @classmethod
    def options(cls) -> Iterator[tuple[str, Any, str, dict[str, Any]]]:
        """(name, default, help, argparse's words) of what a command line can say."""
        options = (f for f in fields(cls) if f.metadata["help"])
        return ((f.name, f.default, f.metadata["help"], f.metadata["option"]) for f in options)

    def arguments(self) -> dict[str, Any]:
        """What `generate` takes by these names, the prompt aside."""
        return {name: getattr(self, name) for name, *_ in self.options()} | {"render_sizes": self.render_sizes}

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        plain = {f.name: getattr(self, f.name) for f in fields(self)}
        return plain | {
            "render_sizes": None if self.render_sizes is None else list(self.render_sizes),
            "view_words": None if self.view_words is None else str(self.view_words),
            "versions": None if self.versions is None else dict(self.versions),
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Run:
        """What `to_json` wrote; what it does not know is left out, what is missing is not decided."""
        known = {f.name for f in fields(cls)}
        return cls(**{name: value for name, value in values.items() if name in known})

    def differences(self, other: Run) -> list[str]:
        """The fields in which two runs cannot be the same; what one of them has not written down is no difference."""
        return [f.name for f in fields(self) if f.compare and not _same(f.name, self, other)]


def _same(name: str, one: Run, other: Run) -> bool:
    a, b = getattr(one, name), getattr(other, name)
    if name in ("weights", "recipe") and None in (a, b):  # files of version 0.1.0 do not say
        return True
    if name == "objective" and a and b and "." in a.split("(")[0] + b.split("(")[0]:  # of 0.1.0: a repr, "SDS(...)"
        old, new = sorted((a, b), key=lambda x: "." in x.split("(")[0])
        if "." not in old.split("(")[0]:
            return old.split("(")[0] == new.split("(")[0].rsplit(".", 1)[-1]
    return bool(a == b)


def identity(value: Any) -> str:
    """What an objective is: its class's path and its dataclass's fields, "jsdsd.objectives.SDS(guidance_scale=None)".

    Fields hold numbers, texts, tensors (told by a hash), functions, lists, or objects told in the same way.  Of an
    object that is no dataclass only the class counts.
    """
    if value is None or isinstance(value, (bool, int, float, str)):
        return repr(value)
    import torch  # here, so that the command line's help need not wait for it

    if isinstance(value, torch.Tensor):
        data = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        return f"tensor({tuple(value.shape)}, {value.dtype}, {hashlib.sha256(data).hexdigest()[:16]})"
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(identity, value))}]"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key!r}: {identity(item)}" for key, item in value.items()) + "}"
    if hasattr(value, "__qualname__"):  # a class or a function
        return _path(value)
    told = [f for f in fields(value) if f.init and f.compare] if is_dataclass(value) else []
    return f"{_path(type(value))}({', '.join(f'{f.name}={identity(getattr(value, f.name))}' for f in told)})"


def _path(thing: Any) -> str:
    """Where to find a class or function; the library's own by their public place, which outlives a move of files."""
    public = getattr(sys.modules.get("jsdsd.objectives"), thing.__qualname__, None) is thing
    return f"{'jsdsd.objectives' if public else thing.__module__}.{thing.__qualname__}"
