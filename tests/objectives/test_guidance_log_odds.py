"""A discriminator made of the two halves of guidance: its formula, its cost, and whether it can tell."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from jsdsd.objectives import (
    Ensemble,
    GuidanceLogOdds,
    JensenShannon,
    Parts,
    Schedule,
    Situation,
    TwoSided,
    guide,
    predict_parts,
)
from jsdsd.sandbox import ConditionalMixture, GaussianMixture, ring

CLASSES = GaussianMixture(
    torch.tensor([[2.0, 0.0], [0.0, 2.0], [-2.0, 0.0], [0.0, -2.0]], dtype=torch.float64),
    0.4,
    groups=torch.tensor([0, 1, 1, 1]),
)


def gaussian(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class Counting(ConditionalMixture):
    """Every call of the network, by either name, is one."""

    calls = 0

    def predict_parts(self, x_t: torch.Tensor, t: int | torch.Tensor, guidance_scale: float | None = None) -> Parts:
        type(self).calls += 1
        return super().predict_parts(x_t, t, guidance_scale)


@given(st.integers(0, 10**6), st.integers(0, 999), st.floats(0, 8))
def test_both_sides_use_the_noise_that_was_added_and_no_further_call(seed: int, t: int, scale: float) -> None:
    denoiser, x0, eps, eps2 = Counting(CLASSES, 0, scale), *(gaussian(3, 2, seed=seed + i) for i in range(3))
    Counting.calls = 0
    objective = TwoSided(JensenShannon(), log_odds=GuidanceLogOdds(), target_samples="renoised")
    step = objective.gradient(denoiser, x0, t, noise=eps, real_noise=eps2)
    assert Counting.calls == step.unet_calls == 2 and step.real is not None
    for x, noise, log_ratio in ((step.x_t, eps, step.log_ratio), (step.real.x_t, eps2, step.real.log_ratio)):
        eps_0, eps_y = CLASSES.predict_eps(x, t), denoiser.given_label.predict_eps(x, t)
        expected = ((noise - eps_0) ** 2).sum(1) / 2 - ((noise - eps_y) ** 2).sum(1) / 2
        assert log_ratio is not None and torch.allclose(log_ratio, expected, atol=1e-9)
    assert torch.allclose(step.eps_hat, guide(*predict_parts(denoiser, step.x_t, t)[1:], scale), atol=1e-12)


def test_it_tells_points_of_the_class_from_others() -> None:
    """Over many noises: positive on the class's own samples, negative on those of the rest, at low and middle noise."""
    generator, denoiser = torch.Generator().manual_seed(0), ConditionalMixture(CLASSES, 0)
    own = denoiser.sample(2000, generator)
    rest = ConditionalMixture(CLASSES, 1).sample(2000, generator)
    for t in (150, 400):
        odds = []
        for x in (own, rest):
            step = TwoSided(JensenShannon(), 1.0, GuidanceLogOdds()).gradient(denoiser, x, t, generator)
            assert step.log_ratio is not None
            odds.append(float(step.log_ratio.mean()))
        assert odds[0] > 0.05 and odds[1] < -1


def test_a_prompt_that_says_nothing_leaves_it_undecided() -> None:
    """One class: both halves agree, D = ½, and the gradient is a quarter of SDS's."""
    one_class = GaussianMixture(CLASSES.means, 0.4, groups=torch.zeros(4).long())
    x0, eps = gaussian(5, 2), gaussian(5, 2, seed=1)
    objective = TwoSided(JensenShannon(), 1.0, GuidanceLogOdds())
    step = objective.gradient(ConditionalMixture(one_class, 0), x0, 300, noise=eps)
    assert step.log_ratio is not None and not step.log_ratio.any() and step.mean_d == 0.5
    assert torch.allclose(step.grad, 0.25 * (step.eps_hat - eps), atol=1e-10)


def test_a_bound_clamps_it_and_an_ensemble_can_use_it() -> None:
    denoiser, x0, eps = ConditionalMixture(CLASSES, 0), 3 * gaussian(6, 2), gaussian(6, 2, seed=1)
    objectives = [Ensemble(JensenShannon(), GuidanceLogOdds(bound)) for bound in (None, 0.5)]
    free, bound = (objective.gradient(denoiser, x0, 50, noise=eps) for objective in objectives)
    assert free.log_ratio is not None and bound.log_ratio is not None and float(free.log_ratio.abs().max()) > 0.5
    assert torch.equal(bound.log_ratio, free.log_ratio.clamp(-0.5, 0.5))


def test_refusals() -> None:
    with pytest.raises(TypeError, match=r"GaussianMixture does not hand out.*ConditionalMixture\(mixture, label\)"):
        TwoSided(JensenShannon(), log_odds=GuidanceLogOdds()).gradient(ring(), torch.zeros(2, 2), 100)
    with pytest.raises(ValueError, match="bound must be > 0"):
        GuidanceLogOdds(0.0)
    situation = Situation(None, Schedule.scaled_linear(), torch.zeros(2, 2), torch.zeros(2), None)
    with pytest.raises(ValueError, match="needs the added noise and both halves"):
        GuidanceLogOdds().log_ratio(torch.zeros(2, 2), 5, situation)
