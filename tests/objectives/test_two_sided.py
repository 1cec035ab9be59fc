"""The theorem: either side of TwoSided has the divergence's gradient as its mean, for every divergence and share.

Oracles: the divergences' integrands written out here, summed on a grid, and differences of that sum.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch import Tensor

from jsdsd.objectives import (
    DIVERGENCES,
    JSD,
    SDI,
    SDS,
    DistillationStep,
    Divergence,
    Ensemble,
    ForwardKL,
    Inversion,
    JensenShannon,
    ReverseKL,
    Schedule,
    TwoSided,
    Undecided,
)
from jsdsd.sandbox import ConditionalMixture, GaussianMixture

SCHEDULE = Schedule.scaled_linear()
EVERY = pytest.mark.parametrize("divergence", DIVERGENCES, ids=repr)
GRID = torch.linspace(-14, 14, 4001, dtype=torch.float64)
CELL = float(GRID[1] - GRID[0])
LEVELS = st.integers(200, 999)  # below, p and q hardly meet on the grid


def log_normal(x: Tensor, mean: float, var: float) -> Tensor:
    return -((x - mean) ** 2) / (2 * var) - 0.5 * math.log(2 * math.pi * var)


def skew(lp: Tensor, lq: Tensor, pi: float) -> Tensor:
    lm = torch.logaddexp(lp + math.log(pi), lq + math.log(1 - pi))
    return pi * lp.exp() * (lp - lm) + (1 - pi) * lq.exp() * (lq - lm)


def softened(lp: Tensor, lq: Tensor) -> Tensor:
    lm = torch.logaddexp(lp, lq) - math.log(2)
    return lm.exp() * (lm - lp)


INTEGRANDS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {  # q f(p/q)
    "ReverseKL()": lambda lp, lq: lq.exp() * (lq - lp),
    "ForwardKL()": lambda lp, lq: lp.exp() * (lp - lq),
    "Jeffreys()": lambda lp, lq: (lp.exp() - lq.exp()) * (lp - lq),
    "JensenShannon()": lambda lp, lq: skew(lp, lq, 0.5),
    "SkewJS(0.1)": lambda lp, lq: skew(lp, lq, 0.1),
    "SoftenedReverseKL()": softened,
    "SquaredHellinger()": lambda lp, lq: ((lp / 2).exp() - (lq / 2).exp()) ** 2,
}


class Placed(GaussianMixture):
    """A 1-D mixture whose clean samples are all 0, so that `real_noise` places x' where a test wants it."""

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        return torch.zeros(n, 1, dtype=torch.float64)


def mixture(means: list[float], std: float, first: float) -> Placed:
    weights = torch.tensor([first, *[(1 - first) / (len(means) - 1)] * (len(means) - 1)])
    return Placed(torch.tensor(means, dtype=torch.float64)[:, None], std, weights)


def log_p_t(target: GaussianMixture, t: int) -> Tensor:
    """On the grid, written out anew."""
    alpha, sigma = SCHEDULE.alpha(t), SCHEDULE.sigma(t)
    parts = [
        math.log(w) + log_normal(GRID, alpha * m, alpha**2 * s**2 + sigma**2)
        for w, m, s in zip(target.weights.tolist(), target.means[:, 0].tolist(), target.std.tolist(), strict=True)
    ]
    return torch.stack(parts).logsumexp(0)


def steps(objective: TwoSided, target: GaussianMixture, x0: float, t: int) -> DistillationStep:
    """One row for each point of the grid: x_t and x' both lie on it."""
    alpha, sigma = SCHEDULE.alpha(t), SCHEDULE.sigma(t)
    points = torch.full((len(GRID), 1), x0, dtype=torch.float64)
    noise = (GRID[:, None] - alpha * x0) / sigma
    return objective.gradient(target, points, t, noise=noise, real_noise=GRID[:, None] / sigma)


def mean(values: Tensor, log_density: Tensor) -> float:
    """Where a density underflows, so does its part of the mean."""
    density = log_density.exp()
    return float(torch.where(density > 0, density * values, 0.0).sum()) * CELL


