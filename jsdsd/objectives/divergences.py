"""The family: seven f-divergences with their weights in closed form (divergence.py says what these are).

    weight       w_f(r)   = r² f''(r)   of a generated sample
    real_weight  w_f(r)/r = r f''(r)    of a sample of the target

Both are written in log r, so that neither overflows before its true value does. D_f(q‖p) swaps the two: the real weight
of ForwardKL at log r is the weight of ReverseKL at -log r, and JensenShannon, SquaredHellinger and Jeffreys are their
own partners.
"""

from __future__ import annotations

import math
from typing import final

import torch
from torch import Tensor

from .divergence import Divergence

LOG2 = math.log(2)


@final
class ReverseKL(Divergence):
    """KL(q‖p), f = -log r, w = 1: blind to target mass it does not cover, hence mode seeking. What SDS minimises."""

    slope, upper_bound, weight_bound = 0.0, None, 1.0

    def f(self, r: Tensor) -> Tensor:
        return -r.log()

    def f_of_log(self, log_ratio: Tensor) -> Tensor:
        return -log_ratio

    def weight(self, log_ratio: Tensor) -> Tensor:
        return torch.ones_like(log_ratio)

    def real_weight(self, log_ratio: Tensor) -> Tensor:
        return torch.exp(-log_ratio)


@final
class ForwardKL(Divergence):
    """KL(p‖q), f = r log r, w = r: infinite where q misses target mass, hence mode covering."""

    slope, upper_bound, real_weight_bound = math.inf, None, 1.0

    def f(self, r: Tensor) -> Tensor:
        return torch.xlogy(r, r)

    def f_of_log(self, log_ratio: Tensor) -> Tensor:
        return log_ratio.exp() * log_ratio.clamp(min=-1e4)  # 0 log 0 = 0

    def f_over_r(self, log_ratio: Tensor) -> Tensor:
        return log_ratio

    def weight(self, log_ratio: Tensor) -> Tensor:
        return log_ratio.exp()

    def real_weight(self, log_ratio: Tensor) -> Tensor:
        return torch.ones_like(log_ratio)


@final
class SkewJS(Divergence):
    """pi KL(p‖m) + (1-pi) KL(q‖m), m = pi p + (1-pi) q, 0 < pi < 1; at most the entropy of (pi, 1-pi).

    w = (1-pi)/(1 + (1-pi)/(pi r)) <= 1-pi, and w/r = pi/(1 + pi r/(1-pi)) <= pi. Divided by pi it tends to KL(p‖q) for
    pi -> 0; divided by 1-pi to KL(q‖p) for pi -> 1. ValueError for pi outside (0, 1).
    """

    def __init__(self, pi: float) -> None:
        if not 0 < pi < 1:
            raise ValueError(f"pi must lie strictly between 0 and 1 (the ends are the two KLs), got {pi}")
        self.pi, self.weight_bound, self.real_weight_bound = pi, 1 - pi, pi

    def __repr__(self) -> str:
        return f"SkewJS({self.pi})"

    def f(self, r: Tensor) -> Tensor:
        mix = self.pi * r + (1 - self.pi)  # m/q
        return self.pi * (torch.xlogy(r, r) - r * mix.log()) - (1 - self.pi) * mix.log()

    def f_of_log(self, log_ratio: Tensor) -> Tensor:
        u = log_ratio.clamp(-1e4, 1e4)  # 0 log 0 = 0
        log_mix = torch.logaddexp(u + math.log(self.pi), torch.full_like(u, math.log1p(-self.pi)))
        return self.pi * u.exp() * (u - log_mix) - (1 - self.pi) * log_mix

    def weight(self, log_ratio: Tensor) -> Tensor:
        return (1 - self.pi) / (1 + (1 - self.pi) / self.pi * torch.exp(-log_ratio))

    def real_weight(self, log_ratio: Tensor) -> Tensor:
        return self.pi / (1 + self.pi / (1 - self.pi) * torch.exp(log_ratio))


