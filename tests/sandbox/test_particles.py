"""Runs: what mode seeking and mode covering do, that a seed fixes them, and what is refused."""

from __future__ import annotations

import math
import subprocess
import sys
from unittest import mock

import pytest
import torch

from jsdsd.objectives import (
    JSD,
    SDI,
    SDS,
    Anneal,
    Ensemble,
    ForwardKL,
    JensenShannon,
    LearnedLogOdds,
    ReverseKL,
    UniformTime,
    particle_mixture,
)
from jsdsd.objectives.distillation import DistillationStep
from jsdsd.sandbox import (
    GaussianMixture,
    Particles,
    fit_particles,
    mode_divergence,
    off_centre,
    ring,
    spread_ratio,
    trajectories,
    unbalanced,
)


def test_independent_particles_collapse_and_an_ensemble_does_not() -> None:
    """off_centre: SDS sends every particle to the mode in the middle, and to its peak; the ensemble fills all
    four.
    """
    target = off_centre()
    alone = fit_particles(target, SDS(), 64, 400, lr=0.05, times=Anneal())
    together = fit_particles(target, Ensemble(JensenShannon()), 64, 400, lr=0.05, times=Anneal())
    assert mode_divergence(alone, target) > 0.35 and spread_ratio(alone, target) < 0.3
    assert mode_divergence(together, target) < 0.05


def test_with_t_at_random_jsd_covers_where_reverse_kl_loses_modes() -> None:
    """The claim of docs/sandbox.md in small: t drawn uniformly, as DreamFusion does, nothing annealed."""
    target, scores = off_centre(), {}
    for divergence in (ReverseKL(), JensenShannon()):
        x = fit_particles(target, Ensemble(divergence), 128, 400, times=UniformTime())
        scores[divergence] = mode_divergence(x, target)
    reverse, jsd = scores.values()
    assert jsd < 0.05 and jsd < reverse / 3


def test_ten_thousand_particles_go_in_bounded_pieces() -> None:
    """The mixture of 10,000 against its slow twin at a few points, and one whole step."""
    x0, x_t, t = ring().sample(10_000), ring().sample(3), 500
    alpha, sigma = (float(level) for level in ring().schedule.levels(t, x0))
    for i, x in enumerate(x_t.double()):
        slow = torch.logsumexp(-(x - alpha * x0.double()).square().sum(1) / (2 * sigma**2), 0)
        slow = slow - math.log(10_000 * 2 * math.pi * sigma**2)
        assert float(particle_mixture(ring().schedule, x0, x_t, t).log_prob[i]) == pytest.approx(float(slow), abs=1e-4)
    with mock.patch.object(torch, "cdist", wraps=torch.cdist) as distances:
        x = fit_particles(ring(), Ensemble(JensenShannon()), 10_000, 1)
    assert x.shape == (10_000, 2) and x.isfinite().all()
    rows = [call.args[0].shape[0] for call in distances.call_args_list if call.args[1].shape[0] == 10_000]
    assert sum(rows) == 10_000 and max(rows) == 1024


def test_the_learned_log_odds_serve_as_well() -> None:
    target = unbalanced()
    x = fit_particles(target, Ensemble(JensenShannon(), LearnedLogOdds(updates=1, batch=128)), 64, 300)
    assert mode_divergence(x, target) < 0.05


@pytest.mark.parametrize("objective", [SDS(), SDI(), JSD(), Ensemble(ReverseKL())], ids=lambda o: type(o).__name__)
def test_same_seed_same_bytes_for_every_objective(objective: object) -> None:
    runs = [fit_particles(ring(), objective, 32, 20, seed) for seed in (1, 1, 2)]  # type: ignore[arg-type]
    assert torch.equal(runs[0], runs[1]) and not torch.equal(runs[0], runs[2])
    assert runs[0].shape == (32, 2) and not runs[0].requires_grad


def test_a_target_in_float64_is_fitted_as_well() -> None:
    """As numpy hands it over: the run is that of the same target in float32, but for rounding."""
    means = torch.tensor([[1.0, 0.5], [-1.0, 0.0], [0.0, -1.5]])
    for objective in (SDS(), Ensemble(JensenShannon()), Ensemble(ForwardKL())):
        single, double = (
            fit_particles(GaussianMixture(m, 0.3), objective, 16, 30) for m in (means, means.double().numpy())
        )
        assert single.dtype == double.dtype == torch.float32
        assert torch.allclose(single, double, atol=1e-3)


def test_records_and_trajectories_tell_the_run() -> None:
    points = Particles(16, seed=3)
    start = points.x.detach().clone()
    records = list(points.run(ring(), SDS(), steps=40))
    assert torch.equal(records[0].x0, start) and len(records) == 40
    path = trajectories(ring(), SDS(), 16, 40, seed=3, frames=10)
    assert path.shape == (11, 16, 2) and torch.equal(path[0], start) and torch.equal(path[-1], points.x.detach())
    assert torch.equal(path[5], records[20].x0)


def test_a_trajectory_ends_where_the_run_of_the_same_levels_ends() -> None:
    for times in (Anneal(), UniformTime()):
        path = trajectories(ring(), SDS(), 8, 30, seed=2, frames=3, times=times)
        assert torch.equal(path[-1], fit_particles(ring(), SDS(), 8, 30, seed=2, times=times))


def test_the_rate_falls_linearly_to_zero_and_lets_a_run_travel_37_units() -> None:
    """A gradient that never changes: Adam then moves by exactly its rate, lr (1 - k/steps), 75/2 units in all."""

    class Constant:
        def gradient(self, denoiser: object, x0: torch.Tensor, t: int, generator: object = None) -> DistillationStep:
            one = torch.ones_like(x0)
            return DistillationStep(one, t, x0, one, one, (x0,), None, 0)

    for steps, rate, way in ((500, 0.15, 37.5), (100, 0.25, 12.5)):  # 75/steps, and no more than .25
        points = Particles(1, dim=2)
        places = [float(record.x0[0, 0]) for record in points.run(ring(), Constant(), steps)]
        moves = -torch.tensor([*places, float(points.x.detach()[0, 0])]).diff()
        assert torch.allclose(moves, rate * (1 - torch.arange(steps) / steps), atol=1e-5)
        assert float(moves.sum()) == pytest.approx(way, rel=0.02)


def test_refusals() -> None:
    for bad in ({"particles": 0}, {"start_std": 0.0}, {"steps": 0}, {"lr": -1.0}):
        with pytest.raises(ValueError, match=">"):
            fit_particles(ring(), SDS(), **bad)  # type: ignore[arg-type]
    for objective in ("jsd", SDS, None):
        with pytest.raises(TypeError, match="objective must be an object"):
            fit_particles(ring(), objective)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="target must have"):
        fit_particles("ring", SDS())  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="frames"):
        trajectories(ring(), SDS(), steps=10, frames=11)


def test_import_is_cheap() -> None:
    heavy = "{'matplotlib', 'diffusers', 'transformers'} & set(sys.modules)"
    code = f"import sys, jsdsd.objectives, jsdsd.sandbox; assert not {heavy}, {heavy}"
    subprocess.run([sys.executable, "-c", code], check=True)
