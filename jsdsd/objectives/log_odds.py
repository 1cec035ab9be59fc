"""The discriminator's logit *is* the log density ratio: D* = p/(p+q) = sigmoid(log p/q).

Ways to know log_ratio = log p_t/q_t at a noised point: exactly, from densities; from the two halves of guidance, where
only a network is known; not at all (D = ½); or learned (learned.py).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, NamedTuple, Protocol

import torch
from torch import Tensor

from .diffusion import Parts, Schedule, Time


class Density(Protocol):
    """A density known at every noise level (nats)."""

    def log_prob(self, x: Tensor, t: Time | None = None) -> Tensor:
        """log p_t(x) (B,) at x (B, ...); t None = the clean density."""


class Situation(NamedTuple):
    """What an objective knows when it asks for log-odds."""

    denoiser: object  # the target; has log_prob(x, t) in the sandbox, not for SDXL
    schedule: Schedule
    x0: Tensor  # (N, ...) the generated samples
    log_q: Tensor  # (B,) log q_t(x_t): of the particle mixture, or of each row's own kernel where it is alone
    generator: torch.Generator | None
    eps: Tensor | None = None  # (B, ...) the noise that was added to make x_t
    parts: Parts | None = None  # the prediction at x_t in its two halves, where the log-odds need them


class LogOdds(Protocol):
    """Anything that estimates log p_t/q_t, nats. `needs_parts = True` asks for Situation.parts."""

    def log_ratio(self, x_t: Tensor, t: Time, situation: Situation) -> Tensor:
        """(B,) at x_t (B, ...)."""


class Mixture(NamedTuple):
    """The particle mixture q_t at B points."""

    log_prob: Tensor  # (B,) nats
    eps: Tensor  # (B, ...) the noise an exact denoiser *of the particles* predicts: -sigma s_q


def particle_mixture(schedule: Schedule, x0: Tensor, x_t: Tensor, t: Time, chunk: int = 1024) -> Mixture:
    """q_t(x) = 1/N sum_i N(x; alpha x0_i, sigma² I), exactly: log density and noise prediction at x_t (B, ...).

    x0 (N, ...) particles; t an int, or (B,): a level for each row. Cost N·B; `chunk` rows of x_t at a time bound the
    memory (chunk x N floats, 41 MB for 10,000). ValueError for other shapes, chunk < 1, or t outside the schedule.
    """
    particles = _columns(x0)
    log_sums, means = [], []
    for _, posterior, log_sum in posteriors(schedule, x0, x_t, t, chunk):
        log_sums.append(log_sum)
        means.append(posterior @ particles)  # E[x0 | x_t] under q, (chunk, d)
    dim, sigma = x_t[0].numel(), torch.as_tensor(schedule.sigma(t), dtype=torch.float64)
    log_norm = (math.log(len(x0)) + dim * (0.5 * math.log(2 * math.pi) + sigma.log())).to(x_t)
    log_q = torch.cat(log_sums) - log_norm
    return Mixture(log_q, schedule.eps_from_x0(x_t, torch.cat(means).view_as(x_t), t))


def posteriors(
    schedule: Schedule, x0: Tensor, x_t: Tensor, t: Time, chunk: int = 1024
) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """(rows, P(particle i | x_t) (chunk, N), log sum_i exp(-|x_t - alpha x0_i|²/2 sigma²) (chunk,)), chunk by chunk."""
    if x0.shape[1:] != x_t.shape[1:] or len(x0) == 0 or chunk < 1:
        shapes = f"{tuple(x0.shape)} and {tuple(x_t.shape)}, chunk {chunk}"
        raise ValueError(f"need particles (N, ...) with N >= 1, points (B, ...) alike and chunk >= 1; got {shapes}")
    alpha, sigma = schedule.levels(t, x_t.flatten(1))
    scaled, ratio, particles = x_t.flatten(1) / alpha, sigma / alpha, _columns(x0)  # (B, d)
    for first in range(0, len(scaled), chunk):
        rows = slice(first, first + chunk)
        # distances taken directly: the expanded square would cancel at small sigma
        d = torch.cdist(scaled[rows], particles, compute_mode="donot_use_mm_for_euclid_dist")  # (chunk, N)
        logits = d.div_(ratio[rows] if isinstance(ratio, Tensor) else ratio).square_().mul_(-0.5)
        posterior = logits.softmax(1)  # its largest entry is 1/sum_i exp(logit_i - largest logit)
        yield rows, posterior, logits.amax(1) - posterior.amax(1).log()  # logsumexp without a second, slow exp


def _columns(x0: Tensor) -> Tensor:
    return x0.flatten(1).T.contiguous().T  # (N, d), columns contiguous: products with it are 5 times as fast


def lone_particle(schedule: Schedule, x0: Tensor, x_t: Tensor, t: Time) -> Mixture:
    """q_t where each row of x0 (B, ...) is alone: log N(x_t; alpha x0, sigma² I) (B,), nats, and -sigma s_q there."""
    eps = schedule.eps_from_x0(x_t, x0, t)
    log_sigma = torch.as_tensor(schedule.sigma(t), dtype=torch.float64).log()
    log_norm = eps[0].numel() * (0.5 * math.log(2 * math.pi) + log_sigma)
    return Mixture(-eps.flatten(1).square().sum(1) / 2 - log_norm.to(eps), eps)


@dataclass(frozen=True)
class ExactLogOdds:
    """log p_t - log q_t of two known densities: p the target, q the generated one. TypeError for what has none."""

    p: Density
    q: Density

    def __post_init__(self) -> None:
        for density in (self.p, self.q):
            if not hasattr(density, "log_prob"):
                raise TypeError(f"p and q need log_prob(x, t), like GaussianMixture; {density!r} has none")

    def log_ratio(self, x_t: Tensor, t: Time, situation: Situation | None = None) -> Tensor:
        """(B,) at x_t (B, ...)."""
        return self.p.log_prob(x_t, t) - self.q.log_prob(x_t, t)


@dataclass(frozen=True)
class EnsembleLogOdds:
    """log p_t of the denoiser's own density minus log q_t of the particles: exact in the sandbox. For `Ensemble` q_t is
    their mixture; for `TwoSided` each row's own N(alpha x0, sigma² I).
    """

    def log_ratio(self, x_t: Tensor, t: Time, situation: Situation) -> Tensor:
        """(B,) at x_t (B, ...). TypeError where the denoiser has no density (SDXL), naming the other ways."""
        log_prob = getattr(situation.denoiser, "log_prob", None)
        if log_prob is None:
            raise TypeError(
                f"{type(situation.denoiser).__name__} has no log_prob, so its log-odds are not known exactly: give "
                "log_odds=GuidanceLogOdds(), LearnedLogOdds(sample_target) or Undecided(); or take ReverseKL, which "
                "needs none for generated samples"
            )
        return log_prob(x_t, t) - situation.log_q


@dataclass(frozen=True)
class Undecided:
    """Cannot tell: log_ratio = 0, D = ½, everywhere. True as t -> T, where p_t and q_t meet; the paper's recipe."""

    def log_ratio(self, x_t: Tensor, t: Time, situation: Situation) -> Tensor:
        """(B,) zeros."""
        return x_t.new_zeros(len(x_t))


