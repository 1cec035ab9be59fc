"""What the model is shown and told: random views and backgrounds, and the words for a view (against Janus faces)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

# Eight sectors of 45 degrees, anticlockwise seen from above, starting at the camera with azimuth 0; "left" and "right"
# are those of someone who looks at the front.
SECTORS = ("front", "front right", "right side", "back right", "back", "back left", "left side", "front left")
OVERHEAD = 60.0  # degrees of elevation from which a view is called overhead
HIGH = 30.0  # degrees of elevation that HIGH_SHARE of the random views lie above, up to 85; the others begin at -10
HIGH_SHARE = 0.35
OVERHEAD_SHARE = HIGH_SHARE * (85 - OVERHEAD) / (85 - HIGH)  # of the random views, .159


def fine_view(azimuth: float, elevation: float) -> str:
    """One of nine words: the sector of the azimuth, or "overhead"; angles in degrees."""
    return "overhead" if elevation >= OVERHEAD else SECTORS[round(azimuth / 45) % 8]


def coarse_view(azimuth: float, elevation: float) -> str:
    """One of four words that photographs' captions use: front and back within 45 degrees, side between, overhead."""
    if elevation >= OVERHEAD:
        return "overhead"
    around = abs((azimuth + 180) % 360 - 180)  # 0 front ... 180 back
    return "front" if around <= 45 else "side" if around < 135 else "back"


@dataclass(frozen=True)
class ViewWords:
    """Words and angles of one's own: (word, azimuth of the sector's middle in degrees), the nearest middle wins.

    A word may stand for several sectors.  overhead: degrees of elevation from which `overhead_word` is used instead.
    `ViewWords.parse("front:0, side:90, rear:180, side:270")` reads what str() writes.  Raises ValueError for no sector,
    an empty word or an angle that is not finite.
    """

    sectors: tuple[tuple[str, float], ...]
    overhead: float = OVERHEAD
    overhead_word: str = "overhead"

    def __post_init__(self) -> None:
        if not self.sectors or not all(word.strip() and abs(middle) < 1e6 for word, middle in self.sectors):
            raise ValueError('view words are given as "front:0, side:90, back:180, side:270", word:degrees')

    def __call__(self, azimuth: float, elevation: float) -> str:
        """The word for a view, angles in degrees."""
        if elevation >= self.overhead:
            return self.overhead_word
        return min(self.sectors, key=lambda sector: abs((azimuth - sector[1] + 180) % 360 - 180))[0]

    @property
    def words(self) -> list[str]:
        """All words, each once."""
        return list(dict.fromkeys([*(word for word, _ in self.sectors), self.overhead_word]))

    def __str__(self) -> str:
        rest = f"; {self.overhead_word}:{self.overhead:g}"
        return ", ".join(f"{word}:{middle:g}" for word, middle in self.sectors) + rest

    @classmethod
    def parse(cls, text: str) -> ViewWords:
        """ "word:degrees, word:degrees, ...", and after a semicolon the word for views from above and its elevation."""
        around, _, above = text.partition(";")
        try:
            sectors = [item.rsplit(":", 1) for item in around.split(",")]
            pairs = tuple((word.strip(), float(middle)) for word, middle in sectors)
            if not above.strip():
                return cls(pairs)
            word, elevation = above.rsplit(":", 1)
            return cls(pairs, float(elevation), word.strip())
        except ValueError as error:
            raise ValueError(
                f'"{text}" are no view words: write "front:0, side:90, back:180, side:270; overhead:60", word:degrees'
            ) from error


def word_indices(
    words: Sequence[str], view_word: Callable[[float, float], str], azimuth: Tensor, elevation: Tensor
) -> list[int]:
    """The place in `words` of each view's word; azimuth and elevation (B,) in degrees."""
    return [words.index(view_word(a, e)) for a, e in zip(azimuth.tolist(), elevation.tolist(), strict=True)]


def view_prompts(prompt: str, words: Sequence[str]) -> list[str]:
    """The prompt with each view word: "a red mushroom" -> "a red mushroom, front view", ...

    A prompt that speaks of a view already stays as it is.
    """
    if prompt.rstrip().lower().endswith(" view"):
        return [prompt] * len(words)
    return [f"{prompt}, {word} view" for word in words]


def random_views(count: int, generator: torch.Generator, *, spread: bool = False) -> tuple[Tensor, Tensor]:
    """Azimuths and elevations (count,) in degrees: all around; -10 to 30 high or, for HIGH_SHARE of them, 30 to 85.

    spread: one azimuth in each of `count` equal sectors (the sectors turned at random) instead of independent ones.
    """
    azimuth, elevation, which = torch.rand(3, count, generator=generator)
    if spread:
        azimuth = azimuth[0] + torch.arange(count) / count
    high = HIGH + (85 - HIGH) * elevation
    return 360 * azimuth, torch.where(which < HIGH_SHARE, high, -10 + 40 * elevation)


def camera_corner(azimuth: Tensor, elevation: Tensor) -> Tensor:
    """(..., 2): an exact camera, told in the place of SDXL's crop corner (top, left); angles in degrees, any shape.

    (100 azimuth, 100 + 100 elevation), in radians; (0, 0), SDXL's "not cropped", is "not said".  The sinusoids of the
    time embedding have the wavelengths 2 pi 10^0 ... 10^3, so that one of them turns once with the azimuth.
    """
    return torch.stack([100 * torch.deg2rad(azimuth % 360), 100 + 100 * torch.deg2rad(elevation)], -1)


def random_background(count: int, generator: torch.Generator) -> Tensor:
    """Plain backgrounds (count, 3) in [0, 1]: a random grey mixed half and half with a random colour.

    A scene that must look right before any background cannot hide haze.
    """
    grey, colour = (torch.rand(count, n, generator=generator, device=generator.device) for n in (1, 3))
    return 0.5 * grey + 0.5 * colour
