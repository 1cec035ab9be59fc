"""Exact means exact: density, score and noise prediction at every level."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from jsdsd.objectives import Denoiser, guide
from jsdsd.sandbox import (
    TARGETS,
    ConditionalMixture,
    GaussianMixture,
    checkerboard,
    grid,
    off_centre,
    random_mixture,
    ring,
    unbalanced,
)

EVERY = pytest.mark.parametrize("make", TARGETS, ids=lambda make: make.__name__)


def gaussian(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def random_target(seed: int, dim: int = 2) -> GaussianMixture:
    g = torch.Generator().manual_seed(seed)
    modes = int(torch.randint(1, 6, (), generator=g))
    means = 3 * torch.randn(modes, dim, generator=g, dtype=torch.float64)
    return GaussianMixture(means, 0.1 + torch.rand(modes, generator=g), 0.1 + torch.rand(modes, generator=g))


@given(st.integers(0, 10**6), st.integers(0, 999) | st.none(), st.integers(1, 3))
def test_score_is_the_gradient_of_the_log_density(seed: int, t: int | None, dim: int) -> None:
    target, x = random_target(seed, dim), (4 * gaussian(5, dim, seed=seed)).requires_grad_()
    (score,) = torch.autograd.grad(target.log_prob(x, t).sum(), x)
    got = target.score(x.detach(), t)
    assert torch.allclose(got, score, rtol=1e-8, atol=1e-9)
    if t is not None:
        assert torch.allclose(target.predict_eps(x.detach(), t), -float(target.schedule.sigma(t)) * score, atol=1e-8)


@given(st.integers(0, 10**6), st.integers(0, 999), st.integers(1, 3))
def test_log_density_equals_torchs_own_mixture(seed: int, t: int, dim: int) -> None:
    target, x = random_target(seed, dim), 4 * gaussian(5, dim, seed=seed)
    alpha, sigma = (float(level) for level in target.schedule.levels(t, x))
    scale = (alpha**2 * target.std**2 + sigma**2).sqrt()[:, None].expand(-1, dim)
    parts = torch.distributions.Independent(torch.distributions.Normal(alpha * target.means, scale), 1)
    slow = torch.distributions.MixtureSameFamily(torch.distributions.Categorical(probs=target.weights), parts)
    assert torch.allclose(target.log_prob(x, t), slow.log_prob(x), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("mixed", [torch.float32, torch.float64])
def test_points_of_another_type_than_the_means(mixed: torch.dtype) -> None:
    """Means from numpy are float64, particles float32: the same answers, and a prediction in the points' type."""
    exact, x, t = random_target(4), gaussian(6, 2).float().double(), torch.arange(6) * 190
    target = GaussianMixture(exact.means.to(torch.float32 if mixed == torch.float64 else torch.float64), exact.std)
    same = GaussianMixture(target.means.double(), exact.std)
    for level in (300, t):
        got = target.predict_eps(x.to(mixed), level)
        assert got.dtype == mixed
        assert torch.allclose(got.double(), same.predict_eps(x, level), atol=1e-4)
        assert torch.allclose(target.log_prob(x.to(mixed), level).double(), same.log_prob(x, level), atol=1e-4)


def test_one_t_per_point_is_a_loop_over_points() -> None:
    target, x, t = random_target(3), gaussian(4, 2), torch.tensor([0, 100, 700, 999])
    for i in range(4):
        one = x[i : i + 1], int(t[i])
        assert torch.allclose(target.log_prob(x, t)[i], target.log_prob(*one)[0], rtol=1e-12)
        assert torch.allclose(target.predict_eps(x, t)[i], target.predict_eps(*one)[0], rtol=1e-10)


@pytest.mark.parametrize("t", [20, 300, 900])
def test_exact_noise_prediction_minimises_the_denoising_loss(t: int) -> None:
    """E|eps - e(x_t)|² is least at E[eps | x_t]: compare with that posterior mean, by quadrature over x0
    (1-D).
    """
    target = random_target(5, dim=1)
    alpha, sigma = (float(level) for level in target.schedule.levels(t, target.means))
    x0 = torch.linspace(-14, 14, 28001, dtype=torch.float64)
    prior = target.log_prob(x0[:, None]).exp()
    for x_t in (-2.0, 0.0, 1.3):
        eps = (x_t - alpha * x0) / sigma
        posterior = prior * torch.exp(-(eps**2) / 2)
        best = float((posterior * eps).sum() / posterior.sum())
        got = float(target.predict_eps(torch.tensor([[x_t]], dtype=torch.float64), t))
        assert got == pytest.approx(best, abs=1e-6)


def test_denoising_loss_rises_when_the_prediction_is_changed() -> None:
    target, t, eps = ring(), 400, gaussian(4000, 2, seed=2).float()
    x_t = target.schedule.add_noise(target.sample(4000, torch.Generator().manual_seed(1)), eps, t)
    exact = target.predict_eps(x_t, t)
    loss = float((eps - exact).square().sum(1).mean())
    for change in (1.02 * exact, exact + 0.05, target.predict_eps(x_t, t + 40), torch.roll(exact, 1, 0)):
        assert float((eps - change).square().sum(1).mean()) > loss


@EVERY
def test_density_integrates_to_one_clean_and_noised(make: type) -> None:
    target = make()
    axis = torch.linspace(-9, 9, 361)
    x = torch.cartesian_prod(axis, axis)
    for t in (None, 200, 999):
        mass = float(target.log_prob(x, t).exp().sum()) * float(axis[1] - axis[0]) ** 2
        assert mass == pytest.approx(1, abs=2e-3)


