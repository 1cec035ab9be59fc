"""Local JSD against the divergence it is, and against TwoSided where both are exact."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from scipy.integrate import quad

from jsdsd.objectives import JensenShannon, LocalJSD, Schedule, TwoSided
from jsdsd.objectives.local_jsd import local_weight
from jsdsd.sandbox import GaussianMixture


def jsd_of_two_gaussians(delta: float) -> float:
    """N(0, 1) and N(delta, 1), by adaptive quadrature."""

    def integrand(x: float) -> float:
        p, q = (math.exp(-((x - at) ** 2) / 2) / math.sqrt(2 * math.pi) for at in (delta, 0.0))
        m = (p + q) / 2
        return sum(a * math.log(a / m) / 2 for a in (p, q) if a > 0)

    value, _ = quad(integrand, -10, delta + 10, points=[0.0, delta / 2, delta], epsabs=1e-12, limit=200)
    return float(value)


@given(st.floats(0.05, 8))
@example(1.64)
def test_the_weight_is_the_divergences_slope_over_delta(delta: float) -> None:
    h = 1e-2
    slope = 8 * (jsd_of_two_gaussians(delta + h) - jsd_of_two_gaussians(delta - h))
    slope -= jsd_of_two_gaussians(delta + 2 * h) - jsd_of_two_gaussians(delta - 2 * h)
    got = float(local_weight(torch.tensor(delta, dtype=torch.float64))) * delta
    assert got == pytest.approx(slope / (12 * h), abs=2e-8)


def test_known_values_and_the_bound() -> None:
    delta = torch.linspace(0, 50, 50001, dtype=torch.float64)
    slope = local_weight(delta) * delta
    for at, value in ((1.0, 0.198986), (2.0, 0.224800), (4.0, 0.068597)):
        assert float(slope[round(at * 1000)]) == pytest.approx(value, abs=1e-6)
    assert float(slope.max()) == pytest.approx(0.2337, abs=5e-5)
    assert float(delta[slope.argmax()]) == pytest.approx(1.64, abs=0.01)
    assert float(slope[0]) == 0 and float(slope[-1]) < 1e-100
    weights = local_weight(torch.tensor([0.0, 1e4, math.inf]))
    assert weights.tolist() == [0.25, 0.0, 0.0] and (local_weight(delta).diff() <= 0).all()


@given(st.floats(-3, 3), st.floats(-3, 3), st.integers(100, 999))
def test_it_is_the_mean_of_two_sided_where_the_target_is_a_point(at: float, x: float, t: int) -> None:
    """There x1 is that point whatever x_t is, and the local Gaussian is p_t."""
    target = GaussianMixture(torch.tensor([[at]], dtype=torch.float64), 1e-7)
    z = torch.linspace(-10, 10, 2001, dtype=torch.float64)[:, None]
    density = torch.exp(-(z**2) / 2) / math.sqrt(2 * math.pi) * 0.01
    x0 = torch.full_like(z, x)
    exact = TwoSided(JensenShannon(), 1.0).gradient(target, x0, t, noise=z)
    local = LocalJSD().gradient(target, x0, t, noise=z)
    assert torch.allclose(local.grad, (density * exact.grad).sum().expand_as(z), atol=1e-6)
    assert exact.log_ratio is not None
    assert local.mean_d == pytest.approx(float((density[:, 0] * torch.sigmoid(exact.log_ratio)).sum()), abs=1e-6)


def test_pixels_are_weighed_one_by_one_and_bounded(random_denoiser: type) -> None:
    denoiser, x0 = random_denoiser(0), torch.randn(2, 4, 3, 5, generator=torch.Generator().manual_seed(0)).double()
    x0[0, :, 1, 2] = 1e3  # one pixel far away
    step = LocalJSD().gradient(denoiser, x0, 300, torch.Generator().manual_seed(1))
    norms = step.grad.norm(dim=1)
    assert step.weight is not None and step.weight.shape == (2, 1, 3, 5) and step.unet_calls == denoiser.calls == 1
    assert float(norms.max()) <= 0.23370 and step.mean_d == pytest.approx(2 * float(step.weight.mean()))
    for b, i, j in ((0, 0, 0), (1, 2, 4)):
        pixel = (b, slice(None), i, j)
        alone = LocalJSD().gradient(
            Fixed(step.eps_hat[pixel][None]), x0[pixel][None], 300, noise=step.eps_ref[pixel][None]
        )
        assert torch.allclose(alone.grad[0], step.grad[pixel], atol=1e-12)


class Fixed:
    """Predicts one thing, whatever it is shown."""

    guidance_scale = 1.0

    def __init__(self, eps: torch.Tensor) -> None:
        self.schedule, self.eps = Schedule.scaled_linear(), eps

    def predict_eps(self, x_t: torch.Tensor, t: object, guidance_scale: float | None = None) -> torch.Tensor:
        return self.eps
