"""Particles that know of each other: the gradient is the divergence's own."""

from __future__ import annotations

import inspect

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from jsdsd.objectives import (
    DIVERGENCES,
    SDS,
    Divergence,
    Ensemble,
    JensenShannon,
    LearnedLogOdds,
    ReverseKL,
    distill,
    surrogate_loss,
)
from jsdsd.objectives.log_odds import particle_mixture
from jsdsd.sandbox import GaussianMixture

EVERY = pytest.mark.parametrize("divergence", DIVERGENCES, ids=repr)
TARGET = GaussianMixture(torch.tensor([[-1.0], [1.5]], dtype=torch.float64), 0.4, torch.tensor([0.3, 0.7]))


def gaussian(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@EVERY
@pytest.mark.parametrize("t", [300, 700])
def test_mean_gradient_is_the_divergences_by_finite_differences(divergence: Divergence, t: int) -> None:
    """E_noise[grad_i] = N (sigma/alpha) d/dx0_i D_f(p_t‖q_t), q_t the mixture of the particles; both by
    quadrature.
    """
    x0, h = torch.tensor([[-0.8], [0.1], [1.1]], dtype=torch.float64), 1e-4
    schedule = TARGET.schedule
    alpha, sigma = (float(level) for level in schedule.levels(t, x0))
    x = torch.linspace(-9, 9, 3001, dtype=torch.float64)[:, None]

    def value(particles: torch.Tensor) -> float:
        log_q = particle_mixture(schedule, particles, x, t, chunk=4096).log_prob
        return float(divergence.terms(TARGET.log_prob(x, t), log_q).sum() * (x[1] - x[0]))

    nodes = torch.linspace(-7, 7, 141, dtype=torch.float64)
    density = torch.exp(-(nodes**2) / 2)
    weights = density / density.sum()
    mean = torch.zeros_like(x0)
    for eps, weight in zip(nodes, weights, strict=True):
        mean += weight * Ensemble(divergence).gradient(TARGET, x0, t, noise=eps.expand(3, 1)).grad
    for i in range(3):
        step = torch.zeros_like(x0)
        step[i] = h
        slope = (value(x0 + step) - value(x0 - step)) / (2 * h)
        assert float(mean[i]) == pytest.approx(3 * sigma / alpha * slope, rel=1e-4, abs=1e-6)


@EVERY
@given(st.integers(0, 10**6), st.integers(0, 999))
def test_a_lone_particle_moves_as_sds_but_for_the_step_length(divergence: Divergence, seed: int, t: int) -> None:
    x0, eps = gaussian(1, 1, seed=seed), gaussian(1, 1, seed=seed + 1)
    sds = SDS().gradient(TARGET, x0, t, noise=eps).grad
    step = Ensemble(divergence).gradient(TARGET, x0, t, noise=eps)
    weight = 1.0 if step.log_ratio is None else divergence.weight(step.log_ratio)
    assert torch.allclose(step.eps_ref, eps, atol=1e-9)
    assert torch.allclose(step.grad, weight * sds, rtol=1e-7, atol=1e-9)


def test_reverse_kl_needs_no_density_and_any_shape_will_do(random_denoiser: type) -> None:
    denoiser, x0 = random_denoiser(0), gaussian(5, 4, 3, 3)
    step = Ensemble(ReverseKL()).gradient(denoiser, x0, 400, torch.Generator().manual_seed(0))
    assert step.grad.shape == x0.shape and step.log_ratio is None and step.unet_calls == denoiser.calls == 1
    learned = LearnedLogOdds(sample_target=lambda n, g: torch.randn(n, 4, 3, 3, generator=g), batch=8)
    with_log_odds = Ensemble(JensenShannon(), learned).gradient(denoiser, x0, 400, torch.Generator().manual_seed(0))
    assert with_log_odds.log_ratio is not None and with_log_odds.log_ratio.shape == (5,)
    weight = JensenShannon().weight(with_log_odds.log_ratio).view(5, 1, 1, 1)
    assert torch.allclose(with_log_odds.grad, weight * step.grad)


def test_gan_names_are_two_members_of_the_family() -> None:
    x0, eps = gaussian(4, 1), gaussian(4, 1, seed=1)
    reverse, saturating, non_saturating = (
        objective.gradient(TARGET, x0, 200, noise=eps).grad
        for objective in (Ensemble(ReverseKL()), Ensemble.saturating(), Ensemble.non_saturating())
    )
    assert torch.allclose(2 * (saturating + non_saturating), reverse, rtol=1e-9, atol=1e-12)
    assert not torch.allclose(saturating, non_saturating, rtol=1e-3)


def test_one_t_per_particle_is_that_particles_own_level() -> None:
    """Each particle is judged by the whole ensemble at its own level: rows do not depend on the others' t."""
    x0, eps, t = gaussian(4, 1), gaussian(4, 1, seed=1), torch.tensor([10, 200, 500, 990])
    mixed = Ensemble(JensenShannon()).gradient(TARGET, x0, t, noise=eps).grad
    for i in range(4):
        alone = Ensemble(JensenShannon()).gradient(TARGET, x0, int(t[i]), noise=eps).grad[i]
        assert torch.allclose(mixed[i], alone, rtol=1e-8, atol=1e-12)


def test_nothing_stays_attached_to_a_denoiser_with_parameters(random_denoiser: type) -> None:
    gain = torch.nn.Parameter(torch.ones((), dtype=torch.float64))

    class Network(random_denoiser):  # type: ignore[misc, valid-type]
        def predict_eps(self, x_t: torch.Tensor, t: int, guidance_scale: float | None = None) -> torch.Tensor:
            return gain * super().predict_eps(x_t, t, guidance_scale)

        def log_prob(self, x: torch.Tensor, t: int) -> torch.Tensor:
            return -gain * x.square().sum(1)

    for divergence in (ReverseKL(), JensenShannon()):
        step = Ensemble(divergence).gradient(Network(0), gaussian(4, 2).requires_grad_(), 300)
        tensors = (step.grad, step.x_t, step.eps_hat, step.eps_ref, *step.targets, step.log_ratio)
        assert not any(x.requires_grad for x in tensors if x is not None)


def test_its_guidance_scale_replaces_the_denoisers_own(random_denoiser: type) -> None:
    denoiser, x0 = random_denoiser(0), gaussian(3, 2)
    for scale, used in ((None, 7.5), (2.0, 2.0), (0.0, 0.0)):
        step = Ensemble(ReverseKL(), guidance_scale=scale).gradient(denoiser, x0, 300)
        assert torch.equal(step.eps_hat, denoiser.predict_eps(step.x_t, 300, used))


def test_the_exact_jensen_shannon_its_loss_and_its_loop_fit_on_a_page() -> None:
    assert sum(len(inspect.getsource(part).splitlines()) for part in (Ensemble, surrogate_loss, distill)) <= 100


def test_refusals(random_denoiser: type) -> None:
    for wrong in ("jsd", JensenShannon, None):
        with pytest.raises(TypeError, match=r"an object like JensenShannon\(\)"):
            Ensemble(wrong)  # type: ignore[arg-type]
    for no_log_odds in ("learned", LearnedLogOdds):
        with pytest.raises(TypeError, match=r"an object like LearnedLogOdds\(\)"):
            Ensemble(JensenShannon(), no_log_odds)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="has no log_prob"):
        Ensemble(JensenShannon()).gradient(random_denoiser(0), gaussian(2, 2), 100)
