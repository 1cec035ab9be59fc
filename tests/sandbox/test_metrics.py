"""Metrics against closed forms and scipy."""

from __future__ import annotations

import math

import pytest
import torch
from scipy.spatial.distance import jensenshannon
from scipy.stats import energy_distance as scipy_energy_distance
from scipy.stats import wasserstein_distance

from jsdsd.sandbox import (
    TARGETS,
    energy_distance,
    mode_divergence,
    mode_histogram,
    off_centre,
    on_mode_share,
    ring,
    sliced_wasserstein,
    spread_ratio,
    unbalanced,
)

EVERY = pytest.mark.parametrize("make", TARGETS, ids=lambda make: make.__name__)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@EVERY
def test_the_targets_own_samples_score_as_perfect(make: type) -> None:
    target = make()
    x = target.sample(20_000, seeded(0))
    histogram, modes = mode_histogram(x, target), len(target.mode_weights)
    assert float(histogram.sum()) == pytest.approx(1, abs=1e-4)
    assert float((histogram - target.mode_weights).abs().max()) < 0.015
    assert mode_divergence(x, target) < 4 * (modes + 3) / (8 * 20_000)  # its mean for N samples is (M-1)/8N
    assert on_mode_share(x, target) > 0.985
    assert spread_ratio(x, target) == pytest.approx(1, abs=0.03)


def test_collapse_and_missing_modes_are_seen() -> None:
    target = off_centre()
    one = target.means[:1].expand(256, 2)
    assert spread_ratio(one, target) < 1e-3 and on_mode_share(one, target) == 1.0
    assert mode_divergence(one, target) == pytest.approx(jensenshannon([1, 0, 0, 0], [0.25] * 4) ** 2, abs=1e-4)
    two = target.means[[0, 1]].repeat(10, 1)
    assert mode_histogram(two, target).tolist() == pytest.approx([0.5, 0.5, 0, 0], abs=1e-4)
    assert on_mode_share(torch.full((4, 2), 100.0), target) == 0.0
    half = target.means.repeat(500, 1) + 0.5 * 0.3 * torch.randn(2000, 2, generator=seeded(0))
    assert spread_ratio(half, target) == pytest.approx(0.5, abs=0.02)


def test_unequal_weights_are_compared_with_the_truth() -> None:
    target = unbalanced()
    equal = target.means.repeat(64, 1)
    expected = jensenshannon([0.25] * 4, [0.7, 0.1, 0.1, 0.1]) ** 2
    assert mode_divergence(equal, target) == pytest.approx(expected, abs=1e-5)


def test_arrays_and_lists_are_points_too() -> None:
    target, x = ring(), ring().sample(20, seeded(4))
    for metric in (mode_histogram, mode_divergence, on_mode_share, spread_ratio):
        assert torch.equal(*(torch.as_tensor(metric(points, target)) for points in (x, x.numpy())))
        assert torch.equal(*(torch.as_tensor(metric(points, target)) for points in (x, x.tolist())))


def test_share_on_a_mode_is_rayleighs() -> None:
    x = ring().sample(20_000, seeded(0))
    for radius in (1.0, 2.0):
        assert on_mode_share(x, ring(), radius) == pytest.approx(1 - math.exp(-(radius**2) / 2), abs=0.015)


def test_sliced_wasserstein_of_a_shift_and_in_one_dimension() -> None:
    x, shift = torch.randn(500, 2, generator=seeded(0)), torch.tensor([3.0, -4.0])
    far = sliced_wasserstein(x, x + shift, projections=4096, generator=seeded(1))
    assert far == pytest.approx(5 / math.sqrt(2), rel=0.03)  # mean of cos² over directions is 1/2
    assert sliced_wasserstein(x, x[torch.randperm(500, generator=seeded(2))]) == pytest.approx(0, abs=1e-6)
    a, b = torch.rand(50, 1, generator=seeded(3)), 2 + torch.zeros(50, 1)
    assert sliced_wasserstein(a, b) >= wasserstein_distance(a[:, 0].numpy(), b[:, 0].numpy()) - 1e-6  # W2 >= W1


def test_energy_distance_is_scipys_squared() -> None:
    a, b = torch.randn(60, 1, generator=seeded(0)).double(), 1 + torch.rand(40, 1, generator=seeded(1)).double()
    assert energy_distance(a, b) == pytest.approx(scipy_energy_distance(a[:, 0], b[:, 0]) ** 2, abs=1e-9)
    assert energy_distance(a, a) == pytest.approx(0, abs=1e-12)


def test_refusals() -> None:
    target = ring()
    for metric in (mode_histogram, mode_divergence, on_mode_share, spread_ratio):
        with pytest.raises(ValueError, match=r"\(N, 2\)"):
            metric(torch.zeros(5, 3), target)
        with pytest.raises(ValueError, match=r"\(N, 2\)"):
            metric(torch.zeros(0, 2), target)
        with pytest.raises(ValueError, match="finite"):
            metric(torch.tensor([[0.0, math.nan]]), target)
    with pytest.raises(ValueError, match="one shape"):
        sliced_wasserstein(torch.zeros(3, 2), torch.zeros(4, 2))
    with pytest.raises(ValueError, match="projections >= 1"):
        sliced_wasserstein(torch.zeros(3, 2), torch.zeros(3, 2), projections=0)
    with pytest.raises(ValueError, match="radius"):
        on_mode_share(torch.zeros(3, 2), target, radius=0.0)
    for distance in (sliced_wasserstein, energy_distance):
        with pytest.raises(ValueError, match="point sets"):
            distance(torch.zeros(0, 2), torch.zeros(0, 2))
        with pytest.raises(ValueError, match="finite"):
            distance(torch.zeros(3, 2), torch.full((3, 2), math.nan))
    with pytest.raises(ValueError, match="point sets"):
        energy_distance(torch.zeros(3, 2), torch.zeros(4, 3))
