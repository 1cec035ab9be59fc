"""Both weights of every divergence, and its values where ratios do not fit the type."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import example, given
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
from jsdsd.sandbox import GaussianMixture, fit_gaussian, two_modes

sys.path.insert(0, str(Path(__file__).parent))
from family import EVERY, LOG2

ALL = pytest.mark.parametrize("divergence", DIVERGENCES, ids=repr)
SWAPPED = [  # D_f(q‖p) is D_g(p‖q): g's weight at -log r is f's real weight at log r
    (ReverseKL(), ForwardKL()),
    (ForwardKL(), ReverseKL()),
    (JensenShannon(), JensenShannon()),
    (SkewJS(0.1), SkewJS(0.9)),
    (SquaredHellinger(), SquaredHellinger()),
    (Jeffreys(), Jeffreys()),
]


class ChiSquare(Divergence):
    def f(self, r: Tensor) -> Tensor:
        return (r - 1) ** 2


class SlowlySettling(Divergence):
    """f(r)/r reaches 1/.09 as 1 - r^-.1."""

    def f(self, r: Tensor) -> Tensor:
        return (r - r**0.9) / 0.09


@EVERY
@given(st.floats(-15, 15))
@example(-15.0)
@example(15.0)
def test_the_real_weight_is_the_weight_over_r(divergence: Divergence, log_r: float) -> None:
    u = torch.tensor([log_r], dtype=torch.float64)
    expected = divergence.weight(u) * torch.exp(-u)
    tolerance = {"rtol": 1e-12, "atol": 1e-300} if divergence in DIVERGENCES else {"rtol": 1e-5, "atol": 1e-9}
    assert torch.allclose(divergence.real_weight(u), expected, **tolerance)


@ALL
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)
def test_both_weights_at_a_log_ratio_of_1e5(divergence: Divergence, dtype: torch.dtype) -> None:
    """No NaN; the bound where there is one, on its side, and infinity only where there is none."""
    u = torch.tensor([-1e5, 1e5], dtype=dtype)  # infinite in float16
    for weights, bound in (
        (divergence.weight(u), divergence.weight_bound),
        (divergence.real_weight(u), divergence.real_weight_bound),
    ):
        assert weights.dtype == dtype and not weights.isnan().any() and (weights >= 0).all()
        largest = float(weights.max())
        assert largest == math.inf if bound is None else largest == pytest.approx(bound, rel=2 * torch.finfo(dtype).eps)


@pytest.mark.parametrize(("one", "other"), SWAPPED, ids=repr)
@given(st.floats(-1e5, 1e5))
@example(-1e5)
@example(1e5)
def test_to_swap_p_and_q_swaps_the_weights(one: Divergence, other: Divergence, log_r: float) -> None:
    u = torch.tensor([log_r], dtype=torch.float64)
    assert torch.allclose(one.real_weight(u), other.weight(-u), rtol=1e-12, atol=0)
    assert one.real_weight_bound == pytest.approx(other.weight_bound)


@ALL
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
def test_real_weights_are_accurate_in_fewer_bits(divergence: Divergence, dtype: torch.dtype) -> None:
    u = torch.linspace(-30, 30, 2001).to(dtype)
    got, true = divergence.real_weight(u).double(), divergence.real_weight(u.double())
    limits = torch.finfo(dtype)
    fits = (true < limits.max) & (true > limits.tiny)
    assert ((got / true - 1)[fits].abs() < 4 * limits.eps).all() and (got[true > 2 * limits.max] == math.inf).all()


@pytest.mark.parametrize(
    ("divergence", "value"),
    [
        (JensenShannon(), LOG2 / 2),
        (SkewJS(0.1), 0.230258509),
        (SoftenedReverseKL(), -LOG2 / 2),
        (SquaredHellinger(), 1.0),
        (ReverseKL(), 0.0),
        (ForwardKL(), 100.0),
        (Jeffreys(), 100.0),
    ],
    ids=repr,
)
def test_terms_where_r_does_not_fit_float32(divergence: Divergence, value: float) -> None:
    got = divergence.terms(torch.tensor([0.0]), torch.tensor([-100.0]))
    assert got.dtype == torch.float32 and float(got) == pytest.approx(value, abs=1e-6)


@ALL
def test_quadrature_of_the_librarys_own_distant_mixtures(divergence: Divergence) -> None:
    """Two Gaussians at ±10 of std .5, 40 std apart: every bounded divergence is at its bound, KL is 40²/2."""
    p, q = (GaussianMixture(torch.tensor([[at]]), 0.5) for at in (-10.0, 10.0))
    value = divergence.quadrature(p.log_prob, q.log_prob, -30, 30)
    unbounded = {ReverseKL: 800.0, ForwardKL: 800.0, Jeffreys: 1600.0, SoftenedReverseKL: 400 - LOG2}
    assert value == pytest.approx(divergence.upper_bound or unbounded[type(divergence)], rel=1e-6)


@ALL
@pytest.mark.parametrize("log_r", [-math.inf, -1e5, -800.0, -709.5, 709.5, 800.0, 1e5, math.inf])
def test_f_of_log_is_never_nan(divergence: Divergence, log_r: float) -> None:
    """For log r = -inf it is f(0); beyond 709 f(r) has the sign of its slope and does not fit."""
    got = float(divergence.f_of_log(torch.tensor(log_r, dtype=torch.float64)))
    if log_r > 0:
        slope = divergence.slope
        assert got == -log_r if slope == 0 else math.copysign(1, got) == math.copysign(1, slope) and abs(got) > 1e153
    else:
        f0 = float(divergence.f(torch.tensor(math.exp(log_r), dtype=torch.float64)))
        assert got == pytest.approx(f0, abs=1e-12) if math.isfinite(f0) else got > 350


def test_a_ratio_that_has_no_mean_is_refused() -> None:
    for divergence in DIVERGENCES:
        if not isinstance(divergence, ReverseKL):
            with pytest.raises(ValueError, match=r"not finite at log p/q = 800"):
                divergence.monte_carlo(torch.tensor([0.0, 800.0]))
    assert ReverseKL().monte_carlo(torch.tensor([0.0, 800.0])).value == -400  # f = -log r fits


def test_the_best_gaussian_of_a_divergence_that_overflows() -> None:
    """chi² = integral of p²/q - 1; oracle: that integral on a fine grid of stds, its least value."""
    fit = fit_gaussian(ChiSquare(), two_modes(4))
    x = torch.linspace(-60, 60, 24001, dtype=torch.float64)
    normal = torch.distributions.Normal
    p = (normal(-4.0, 1.0).log_prob(x).exp() + normal(4.0, 1.0).log_prob(x).exp()) / 2
    values = []
    for std in torch.linspace(3.5, 5, 151).tolist():
        inside = p > 0
        ratio = torch.where(inside, 2 * p.log() - normal(0.0, std).log_prob(x), -math.inf).exp()
        values.append((float(ratio.sum()) * 0.005 - 1, std))
    assert (fit.value, fit.std) == pytest.approx(min(values), abs=5e-3) and fit.mean == pytest.approx(0, abs=1e-3)


def test_quadrature_says_so_where_f_overflows() -> None:
    p, q = (GaussianMixture(torch.tensor([[at]], dtype=torch.float64), 0.5) for at in (-10.0, 10.0))
    with pytest.raises(ValueError, match="f\\(r\\) of ChiSquare\\(\\) overflows"):
        ChiSquare().quadrature(p.log_prob, q.log_prob, -30, 30)


def test_the_slope_of_an_f_that_settles_slowly_or_never() -> None:
    class Grows(Divergence):
        """f(r)/r = log(1 + log(1 + r)): without end, as slowly as one may."""

        def f(self, r: Tensor) -> Tensor:
            return r * torch.log1p(torch.log1p(r))

    assert SlowlySettling().slope == pytest.approx(1 / 0.09, rel=1e-12)
    assert SlowlySettling().upper_bound == pytest.approx(1 / 0.09, rel=1e-12)
    assert ChiSquare().slope == Grows().slope == math.inf and ChiSquare().upper_bound is None