@final
class JensenShannon(Divergence):
    """½ KL(p‖m) + ½ KL(q‖m), m = (p+q)/2, f = ½ [r log r - (1+r) log((1+r)/2)]; symmetric, at most log 2.

    w = ½ r/(1+r) = ½ sigmoid(log r) = ½ D*, half of the optimal discriminator, and w/r = ½ (1 - D*), both at most ½: it
    lies between the two KLs.
    """

    slope, upper_bound, weight_bound, real_weight_bound = LOG2 / 2, LOG2, 0.5, 0.5

    def f(self, r: Tensor) -> Tensor:
        return (torch.xlogy(r, r) - (1 + r) * (torch.log1p(r) - LOG2)) / 2

    def f_of_log(self, log_ratio: Tensor) -> Tensor:
        u = log_ratio.clamp(-1e4, 1e4)  # 0 log 0 = 0
        return (u.exp() * (LOG2 - _softplus(-u)) + LOG2 - _softplus(u)) / 2

    def f_over_r(self, log_ratio: Tensor) -> Tensor:
        return self.f_of_log(-log_ratio)  # f(r)/r = f(1/r): symmetric

    def weight(self, log_ratio: Tensor) -> Tensor:
        return torch.sigmoid(log_ratio) / 2

    def real_weight(self, log_ratio: Tensor) -> Tensor:
        return torch.sigmoid(-log_ratio) / 2


@final
class SoftenedReverseKL(Divergence):
    """KL(m‖p), m = (p+q)/2, f = (1+r)/2 log((1+r)/2r), w = ½ sigmoid(-log r) = ½ (1 - D*).

    Half of the non-saturating GAN loss, which is KL(q‖p) - 2 JSD: still mode seeking.
    """

    slope, upper_bound, weight_bound = -LOG2 / 2, None, 0.5

    def f(self, r: Tensor) -> Tensor:
        return (1 + r) / 2 * (torch.log1p(r) - LOG2 - r.log())

    def f_of_log(self, log_ratio: Tensor) -> Tensor:
        return (1 + log_ratio.exp()) / 2 * (_softplus(-log_ratio) - LOG2)

    def weight(self, log_ratio: Tensor) -> Tensor:
        return torch.sigmoid(-log_ratio) / 2

    def real_weight(self, log_ratio: Tensor) -> Tensor:
        root = torch.exp(-log_ratio / 2)
        return root * (torch.sigmoid(-log_ratio) / 2) * root


@final
class SquaredHellinger(Divergence):
    """Integral of (√p - √q)², f = (1-√r)², w = √r/2; at most 2, yet with an unbounded weight."""

    slope, upper_bound = 1.0, 2.0

    def f(self, r: Tensor) -> Tensor:
        return (1 - r.sqrt()) ** 2

    def f_of_log(self, log_ratio: Tensor) -> Tensor:
        return torch.expm1(log_ratio / 2) ** 2

    def weight(self, log_ratio: Tensor) -> Tensor:
        root = (log_ratio / 4).exp()  # squared last: the half may fit where the whole does not
        return root / 2 * root

    def real_weight(self, log_ratio: Tensor) -> Tensor:
        return self.weight(-log_ratio)


@final
class Jeffreys(Divergence):
    """KL(p‖q) + KL(q‖p), f = (r-1) log r, w = 1 + r."""

    slope, upper_bound = math.inf, None

    def f(self, r: Tensor) -> Tensor:
        return (r - 1) * r.log()

    def f_of_log(self, log_ratio: Tensor) -> Tensor:
        return torch.expm1(log_ratio) * log_ratio

    def f_over_r(self, log_ratio: Tensor) -> Tensor:
        return -torch.expm1(-log_ratio) * log_ratio

    def weight(self, log_ratio: Tensor) -> Tensor:
        return 1 + log_ratio.exp()

    def real_weight(self, log_ratio: Tensor) -> Tensor:
        return 1 + torch.exp(-log_ratio)


# Every divergence here passes every test of the family: add yours to the list and run them.
DIVERGENCES: tuple[Divergence, ...] = (
    ReverseKL(),
    SoftenedReverseKL(),
    JensenShannon(),
    SkewJS(0.1),
    SquaredHellinger(),
    Jeffreys(),
    ForwardKL(),
)


def _softplus(u: Tensor) -> Tensor:
    """log(1 + e^u), to rounding everywhere (torch's own replaces it by u beyond 20)."""
    return torch.logaddexp(u, torch.zeros_like(u))
