"""What a model folder says of itself, in one JSON file beside model_index.json: its words, its sizes, its defaults.

Nothing has to be said: SDXL says nothing, and knows any word.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

NAME = "toybox.json"


@dataclass(frozen=True)
class Facts:
    """words: all that the model was taught, None = any.  camera: "crop" where exact cameras are told in the place of
    SDXL's crop corner, None = view words alone.  The others are a run's defaults, None = as for any model of its size.
    """

    words: tuple[str, ...] | None = None
    camera: str | None = None
    guidance_scale: float | None = None
    steps: int | None = None
    views_per_step: int | None = None
    resolution: int | None = None
    render_sizes: tuple[int, ...] | None = None

    @classmethod
    def read(cls, folder: Path) -> Facts:
        """Of a model's folder; unknown keys are another version's and left out.  ValueError for a damaged file."""
        path = folder / NAME
        if not path.is_file():
            return cls()
        try:
            said = json.loads(path.read_text(encoding="utf-8"))
            if said.get("exact_cameras") is True:  # how folders trained before version 0.2 say it
                said["camera"] = "crop"
            return cls(**{name: KINDS[name](said[name]) for name in KINDS if said.get(name) is not None})
        except (ValueError, TypeError, AttributeError, RecursionError) as error:
            raise ValueError(f'"{path}" is damaged ({error}); fetch or train the model again') from error


def _exactly(*kinds: type) -> Callable[[Any], Any]:
    def check(value: Any) -> Any:
        if type(value) not in kinds or isinstance(value, (int, float)) and not 0 < value < 1e6:
            raise ValueError(f"{value!r} is none of {', '.join(k.__name__ for k in kinds)} in its range")
        return value

    return check


def _list_of(kind: type) -> Callable[[Any], Any]:
    def check(value: Any) -> Any:
        if not isinstance(value, list) or not value:
            raise ValueError(f"{value!r} is no list")
        return tuple(_exactly(kind)(item) for item in value)

    return check


KINDS: dict[str, Callable[[Any], Any]] = {
    "words": _list_of(str),
    "camera": _exactly(str),
    "guidance_scale": _exactly(int, float),
    "steps": _exactly(int),
    "views_per_step": _exactly(int),
    "resolution": _exactly(int),
    "render_sizes": _list_of(int),
}


def fingerprint(pipe: Any) -> str:
    """Tells models apart: SHA-256 over at least 4,096 numbers of every weight of a pipeline, all of the small ones."""
    total = hashlib.sha256()
    for part in ("unet", "vae", "text_encoder", "text_encoder_2"):
        for name, x in getattr(pipe, part).state_dict().items() if getattr(pipe, part, None) else ():
            total.update(f"{part}.{name} {tuple(x.shape)}".encode())
            total.update(x.reshape(-1)[:: max(1, x.numel() // 4096)].float().cpu().numpy().tobytes())
    return total.hexdigest()[:32]
