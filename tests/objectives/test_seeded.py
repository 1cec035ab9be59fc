"""The sketch against diffusers and a closed form; the objective against its two parts."""

from __future__ import annotations

import pytest
import torch
from diffusers import DDIMScheduler
from hypothesis import example, given
from hypothesis import strategies as st

from jsdsd.objectives import JSD, SDI, SDS, Anneal, OwnNoise, Schedule, Seeded, ddim_sketch
from jsdsd.sandbox import fit_particles, mode_divergence, off_centre

SCHEDULE = Schedule.scaled_linear()


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("level", [999, 962, 999 - 13 * 37, 37])
def test_the_sketch_is_diffusers_ddim(random_denoiser: type, level: int) -> None:
    denoiser, x = random_denoiser(1), noise(2, 3)
    sketch = ddim_sketch(denoiser.predict_eps, SCHEDULE, x, level, steps=27)
    calls, denoiser.calls = denoiser.calls, 0
    ddim = DDIMScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, clip_sample=False)
    ddim.set_timesteps(27)  # steps of 1000 // 27 = 37 = 999 / 27
    for t in range(999, level, -37):
        x = ddim.step(denoiser.predict_eps(x, t), t, x).prev_sample
    assert sketch.t == level and torch.allclose(sketch.x_t, x, atol=1e-5)
    assert torch.equal(sketch.eps_hat, denoiser.predict_eps(sketch.x_t, level)) and calls == denoiser.calls


def test_the_path_of_a_gaussian_carries_quantiles(gaussian_denoiser: type) -> None:
    """For N(m, s²) the exact flow keeps (x - alpha m) / sqrt(alpha² s² + sigma²) constant; DDIM does so at first
    order in its step."""
    denoiser, eps, errors = gaussian_denoiser(1.0, 0.5), noise(5, 2), []
    for steps in (333, 999):
        ends = []
        for t in (999, 99):
            _, x_t, _ = ddim_sketch(denoiser.predict_eps, SCHEDULE, eps, t, steps)
            alpha, sigma = SCHEDULE.levels(t, x_t)
            ends.append((x_t - alpha * 1.0) / (alpha**2 * 0.25 + sigma**2) ** 0.5)
        errors.append(float((ends[1] - ends[0]).abs().max()))
    assert errors[1] < 0.003 and 2.7 < errors[0] / errors[1] < 3.3


@given(st.integers(0, 10**6), st.integers(0, 999), *[st.floats(0, 1)] * 3)
@example(0, 0, 1e-169, 1e-169, 0.5)  # compared in float32, it was 0
@example(0, 999, 1.0, 0.0, 1.0)
def test_three_stages(random_denoiser: type, seed: int, t: int, first: float, second: float, depth: float) -> None:
    """The pull to the sketch, then the other objective with the own noise, then with fresh noise."""
    plain, own, x0 = random_denoiser(seed), noise(3, 2, seed=seed), noise(3, 2, seed=seed + 1)
    denoiser, inner = OwnNoise(plain, own), JSD()
    seeded = Seeded(inner, first, second, depth)
    record = seeded.gradient(denoiser, x0, t, generator(seed))
    assert record.unet_calls == plain.calls
    if t / 1000 < first:
        given_noise = own if t / 1000 >= second else None
        expected = inner.gradient(denoiser, x0, t, generator(seed), noise=given_noise)
        assert torch.equal(record.grad, expected.grad)
        return
    level = round(999 * depth)
    x_t, eps_hat = ddim_sketch(plain.predict_eps, SCHEDULE, own, level)[1:]
    alpha, sigma = SCHEDULE.levels(level, x0)
    x1 = (x_t - sigma * eps_hat) / alpha
    assert record.t == level and torch.allclose(record.grad, alpha / sigma * (x0 - x1), rtol=1e-9, atol=1e-9)
    assert torch.equal(record.targets[0], x1) and torch.equal(record.x_t, x_t)
    again = seeded.gradient(denoiser, x0, t)
    assert torch.equal(again.grad, record.grad) and again.unet_calls == 0


def test_one_noise_serves_all_rows(random_denoiser: type) -> None:
    """The views of an asset: noise (1, ...) for x0 (B, ...)."""
    own, x0 = noise(1, 2), noise(3, 2, seed=1)
    one, each = (OwnNoise(random_denoiser(0), eps) for eps in (own, own.expand(3, 2).clone()))
    for t in (900, 600):
        expected = Seeded().gradient(each, x0, t, generator(0)).grad
        assert torch.allclose(Seeded().gradient(one, x0, t, generator(0)).grad, expected, atol=1e-12)


def test_every_particle_begins_at_the_sample_of_its_noise() -> None:
    """off_centre: the ODE's own samples lie in all modes; SDS alone sends all particles to the one in the middle."""
    target, found = off_centre(), {}
    for name, objective in (("alone", SDS()), ("seeded", Seeded(SDS(), 0.3, 0.3, depth=0.2))):
        denoiser = OwnNoise(target, noise(128, 2).float())
        found[name] = fit_particles(denoiser, objective, 128, 400, times=Anneal())
    assert mode_divergence(found["alone"], target) > 0.25 and mode_divergence(found["seeded"], target) < 0.02


def test_what_cannot_work_is_refused_in_words(random_denoiser: type) -> None:
    denoiser, x0 = random_denoiser(0), noise(2, 2)
    for t in (900, 100, torch.tensor([900, 950])):
        with pytest.raises(TypeError, match="OwnNoise"):
            Seeded().gradient(denoiser, x0, t)
    for wrong in ({"sketch_until": 1.5}, {"noise_until": float("nan")}, {"depth": -0.1}):
        with pytest.raises(ValueError, match="fractions"):
            Seeded(**wrong)
    for objective in (JSD, SDI(), None):
        with pytest.raises(TypeError, match="noise can be given"):
            Seeded(objective)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="t must lie"):
        Seeded().gradient(OwnNoise(denoiser, x0), x0, 1000)
    with pytest.raises(ValueError, match="t must lie"):
        ddim_sketch(denoiser.predict_eps, SCHEDULE, x0, 1000)
    with pytest.raises(ValueError, match="steps"):
        ddim_sketch(denoiser.predict_eps, SCHEDULE, x0, 500, steps=0)
    with pytest.raises(FloatingPointError):
        Seeded().gradient(OwnNoise(denoiser, x0), x0 * float("nan"), 900)
