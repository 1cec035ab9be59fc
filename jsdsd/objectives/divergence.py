"""What an f-divergence is: one function f; from it the value, and the weight of a sample in the gradient.

    D_f(p‖q) = E_q[f(r)],   r = p/q,   f convex, f(1) = 0

    grad_theta D_f = E_q[ w_f(r) (s_q - s_p) ],    w_f(r) = r² f''(r)     at generated samples x = g_theta(z) ~ q
                   = E_p[ w_f(r)/r (s_q - s_p) ],  w_f(r)/r = r f''(r)    the same integral, at samples of the target

each times dx/dtheta; the second line holds because q r = p. So a divergence enters a score-distillation gradient as one
scalar per sample, and *which* one is minimised is decided by how w_f treats places where the target has more mass than
the generator (r > 1). All values are in nats. Source of the first line: f-distill (arXiv 2502.15681, not re-read), of
the second: docs/theory.md; both are checked against finite differences in the tests.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

LogDensity = Callable[[Tensor], Tensor]  # (M, d) points -> (M,) log density, nats


class Estimate(NamedTuple):
    """A Monte Carlo mean and its standard error (both nats)."""

    value: float
    standard_error: float


class Divergence(ABC):
    """Write `f` and you have a divergence; everything else has a default that needs nothing but f.

    slope: lim f(r)/r as r -> infinity, the price of target mass where q has none (0 = free, inf = forbidden).
    upper_bound: of the value, nats, reached by disjoint supports; None = there is none. weight_bound,
    real_weight_bound: of `weight` and `real_weight`; None = there is none (or nobody has said so). The seven of
    divergences.py state them exactly.
    """

    weight_bound: float | None = None
    real_weight_bound: float | None = None

    @property
    def slope(self) -> float:
        """lim f(r)/r, read off at log r = 87.5, 175 and 350: it has a limit where the second step is clearly smaller
        than the first (whatever grows, if only as log log r, makes it as large). Exact to rounding for an f(r)/r that
        gets there by r = e^350, like 1 - r^-.1.
        """
        r = torch.tensor([87.5, 175.0, 350.0], dtype=torch.float64).exp()
        near, far, farthest = (self.f(r) / r).tolist()
        settled = abs(farthest - far) <= max(0.9 * abs(far - near), 1e-9 * abs(farthest))
        return farthest if settled else math.inf

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
        """w_f = r² f''(r) at log r (any shape, nats): the weight of a generated sample. This default differentiates f
        twice, in float64, with log r held within ±20 (beyond, f'' is lost to rounding): a class that knows its w_f in
        closed form does better.
        """
        r, curvature = self._curvature(log_ratio)
        return (r**2 * curvature).to(log_ratio.dtype)

    def real_weight(self, log_ratio: Tensor) -> Tensor:
        """w_f/r = r f''(r) at log r (any shape, nats): the weight of a sample of the target. Default as in `weight`."""
        r, curvature = self._curvature(log_ratio)
        return (r * curvature).to(log_ratio.dtype)

    def _curvature(self, log_ratio: Tensor) -> tuple[Tensor, Tensor]:
        """r and f''(r), float64."""
        with torch.enable_grad():
            r = log_ratio.detach().double().clamp(-20, 20).exp().requires_grad_()
            (slope,) = torch.autograd.grad(self.f(r).sum(), r, create_graph=True)
            curvature = torch.autograd.grad(slope.sum(), r)[0] if slope.requires_grad else torch.zeros_like(r)
        return r.detach(), curvature.detach()

    def f_of_log(self, log_ratio: Tensor) -> Tensor:
        """f(r) from log r; overridden where exp would lose a small r. ±inf where f(r) does not fit the type, no NaN."""
        return self.f(log_ratio.exp())

    def f_over_r(self, log_ratio: Tensor) -> Tensor:
        """f(r)/r from log r >= 0, float64; overridden where there is a closed form. This default stops at log r = 350
        where f(r)/r has a limit and is there, else at 700, where its value stands for all beyond.
        """
        r = log_ratio.clamp(max=350 if math.isfinite(self.slope) else 700).exp()
        return torch.where(log_ratio == math.inf, self.slope, self.f(r) / r)

    def terms(self, log_p: Tensor, log_q: Tensor) -> Tensor:
        """q f(p/q) pointwise, log_p and log_q of one shape, computed in float64; continued to p = 0 or q = 0 (log =
        -inf). NaN only where a density underflows and an f without a limit overflows.
        """
        lp, lq = log_p.double(), log_q.double()
        u = torch.where(lp == lq, 0.0, lp - lq)  # -inf - -inf: nothing there, and f(1) = 0
        below = lq.exp() * self.f_of_log(u.clamp(max=0))
        above = lp.exp() * self.f_over_r(u.clamp(min=0))
        return torch.where(u <= 0, below, above).to(log_p.dtype)

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
        than 1e-6 of either mass, the grid is too coarse to integrate a density to 1 within that, or f overflows.
        """
        points = (20001 if dim == 1 else 601) if points is None else points
        if dim not in (1, 2) or not low < high or points < 2:
            raise ValueError(f"need dim 1 or 2, low < high and points >= 2, got {dim}, [{low}, {high}] and {points}")
        axis = torch.linspace(low, high, points, dtype=torch.float64)
        x = torch.cartesian_prod(*[axis] * dim).reshape(-1, dim)  # (points^dim, dim)
        cell = float(axis[1] - axis[0]) ** dim
        lp, lq = log_p(x).double(), log_q(x).double()
        for name, density in (("p", lp), ("q", lq)):
            mass = float(density.exp().sum()) * cell
            if not abs(mass - 1) < 1e-6:
                raise ValueError(
                    f"{name} integrates to {mass:.6g} on [{low}, {high}]^{dim}: widen the box or add points"
                )
        value = float(self.terms(lp, lq).sum()) * cell
        if math.isnan(value):
            raise ValueError(f"f(r) of {self!r} overflows where a density vanishes: narrow the box, or write f_over_r")
        return value

    def monte_carlo(self, log_ratio: Tensor) -> Estimate:
        """D_f from log p/q (N,) at N >= 2 samples of *q*: mean of f(r) and its standard error. Unbiased only
        where q > 0 wherever p > 0, and of infinite variance where r has a heavy tail: read the error with that in mind.
        ValueError where f(r) is infinite or does not fit float64 (a ratio of 800 nats under most divergences).
        """
        if log_ratio.ndim != 1 or len(log_ratio) < 2 or log_ratio.isnan().any():
            raise ValueError(f"log_ratio must be (N,) with N >= 2 and no NaN, got shape {tuple(log_ratio.shape)}")
        values = self.f_of_log(log_ratio.double())
        if not values.isfinite().all():
            worst = float(log_ratio[~values.isfinite()][0])
            raise ValueError(f"f(r) is not finite at log p/q = {worst:.6g}, so there is no mean: use quadrature")
        return Estimate(float(values.mean()), float(values.std() / math.sqrt(len(values))))


def _distribution(name: str, x: Tensor) -> Tensor:
    x = torch.as_tensor(x).double()
    if x.ndim == 0 or not bool((x >= 0).all()) or not bool(((x.sum(-1) - 1).abs() < 1e-6).all()):
        raise ValueError(f"{name} must be probabilities (..., K): no NaN, none negative, each row summing to 1")
    return x