MIXTURES = st.builds(
    mixture,
    st.lists(st.floats(-4, 4), min_size=2, max_size=3),
    st.floats(0.2, 1.0),
    st.floats(0.1, 0.9),
)


@EVERY
@given(MIXTURES, st.floats(-4, 4), LEVELS, st.floats(0, 1))
@example(mixture([-4.0, 4.0], 0.2, 0.1), 4.0, 200, 0.5)
@example(mixture([-2.0, 1.0], 0.4, 0.3), 0.0, 999, 1.0)
def test_either_side_has_the_gradient_as_its_mean(
    divergence: Divergence, target: GaussianMixture, x0: float, t: int, share: float
) -> None:
    alpha, sigma = SCHEDULE.alpha(t), SCHEDULE.sigma(t)
    log_p, h = log_p_t(target, t), 1e-3

    def value(at: float) -> float:
        return float(INTEGRANDS[repr(divergence)](log_p, log_normal(GRID, alpha * at, sigma**2)).sum()) * CELL

    numeric = 8 * (value(x0 + h) - value(x0 - h)) - (value(x0 + 2 * h) - value(x0 - 2 * h))
    numeric *= sigma / alpha / (12 * h)
    log_q = log_normal(GRID, alpha * x0, sigma**2)
    generated, real, both = (steps(TwoSided(divergence, s), target, x0, t).grad[:, 0] for s in (1.0, 0.0, share))
    tolerance = {"rel": 1e-6, "abs": 1e-7}
    assert mean(generated, log_q) == pytest.approx(numeric, **tolerance)
    assert mean(real, log_p) == pytest.approx(numeric, **tolerance)
    assert torch.allclose(both, share * generated + (1 - share) * real, rtol=1e-12, atol=1e-12)


@given(MIXTURES, st.floats(-4, 4), LEVELS)
def test_the_discriminator_errs_alike_on_both_sides(target: GaussianMixture, x0: float, t: int) -> None:
    """E_q[D] = E_p[1-D], from the log-ratios in the record; mean_d is the mean of D over the batch."""
    step = steps(TwoSided(JensenShannon()), target, x0, t)
    assert step.log_ratio is not None and step.real is not None and step.real.log_ratio is not None
    log_q = log_normal(GRID, SCHEDULE.alpha(t) * x0, SCHEDULE.sigma(t) ** 2)
    fooled = mean(torch.sigmoid(step.log_ratio), log_q)
    assert fooled == pytest.approx(mean(torch.sigmoid(-step.real.log_ratio), log_p_t(target, t)), abs=1e-9)
    assert step.mean_d == pytest.approx(float(torch.sigmoid(step.log_ratio).mean()), rel=1e-12)


def test_k_moves_the_mean_of_the_recipe_and_not_of_the_exact_gradient() -> None:
    """Share 1/(1+k) for k = 0, 1, 3: one mean with the exact D; three with D = ½."""
    target, x0, t = mixture([-2.0, 1.0], 0.4, 0.3), 0.3, 400
    log_p, log_q = log_p_t(target, t), log_normal(GRID, SCHEDULE.alpha(t) * x0, SCHEDULE.sigma(t) ** 2)
    means: dict[bool, list[float]] = {True: [], False: []}
    for exact in means:
        odds = None if exact else Undecided()
        sides = [steps(TwoSided(JensenShannon(), s, odds, "exact"), target, x0, t).grad[:, 0] for s in (1.0, 0.0)]
        generated, real = mean(sides[0], log_q), mean(sides[1], log_p)
        means[exact] = [generated / (1 + k) + real * k / (1 + k) for k in (0, 1, 3)]
    assert max(means[True]) - min(means[True]) < 1e-12
    assert max(means[False]) - min(means[False]) > 0.01


