"""The learned log-odds held against the exact ones where nothing is hidden: at every noise level of a 2D mixture."""

from __future__ import annotations

import torch
from torch import Tensor

from jsdsd.objectives import EnsembleLogOdds, LearnedLogOdds, UniformTime, discriminator, particle_mixture
from jsdsd.objectives.log_odds import Situation
from jsdsd.sandbox import GaussianMixture, random_mixture

LEVELS = (20, 60, 150, 300, 500, 800)


def seen(target: GaussianMixture, x0: Tensor, t: int, generator: torch.Generator) -> tuple[Tensor, Situation]:
    """The particles noised to level t, and what an objective would know there."""
    x_t = target.schedule.add_noise(x0, torch.randn(x0.shape, generator=generator), t)
    log_q = particle_mixture(target.schedule, x0, x_t, t).log_prob
    return x_t, Situation(target, target.schedule, x0, log_q, generator)


def errors(learned: LearnedLogOdds, seed: int, steps: int = 200, particles: int = 128) -> list[float]:
    """Mean |D - D*| over the particles at each of LEVELS, after `steps` calls at levels drawn at random."""
    target, generator = random_mixture(3000 + seed), torch.Generator().manual_seed(seed)
    x0 = target.sample(particles, generator)
    for step in range(steps):
        t = UniformTime()(step, steps, target.schedule, generator)
        x_t, situation = seen(target, x0, t, generator)
        learned.log_ratio(x_t, t, situation)
    found = []
    for t in LEVELS:
        x_t, situation = seen(target, x0, t, generator)
        exact = EnsembleLogOdds().log_ratio(x_t, t, situation)
        d = discriminator(learned.log_ratio(x_t, t, situation))
        found.append(float((d - discriminator(exact)).abs().mean()))
    return found


def test_after_a_fit_with_random_t_it_is_near_the_exact_ones_at_every_level() -> None:
    found = torch.tensor([errors(LearnedLogOdds(), seed) for seed in range(3)])  # (seeds, levels)
    assert float(found.mean(0).max()) < 0.05
