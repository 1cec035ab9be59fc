"""Each neighbour against the special case in which it is something else."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from jsdsd.objectives import CSD, ISM, NFSD, SDI, SDS, Bridge, Ensemble, Repulsive, ReverseKL
from jsdsd.sandbox import ConditionalMixture, GaussianMixture, fit_particles, ring

CLASSES = GaussianMixture(
    torch.tensor([[2.0, 0.0], [0.0, 2.0], [-2.0, 0.0]], dtype=torch.float64), 0.4, groups=torch.tensor([0, 1, 1])
)
SEEDS, LEVELS, SCALES = st.integers(0, 10**6), st.integers(0, 999), st.floats(0, 8)


def gaussian(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def close(a: torch.Tensor, b: torch.Tensor) -> bool:
    return torch.allclose(a, b, rtol=0, atol=1e-9 * (1 + float(b.abs().max())))


@given(SEEDS, LEVELS, SCALES)
def test_csd_is_what_guidance_adds_to_sds(seed: int, t: int, s: float) -> None:
    """SDS at guidance 1 + s is SDS at 1 plus s times CSD."""
    x0, eps, denoiser = gaussian(3, 2, seed=seed), gaussian(3, 2, seed=seed + 1), ConditionalMixture(CLASSES, 0)
    csd = CSD().gradient(denoiser, x0, t, noise=eps)
    plain, guided = (SDS(g).gradient(denoiser, x0, t, noise=eps).grad for g in (1.0, 1.0 + s))
    assert close(plain + s * csd.grad, guided) and csd.unet_calls == 1


@given(SEEDS, LEVELS)
def test_bridge_is_csd_from_everything_and_vsd_from_the_particles(seed: int, t: int) -> None:
    x0, eps, denoiser = gaussian(4, 2, seed=seed), gaussian(4, 2, seed=seed + 1), ConditionalMixture(CLASSES, 0)
    assert close(
        Bridge(CLASSES).gradient(denoiser, x0, t, noise=eps).grad, CSD().gradient(denoiser, x0, t, noise=eps).grad
    )
    particles = GaussianMixture(x0, 1e-9)
    vsd = Ensemble(ReverseKL()).gradient(denoiser, x0, t, noise=eps).grad
    assert torch.allclose(Bridge(particles).gradient(denoiser, x0, t, noise=eps).grad, vsd, atol=1e-6)


@given(SEEDS, LEVELS, SCALES)
def test_nfsd_is_sds_without_its_noise_below_and_csd_above(seed: int, t: int, s: float) -> None:
    x0, eps, denoiser = gaussian(3, 2, seed=seed), gaussian(3, 2, seed=seed + 1), ConditionalMixture(CLASSES, 0, s)
    step = NFSD().gradient(denoiser, x0, t, noise=eps)
    if t < 200:
        assert close(step.grad, SDS().gradient(denoiser, x0, t, noise=eps).grad + eps)
    else:
        assert close(step.grad, s * CSD().gradient(denoiser, x0, t, noise=eps).grad)
    bad = GaussianMixture(torch.zeros(1, 2, dtype=torch.float64), 1.0)
    with_bad = NFSD(bad).gradient(denoiser, x0, t, noise=eps)
    reference = torch.zeros_like(x0) if t < 200 else bad.predict_eps(with_bad.x_t, t)
    assert close(with_bad.grad, denoiser.predict_eps(with_bad.x_t, t) - reference)
    assert (step.unet_calls, with_bad.unet_calls) == (1, 1 if t < 200 else 2)


@given(SEEDS, st.integers(1, 999), SCALES)
def test_ism_from_the_clean_end_is_sdi_of_one_step(seed: int, t: int, s: float) -> None:
    x0, denoiser = gaussian(3, 2, seed=seed), ConditionalMixture(CLASSES, 0, s)
    sdi = SDI(1, inversion_guidance_scale=0.0, inversion_eta=0.0).gradient(denoiser, x0, t)
    ism = ISM(interval=1000).gradient(denoiser, x0, t)
    assert close(ism.x_t, sdi.x_t) and torch.allclose(ism.grad, sdi.grad, atol=1e-7) and ism.unet_calls == 2


def test_ism_counts_its_calls_and_steps_from_s_to_t(random_denoiser: type) -> None:
    denoiser, x0 = random_denoiser(2), gaussian(3, 2)
    step = ISM(interval=100, steps=3).gradient(denoiser, x0, 600)
    assert step.unet_calls == denoiser.calls == 5
    alpha, sigma = denoiser.schedule.levels(600, x0)
    x_s_clean = (step.x_t - sigma * step.eps_ref) / alpha
    assert torch.allclose(step.grad, (alpha / sigma) * (x_s_clean - step.targets[0]), atol=1e-10)


@given(SEEDS, LEVELS)
def test_repulsion_is_vsd_at_the_noise_levels_own_kernel(seed: int, t: int) -> None:
    x0, none = gaussian(5, 2, seed=seed), torch.zeros(5, 2, dtype=torch.float64)
    alpha, sigma = CLASSES.schedule.alpha(t), CLASSES.schedule.sigma(t)
    step = Repulsive(gamma=sigma / alpha, width=sigma / alpha).gradient(CLASSES, x0, t, noise=none)
    vsd = Ensemble(ReverseKL()).gradient(CLASSES, x0, t, noise=none)
    assert close(step.grad, vsd.grad)
    assert close(
        Repulsive(0.0).gradient(CLASSES, x0, t, noise=none).grad, SDS().gradient(CLASSES, x0, t, noise=none).grad
    )
    alone = Repulsive().gradient(CLASSES, x0[:1], t, noise=none[:1]).grad
    assert close(alone, SDS().gradient(CLASSES, x0[:1], t, noise=none[:1]).grad)


def test_repulsion_is_the_gradient_of_the_kernels_log_sum_and_spreads() -> None:
    x0, none = gaussian(5, 2), torch.zeros(5, 2, dtype=torch.float64)
    leaf = x0.clone().requires_grad_()
    value = (-(torch.cdist(leaf, x0) ** 2) / (2 * 0.7**2)).logsumexp(1).sum()  # x_j held fixed
    (slope,) = torch.autograd.grad(value, leaf)
    with_it, without = (Repulsive(g, 0.7).gradient(CLASSES, x0, 400, noise=none).grad for g in (0.3, 0.0))
    assert torch.allclose(with_it - without, 0.3 * slope, atol=1e-9)
    spread = [fit_particles(ring(), Repulsive(g), 32, 60).std() for g in (0.0, 3.0)]
    assert float(spread[1]) > float(spread[0])


def test_refusals() -> None:
    for bad in ({"gamma": -1.0}, {"width": 0.0}):
        with pytest.raises(ValueError, match="gamma must be >= 0"):
            Repulsive(**bad)
    with pytest.raises(ValueError, match="interval and steps"):
        ISM(0)
    for objective in (ISM(), NFSD()):
        with pytest.raises(TypeError, match="one t for the batch"):
            objective.gradient(ConditionalMixture(CLASSES, 0), gaussian(2, 2), torch.tensor([3, 4]))
    with pytest.raises(TypeError, match="does not hand out"):
        CSD().gradient(CLASSES, gaussian(2, 2), 10)
