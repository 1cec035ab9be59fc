"""The weight w_f of every listed divergence, and what someone gets who writes f alone."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from jsdsd.objectives import (
    DIVERGENCES,
    Divergence,
    ForwardKL,
    Jeffreys,
    JensenShannon,
    ReverseKL,
    SkewJS,
    SoftenedReverseKL,
    SquaredHellinger,
)

sys.path.insert(0, str(Path(__file__).parent))  # what both files share lies beside them
from family import EVERY, LOG2, PAIRS, StudentsJS, StudentsTriangular, distribution, normal


@EVERY
@given(st.floats(-8, 8))
def test_weight_is_r_squared_f_second(divergence: Divergence, log_r: float) -> None:
    r = torch.tensor([math.exp(log_r)], dtype=torch.float64, requires_grad=True)
    (first,) = torch.autograd.grad(divergence.f(r).sum(), r, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), r)
    got = divergence.weight(torch.tensor([log_r], dtype=torch.float64))
    assert torch.allclose(got, (r**2 * second).detach(), rtol=1e-8, atol=1e-12)


@EVERY
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_weight_is_accurate_and_never_nan_from_minus_to_plus_1e4(divergence: Divergence, dtype: torch.dtype) -> None:
    """Oracle: float64, from whichever of r and 1/r is small. Infinite only where the true value does not fit
    dtype. A divergence that has no closed form here is compared with the derivative, where that one is exact.
    """
    u = torch.cat([torch.linspace(-1e4, 1e4, 4001), torch.linspace(-100, 100, 4001)]).to(dtype)
    got, x = divergence.weight(u), u.double()
    pi = getattr(divergence, "pi", 0.5)
    small, big = x.clamp(max=0).exp(), (-x.clamp(min=0)).exp()  # r if r < 1; 1/r if r > 1
    skew = torch.where(x < 0, pi * (1 - pi) * small / (pi * small + 1 - pi), pi * (1 - pi) / (pi + (1 - pi) * big))
    true = {
        ReverseKL: torch.ones_like(x),
        ForwardKL: x.exp(),
        JensenShannon: skew,
        SkewJS: skew,
        SoftenedReverseKL: torch.where(x < 0, 0.5 / (1 + small), 0.5 * big / (1 + big)),
        SquaredHellinger: (x / 4).exp() * (x / 4).exp().div(2),
        Jeffreys: 1 + x.exp(),
    }.get(type(divergence))
    limits, reach = torch.finfo(dtype), 1e4 if true is not None else 15.0
    true = Divergence.weight(divergence, x) if true is None else true
    fits = (true < limits.max) & (true > limits.tiny) & (x.abs() <= reach)
    assert not got.isnan().any() and got.dtype == dtype
    assert torch.equal(got.isinf(), true > limits.max)
    relative = (got.double()[fits] / true[fits] - 1).abs().max()
    assert float(relative) < 20 * limits.eps
    assert (got[true <= limits.tiny] <= limits.tiny).all()


@EVERY
@given(st.floats(-1e4, 1e4))
def test_weight_bound_holds_and_weights_are_never_negative(divergence: Divergence, log_r: float) -> None:
    got = float(divergence.weight(torch.tensor([log_r], dtype=torch.float64)))
    assert got >= 0
    assert divergence.weight_bound is None or got <= divergence.weight_bound


@EVERY
def test_an_unbounded_weight_is_called_so(divergence: Divergence) -> None:
    largest = float(divergence.weight(torch.tensor([-500.0, 500.0], dtype=torch.float64)).max())
    if divergence.weight_bound is not None:
        assert largest == pytest.approx(divergence.weight_bound, rel=1e-9)
    elif divergence in DIVERGENCES:
        assert largest > 1e6


@given(st.floats(-15, 15))
def test_a_student_writes_f_alone(log_r: float) -> None:
    u = torch.tensor([log_r, -1e4, 1e4], dtype=torch.float64)
    assert torch.allclose(StudentsJS().weight(u)[:1], JensenShannon().weight(u)[:1], rtol=1e-6, atol=1e-12)
    assert StudentsJS().weight(u).isfinite().all()
    r = u[:1].exp()
    assert torch.allclose(StudentsTriangular().weight(u)[:1], 8 * r**2 / (1 + r) ** 3, atol=1e-8)


@given(PAIRS)
def test_and_gets_the_same_values(pair: tuple[list[float], list[float]]) -> None:
    p, q = map(distribution, pair)
    assert float(StudentsJS().discrete(p, q)) == pytest.approx(float(JensenShannon().discrete(p, q)), abs=1e-12)
    triangular = float(((p - q) ** 2 / (p + q)).sum())
    assert float(StudentsTriangular().discrete(p, q)) == pytest.approx(triangular, abs=1e-12)


@pytest.mark.parametrize("divergence", DIVERGENCES, ids=repr)
def test_slope_and_bound_read_off_f_are_the_stated_ones(divergence: Divergence) -> None:
    """What a student gets for nothing, against what the seven say: f(0) + lim f(r)/r is the largest value."""
    slope, bound = Divergence.slope.fget(divergence), Divergence.upper_bound.fget(divergence)  # type: ignore[attr-defined]
    assert slope == pytest.approx(divergence.slope, abs=1e-12)
    assert bound == (None if divergence.upper_bound is None else pytest.approx(divergence.upper_bound, abs=1e-12))
    assert StudentsTriangular().slope == pytest.approx(1) and StudentsTriangular().upper_bound == pytest.approx(2)


@EVERY
@given(st.floats(-1.5, 1.5), st.floats(-0.4, 0.4))
def test_gradient_by_finite_differences(divergence: Divergence, mean: float, log_std: float) -> None:
    """p = ½N(-1,1) + ½N(1.5,.7²), q = N(mean, std²), x = mean + std z: grad = E_q[w (s_q - s_p) dx/dtheta]."""
    x = torch.linspace(-14, 14, 4001, dtype=torch.float64)
    dx = float(x[1] - x[0])

    def log_p(x: Tensor) -> Tensor:
        return torch.logaddexp(normal(-1, 1).log_prob(x), normal(1.5, 0.7).log_prob(x)) - LOG2

    def value(m: float, ls: float) -> float:
        return float(divergence.terms(log_p(x), normal(m, math.exp(ls)).log_prob(x)).sum()) * dx

    h, std = 1e-4, math.exp(log_std)
    numeric = [
        (value(mean + h, log_std) - value(mean - h, log_std)) / (2 * h),
        (value(mean, log_std + h) - value(mean, log_std - h)) / (2 * h),
    ]
    leaf = x.clone().requires_grad_()
    (s_p,) = torch.autograd.grad(log_p(leaf).sum(), leaf)
    log_q, s_q = normal(mean, std).log_prob(x), -(x - mean) / std**2
    inner = log_q.exp() * divergence.weight(log_p(x) - log_q) * (s_q - s_p)
    inner = torch.where(log_q < -600, 0.0, inner)  # w overflows only where q has long vanished
    formula = [float(inner.sum()) * dx, float((inner * (x - mean)).sum()) * dx]  # dx/dmean = 1, dx/dlog std = x - mean
    assert formula == pytest.approx(numeric, rel=1e-5, abs=1e-6)
