"""Score distillation by inversion: SDI, and the paper's JSD recipe, which is SDI plus one re-noised target.

Random noise in SDS makes every step point somewhere else. Inverting the denoiser's own ODE from x0 gives the noise
that belongs to x0, so that x0_hat(x_t) is a sharpened x0: the gradient's variance falls and details survive.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .diffusion import Denoiser, Time, randn_like
from .distillation import DistillationStep, checked_x0, finite_step, noise_like


@dataclass(frozen=True)
class JSD:
    """The Jensen-Shannon recipe of arXiv 2503.10660 (text not re-read, official code read).

        x_t   = DDIM inversion of x0 up to t, negative guidance
        x1    = x0_hat(x_t)        the mode that x0 belongs to
        x_t'  = alpha x1 + sigma eps'
        x2    = x0_hat(x_t')       the re-noised, "minority" target
        grad  = (alpha/sigma) [(x0 - x1) + k (x0 - x2)]
              = (1+k) (eps_hat(x_t) - eps_inv)
                + k (eps_hat(x_t') - eps')

    i.e. (1+k) times the SDI gradient at x0 plus k times the SDS gradient at x1. Not divided by 1+k: that is the
    official loss, and k changes the step length of plain gradient descent (Adam does not notice).

    minority_weight: k >= 0; 1 is the paper's; 0 is SDI exactly, and then the extra U-Net call is not made.
    inversion_steps: U-Net calls of the inversion, spread from 0 up to t (the paper's code spreads 10 over the whole
        schedule). 0: no inversion, x_t is x0 with fresh noise, eps_inv that noise, and minority_weight 0 is SDS.
    guidance_scale: None = the denoiser's own.
    inversion_guidance_scale: None = minus the guidance, the paper's choice.
    inversion_eta: 0 ... 1, share of the DDIM standard deviation put in as fresh noise at each inversion step.
    """

    minority_weight: float = 1.0
    inversion_steps: int = 2
    inversion_guidance_scale: float | None = None
    inversion_eta: float = 0.3
    guidance_scale: float | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.minority_weight < float("inf"):
            raise ValueError(f"minority_weight must be finite and >= 0 (0 is SDI), got {self.minority_weight}")
        if self.inversion_steps < 0:
            raise ValueError(f"inversion_steps must be >= 0 (0 is no inversion), got {self.inversion_steps}")
        if not 0 <= self.inversion_eta <= 1:
            raise ValueError(f"inversion_eta must lie in 0 ... 1, got {self.inversion_eta}")

    @torch.no_grad()
    def gradient(
        self,
        denoiser: Denoiser,
        x0: Tensor,
        t: Time,
        generator: torch.Generator | None = None,
        noise: Tensor | None = None,
    ) -> DistillationStep:
        """x0 (B, ...), used detached; t in the schedule; noise like x0 replaces eps'.

        FloatingPointError if a result is not finite; ValueError or TypeError for an x0 that is no batch or a bad t.
        """
        x0, schedule, k = checked_x0(x0, t), denoiser.schedule, self.minority_weight
        alpha, sigma = schedule.levels(t, x0)
        guidance = denoiser.guidance_scale if self.guidance_scale is None else self.guidance_scale
        inversion = -guidance if self.inversion_guidance_scale is None else self.inversion_guidance_scale

        if self.inversion_steps:
            x_t = ddim_invert(denoiser, x0, t, self.inversion_steps, inversion, self.inversion_eta, generator)
        else:
            x_t = schedule.add_noise(x0, noise_like(x0, None, generator), t)
        eps_hat = denoiser.predict_eps(x_t, t, guidance)
        x1 = schedule.x0_from_eps(x_t, eps_hat, t)
        targets: tuple[Tensor, ...] = (x1,)
        grad = (alpha / sigma) * (x0 - x1)
        if k > 0:
            eps = noise_like(x0, noise, generator)
            x_t2 = schedule.add_noise(x1, eps, t)
            x2 = schedule.x0_from_eps(x_t2, denoiser.predict_eps(x_t2, t, guidance), t)
            targets = (x1, x2)
            grad = grad + k * (alpha / sigma) * (x0 - x2)
        eps_inv = schedule.eps_from_x0(x_t, x0, t)
        calls = self.inversion_steps + len(targets)
        return finite_step(DistillationStep(grad, t, x_t, eps_hat, eps_inv, targets, None, calls))


@dataclass(frozen=True)
class SDI:
    """Score distillation via inversion (arXiv 2405.15891, official code read): SDS with inverted instead of random
    noise.

    grad = eps_hat(x_t) - eps_inv, the JSD gradient at minority_weight 0; the other arguments are JSD's.
    """

    inversion_steps: int = 2
    inversion_guidance_scale: float | None = None
    inversion_eta: float = 0.3
    guidance_scale: float | None = None

    def __post_init__(self) -> None:
        if self.inversion_steps < 1:
            raise ValueError(f"inversion_steps must be >= 1 (without inversion it is SDS), got {self.inversion_steps}")
        self._as_jsd()

    def _as_jsd(self) -> JSD:
        return JSD(0.0, self.inversion_steps, self.inversion_guidance_scale, self.inversion_eta, self.guidance_scale)

    def gradient(
        self, denoiser: Denoiser, x0: Tensor, t: Time, generator: torch.Generator | None = None
    ) -> DistillationStep:
        """x0 (B, ...), used detached; t in the schedule. FloatingPointError if not finite."""
        return self._as_jsd().gradient(denoiser, x0, t, generator)


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
