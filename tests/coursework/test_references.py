"""The references that the checker judges by, against oracles of their own: closed forms, quadrature, the library."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from coursework import SETS, Problem
from coursework.inside.given import PictureDenoiser
from coursework.problem import fresh_cases
from scipy.spatial.distance import jensenshannon
from scipy.stats import entropy

from jsdsd import JSD
from jsdsd.objectives import DIVERGENCES, jsd_lower_bound
from jsdsd.sandbox import GaussianMixture

F64 = torch.float64
PROBLEMS = {p.name: p for s in SETS for p in s.problems}


def arguments(name: str) -> list[dict[str, Any]]:
    return [case.arguments for case in fresh_cases(PROBLEMS[name])]


def reference(name: str) -> Any:
    return PROBLEMS[name].reference


@pytest.mark.parametrize("a", arguments("kl"))
def test_kl_is_scipys(a: dict[str, torch.Tensor]) -> None:
    wanted = entropy(a["p"].numpy(), a["q"].numpy(), axis=1)
    torch.testing.assert_close(reference("kl")(**a), torch.from_numpy(wanted))


@pytest.mark.parametrize("a", arguments("jensen_shannon"))
def test_jensen_shannon_is_scipys_squared(a: dict[str, torch.Tensor]) -> None:
    wanted = jensenshannon(a["p"].numpy(), a["q"].numpy(), axis=1) ** 2
    torch.testing.assert_close(reference("jensen_shannon")(**a), torch.from_numpy(wanted))


@pytest.mark.parametrize("divergence", DIVERGENCES, ids=repr)
def test_the_weight_is_the_closed_form(divergence: Any) -> None:
    log_ratio = torch.linspace(-4, 4, 17, dtype=F64)
    torch.testing.assert_close(reference("weight")(divergence.f, log_ratio), divergence.weight(log_ratio))


@pytest.mark.parametrize("a", arguments("jsd_bound"))
def test_the_bound_is_the_librarys(a: dict[str, torch.Tensor]) -> None:
    assert float(reference("jsd_bound")(*a.values())) == pytest.approx(jsd_lower_bound(*a.values()).value)


@pytest.mark.parametrize("divergence", DIVERGENCES, ids=repr)
def test_a_step_of_the_mean_is_the_slope_of_the_divergence(divergence: Any) -> None:
    """With z on quantiles the step is -rate dD_f/dmean; D_f itself comes from the library's quadrature."""
    target = GaussianMixture(torch.tensor([[-0.5, 0.2], [0.6, -0.1]], dtype=F64), 1.0)
    std, mean = 0.9, torch.tensor([0.3, 0.4], dtype=F64)
    axis = torch.special.ndtri((torch.arange(400, dtype=F64) + 0.5) / 400)
    z = torch.cartesian_prod(axis, axis)
    path = reference("fit_mean")(divergence, target, mean, std, z, 1.0, 1)

    def value(x: float) -> float:
        q = GaussianMixture(torch.tensor([[x, 0.4]], dtype=F64), std)
        return divergence.quadrature(target.log_prob, q.log_prob, -9, 9, dim=2, points=361)

    slope = (value(0.3 + 1e-3) - value(0.3 - 1e-3)) / 2e-3
    assert float(path[0, 0] - path[1, 0]) == pytest.approx(slope, rel=0.02, abs=1e-4)


@pytest.mark.parametrize("k", [0.0, 0.5, 1.0])
def test_the_jsd_gradient_is_the_librarys_after_its_inversion(k: float) -> None:
    g = torch.Generator().manual_seed(3)
    target = GaussianMixture(torch.randn(3, 2, generator=g, dtype=F64), 0.4)
    x0, eps = torch.randn(2, 5, 2, generator=g, dtype=F64)
    step = JSD(minority_weight=k).gradient(target, x0, 500, generator=g, noise=eps)
    torch.testing.assert_close(reference("jsd_gradient")(target, x0, step.x_t, eps, 500, k), step.grad)


def test_constant_fog_is_exponential() -> None:
    density, colour = torch.full((4, 4, 4), 1.7, dtype=F64), torch.full((3, 4, 4, 4), 0.25, dtype=F64)
    direction = torch.nn.functional.normalize(torch.tensor([[1.0, -0.3, 0.5]], dtype=F64), dim=1)
    near, far = torch.tensor([0.2], dtype=F64), torch.tensor([1.1], dtype=F64)
    origin, white = -0.5 * direction, torch.ones(3, dtype=F64)
    for samples in (1, 5, 64):
        rgb = reference("march")(density, colour, origin, direction, near, far, samples, white)
        through = math.exp(-1.7 * 0.9)
        torch.testing.assert_close(rgb, torch.full((1, 3), 0.25 * (1 - through) + through, dtype=F64))


def test_a_linear_field_is_interpolated_exactly() -> None:
    axis = torch.linspace(-1, 1, 5, dtype=F64)
    z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
    points = 2 * torch.rand(9, 3, generator=torch.Generator().manual_seed(0), dtype=F64) - 1
    values = reference("trilinear")(torch.stack([x, y, z]), points)
    torch.testing.assert_close(values, points.T)


def test_the_scene_comes_closer_to_its_target() -> None:
    """More steps of Problem 6: the renders approach the pictures that the denoiser knows."""
    import jsdsd

    camera = jsdsd.orbit([0.0, 120.0, 240.0], dtype=F64)
    toy = jsdsd.VoxelGrid.blob((8,), radius=0.6, density=20.0, dtype=F64)
    with torch.no_grad():
        pictures = jsdsd.render(toy, camera, 8, 0.2).rgb
        grid = jsdsd.VoxelGrid([torch.zeros(4, 8, 8, 8, dtype=F64)])  # grey fog
        before = float((jsdsd.render(grid, camera, 8, 0.2).rgb - pictures).abs().mean())
    noises = torch.randn(30, 3, 8, 8, 3, generator=torch.Generator().manual_seed(0), dtype=F64)
    times = torch.linspace(600, 20, 30).long().tolist()
    reference("distill_views")(grid, camera, PictureDenoiser(pictures), noises, times, 30.0, 0.2)
    with torch.no_grad():
        after = float((jsdsd.render(grid, camera, 8, 0.2).rgb - pictures).abs().mean())
    assert after < before / 3


def test_every_problem_is_of_the_public_kind() -> None:
    assert all(isinstance(p, Problem) and p.points > 0 and p.outputs for p in PROBLEMS.values())
