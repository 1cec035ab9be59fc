"""Two targets: the gradient of an f-divergence from generated and from target samples, and the recipes it contains.

Since q r = p, one integral has two readings (docs/theory.md). For a lone particle, q_t = N(alpha x0, sigma² I):

    (sigma/alpha) grad_x0 D_f(p_t‖q_t) = (alpha/sigma) {      lambda  E_{x_t ~ q_t}[ w_f(r)   (x0 - x0_hat(x_t)) ]
                                                         + (1-lambda) E_{x'  ~ p_t}[ w_f(r)/r (x0 - x0_hat(x'))  ] }

with r = p_t/q_t at the point in question, for every lambda (`share`) in 0 ... 1. For Jensen-Shannon w = ½ D and w/r = ½
(1 - D): x1 = x0_hat(x_t) pulls where the discriminator takes a generated point for real, x2 = x0_hat(x') where it takes
a real one for generated. Derived and checked for this library; D is that of Goodfellow et al. 2014.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from .diffusion import Denoiser, Time, can_sample
from .distillation import DistillationStep, Side, checked_x0, finite_step, noise_like
from .divergence import Divergence
from .divergences import JensenShannon
from .inversion import Inversion
from .log_odds import LogOdds, Undecided, lone_particle
from .sides import check_family, look, target_samples, times_rows, two_sided_step, weight_is_one


@dataclass(frozen=True)
class TwoSided:
    """Each row of x0 (B, ...) alone, as in SDS: an unbiased estimate of (sigma/alpha) grad D_f, in eps-units.

    divergence: any Divergence.
    share: lambda, the generated side's weight, 0 ... 1; with exact log-odds and exact target samples it changes the
        variance and not the mean. 1 never asks for target samples, 0 never draws from q.
    log_odds: of p_t/q_t. None = exact, from the denoiser's log_prob; GuidanceLogOdds() where only a network is known;
        LearnedLogOdds(sample_target); Undecided() for D = ½. ReverseKL's generated side and ForwardKL's real side have
        weight 1 and need none.
    target_samples: "exact" = the denoiser's own `sample`, noised; "renoised" = x' = alpha x1 + sigma eps', which is not
        a sample of p_t but the nearest thing to one that a network gives in one call; None = exact where the denoiser
        can, else renoised. The step's record says which it was (`real.exact`).
    inversion: x_t by inversion instead of drawn from q_t, another approximation. guidance_scale: None = the denoiser's.
    U-Net calls: one a side, and the inversion's. ValueError for a share outside 0 ... 1 or one that leaves nothing to
    re-noise or to invert; TypeError for what is no Divergence or no log-odds.
    """

    divergence: Divergence
    share: float = 0.5
    log_odds: LogOdds | None = None
    target_samples: Literal["exact", "renoised"] | None = None
    inversion: Inversion | None = None
    guidance_scale: float | None = None

    def __post_init__(self) -> None:
        check_family(self.divergence, self.log_odds, self.share)
        if self.target_samples not in ("exact", "renoised", None):
            raise ValueError(f'target_samples is "exact", "renoised" or None, got {self.target_samples!r}')
        if self.share == 0 and (self.target_samples == "renoised" or self.inversion):
            raise ValueError("share=0 never draws from q: there is no x_t to invert and no x1 to re-noise")

    @property
    def needs_density(self) -> bool:
        """Whether it asks the denoiser for log_prob, which networks do not have."""
        used = [real for real, share in ((False, self.share), (True, 1 - self.share)) if share > 0]
        return self.log_odds is None and not all(weight_is_one(self.divergence, real) for real in used)

    @torch.no_grad()
    def gradient(
        self,
        denoiser: Denoiser,
        x0: Tensor,
        t: Time,
        generator: torch.Generator | None = None,
        noise: Tensor | None = None,
        real_noise: Tensor | None = None,
    ) -> DistillationStep:
        """x0 (B, ...), used detached; t in the schedule; noise and real_noise, like x0, replace the draws of eps, eps'.

        FloatingPointError if a result is not finite; ValueError or TypeError for an x0 that is no batch or a bad t;
        TypeError where the denoiser lacks what was asked of it (log_prob, sample, predict_parts).
        """
        x0, schedule = checked_x0(x0, t), denoiser.schedule
        scale = denoiser.guidance_scale if self.guidance_scale is None else self.guidance_scale
        exact = self._exact(denoiser, scale)
        alpha, sigma = schedule.levels(t, x0)
        grad, calls, generated, real = torch.zeros_like(x0), 0, None, None

        def side(x_t: Tensor, eps: Tensor, real: bool) -> Side:
            return look(self, denoiser, x0, x_t, eps, t, generator, lone_particle(schedule, x0, x_t, t), real, exact)

        if self.share > 0:
            if self.inversion is None:
                eps = noise_like(x0, noise, generator)
                x_t = schedule.add_noise(x0, eps, t)
            else:
                x_t = self.inversion(denoiser, x0, t, scale, generator)
                eps, calls = schedule.eps_from_x0(x_t, x0, t), self.inversion.inversion_steps
            generated = side(x_t, eps, real=False)
            grad = self.share * times_rows(generated.weight, (alpha / sigma) * (x0 - generated.target))
        if self.share < 1:
            clean = generated.target if generated and not exact else target_samples(denoiser, x0, generator)
            eps = noise_like(x0, real_noise, generator)
            real = side(schedule.add_noise(clean, eps, t), eps, real=True)
            grad = grad + (1 - self.share) * times_rows(real.weight, (alpha / sigma) * (x0 - real.target))
        return finite_step(two_sided_step(grad, t, generated, real, calls))

    def _exact(self, denoiser: Denoiser, scale: float) -> bool:
        if self.share == 1 or self.target_samples == "renoised":
            return False
        able = can_sample(denoiser, scale)
        if not able and (self.target_samples == "exact" or self.share == 0):
            raise TypeError(
                f"{type(denoiser).__name__} has no exact samples of what it denoises at guidance {scale:g}: take share "
                '> 0 with target_samples="renoised", or share=1, which asks for none'
            )
        return able


@dataclass(frozen=True)
class JSD:
    """The Jensen-Shannon recipe of arXiv 2503.10660 (text not read, official code read).

        x_t   = DDIM inversion of x0 up to t, negative guidance
        x1    = x0_hat(x_t)        the mode that x0 belongs to
        x'    = alpha x1 + sigma eps'
        x2    = x0_hat(x')         the re-noised, "minority" target
        grad  = (alpha/sigma) [(x0 - x1) + k (x0 - x2)]
              = (1+k) (eps_hat(x_t) - eps_inv) + k (eps_hat(x') - eps')

    the last line being (1+k) times SDI's gradient at x0 and k times SDS's at x1. It is 4 (1+k) times the two-sided
    gradient of Jensen-Shannon at share 1/(1+k), with three approximations that `two_sided` lists: D is ½ everywhere, x'
    is re-noised where a sample of p_t is due, x_t inverted where one of q_t is. Each can be switched off there. Not
    divided by 1+k: so is the official loss, and k changes the step length of plain gradient descent (Adam does not
    notice, a penalty of fixed weight beside it does). The official code has no factor alpha/sigma; how else it
    differs: docs/theory.md.

    minority_weight: k >= 0; 1 is the paper's; 0 is SDI exactly, and then the extra U-Net call is not made.
    inversion_steps: U-Net calls of the inversion, spread from 0 up to t (the paper's code spreads 10 over the whole
        schedule). 0: no inversion, x_t is x0 with fresh noise, eps_inv that noise, and minority_weight 0 is SDS.
    guidance_scale: None = the denoiser's own. inversion_guidance_scale, inversion_eta: see Inversion.
    """

    minority_weight: float = 1.0
    inversion_steps: int = 2
    inversion_guidance_scale: float | None = None
    inversion_eta: float = 0.3
    guidance_scale: float | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.minority_weight < float("inf"):
            raise ValueError(f"minority_weight must be finite and >= 0 (0 is SDI), got {self.minority_weight}")
        self.two_sided  # noqa: B018 - the inversion refuses what it cannot do

    @property
    def two_sided(self) -> TwoSided:
        """The same direction as a choice in the family; `gradient` is 4 (1+k) times its."""
        inversion = None
        if self.inversion_steps:
            inversion = Inversion(self.inversion_steps, self.inversion_guidance_scale, self.inversion_eta)
        share = 1 / (1 + self.minority_weight)
        return TwoSided(JensenShannon(), share, Undecided(), "renoised", inversion, self.guidance_scale)

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
        step = self.two_sided.gradient(denoiser, x0, t, generator, real_noise=noise)
        return replace(step, grad=4 * (1 + self.minority_weight) * step.grad)


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
