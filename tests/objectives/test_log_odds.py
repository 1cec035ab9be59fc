"""The discriminator: exact, from particles, learned - and what its logit promises."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from jsdsd.objectives import (
    EnsembleLogOdds,
    ExactLogOdds,
    JensenShannon,
    LearnedLogOdds,
    ReverseKL,
    Schedule,
    SoftenedReverseKL,
    calibration_curve,
    discriminator,
    jsd_lower_bound,
    non_saturating_weight,
    particle_mixture,
    saturating_weight,
)
from jsdsd.objectives.log_odds import Situation

SCHEDULE = Schedule.scaled_linear()
LOG2 = math.log(2)


class Gaussians:
    """Equal mixture of N(m, s²) in 1-D, diffused: the two known densities of these tests. d = 1, float64."""

    def __init__(self, *components: tuple[float, float]) -> None:
        self.components = components

    def log_prob(self, x: Tensor, t: int | Tensor | None = None) -> Tensor:
        alpha, sigma = (1.0, 0.0) if t is None else (SCHEDULE.alpha(t), SCHEDULE.sigma(t))
        parts = []
        for m, s in self.components:
            var = torch.as_tensor(alpha**2 * s**2 + sigma**2, dtype=torch.float64)
            parts.append(-((x[:, 0] - alpha * m) ** 2) / (2 * var) - 0.5 * (2 * math.pi * var).log())
        return torch.logsumexp(torch.stack(parts), 0) - math.log(len(parts))

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        m, s = torch.tensor(self.components, dtype=torch.float64).T
        pick = torch.randint(len(m), (n,), generator=generator)
        return (m[pick] + s[pick] * torch.randn(n, generator=generator, dtype=torch.float64))[:, None]


P, Q = Gaussians((-1.5, 0.5), (1.5, 0.5)), Gaussians((0.0, 1.0))
X = torch.linspace(-12, 12, 6001, dtype=torch.float64)[:, None]
DX = float(X[1] - X[0])


def gaussian(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@given(st.integers(1, 5), st.integers(1, 3), st.integers(0, 999), st.integers(0, 10**6))
def test_particle_mixture_equals_its_slow_twin(n: int, d: int, t: int, seed: int) -> None:
    x0, x_t = 2 * gaussian(n, d, seed=seed), 2 * gaussian(4, d, seed=seed + 1)
    alpha, sigma = (float(level) for level in SCHEDULE.levels(t, x0))
    leaf = x_t.clone().requires_grad_()
    kernels = [
        torch.distributions.MultivariateNormal(alpha * m, sigma**2 * torch.eye(d, dtype=torch.float64)) for m in x0
    ]
    slow = torch.logsumexp(torch.stack([k.log_prob(leaf) for k in kernels]), 0) - math.log(n)
    (score,) = torch.autograd.grad(slow.sum(), leaf)
    fast = particle_mixture(SCHEDULE, x0, x_t, t)
    assert torch.allclose(fast.log_prob, slow.detach(), rtol=1e-9, atol=1e-9)
    assert torch.allclose(fast.eps, -sigma * score, rtol=1e-7, atol=1e-7)


def test_particle_mixture_in_chunks_with_one_t_each_and_of_latents() -> None:
    x0, x_t, t = gaussian(9, 3, 2, 2), gaussian(11, 3, 2, 2, seed=1), torch.arange(11) * 90
    whole, pieces = (particle_mixture(SCHEDULE, x0, x_t, t, chunk=chunk) for chunk in (1024, 4))
    assert torch.allclose(whole.log_prob, pieces.log_prob, rtol=1e-12)  # BLAS may round a chunk of 4 otherwise
    assert torch.allclose(whole.eps, pieces.eps, rtol=1e-10, atol=1e-12)
    assert whole.eps.shape == x_t.shape
    for i in range(11):
        alone = particle_mixture(SCHEDULE, x0, x_t[i : i + 1], int(t[i]))
        assert torch.allclose(alone.log_prob, whole.log_prob[i : i + 1], rtol=1e-10)
        assert torch.allclose(alone.eps, whole.eps[i : i + 1], rtol=1e-8, atol=1e-10)


def test_float32_is_as_good_as_it_can_be_at_the_cleanest_level() -> None:
    x0 = 4 * gaussian(256, 2)
    x_t = SCHEDULE.add_noise(x0, gaussian(256, 2, seed=1), 0)
    exact, single = particle_mixture(SCHEDULE, x0, x_t, 0), particle_mixture(SCHEDULE, x0.float(), x_t.float(), 0)
    assert float((exact.log_prob - single.log_prob).abs().max()) < 1e-3
    assert float((exact.eps - single.eps).abs().max()) < 1e-3


@given(st.integers(0, 999))
def test_the_ratio_has_mean_one_and_the_score_mean_zero_under_q(t: int) -> None:
    log_q = Q.log_prob(X, t)
    ratio = ExactLogOdds(P, Q).log_ratio(X, t).exp()
    assert float((log_q.exp() * ratio).sum()) * DX == pytest.approx(1, abs=1e-9)
    leaf = X.clone().requires_grad_()
    (score,) = torch.autograd.grad(Q.log_prob(leaf, t).sum(), leaf)
    assert float((log_q.exp() * score[:, 0]).sum()) * DX == pytest.approx(0, abs=1e-9)  # Stein


def gan_value(logits: Tensor, t: int) -> float:
    """V(D) = E_p[log D] + E_q[log(1-D)] by quadrature, logits (6001,) on the grid."""
    log_d, log_not_d = torch.nn.functional.logsigmoid(logits), torch.nn.functional.logsigmoid(-logits)
    return float((P.log_prob(X, t).exp() * log_d + Q.log_prob(X, t).exp() * log_not_d).sum()) * DX


@given(st.sampled_from([0, 150, 500, 950]), st.integers(0, 10**6), st.floats(0.01, 3))
def test_value_of_the_best_discriminator_and_of_any_other(t: int, seed: int, size: float) -> None:
    best = ExactLogOdds(P, Q).log_ratio(X, t)
    jsd = JensenShannon().quadrature(lambda x: P.log_prob(x, t), lambda x: Q.log_prob(x, t), -12, 12)
    assert gan_value(best, t) == pytest.approx(-2 * LOG2 + 2 * jsd, abs=1e-9)
    a, b, c = gaussian(3, seed=seed).tolist()
    other = best + size * torch.sin(a * X[:, 0] + b) + size * c * 0.1 * X[:, 0]
    assert gan_value(other, t) < gan_value(best, t)
    assert gan_value(other, t) / 2 + LOG2 < jsd


@given(st.integers(0, 999), st.floats(-4, 4))
def test_generator_gradients_saturating_and_not(t: int, at: float) -> None:
    """With D* held fixed: grad log(1-D*) = D*(s_q - s_p), -grad log D* = (1-D*)(s_q - s_p); their sum is
    reverse KL.
    """
    x = torch.tensor([[at]], dtype=torch.float64, requires_grad=True)
    s_p, s_q = (torch.autograd.grad(p.log_prob(x, t).sum(), x)[0] for p in (P, Q))
    log_ratio = ExactLogOdds(P, Q).log_ratio(x, t)
    (saturating,) = torch.autograd.grad(torch.nn.functional.logsigmoid(-log_ratio).sum(), x, retain_graph=True)
    (non_saturating,) = torch.autograd.grad(-torch.nn.functional.logsigmoid(log_ratio).sum(), x)
    u, difference = log_ratio.detach(), s_q - s_p
    assert torch.allclose(saturating, saturating_weight(u) * difference, rtol=1e-9, atol=1e-12)
    assert torch.allclose(non_saturating, non_saturating_weight(u) * difference, rtol=1e-9, atol=1e-12)
    assert torch.allclose(saturating + non_saturating, ReverseKL().weight(u) * difference, rtol=1e-9, atol=1e-12)
    assert torch.allclose(saturating_weight(u), 2 * JensenShannon().weight(u))
    assert torch.allclose(non_saturating_weight(u), 2 * SoftenedReverseKL().weight(u))
    assert torch.allclose(saturating_weight(u), discriminator(u))


def test_a_lone_particle_in_high_dimension_is_always_told_apart() -> None:
    """p = N(0, I), q_t = N(alpha x0, sigma² I), |x0|² = d: E log r = d log sigma, -840 for d = 16384, sigma =
    .95.
    """
    d, t = 16384, int((torch.as_tensor(SCHEDULE.sigma(torch.arange(1000))) < 0.95).sum())
    alpha, sigma = float(SCHEDULE.alpha(t)), float(SCHEDULE.sigma(t))
    x0 = gaussian(1, d)
    x0 = x0 / x0.norm() * math.sqrt(d)
    eps = gaussian(64, d, seed=1)
    x_t = SCHEDULE.add_noise(x0.expand(64, d), eps, t)
    log_p = -0.5 * x_t.square().sum(1) - d / 2 * math.log(2 * math.pi)
    log_ratio = log_p - particle_mixture(SCHEDULE, x0, x_t, t).log_prob
    error = float(log_ratio.std()) / 8
    assert sigma == pytest.approx(0.95, abs=1e-3) and d * math.log(sigma) == pytest.approx(-840, abs=15)
    assert abs(float(log_ratio.mean()) - d * math.log(sigma)) < 4 * error < 0.1 * 840
    assert float(discriminator(log_ratio).max()) == 0.0 and alpha > 0.3  # not even denormal: the weight is gone


@pytest.fixture(scope="module")
def trained() -> LearnedLogOdds:
    learned = LearnedLogOdds(sample_target=lambda n, g: P.sample(n, g), known_q=False, batch=512, seed=1)
    generator = torch.Generator().manual_seed(0)
    situation = Situation(None, SCHEDULE, Q.sample(20_000, generator), torch.empty(0), generator)
    for _ in range(400):
        learned.update(300, situation)
    return learned


def test_learned_log_odds_against_the_exact_ones(trained: LearnedLogOdds) -> None:
    """Estimated JSD: a lower bound in expectation, and near; D: calibrated; log-odds: right where there is
    data.
    """
    t, g = 300, torch.Generator().manual_seed(7)
    real, fake = (SCHEDULE.add_noise(d.sample(20_000, g), gaussian(20_000, 1, seed=s), t) for d, s in ((P, 8), (Q, 9)))
    exact_jsd = JensenShannon().quadrature(lambda x: P.log_prob(x, t), lambda x: Q.log_prob(x, t), -12, 12)
    with torch.no_grad():
        on_real, on_fake = (trained.logits(x, t, SCHEDULE) for x in (real, fake))
    value, error = jsd_lower_bound(on_real, on_fake)
    assert exact_jsd - 0.01 < value < exact_jsd + 3 * error and error < 0.005
    best = jsd_lower_bound(*(ExactLogOdds(P, Q).log_ratio(x, t) for x in (real, fake)))
    assert abs(best.value - exact_jsd) < 4 * best.standard_error
    mean_d, observed, share = calibration_curve(on_real, on_fake).T
    populated = share > 0.02
    assert float((mean_d - observed)[populated].abs().max()) < 0.06 and int(populated.sum()) >= 5
    off = (torch.cat([on_real, on_fake]) - ExactLogOdds(P, Q).log_ratio(torch.cat([real, fake]), t)).abs()
    assert float(off.mean()) < 0.25


def test_calibration_curve_of_a_perfect_and_of_a_boastful_discriminator() -> None:
    t, g = 300, torch.Generator().manual_seed(3)
    real, fake = (SCHEDULE.add_noise(d.sample(50_000, g), gaussian(50_000, 1, seed=s), t) for d, s in ((P, 1), (Q, 2)))
    exact = [ExactLogOdds(P, Q).log_ratio(x, t) for x in (real, fake)]
    mean_d, observed, share = calibration_curve(*exact).T
    assert float(share.sum()) == pytest.approx(1) and float((mean_d - observed)[share > 0.01].abs().max()) < 0.02
    mean_d, observed, share = calibration_curve(*(3 * u for u in exact)).T
    assert float((mean_d - observed)[share > 0.01].abs().max()) > 0.1


def test_learning_leaves_the_global_random_stream_alone_and_repeats() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    answers = []
    for _ in range(2):
        generator = torch.Generator().manual_seed(0)
        situation = Situation(P, SCHEDULE, Q.sample(50, generator), torch.empty(0), generator)
        answers.append(LearnedLogOdds(batch=16, known_q=False).log_ratio(Q.sample(5, generator), 100, situation))
    assert torch.equal(answers[0], answers[1]) and torch.equal(torch.rand(3), expected)
    bounded = LearnedLogOdds(batch=16, known_q=False, bound=1e-3).log_ratio(
        5 * gaussian(5, 1), torch.arange(5), situation
    )
    assert float(bounded.abs().max()) <= 1e-3


def test_refusals() -> None:
    situation = Situation(object(), SCHEDULE, gaussian(3, 1), torch.zeros(3), None)
    with pytest.raises(TypeError, match="has no log_prob.*LearnedLogOdds"):
        EnsembleLogOdds().log_ratio(gaussian(3, 1), 5, situation)
    with pytest.raises(ValueError, match="sample_target"):
        LearnedLogOdds().log_ratio(gaussian(3, 1), 5, situation)
    with pytest.raises(ValueError, match=">= 1"):
        LearnedLogOdds(updates=0)
    with pytest.raises(ValueError, match="warmup >= 0"):
        LearnedLogOdds(warmup=-1)
    with pytest.raises(ValueError, match="bound must be > 0"):
        LearnedLogOdds(bound=0.0)
    with pytest.raises(ValueError, match=r"shape \(256, 1\), got \(256, 2\)"):
        LearnedLogOdds(sample_target=lambda n, g: torch.zeros(n, 2)).log_ratio(gaussian(3, 1), 5, situation)
    used = LearnedLogOdds(sample_target=P.sample, batch=4)
    used.log_ratio(gaussian(3, 1), 5, situation)
    with pytest.raises(ValueError, match="a new LearnedLogOdds"):
        used.logits(gaussian(3, 2), 5, SCHEDULE)
    with pytest.raises(TypeError, match="need log_prob"):
        ExactLogOdds(P, "q")  # type: ignore[arg-type]
    for logits in (torch.zeros(1), torch.zeros(2, 2), torch.tensor([0.0, math.nan])):
        for judge in (jsd_lower_bound, calibration_curve):
            with pytest.raises(ValueError, match=r"logits must be \(N,\)"):
                judge(logits, torch.zeros(5))
            with pytest.raises(ValueError, match=r"logits must be \(N,\)"):
                judge(torch.zeros(5), logits)
    with pytest.raises(ValueError, match="bins"):
        calibration_curve(torch.zeros(5), torch.zeros(5), bins=0)
    for x0, x_t, chunk in ((gaussian(3, 1), gaussian(3, 2), 8), (gaussian(0, 1), gaussian(3, 1), 8)):
        with pytest.raises(ValueError, match="need particles"):
            particle_mixture(SCHEDULE, x0, x_t, 5, chunk)
    with pytest.raises(ValueError, match="chunk"):
        particle_mixture(SCHEDULE, gaussian(3, 1), gaussian(3, 1), 5, 0)
