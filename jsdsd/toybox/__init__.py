"""The embedded prior: a tiny SDXL that knows two dozen toys, and the ground truth about them."""

from __future__ import annotations

from pathlib import Path

from .captions import attributes
from .kinds import COLOURS, KINDS
from .scenes import Toy, true_grid

__all__ = ["COLOURS", "KINDS", "Toy", "attributes", "path", "true_grid"]


def path() -> Path:
    """The embedded model's folder, in SDXL's layout: `StableDiffusionXLPipeline.from_pretrained(path())` loads it."""
    return Path(__file__).parent / "weights"