def test_both_sides_together_vary_less_than_either() -> None:
    """At t = 500 they are nearly equally good: the half of each has about half the variance."""
    target, x0, t = mixture([-2.0, 1.0], 0.4, 0.3), 0.3, 500
    log_p, log_q = log_p_t(target, t), log_normal(GRID, SCHEDULE.alpha(t) * x0, SCHEDULE.sigma(t) ** 2)
    variance = []
    for share, density in ((1.0, log_q), (0.0, log_p)):
        grad = steps(TwoSided(JensenShannon(), share), target, x0, t).grad[:, 0]
        variance.append(mean(grad**2, density) - mean(grad, density) ** 2)
    assert sum(variance) / 4 < 0.8 * min(variance)


# -- the plane: the recipe against the gradient ------------------------------------------------------------------------

PLANE = GaussianMixture(torch.tensor([[2.0, 0.0], [-1.0, 1.5], [-1.0, -2.0]], dtype=torch.float64), 0.4)
NODES, NODE_WEIGHTS = (torch.from_numpy(a) for a in __import__("numpy").polynomial.hermite_e.hermegauss(24))
PAIRS = torch.cartesian_prod(NODES, NODES)  # (576, 2) noises
PAIR_WEIGHTS = torch.cartesian_prod(NODE_WEIGHTS, NODE_WEIGHTS).prod(1) / (2 * math.pi)


def sds_field(x0: Tensor, t: int) -> Tensor:
    grad = SDS().gradient(PLANE, x0.expand(len(PAIRS), 2), t, noise=PAIRS).grad
    return PAIR_WEIGHTS @ grad


def recipe_field(x0: Tensor, t: int) -> Tensor:
    """Mean of JSD(inversion_steps=0) over both noises, by Gauss-Hermite."""
    first = SDS().gradient(PLANE, x0.expand(len(PAIRS), 2), t, noise=PAIRS)
    mean = 2 * PAIR_WEIGHTS @ first.grad
    x1 = first.targets[0]
    for eps, weight in zip(PAIRS, PAIR_WEIGHTS, strict=True):
        if weight > 1e-9:
            mean = mean + weight * (PAIR_WEIGHTS @ SDS().gradient(PLANE, x1, t, noise=eps.expand_as(x1)).grad)
    return mean


def exact_field(x0: Tensor, t: int) -> Tensor:
    """(sigma/alpha) grad JSD by the generated side, on a grid of the plane."""
    axis = torch.linspace(-8, 8, 161, dtype=torch.float64)
    points = torch.cartesian_prod(axis, axis)
    alpha, sigma = SCHEDULE.alpha(t), SCHEDULE.sigma(t)
    noise = (points - alpha * x0) / sigma
    grad = TwoSided(JensenShannon(), 1.0).gradient(PLANE, x0.expand_as(points), t, noise=noise).grad
    density = torch.exp(-noise.square().sum(1) / 2) / (2 * math.pi * sigma**2)
    return density @ grad * float(axis[1] - axis[0]) ** 2


def test_the_recipe_by_8_tends_to_the_gradient_where_nobody_can_tell() -> None:
    x0 = torch.tensor([0.6, 0.3], dtype=torch.float64)
    errors, cosines = [], []
    for t in (200, 500, 800, 999):
        recipe, exact = recipe_field(x0, t) / 8, exact_field(x0, t)
        errors.append(float((recipe - exact).norm() / exact.norm()))
        cosines.append(float(torch.cosine_similarity(recipe, exact, dim=0)))
    assert errors == sorted(errors, reverse=True) and errors[-1] < 0.01 and errors[0] > 0.1
    assert cosines[2] > 0.9999 and cosines[-1] > 0.99999


def test_the_recipe_has_curl_and_sds_has_none() -> None:
    """So no scalar has the recipe's mean field as its gradient: do not "simplify" it into one."""
    h, x0 = 1e-3, torch.tensor([1.0, -1.0], dtype=torch.float64)

    def asymmetry(field: Callable[[Tensor, int], Tensor], t: int = 200) -> float:
        axes = torch.eye(2, dtype=torch.float64) * h
        columns = [(field(x0 + step, t) - field(x0 - step, t)) / (2 * h) for step in axes]
        return abs(float(columns[0][1] - columns[1][0]))

    assert asymmetry(recipe_field) > 0.01
    assert asymmetry(sds_field) < 1e-6 and asymmetry(exact_field) < 1e-6  # quadrature's own error