@dataclass(frozen=True)
class GuidanceLogOdds:
    """The log-odds of the prompt against no prompt, from one prediction's two halves: no further U-Net call.

        log_ratio = ½ (|eps - eps_0|² - |eps - eps_y|²),   eps the noise that was added to make x_t

    summed over all dimensions, nats: the better the prompted half knows the noise, the likelier the picture is of the
    prompt. It is the one-noise log-odds of a diffusion classifier at this level (Li et al. 2023, arXiv 2303.16203, not
    re-read). As log p_t/q_t it rests on two assumptions: q_t, the generated distribution, is the unconditional one (as
    CSD and SDS-Bridge have it too); and one noise at one level stands for the likelihood's sum over both. Not the
    density ratio of this level then, but alive where that one has long saturated: of the order of 1 to 10 nats on the
    toybox's 576 dimensions. A negative prompt takes the place of no prompt.

    bound: the answer is clamped to ±bound nats (None = not), which changes the divergence where it bites. ValueError
    for bound <= 0; TypeError from denoisers without `predict_parts`.
    """

    bound: float | None = None
    needs_parts: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.bound is not None and not self.bound > 0:
            raise ValueError(f"bound must be > 0 nats, or None for no clamp, got {self.bound}")

    def log_ratio(self, x_t: Tensor, t: Time, situation: Situation) -> Tensor:
        """(B,) at x_t (B, ...). ValueError without the situation's eps and parts."""
        eps, parts = situation.eps, situation.parts
        if eps is None or parts is None:
            raise ValueError("GuidanceLogOdds needs the added noise and both halves of the prediction in the situation")
        without, with_prompt = ((eps - half).flatten(1).square().sum(1) for half in (parts.eps_0, parts.eps_y))
        logits = (without - with_prompt) / 2
        return logits if self.bound is None else logits.clamp(-self.bound, self.bound)


def discriminator(log_ratio: Tensor) -> Tensor:
    """D = p/(p+q) = sigmoid(log p/q), 0 ... 1: the probability that a point, drawn from either with even odds, is the
    target's. log_ratio of any shape, nats (Goodfellow et al. 2014, Prop. 1; not re-read).
    """
    return torch.sigmoid(log_ratio)


def saturating_weight(log_ratio: Tensor) -> Tensor:
    """Weight of s_q - s_p in grad E_q[log(1 - D)], D held fixed: D. Twice the Jensen-Shannon weight."""
    return torch.sigmoid(log_ratio)


def non_saturating_weight(log_ratio: Tensor) -> Tensor:
    """Weight of s_q - s_p in grad E_q[-log D], D held fixed: 1 - D. Twice the SoftenedReverseKL weight."""
    return torch.sigmoid(-log_ratio)
