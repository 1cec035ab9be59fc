"""Particles that know of each other: score distillation under any f-divergence.

    grad = weight(log_ratio) (eps_hat(x_t) - eps_q(x_t)),     log_ratio = log p_t/q_t at x_t

q_t is the mixture of the noised particles, eps_q the noise its exact denoiser predicts (so eps_hat - eps_q = sigma
(s_q - s_p)). SDS is the special case of a particle that believes to be alone: then eps_q = eps, and w is 1.
`Ensemble(ReverseKL())` is VSD (ProlificDreamer, arXiv 2305.16213; not re-read) with the exact eps_phi of the particles,
which VSD learns as a LoRA.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from .diffusion import Denoiser, Time, can_sample
from .distillation import DistillationStep, Side, checked_x0, finite_step, noised
from .divergence import Divergence
from .divergences import JensenShannon, SoftenedReverseKL
from .log_odds import LogOdds, particle_mixture, posteriors
from .sides import Member, check_family, look, target_samples, times_rows, two_sided_step


@dataclass(frozen=True)
class Ensemble:
    """The batch x0 (N, ...) is the ensemble: an estimate of N (sigma/alpha) grad D_f(p_t‖q_t), in eps-units.

    divergence: not normalised, so bounded weights make smaller steps (Adam does not notice). log_odds: None = exact
    where the denoiser has a density; ReverseKL needs none. guidance_scale: None = the denoiser's own. share: 1 = all
    from samples of q, one a particle; the rest comes from N exact samples x' of the target, of which each particle
    has its part q_i/q (a second U-Net call). Cost N². For N = 1 every divergence has SDS's direction *at one x_t*;
    the gradient, the mean over x_t, has not. ValueError or TypeError for what is no member of the family.
    """

    divergence: Divergence
    log_odds: LogOdds | None = None
    guidance_scale: float | None = None
    share: float = 1.0
    needs_particles: ClassVar[bool] = True  # the views of one asset are none

    def __post_init__(self) -> None:
        check_family(self.divergence, self.log_odds, self.share)

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
        real_noise: Tensor | None = None,
    ) -> DistillationStep:
        """x0 (N, ...), used detached; t in the schedule; noise and real_noise, like x0, replace the draws.

        FloatingPointError if a result is not finite; ValueError or TypeError for an x0 that is no batch or a bad t;
        TypeError where the denoiser lacks what was asked of it (log_prob, sample, predict_parts).
        """
        x0, schedule = checked_x0(x0, t), denoiser.schedule
        grad, generated, real = torch.zeros_like(x0), None, None
        if self.share > 0:
            _, eps, x_t = noised(schedule, x0, t, generator, noise)  # (N, ...) one sample of q_t per particle
            q_t = particle_mixture(schedule, x0, x_t, t)
            generated = look(self, denoiser, x0, x_t, eps, t, generator, q_t, real=False)
            grad = self.share * times_rows(generated.weight, generated.eps_hat - generated.eps_ref)
        if self.share < 1:
            real, push = pushed_by_target(self, denoiser, x0, t, generator, real_noise)
            grad = grad + (1 - self.share) * push
        return finite_step(two_sided_step(grad, t, generated, real))


def pushed_by_target(
    member: Member, denoiser: Denoiser, x0: Tensor, t: Time, generator: torch.Generator | None, noise: Tensor | None
) -> tuple[Side, Tensor]:
    """N noised samples x' of the target, and what they do to the particles x0 (N, ...), like x0.

    push_i = sum_x' q_i/(N q) real_weight (eps_hat - eps_q),    at x' ~ p_t, of which there are N
    """
    if not can_sample(denoiser, member.guidance_scale):
        raise TypeError(f"{type(denoiser).__name__} has no exact samples of what it denoises: take share=1")
    _, eps, x_t = noised(denoiser.schedule, target_samples(denoiser, x0, generator), t, generator, noise)
    q_t = particle_mixture(denoiser.schedule, x0, x_t, t)
    side = look(member, denoiser, x0, x_t, eps, t, generator, q_t, real=True, exact=True)
    each = times_rows(side.weight, side.eps_hat - side.eps_ref).flatten(1)  # (N, d)
    parts = posteriors(denoiser.schedule, x0, x_t, t)  # (chunk, N) at a time: q_i/(N q) at x'
    return side, sum(part.T @ each[rows] for rows, part, _ in parts).view_as(x0)  # type: ignore[union-attr]