@given(st.floats(0, 2 * math.pi), st.sampled_from([100, 300, 700]))
def test_the_exact_gradient_is_bounded_and_the_recipes_is_not(angle: float, t: int) -> None:
    """From |x0| = 10 on, tenfold distance is tenfold pull of the recipe; Jensen-Shannon lets go."""
    direction = torch.tensor([math.cos(angle), math.sin(angle)], dtype=torch.float64)
    far, farther = (r * direction for r in (100.0, 1000.0))
    recipe = [float(recipe_far(x0, t).norm()) for x0 in (far, farther)]
    assert recipe[1] / recipe[0] == pytest.approx(10, rel=0.05) and recipe[0] > 10
    for x0 in (far, farther):
        step = TwoSided(JensenShannon(), 1.0).gradient(PLANE, x0.expand(len(PAIRS), 2), t, noise=PAIRS)
        assert float((PAIR_WEIGHTS @ step.grad).norm()) < 1e-6


def recipe_far(x0: Tensor, t: int) -> Tensor:
    """One fixed eps' is enough far out: the noise is small beside the distance."""
    step = JSD(inversion_steps=0)
    x0 = x0.expand(len(PAIRS), 2)
    return step.gradient(PLANE, x0, t, torch.Generator().manual_seed(0), noise=PAIRS).grad.mean(0)


# -- one family --------------------------------------------------------------------------------------------------------


