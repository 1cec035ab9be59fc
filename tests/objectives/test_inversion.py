"""SDI and the paper's JSD recipe: identities, and inversion against closed forms and diffusers."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from jsdsd.objectives import JSD, SDI, SDS, Schedule, ddim_invert

SCHEDULE = Schedule.scaled_linear()


def gaussian(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@given(st.integers(0, 10**6), st.integers(0, 999), st.floats(0, 10), st.integers(1, 5))
def test_jsd_is_sdi_at_x0_plus_sds_at_x1(random_denoiser: type, seed: int, t: int, k: float, steps: int) -> None:
    denoiser, x0, eps2 = random_denoiser(seed), gaussian(3, 2, 2, seed=seed), gaussian(3, 2, 2, seed=seed + 1)
    jsd = JSD(k, inversion_steps=steps).gradient(denoiser, x0, t, seeded(seed), noise=eps2)
    alpha, sigma = SCHEDULE.levels(t, x0)
    eps_inv = (jsd.x_t - alpha * x0) / sigma
    x1 = (jsd.x_t - sigma * denoiser.predict_eps(jsd.x_t, t)) / alpha
    at_x1 = alpha * x1 + sigma * eps2
    noise_form = (1 + k) * (jsd.eps_hat - eps_inv) + k * (denoiser.predict_eps(at_x1, t) - eps2)
    sds_at_x1 = SDS().gradient(denoiser, x1, t, noise=eps2).grad
    sdi_at_x0 = SDI(inversion_steps=steps).gradient(denoiser, x0, t, seeded(seed)).grad
    tolerance = 1e-6 * (1 + float(noise_form.abs().max()))
    assert torch.allclose(jsd.grad, noise_form, rtol=0, atol=tolerance)
    assert torch.allclose(jsd.grad, (1 + k) * sdi_at_x0 + k * sds_at_x1, rtol=0, atol=tolerance)


@given(st.integers(0, 10**6), st.integers(0, 999), st.floats(0, 1))
def test_k_zero_is_sdi_to_the_byte_without_an_extra_call(random_denoiser: type, seed: int, t: int, eta: float) -> None:
    denoiser, x0 = random_denoiser(seed), gaussian(2, 3, seed=seed)
    jsd = JSD(minority_weight=0, inversion_eta=eta).gradient(denoiser, x0, t, seeded(seed))
    calls, denoiser.calls = denoiser.calls, 0
    sdi = SDI(inversion_eta=eta).gradient(denoiser, x0, t, seeded(seed))
    assert torch.equal(jsd.grad, sdi.grad) and len(jsd.targets) == len(sdi.targets) == 1
    assert calls == denoiser.calls == jsd.unet_calls == sdi.unet_calls == 3


@given(st.integers(0, 10**6), st.integers(0, 999), st.floats(0, 10))
def test_without_inversion_jsd_is_sds_at_x0_plus_sds_at_x1(random_denoiser: type, seed: int, t: int, k: float) -> None:
    """x_t and the re-noised x1 take the noises eps and eps2 that the generator gives one after the other."""
    denoiser, x0, eps2 = random_denoiser(seed), gaussian(3, 2, 2, seed=seed), gaussian(3, 2, 2, seed=seed + 1)
    jsd = JSD(k, inversion_steps=0).gradient(denoiser, x0, t, seeded(seed), noise=eps2)
    sds = SDS().gradient(denoiser, x0, t, seeded(seed))
    assert torch.equal(jsd.x_t, sds.x_t) and torch.equal(jsd.eps_hat, sds.eps_hat)
    x1 = SCHEDULE.x0_from_eps(sds.x_t, sds.eps_hat, t)
    expected = (1 + k) * sds.grad + k * SDS().gradient(denoiser, x1, t, noise=eps2).grad
    assert torch.allclose(jsd.grad, expected, rtol=0, atol=1e-6 * (1 + float(expected.abs().max())))


@pytest.mark.parametrize(
    ("k", "steps", "calls"), [(1.0, 2, 4), (0.5, 10, 12), (0.0, 10, 11), (3.0, 1, 3), (1.0, 0, 2), (0.0, 0, 1)]
)
def test_unet_calls_are_what_they_say(random_denoiser: type, k: float, steps: int, calls: int) -> None:
    denoiser = random_denoiser(0)
    step = JSD(k, inversion_steps=steps).gradient(denoiser, gaussian(1, 2), 500, seeded(0))
    assert step.unet_calls == denoiser.calls == calls


@pytest.mark.parametrize("t", [500, torch.tensor([0, 1, 400, 999])])
def test_a_batch_is_a_loop_of_singles(random_denoiser: type, t: int | torch.Tensor) -> None:
    denoiser, x0, noise = random_denoiser(3), gaussian(4, 2, 3), gaussian(4, 2, 3, seed=1)
    for objective in (SDS(), JSD(inversion_eta=0.0)):
        together = objective.gradient(denoiser, x0, t, noise=noise).grad
        for i in range(4):
            level = t if isinstance(t, int) else int(t[i])
            alone = objective.gradient(denoiser, x0[i : i + 1], level, noise=noise[i : i + 1]).grad
            assert torch.allclose(together[i : i + 1], alone, rtol=1e-10, atol=1e-10)


def test_guidance_of_the_inversion_is_minus_the_guidance() -> None:
    class Spy:
        guidance_scale, schedule = 7.5, SCHEDULE

        def __init__(self) -> None:
            self.seen: list[float | None] = []

        def predict_eps(self, x_t: torch.Tensor, t: object, guidance_scale: float | None = None) -> torch.Tensor:
            self.seen.append(guidance_scale)
            return x_t

    for objective, expected in (
        (JSD(), [-7.5, -7.5, 7.5, 7.5]),
        (JSD(guidance_scale=3.0), [-3.0, -3.0, 3.0, 3.0]),
        (SDI(inversion_guidance_scale=1.0), [1.0, 1.0, 7.5]),
    ):
        spy = Spy()
        objective.gradient(spy, torch.zeros(1, 2), 500, seeded(0))
        assert spy.seen == expected


@given(st.integers(50, 999), st.floats(-2, 2), st.floats(0.2, 2))
def test_inversion_converges_to_the_exact_ode_at_first_order(
    gaussian_denoiser: type, t: int, mean: float, std: float
) -> None:
    """For N(m, s²) the flow is a scaling: (x_t - alpha m)/sqrt(alpha² s² + sigma²) is constant along it."""
    denoiser, x0 = gaussian_denoiser(mean, std), gaussian(4, 2)
    alpha, sigma = (float(level) for level in SCHEDULE.levels(t, x0))
    exact = alpha * mean + math.sqrt(alpha**2 * std**2 + sigma**2) * (x0 - mean) / std
    coarse, fine = ((ddim_invert(denoiser, x0, t, n) - exact).norm() / exact.norm() for n in (10, 40))
    assert float(fine) < max(0.5 * float(coarse), 5e-3)


@pytest.mark.parametrize("t", [100, 500, 979])
def test_inversion_then_denoising_returns_to_the_start(gaussian_denoiser: type, t: int) -> None:
    denoiser, x0 = gaussian_denoiser(1.0, 0.5), 1 + 0.5 * gaussian(16, 2)

    def round_trip_error(steps: int) -> float:
        x = ddim_invert(denoiser, x0, t, steps)
        for i in range(steps, 0, -1):  # plain DDIM on the same levels, back to the clean end
            now, below = t * i // steps, t * (i - 1) // steps
            eps_hat = denoiser.predict_eps(x, now)
            clean = denoiser.schedule.x0_from_eps(x, eps_hat, now)
            x = clean if i == 1 else denoiser.schedule.add_noise(clean, eps_hat, below)
        return float((x - x0).norm() / x0.norm())

    errors = [round_trip_error(steps) for steps in (25, 100, min(t, 400))]
    assert errors[1] < 0.3 * errors[0] and errors[2] < 0.01  # first order: four times the steps, a quarter the error


def test_each_step_is_diffusers_ddim_inverse_step(random_denoiser: type) -> None:
    from diffusers import DDIMInverseScheduler

    theirs = DDIMInverseScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=True,
    )
    theirs.set_timesteps(10)
    denoiser, x0 = random_denoiser(1), gaussian(3, 2)
    x, now = x0, 0
    for level in range(99, 1000, 100):
        x = theirs.step(denoiser.predict_eps(x, now, 2.0), level, x).prev_sample
        now = level
    assert torch.allclose(ddim_invert(denoiser, x0, 999, 10, guidance_scale=2.0), x, atol=1e-5)


def test_fresh_noise_keeps_the_noise_level(gaussian_denoiser: type) -> None:
    """On N(0, 1) data every level is N(0, 1): eta renews noise and adds none (put on top it would)."""
    denoiser, x0 = gaussian_denoiser(0.0, 1.0), gaussian(5000, 2)
    spread = [float(ddim_invert(denoiser, x0, 900, 300, eta=eta, generator=seeded(1)).std()) for eta in (0.0, 1.0)]
    assert spread[1] == pytest.approx(spread[0], abs=0.02)
    quiet, noisy = (ddim_invert(denoiser, x0, 900, 20, eta=eta, generator=seeded(1)) for eta in (0.0, 0.3))
    assert not torch.allclose(quiet, noisy, atol=0.05)


@pytest.mark.parametrize(
    "bad",
    [
        {"minority_weight": -1.0},
        {"minority_weight": math.nan},
        {"inversion_steps": -1},
        {"inversion_eta": 1.5},
    ],
)
def test_bad_arguments_are_refused_when_the_objective_is_made(bad: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(bad))):
        JSD(**bad)  # type: ignore[arg-type]


def test_inversion_refuses_what_it_cannot_do(gaussian_denoiser: type) -> None:
    for steps, eta in ((0, 0.0), (2, -0.1), (2, 1.1)):
        with pytest.raises(ValueError, match="steps >= 1 and eta"):
            ddim_invert(gaussian_denoiser(), gaussian(1, 2), 5, steps, eta=eta)
    with pytest.raises(ValueError, match=r"0 \.\.\. 999"):
        ddim_invert(gaussian_denoiser(), gaussian(1, 2), 1000, 2)


def test_sdi_refuses_as_early_as_jsd() -> None:
    with pytest.raises(ValueError, match="inversion_steps"):
        SDI(inversion_steps=0)
