"""f-divergences between the target p and the generated q: one function f, and the weight it puts on a gradient.

    D_f(p‖q) = E_q[f(r)],   r = p/q,   f convex, f(1) = 0

    grad_theta D_f = E_q[ w_f(r) (s_q - s_p)(x) dx/dtheta ],   w_f(r) = r² f''(r),   x = g_theta(z) ~ q

So a divergence enters a score-distillation gradient as one scalar per sample, and *which* divergence is minimised is
decided by how w_f treats places where the target has more mass than the generator (r > 1). All values are in nats.
Source of the gradient: f-distill (arXiv 2502.15681, not re-read); checked by finite differences in the tests.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import NamedTuple, final

import torch
from torch import Tensor

LogDensity = Callable[[Tensor], Tensor]  # (M, d) points -> (M,) log density, nats
LOG2 = math.log(2)


class Estimate(NamedTuple):
    """A Monte Carlo mean and its standard error (both nats)."""

    value: float
    standard_error: float


class Divergence(ABC):
    """Write `f` and you have a divergence; everything else has a default that needs nothing but f.

    slope: lim f(r)/r as r -> infinity, the price of target mass where q has none (0 = free, inf = forbidden).
    upper_bound: of the value, nats, reached by disjoint supports; None = there is none. weight_bound: of w_f; None =
    there is none (or nobody has said so). The seven below state them exactly.
    """

    weight_bound: float | None = None

    @property
    def slope(self) -> float:
        """lim f(r)/r, read off at r = e^150 and e^300: f convex, so the two agree or it grows without end."""
        r = torch.tensor([150.0, 300.0], dtype=torch.float64).exp()
        near, far = (self.f(r) / r).tolist()
        return far if math.isclose(near, far, rel_tol=1e-9, abs_tol=1e-9) else math.inf

    @property
    def upper_bound(self) -> float | None:
        """f(0) + slope, the largest value any f-divergence takes (Vajda 1972, not re-read); None if infinite."""
        largest = float(self.f(torch.zeros((), dtype=torch.float64))) + self.slope
        return largest if math.isfinite(largest) else None

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"

    @abstractmethod
    def f(self, r: Tensor) -> Tensor:
        """f at the ratio r = p/q >= 0, any shape."""

    def weight(self, log_ratio: Tensor) -> Tensor:
        """w_f = r² f''(r) at log r (any shape, nats). This default differentiates f twice, in float64, with log r
        held within ±20 (beyond, f'' is lost to rounding): a class that knows its w_f in closed form does better.
        """
        with torch.enable_grad():
            r = log_ratio.detach().double().clamp(-20, 20).exp().requires_grad_()
            (slope,) = torch.autograd.grad(self.f(r).sum(), r, create_graph=True)
            curvature = torch.autograd.grad(slope.sum(), r)[0] if slope.requires_grad else torch.zeros_like(r)
        return (r**2 * curvature).detach().to(log_ratio.dtype)

    def f_of_log(self, log_ratio: Tensor) -> Tensor:
        """f(r) from log r; overridden where exp would lose a small r."""
        return self.f(log_ratio.exp())

    def f_over_r(self, log_ratio: Tensor) -> Tensor:
        """f(r)/r from log r >= 0; overridden where exp would overflow before the limit `slope` is reached."""
        r = log_ratio.clamp(max=700).exp()
        return torch.where(log_ratio > 700, self.slope, self.f(r) / r)

    def terms(self, log_p: Tensor, log_q: Tensor) -> Tensor:
        """q f(p/q) pointwise, log_p and log_q of one shape; continued to p = 0 or q = 0 (log = -inf)."""
        u = torch.where(log_p == log_q, 0.0, log_p - log_q)  # -inf - -inf: nothing there, and f(1) = 0
        below = log_q.exp() * self.f_of_log(u.clamp(max=0))
        above = log_p.exp() * self.f_over_r(u.clamp(min=0))
        return torch.where(u <= 0, below, above)

    def discrete(self, p: Tensor, q: Tensor) -> Tensor:
        """D_f between distributions p, q (..., K) -> (...), nats. ValueError unless both are >= 0 and sum to 1."""
        p, q = (_distribution(name, x) for name, x in (("p", p), ("q", q)))
        if p.shape[-1] != q.shape[-1]:
            raise ValueError(f"p and q must have as many outcomes each, got {p.shape[-1]} and {q.shape[-1]}")
        return self.terms(p.log(), q.log()).sum(-1)

    def quadrature(
        self,
        log_p: LogDensity,
        log_q: LogDensity,
        low: float,
        high: float,
        dim: int = 1,
        points: int | None = None,
    ) -> float:
        """D_f between two densities on the box [low, high]^dim, dim 1 or 2, nats; trapezoid rule in float64.

        points per axis: None = 20,001 (1-D) or 601 (2-D). ValueError for points < 2, and where the box misses more
        than 1e-6 of either mass, or the grid is too coarse to integrate a density to 1 within that.
        """
        points = (20001 if dim == 1 else 601) if points is None else points
        if dim not in (1, 2) or not low < high or points < 2:
            raise ValueError(f"need dim 1 or 2, low < high and points >= 2, got {dim}, [{low}, {high}] and {points}")
        axis = torch.linspace(low, high, points, dtype=torch.float64)
        x = torch.cartesian_prod(*[axis] * dim).reshape(-1, dim)  # (points^dim, dim)
        cell = float(axis[1] - axis[0]) ** dim
        lp, lq = log_p(x), log_q(x)
        for name, density in (("p", lp), ("q", lq)):
            mass = float(density.exp().sum()) * cell
            if not abs(mass - 1) < 1e-6:
                raise ValueError(
                    f"{name} integrates to {mass:.6g} on [{low}, {high}]^{dim}: widen the box or add points"
                )
        return float(self.terms(lp, lq).sum()) * cell

    def monte_carlo(self, log_ratio: Tensor) -> Estimate:
        """D_f from log p/q (N,) at N >= 2 samples of *q*: mean of f(r) and its standard error. Unbiased only
        where q > 0 wherever p > 0, and of infinite variance where r has a heavy tail: read the error with that in mind.
        """
        if log_ratio.ndim != 1 or len(log_ratio) < 2 or log_ratio.isnan().any():
            raise ValueError(f"log_ratio must be (N,) with N >= 2 and no NaN, got shape {tuple(log_ratio.shape)}")
        values = self.f_of_log(log_ratio.double())
        return Estimate(float(values.mean()), float(values.std() / math.sqrt(len(values))))


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


@final
class ForwardKL(Divergence):
    """KL(p‖q), f = r log r, w = r: infinite where q misses target mass, hence mode covering."""

    slope, upper_bound = math.inf, None

    def f(self, r: Tensor) -> Tensor:
        return torch.xlogy(r, r)

    def f_of_log(self, log_ratio: Tensor) -> Tensor:
        return log_ratio.exp() * log_ratio.clamp(min=-1e4)  # 0 log 0 = 0

    def f_over_r(self, log_ratio: Tensor) -> Tensor:
        return log_ratio

    def weight(self, log_ratio: Tensor) -> Tensor:
        return log_ratio.exp()


@final
class SkewJS(Divergence):
    """pi KL(p‖m) + (1-pi) KL(q‖m), m = pi p + (1-pi) q, 0 < pi < 1; at most the entropy of (pi, 1-pi).

    w = (1-pi)/(1 + (1-pi)/(pi r)) <= 1-pi. Divided by pi it tends to KL(p‖q) for pi -> 0; divided by 1-pi to KL(q‖p)
    for pi -> 1. ValueError for pi outside (0, 1).
    """

    def __init__(self, pi: float) -> None:
        if not 0 < pi < 1:
            raise ValueError(f"pi must lie strictly between 0 and 1 (the ends are the two KLs), got {pi}")
        self.pi, self.weight_bound = pi, 1 - pi

    def __repr__(self) -> str:
        return f"SkewJS({self.pi})"

    def f(self, r: Tensor) -> Tensor:
        mix = self.pi * r + (1 - self.pi)  # m/q
        return self.pi * (torch.xlogy(r, r) - r * mix.log()) - (1 - self.pi) * mix.log()

    def f_of_log(self, log_ratio: Tensor) -> Tensor:
        r = log_ratio.exp()
        log_mix = torch.log(self.pi * r + (1 - self.pi))
        return self.pi * r * (log_ratio.clamp(min=-1e4) - log_mix) - (1 - self.pi) * log_mix

    def weight(self, log_ratio: Tensor) -> Tensor:
        return (1 - self.pi) / (1 + (1 - self.pi) / self.pi * torch.exp(-log_ratio))


@final
class JensenShannon(Divergence):
    """½ KL(p‖m) + ½ KL(q‖m), m = (p+q)/2, f = ½ [r log r - (1+r) log((1+r)/2)]; symmetric, at most log 2.

    w = ½ r/(1+r) = ½ sigmoid(log r) = ½ D*, half of the optimal discriminator: it lies between the two KLs.
    """

    slope, upper_bound, weight_bound = LOG2 / 2, LOG2, 0.5

    def f(self, r: Tensor) -> Tensor:
        return (torch.xlogy(r, r) - (1 + r) * (torch.log1p(r) - LOG2)) / 2

    def f_of_log(self, log_ratio: Tensor) -> Tensor:
        r = log_ratio.exp()
        return (r * log_ratio.clamp(min=-1e4) - (1 + r) * (torch.log1p(r) - LOG2)) / 2

    def weight(self, log_ratio: Tensor) -> Tensor:
        return torch.sigmoid(log_ratio) / 2


@final
class SoftenedReverseKL(Divergence):
    """KL(m‖p), m = (p+q)/2, f = (1+r)/2 log((1+r)/2r), w = ½ sigmoid(-log r) = ½ (1 - D*).

    Half of the non-saturating GAN loss, which is KL(q‖p) - 2 JSD: still mode seeking.
    """

    slope, upper_bound, weight_bound = -LOG2 / 2, None, 0.5

    def f(self, r: Tensor) -> Tensor:
        return (1 + r) / 2 * (torch.log1p(r) - LOG2 - r.log())

    def f_of_log(self, log_ratio: Tensor) -> Tensor:
        r = log_ratio.exp()
        return (1 + r) / 2 * (torch.log1p(r) - LOG2 - log_ratio)

    def weight(self, log_ratio: Tensor) -> Tensor:
        return torch.sigmoid(-log_ratio) / 2


@final
class SquaredHellinger(Divergence):
    """Integral of (√p - √q)², f = (1-√r)², w = √r/2; at most 2, yet with an unbounded weight."""

    slope, upper_bound = 1.0, 2.0

    def f(self, r: Tensor) -> Tensor:
        return (1 - r.sqrt()) ** 2

    def f_of_log(self, log_ratio: Tensor) -> Tensor:
        return torch.expm1(log_ratio / 2) ** 2

    def weight(self, log_ratio: Tensor) -> Tensor:
        return (log_ratio / 2).exp() / 2


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


def _distribution(name: str, x: Tensor) -> Tensor:
    x = torch.as_tensor(x).double()
    if x.ndim == 0 or not bool((x >= 0).all()) or not bool(((x.sum(-1) - 1).abs() < 1e-6).all()):
        raise ValueError(f"{name} must be probabilities (..., K): no NaN, none negative, each row summing to 1")
    return x
