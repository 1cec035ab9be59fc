"""Inversion: the noise that belongs to x0, found by running the denoiser's own ODE backwards from it.

Random noise in SDS makes every step point somewhere else. With inverted noise x0_hat(x_t) is a sharpened x0: the
gradient's variance falls and details survive (SDI, arXiv 2405.15891, official code read).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .diffusion import Denoiser, Time, randn_like


@dataclass(frozen=True)
class Inversion:
    """DDIM inversion up to t, in the place of x_t = alpha x0 + sigma eps.

    inversion_steps: U-Net calls, >= 1, spread from 0 up to t. inversion_guidance_scale: None = minus the guidance, the
    paper's choice. inversion_eta: 0 ... 1, share of the DDIM standard deviation put in as fresh noise at each step.
    """

    inversion_steps: int = 2
    inversion_guidance_scale: float | None = None
    inversion_eta: float = 0.3

    def __post_init__(self) -> None:
        if self.inversion_steps < 1:
            raise ValueError(f"inversion_steps must be >= 1, got {self.inversion_steps}")
        if not 0 <= self.inversion_eta <= 1:
            raise ValueError(f"inversion_eta must lie in 0 ... 1, got {self.inversion_eta}")

    def __call__(
        self, denoiser: Denoiser, x0: Tensor, t: Time, guidance_scale: float, generator: torch.Generator | None
    ) -> Tensor:
        """x_t (B, ...) of x0 (B, ...); guidance_scale: the objective's."""
        scale = -guidance_scale if self.inversion_guidance_scale is None else self.inversion_guidance_scale
        return ddim_invert(denoiser, x0, t, self.inversion_steps, scale, self.inversion_eta, generator)


@torch.no_grad()
def ddim_invert(
    denoiser: Denoiser,
    x0: Tensor,
    t: Time,
    steps: int,
    guidance_scale: float | None = None,
    eta: float = 0.0,
    generator: torch.Generator | None = None,
) -> Tensor:
    """DDIM run backwards: x0 (B, ...) up to x_t (B, ...), in `steps` >= 1 equal steps of t, one U-Net call each.

        x' = alpha' x0_hat(x) + sqrt(sigma'² - s²) eps_hat(x) + s z,    s² = eta² (sigma²/sigma'²) (1 - (alpha'/alpha)²)

    x0 itself counts as a clean sample (alpha 1, sigma 0), shown to the denoiser as t = 0; each later x at the level
    it stands on, as in the official SDI code. The fresh noise z takes its share s² *out of* sigma'², as DDIM does
    (arXiv 2010.02502, Eq. 12 and 16, not re-read); the SDI code adds it on top, which raises the noise level. More
    steps come closer to the exact flow, at first order. ValueError for steps < 1, eta outside 0 ... 1 or t outside
    the schedule.
    """
    schedule, x = denoiser.schedule, x0
    schedule.check_t(t)
    if steps < 1 or not 0 <= eta <= 1:
        raise ValueError(f"need steps >= 1 and eta in 0 ... 1, got {steps} and {eta}")
    now: Time = t * 0
    alpha, sigma = (1.0, 0.0)  # type: float | Tensor, float | Tensor
    for i in range(1, steps + 1):
        eps_hat = denoiser.predict_eps(x, now, guidance_scale)
        x0_hat = (x - sigma * eps_hat) / alpha
        now = t * i // steps
        alpha_up, sigma_up = schedule.levels(now, x)
        fresh = eta * (sigma / sigma_up) * (1 - (alpha_up / alpha) ** 2) ** 0.5
        x = alpha_up * x0_hat + (sigma_up**2 - fresh**2) ** 0.5 * eps_hat
        if eta > 0 and i > 1:  # at the first step sigma = 0: no noise to renew
            x = x + fresh * randn_like(x, generator)
        alpha, sigma = alpha_up, sigma_up
    return x