@EVERY
def test_samples_have_the_density_they_claim(make: type) -> None:
    """Mean log-density of samples = minus entropy = mean log-density of other samples; and shares of the
    modes.
    """
    target = make()
    a, b = (target.sample(8000, torch.Generator().manual_seed(seed)) for seed in (0, 1))
    la, lb = target.log_prob(a), target.log_prob(b)
    assert abs(float(la.mean() - lb.mean())) < 5 * float(la.std()) * math.sqrt(2 / 8000)
    x = torch.cartesian_prod(torch.linspace(-8, 8, 400), torch.linspace(-8, 8, 400))
    log_p = target.log_prob(x)
    entropy = float((log_p.exp() * log_p).sum() * (16 / 399) ** 2)
    assert abs(float(la.mean()) - entropy) < 5 * float(la.std()) / math.sqrt(8000) + 2e-3
    assert isinstance(target, Denoiser) and float(target.mode_weights.sum()) == pytest.approx(1, abs=1e-6)


def test_named_targets_are_what_their_names_say() -> None:
    assert ring().means.shape == (8, 2) and torch.allclose(ring().means.norm(dim=1), torch.tensor(4.0))
    assert grid(25).means.shape == (25, 2) and torch.allclose(grid().means.mean(0), torch.zeros(2), atol=1e-6)
    assert torch.allclose(unbalanced().mode_weights, torch.tensor([0.7, 0.1, 0.1, 0.1]))
    assert torch.allclose(off_centre().means[0], torch.tensor([0.5, 0.0]))


@given(st.integers(0, 10**6))
def test_random_mixtures_keep_their_promises(seed: int) -> None:
    target, again = random_mixture(seed), random_mixture(seed)
    assert 3 <= len(target.means) <= 7 and float(target.weights.min()) >= 0.03
    assert float(torch.pdist(target.means).min()) >= 2.5 and float(target.means.abs().max()) <= 5
    assert float(target.std.min()) >= 0.15 and float(target.std.max()) <= 0.5
    assert torch.equal(target.means, again.means) and torch.equal(target.weights, again.weights)


def test_conditional_mixture_guides_as_diffusers_does() -> None:
    mixture = GaussianMixture(gaussian(4, 2), 0.5, torch.tensor([0.1, 0.2, 0.3, 0.4]), torch.tensor([0, 0, 1, 1]))
    x, t, conditional = gaussian(6, 2, seed=1), 300, ConditionalMixture(mixture, label=1, guidance_scale=3.0)
    eps_y, eps_0 = conditional.given_label.predict_eps(x, t), mixture.predict_eps(x, t)
    assert torch.allclose(conditional.given_label.weights, torch.tensor([3 / 7, 4 / 7], dtype=torch.float64))
    assert torch.allclose(conditional.predict_eps(x, t), guide(eps_0, eps_y, 3.0))
    assert torch.allclose(conditional.predict_eps(x, t, 1.0), eps_y)
    assert torch.allclose(conditional.predict_eps(x, t, 0.0), eps_0)
    leaf = x.clone().requires_grad_()
    (tilted,) = torch.autograd.grad(conditional.log_prob(leaf, t).sum(), leaf)
    assert torch.allclose(conditional.predict_eps(x, t), -float(mixture.schedule.sigma(t)) * tilted, atol=1e-9)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((torch.zeros(3), 1.0), "means must be"),
        ((torch.full((2, 2), math.nan), 1.0), "means must be finite"),
        ((torch.zeros(2, 2), -1.0), "std must be 2 positive"),
        ((torch.zeros(2, 2), torch.ones(3)), "std must be 2 positive"),
        ((torch.zeros(2, 2), 1.0, torch.tensor([1.0, -1.0])), "weights must be 2 positive"),
        ((torch.zeros(2, 2), 1.0, torch.tensor([1.0, math.inf])), "weights must be 2 positive"),
        ((torch.zeros(2, 2), 1.0, None, torch.tensor([0.5, 1.0])), "groups must be 2 integers"),
    ],
)
def test_what_is_no_mixture_is_refused(arguments: tuple[object, ...], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        GaussianMixture(*arguments)  # type: ignore[arg-type]


def test_other_refusals() -> None:
    target = ring()
    for call in (target.log_prob, target.score, target.responsibilities):
        with pytest.raises(ValueError, match=r"\(B, 2\)"):
            call(torch.zeros(3))
    with pytest.raises(ValueError, match=r"0 \.\.\. 999"):
        target.predict_eps(torch.zeros(1, 2), 1000)
    with pytest.raises(ValueError, match="n must be"):
        target.sample(0)
    with pytest.raises(ValueError, match="square number"):
        grid(24)
    with pytest.raises(ValueError, match="per_side"):
        checkerboard(per_side=0)
    with pytest.raises(ValueError, match="modes must be >= 1"):
        ring(0)
    with pytest.raises(ValueError, match="guidance_scale must be finite"):
        ConditionalMixture(target, label=1, guidance_scale=math.nan)
    with pytest.raises(ValueError, match="labels are"):
        ConditionalMixture(target, label=8)
    with pytest.raises(ValueError, match="guidance_scale = 1"):
        ConditionalMixture(target, label=1, guidance_scale=2.0).sample(3)
