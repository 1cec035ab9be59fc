"""Particles that know of each other: score distillation under any f-divergence.

    grad = weight(log_ratio) (eps_hat(x_t) - eps_q(x_t)),     log_ratio = log p_t/q_t at x_t

q_t is the mixture of the noised particles, eps_q the noise its exact denoiser predicts (so eps_hat - eps_q = sigma
(s_q - s_p)). SDS is the special case of a particle that believes to be alone: then eps_q = eps, and w is 1.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .diffusion import Denoiser, Time
from .distillation import DistillationStep, checked_x0, finite_step, noise_like
from .divergence import Divergence
from .divergences import JensenShannon, ReverseKL, SoftenedReverseKL
from .log_odds import EnsembleLogOdds, LogOdds, Situation, particle_mixture


@dataclass(frozen=True)
class Ensemble:
    """The batch x0 (N, ...) is the ensemble: an estimate of N (sigma/alpha) grad D_f(p_t‖q_t), in eps-units.

    divergence: any Divergence; None of its values is normalised, so bounded weights make smaller steps (Adam does not
    notice). log_odds: None = EnsembleLogOdds(), exact where the denoiser has a density. ReverseKL needs no log-odds
    at all and never asks for them unless they are given, so it also runs where no density is known (SDXL).
    guidance_scale: None = the denoiser's own. One U-Net call; cost N² in particles. For N = 1 every divergence has
    the direction of SDS, and only the step length differs.
    """

    divergence: Divergence
    log_odds: LogOdds | None = None
    guidance_scale: float | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.divergence, Divergence):
            raise TypeError(f"divergence must be an object like JensenShannon(), got {self.divergence!r}")
        if self.log_odds is not None and (isinstance(self.log_odds, type) or not hasattr(self.log_odds, "log_ratio")):
            raise TypeError(f"log_odds must be an object like LearnedLogOdds(), or None, got {self.log_odds!r}")

    @classmethod
    def saturating(cls, log_odds: LogOdds | None = None) -> Ensemble:
        """The generator gradient of the original GAN loss E_q[log(1-D)]: Jensen-Shannon (up to the factor 2)."""
        return cls(JensenShannon(), log_odds)

    @classmethod
    def non_saturating(cls, log_odds: LogOdds | None = None) -> Ensemble:
        """The generator gradient of E_q[-log D]: softened reverse KL (up to the factor 2)."""
        return cls(SoftenedReverseKL(), log_odds)

    @torch.no_grad()
    def gradient(
        self,
        denoiser: Denoiser,
        x0: Tensor,
        t: Time,
        generator: torch.Generator | None = None,
        noise: Tensor | None = None,
    ) -> DistillationStep:
        """x0 (N, ...), used detached; t in the schedule; noise like x0 replaces the draw.

        FloatingPointError if a result is not finite; ValueError or TypeError for an x0 that is no batch or a bad t.
        """
        x0, schedule = checked_x0(x0, t), denoiser.schedule
        eps = noise_like(x0, noise, generator)
        x_t = schedule.add_noise(x0, eps, t)  # (N, ...) one sample of q_t per particle
        eps_hat = denoiser.predict_eps(x_t, t, self.guidance_scale)
        log_q, eps_q = particle_mixture(schedule, x0, x_t, t)
        grad, log_ratio = eps_hat - eps_q, None
        if self.log_odds is not None or not isinstance(self.divergence, ReverseKL):
            log_odds = self.log_odds or EnsembleLogOdds()
            log_ratio = log_odds.log_ratio(x_t, t, Situation(denoiser, schedule, x0, log_q, generator))  # (N,)
            grad = grad * self.divergence.weight(log_ratio).to(grad).view(-1, *[1] * (x0.ndim - 1))
        x1 = schedule.x0_from_eps(x_t, eps_hat, t)
        return finite_step(DistillationStep(grad, t, x_t, eps_hat, eps_q, (x1,), log_ratio, 1))
