"""What problems hand to a student's function beside jsdsd's own objects."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from jsdsd.objectives.diffusion import Schedule, Time


@dataclass(frozen=True)
class PictureDenoiser:
    """The exact denoiser of N(mean, std² I) over pictures: it stands where a text-to-image model stands.

    mean (B, H, W, 3): one picture per view, so that the target of every camera is known.
    """

    mean: Tensor
    std: float = 0.1
    guidance_scale: float = 1.0
    schedule: Schedule = Schedule.scaled_linear()

    def predict_eps(self, x_t: Tensor, t: Time, guidance_scale: float | None = None) -> Tensor:
        """sigma (x_t - alpha mean) / (alpha² std² + sigma²), shape of x_t."""
        alpha, sigma = self.schedule.levels(t, x_t)
        return sigma * (x_t - alpha * self.mean) / (alpha**2 * self.std**2 + sigma**2)
