"""Two denoisers for every test here: one exact (a Gaussian's), one of no meaning at all (identities must
hold anyway).
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from jsdsd.objectives import Schedule


class GaussianDenoiser:
    """Exact for the target N(mean, std² I): eps_hat = sigma (x - alpha mean)/(alpha² std² + sigma²). Counts
    its calls.
    """

    guidance_scale = 1.0

    def __init__(self, mean: float = 1.0, std: float = 0.5) -> None:
        self.mean, self.std, self.calls = mean, std, 0
        self.schedule = Schedule.scaled_linear()

    def predict_eps(self, x_t: Tensor, t: int | Tensor, guidance_scale: float | None = None) -> Tensor:
        self.calls += 1
        alpha, sigma = self.schedule.levels(t, x_t)
        return sigma * (x_t - alpha * self.mean) / (alpha**2 * self.std**2 + sigma**2)


class RandomDenoiser:
    """A smooth function of (x_t, t, guidance) drawn from a seed: nothing an identity could lean on."""

    guidance_scale = 7.5

    def __init__(self, seed: int) -> None:
        g = torch.Generator().manual_seed(seed)
        self.a, self.b, self.c = torch.randn(3, generator=g, dtype=torch.float64).tolist()
        self.schedule, self.calls = Schedule.scaled_linear(), 0

    def predict_eps(self, x_t: Tensor, t: int | Tensor, guidance_scale: float | None = None) -> Tensor:
        self.calls += 1
        s = self.guidance_scale if guidance_scale is None else guidance_scale
        alpha, sigma = self.schedule.levels(t, x_t)
        return torch.sin(self.a * x_t + self.b * sigma) + s * 0.1 * torch.cos(self.c * x_t * alpha)


@pytest.fixture(scope="session")
def gaussian_denoiser() -> type[GaussianDenoiser]:
    return GaussianDenoiser


@pytest.fixture(scope="session")
def random_denoiser() -> type[RandomDenoiser]:
    return RandomDenoiser
