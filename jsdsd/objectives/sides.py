"""One side of a two-sided gradient: predict at x_t, compare with q_t there, weigh by the log-odds."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from .diffusion import Denoiser, Time, predict_parts
from .distillation import DistillationStep, Side
from .divergence import Divergence
from .divergences import ForwardKL, ReverseKL
from .log_odds import EnsembleLogOdds, LogOdds, Mixture, Situation


class Member(Protocol):
    """A choice in the family: which divergence, who knows the log-odds, how strongly guided."""

    @property
    def divergence(self) -> Divergence: ...
    @property
    def log_odds(self) -> LogOdds | None: ...
    @property
    def guidance_scale(self) -> float | None: ...


def check_family(divergence: Divergence, log_odds: LogOdds | None, share: float) -> None:
    """Refuse, in words, what no member of the family can be made of."""
    if not isinstance(divergence, Divergence):
        raise TypeError(f"divergence must be an object like JensenShannon(), got {divergence!r}")
    if log_odds is not None and (isinstance(log_odds, type) or not hasattr(log_odds, "log_ratio")):
        raise TypeError(f"log_odds must be an object like LearnedLogOdds(), or None, got {log_odds!r}")
    if not 0 <= share <= 1:
        raise ValueError(f"share is the generated side's weight, 0 ... 1, got {share}")


def weight_is_one(divergence: Divergence, real: bool) -> bool:
    """On its own side each KL weighs all alike, and needs no log-odds."""
    return isinstance(divergence, ForwardKL if real else ReverseKL)


def look(
    member: Member,
    denoiser: Denoiser,
    x0: Tensor,
    x_t: Tensor,
    eps: Tensor,
    t: Time,
    generator: torch.Generator | None,
    q_t: Mixture,
    real: bool,
    exact: bool = False,
) -> Side:
    """At points x_t (B, ...), made by adding eps to anything; q_t: log density and eps_q of the particles x0 there."""
    scale = denoiser.guidance_scale if member.guidance_scale is None else member.guidance_scale
    parts = predict_parts(denoiser, x_t, t, scale) if getattr(member.log_odds, "needs_parts", False) else None
    eps_hat = denoiser.predict_eps(x_t, t, scale) if parts is None else parts.guided
    log_ratio = weight = None
    if member.log_odds is not None or not weight_is_one(member.divergence, real):
        situation = Situation(denoiser, denoiser.schedule, x0, q_t.log_prob, generator, eps, parts)
        log_ratio = (member.log_odds or EnsembleLogOdds()).log_ratio(x_t, t, situation)  # (B,)
        weight = (member.divergence.real_weight if real else member.divergence.weight)(log_ratio).to(x0)
    x1 = denoiser.schedule.x0_from_eps(x_t, eps_hat, t)
    return Side(x_t, eps_hat, q_t.eps, x1, log_ratio, weight, exact)


def target_samples(denoiser: Denoiser, x0: Tensor, generator: torch.Generator | None) -> Tensor:
    """As many clean samples of the target as there are rows in x0 (N, ...). ValueError if they are shaped otherwise."""
    clean: Tensor = denoiser.sample(len(x0), generator)  # type: ignore[attr-defined]  # can_sample has looked
    if clean.shape != x0.shape:
        raise ValueError(f"target samples must have x0's shape {tuple(x0.shape)}, got {tuple(clean.shape)}")
    return clean.to(x0)


def times_rows(weight: Tensor | None, x: Tensor) -> Tensor:
    """x (B, ...) times weight (B,), row by row; None is 1."""
    return x if weight is None else x * weight.view(-1, *[1] * (x.ndim - 1))


def two_sided_step(
    grad: Tensor, t: Time, generated: Side | None, real: Side | None, calls: int = 0
) -> DistillationStep:
    """The record of a gradient of one or two sides; calls: of the denoiser, besides one for each side."""
    sides = [side for side in (generated, real) if side is not None]
    seen, targets = sides[0], tuple(side.target for side in sides)
    mean_d = None if seen.log_ratio is None else float(torch.sigmoid(seen.log_ratio).mean())
    record = (grad, t, seen.x_t, seen.eps_hat, seen.eps_ref, targets, seen.log_ratio, calls + len(sides), seen.weight)
    return DistillationStep(*record, real, mean_d)
