"""What the model is shown and told: random views and backgrounds, and the words for a view (against Janus faces)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

# Eight sectors of 45 degrees, anticlockwise seen from above, starting at the camera with azimuth 0; "left" and "right"
# are those of someone who looks at the front.
SECTORS = ("front", "front right", "right side", "back right", "back", "back left", "left side", "front left")
OVERHEAD = 60.0  # degrees of elevation from which a view is called overhead
OVERHEAD_SHARE = 0.15  # of the random views


def fine_view(azimuth: float, elevation: float) -> str:
    """One of nine words: the sector of the azimuth, or "overhead"; angles in degrees."""
    return "overhead" if elevation >= OVERHEAD else SECTORS[round(azimuth / 45) % 8]


def coarse_view(azimuth: float, elevation: float) -> str:
    """One of four words that photographs' captions use: front and back within 45 degrees, side between, overhead."""
    if elevation >= OVERHEAD:
        return "overhead"
    around = abs((azimuth + 180) % 360 - 180)  # 0 front ... 180 back
    return "front" if around <= 45 else "side" if around < 135 else "back"


def view_prompts(prompt: str, words: Sequence[str]) -> list[str]:
    """The prompt with each view word: "a red mushroom" -> "a red mushroom, front view", ...

    A prompt that speaks of a view already stays as it is.
    """
    if prompt.rstrip().lower().endswith(" view"):
        return [prompt] * len(words)
    return [f"{prompt}, {word} view" for word in words]


def random_views(count: int, generator: torch.Generator, *, spread: bool = False) -> tuple[Tensor, Tensor]:
    """Azimuths and elevations (count,) in degrees: all around; 0 to 30 high or, for OVERHEAD_SHARE of them, 60 to 85.

    spread: one azimuth in each of `count` equal sectors (the sectors turned at random) instead of independent ones.
    """
    azimuth, elevation, which = torch.rand(3, count, generator=generator)
    if spread:
        azimuth = azimuth[0] + torch.arange(count) / count
    return 360 * azimuth, torch.where(which < OVERHEAD_SHARE, OVERHEAD + 25 * elevation, 30 * elevation)


def random_background(count: int, generator: torch.Generator) -> Tensor:
    """Plain backgrounds (count, 3) in [0, 1]: a random grey mixed half and half with a random colour.

    A scene that must look right before any background cannot hide haze.
    """
    grey = torch.rand(count, 1, generator=generator)
    return 0.5 * grey + 0.5 * torch.rand(count, 3, generator=generator)