def gaussian(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def close(a: Tensor, b: Tensor) -> bool:
    return torch.allclose(a, b, rtol=0, atol=1e-10 * (1 + float(b.abs().max())))


SEEDS, ALL_LEVELS = st.integers(0, 10**6), st.integers(0, 999)


@given(SEEDS, ALL_LEVELS, st.floats(0, 10))
def test_every_name_is_a_choice_in_the_family(random_denoiser: type, seed: int, t: int, k: float) -> None:
    denoiser, x0 = random_denoiser(seed), gaussian(3, 2, 2, seed=seed)

    def grad(objective: object) -> Tensor:
        return objective.gradient(denoiser, x0, t, torch.Generator().manual_seed(seed)).grad  # type: ignore[attr-defined]

    assert close(grad(TwoSided(ReverseKL(), 1.0)), grad(SDS()))
    assert close(grad(TwoSided(ReverseKL(), 1.0, inversion=Inversion())), grad(SDI()))
    half = TwoSided(JensenShannon(), 1 / (1 + k), Undecided(), "renoised")
    assert close(4 * (1 + k) * grad(half), grad(JSD(k, inversion_steps=0)))
    inverted = TwoSided(JensenShannon(), 1 / (1 + k), Undecided(), "renoised", Inversion(3, None, 0.1))
    assert close(4 * (1 + k) * grad(inverted), grad(JSD(k, inversion_steps=3, inversion_eta=0.1)))


@EVERY
@given(SEEDS, LEVELS, st.floats(0, 1))
def test_an_ensemble_of_one_is_two_sided(divergence: Divergence, seed: int, t: int, share: float) -> None:
    x0, eps, eps2 = (gaussian(1, 2, seed=seed + i) for i in range(3))
    generators = [torch.Generator().manual_seed(seed) for _ in range(2)]
    alone, ensemble = (
        objective.gradient(PLANE, x0, t, generator, noise=eps, real_noise=eps2)
        for objective, generator in zip(
            (TwoSided(divergence, share), Ensemble(divergence, share=share)), generators, strict=True
        )
    )
    assert torch.allclose(alone.grad, ensemble.grad, rtol=1e-8, atol=1e-10)
    assert alone.unet_calls == ensemble.unet_calls and len(alone.targets) == len(ensemble.targets)


@EVERY
@pytest.mark.parametrize("t", [300, 700])
def test_an_ensembles_target_side_has_the_gradient_as_its_mean(divergence: Divergence, t: int) -> None:
    target, h = mixture([-2.0, 1.5], 0.4, 0.3), 1e-4
    particles = torch.tensor([[-0.8], [0.1], [1.1]], dtype=torch.float64)
    alpha, sigma = SCHEDULE.alpha(t), SCHEDULE.sigma(t)
    log_p = log_p_t(target, t)

    def value(x0: Tensor) -> float:
        log_q = torch.stack([log_normal(GRID, alpha * at, sigma**2) for at in x0[:, 0].tolist()]).logsumexp(0)
        return float(INTEGRANDS[repr(divergence)](log_p, log_q - math.log(3)).sum()) * CELL

    objective, mean = Ensemble(divergence, share=0.0), torch.zeros(3, 1, dtype=torch.float64)
    for x, density in zip(GRID[500:-500:6].tolist(), log_p[500:-500:6].exp().tolist(), strict=True):
        if density > 1e-12:  # all three samples at x
            step = objective.gradient(
                target, particles, t, real_noise=torch.full((3, 1), x / sigma, dtype=torch.float64)
            )
            mean += 6 * CELL * density * step.grad
    for i in range(3):
        step = torch.zeros(3, 1, dtype=torch.float64)
        step[i] = h
        slope = (value(particles + step) - value(particles - step)) / (2 * h)
        assert float(mean[i]) == pytest.approx(3 * sigma / alpha * slope, rel=1e-4, abs=1e-6)


# -- who is asked for what ---------------------------------------------------------------------------------------------


class Watched(GaussianMixture):
    """Notes every point it is asked about and every sample it gives."""

    def __init__(self) -> None:
        super().__init__(PLANE.means, 0.4)
        self.seen: list[Tensor] = []
        self.given = 0

    def predict_eps(self, x_t: Tensor, t: int | Tensor, guidance_scale: float | None = None) -> Tensor:
        self.seen.append(x_t)
        return super().predict_eps(x_t, t, guidance_scale)

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        self.given += n
        return super().sample(n, generator)


@pytest.mark.parametrize("make", [TwoSided, lambda d, share: Ensemble(d, share=share)], ids=["alone", "ensemble"])
def test_share_1_asks_for_no_target_samples_and_share_0_draws_nothing_from_q(make: Callable[..., TwoSided]) -> None:
    watched = Watched()
    step = make(JensenShannon(), share=1.0).gradient(watched, gaussian(4, 2), 500)
    assert watched.given == 0 and step.real is None and len(watched.seen) == step.unet_calls == 1
    seen = []
    for x0 in (gaussian(4, 2), 100 + gaussian(4, 2)):  # the same x' whatever x0 is
        watched = Watched()
        step = make(JensenShannon(), share=0.0).gradient(watched, x0, 500, torch.Generator().manual_seed(3))
        assert watched.given == 4 and step.real is not None and step.real.exact
        assert torch.equal(step.x_t, step.real.x_t) and len(watched.seen) == step.unet_calls == 1
        seen.append(watched.seen[0])
    assert torch.equal(*seen)


def test_the_record_shows_both_sides() -> None:
    x0, eps2, t = gaussian(4, 2), gaussian(4, 2, seed=1), 600
    step = TwoSided(JensenShannon(), 0.25).gradient(PLANE, x0, t, torch.Generator().manual_seed(0), real_noise=eps2)
    real = step.real
    assert real is not None and step.log_ratio is not None and real.log_ratio is not None
    for x, log_ratio in ((step.x_t, step.log_ratio), (real.x_t, real.log_ratio)):
        alpha, sigma = SCHEDULE.levels(t, x)
        log_q = -(x - alpha * x0).square().sum(1) / (2 * sigma**2) - math.log(2 * math.pi * sigma**2)
        assert torch.allclose(log_ratio, PLANE.log_prob(x, t) - log_q, atol=1e-9)
    assert torch.allclose(step.weight, torch.sigmoid(step.log_ratio) / 2)  # type: ignore[arg-type]
    assert torch.allclose(real.weight, torch.sigmoid(-real.log_ratio) / 2)  # type: ignore[arg-type]
    assert torch.equal(step.targets[1], real.target) and step.unet_calls == 2 and real.exact
    pulls = [(alpha / sigma) * (x0 - target) for target in step.targets]
    expected = 0.25 * step.weight[:, None] * pulls[0] + 0.75 * real.weight[:, None] * pulls[1]  # type: ignore[index]
    assert torch.allclose(step.grad, expected, atol=1e-12)
    again = TwoSided(JensenShannon(), target_samples="renoised").gradient(PLANE, x0, t, noise=x0, real_noise=eps2)
    assert again.real is not None and not again.real.exact
    assert torch.allclose(again.real.x_t, alpha * again.targets[0] + sigma * eps2)


def test_guided_mixtures_have_no_exact_samples_and_are_renoised() -> None:
    classes = GaussianMixture(PLANE.means, 0.4, groups=torch.tensor([0, 0, 1]))
    objective = TwoSided(JensenShannon(), log_odds=Undecided())
    for scale, exact in ((1.0, True), (3.0, False)):
        step = objective.gradient(ConditionalMixture(classes, 0, scale), gaussian(4, 2), 500)
        assert step.real is not None and step.real.exact == exact
    own = TwoSided(JensenShannon(), log_odds=Undecided(), guidance_scale=3.0)
    step = own.gradient(ConditionalMixture(classes, 0), gaussian(4, 2), 500)
    assert step.real is not None and not step.real.exact  # its samples are those of guidance 1
    for refusing in (TwoSided(JensenShannon(), 0.0), TwoSided(JensenShannon(), target_samples="exact")):
        with pytest.raises(TypeError, match="no exact samples of what it denoises at guidance 3"):
            refusing.gradient(ConditionalMixture(classes, 0, 3.0), gaussian(4, 2), 500)
    with pytest.raises(TypeError, match="take share=1"):
        Ensemble(JensenShannon(), share=0.5).gradient(ConditionalMixture(classes, 0, 3.0), gaussian(4, 2), 500)


def test_what_needs_a_density_says_so(random_denoiser: type) -> None:
    with pytest.raises(TypeError, match=r"has no log_prob.*GuidanceLogOdds\(\), LearnedLogOdds.*Undecided\(\)"):
        TwoSided(JensenShannon()).gradient(random_denoiser(0), gaussian(2, 2), 100)
    TwoSided(ReverseKL(), 1.0).gradient(random_denoiser(0), gaussian(2, 2), 100)
    needs = {
        (d, s): TwoSided(d, s).needs_density
        for d in (ReverseKL(), ForwardKL(), JensenShannon())
        for s in (0.0, 0.5, 1.0)
    }
    assert [share for (d, share), asks in needs.items() if not asks] == [1.0, 0.0]  # reverse KL, forward KL
    assert not TwoSided(JensenShannon(), log_odds=Undecided()).needs_density


def test_refusals() -> None:
    for wrong in ("jsd", JensenShannon, None):
        with pytest.raises(TypeError, match=r"an object like JensenShannon\(\)"):
            TwoSided(wrong)  # type: ignore[arg-type]
    for share in (-0.1, 1.1, math.nan):
        for make in (TwoSided, Ensemble):
            with pytest.raises(ValueError, match=r"share is the generated side's weight, 0 \.\.\. 1"):
                make(JensenShannon(), share=share)
    with pytest.raises(ValueError, match="target_samples is"):
        TwoSided(JensenShannon(), target_samples="noisy")  # type: ignore[arg-type]
    for odd in ({"target_samples": "renoised"}, {"inversion": Inversion()}):
        with pytest.raises(ValueError, match="share=0 never draws from q"):
            TwoSided(JensenShannon(), 0.0, **odd)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="target samples must have x0's shape"):
        TwoSided(JensenShannon(), 0.0).gradient(Placed(PLANE.means, 0.4), gaussian(3, 2), 5)
