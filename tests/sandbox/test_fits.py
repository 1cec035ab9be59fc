"""One Gaussian and a tiny network under each divergence: what each divergence covers by itself."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from jsdsd.objectives import DIVERGENCES, Divergence, ForwardKL, JensenShannon, ReverseKL
from jsdsd.sandbox import (
    GaussianMixture,
    fit_gaussian,
    fit_network,
    gaussian_divergence,
    mode_divergence,
    ring,
    two_modes,
)

COVERS, COLLAPSES = True, False
RKL, JS, FKL = ReverseKL(), JensenShannon(), ForwardKL()


@pytest.mark.parametrize(
    ("divergence", "separation", "covers"),
    [
        (RKL, 2.5, COVERS),
        (JS, 2.5, COVERS),
        (FKL, 2.5, COVERS),
        (RKL, 3, COLLAPSES),
        (JS, 3, COVERS),
        (FKL, 3, COVERS),
        (RKL, 4, COLLAPSES),
        (JS, 4, COVERS),
        (FKL, 4, COVERS),
        (RKL, 5, COLLAPSES),
        (JS, 5, COLLAPSES),
        (FKL, 5, COVERS),
    ],
    ids=repr,
)
def test_where_each_divergence_covers_two_equal_modes(divergence: Divergence, separation: float, covers: bool) -> None:
    fit = fit_gaussian(divergence, two_modes(separation))
    if covers:
        assert abs(fit.mean) < 0.01 and fit.std == pytest.approx(math.hypot(separation, 1), rel=0.12)
    else:
        assert abs(fit.mean) == pytest.approx(separation, abs=0.05) and fit.std == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize(
    ("separation", "divergence", "mean", "std"),
    [
        (3, FKL, -0.6, 3.1),
        (3, RKL, -3, 1.01),
        (3, JS, -0.6, 3.1),
        (4, FKL, -0.8, 4.04),
        (4, RKL, -4, 1.01),
        (4, JS, -4, 1.01),
    ],
    ids=repr,
)
def test_and_two_unequal_modes(separation: float, divergence: Divergence, mean: float, std: float) -> None:
    fit = fit_gaussian(divergence, two_modes(separation, 0.6))
    assert fit.mean == pytest.approx(mean, abs=0.05) and fit.std == pytest.approx(std, abs=0.05)


def test_forward_kl_matches_moments() -> None:
    """Closed form: the Gaussian of least KL(p‖q) has the target's mean and variance."""
    for d in (1.0, 3.0):
        fit = fit_gaussian(FKL, two_modes(d, 0.3))
        mean = -0.3 * d + 0.7 * d
        assert fit.mean == pytest.approx(mean, abs=1e-3)
        assert fit.std == pytest.approx(math.sqrt(1 + d**2 - mean**2), abs=1e-3)


@pytest.mark.parametrize("divergence", DIVERGENCES, ids=repr)
def test_a_gaussian_target_is_found_exactly(divergence: Divergence) -> None:
    fit = fit_gaussian(divergence, GaussianMixture(torch.tensor([[0.7]], dtype=torch.float64), 1.3))
    assert (fit.mean, fit.std) == pytest.approx((0.7, 1.3), abs=2e-3) and fit.value < 1e-6


@given(st.floats(-2, 2), st.floats(-0.5, 1))
def test_the_quadrature_is_right(mean: float, log_std: float) -> None:
    target = GaussianMixture(torch.tensor([[0.5]], dtype=torch.float64), 1.2)
    parameters = torch.tensor([mean, log_std], dtype=torch.float64)
    p, q = torch.distributions.Normal(0.5, 1.2), torch.distributions.Normal(mean, math.exp(log_std))
    assert float(gaussian_divergence(RKL, target, *parameters)) == pytest.approx(
        float(torch.distributions.kl_divergence(q, p)), rel=1e-4, abs=1e-5
    )
    assert float(gaussian_divergence(FKL, target, *parameters)) == pytest.approx(
        float(torch.distributions.kl_divergence(p, q)), rel=1e-4, abs=1e-5
    )


@pytest.mark.parametrize("divergence", DIVERGENCES, ids=repr)
def test_a_tiny_network_learns_a_ring_under_every_divergence(divergence: Divergence) -> None:
    target = ring(4, radius=2.0)
    fit = fit_network(target, divergence, steps=250, batch=96)
    x = fit.sample(500, 1)
    assert x.shape == (500, 2) and mode_divergence(x, target) < 0.05
    assert torch.equal(x, fit.sample(500, 1)) and not torch.equal(x, fit.sample(500, 2))


def test_refusals() -> None:
    with pytest.raises(ValueError, match="1-D target"):
        fit_gaussian(RKL, ring())
    with pytest.raises(ValueError, match="weight"):
        two_modes(2.0, 1.0)
    for no_divergence in ("jsd", JensenShannon):
        with pytest.raises(TypeError, match="an object like JensenShannon"):
            fit_gaussian(no_divergence, two_modes(2.0))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="zooms"):
        fit_gaussian(RKL, two_modes(2.0), zooms=-1)
    with pytest.raises(ValueError, match="1-D target"):
        gaussian_divergence(RKL, ring(), torch.zeros(1), torch.zeros(1))
    for bad in ({"batch": 1}, {"steps": 0}, {"lr": 0.0}, {"width": 0}, {"latent_dim": 0}):
        with pytest.raises(ValueError, match="batch >= 2"):
            fit_network(ring(), RKL, **bad)  # type: ignore[arg-type]
