"""The ODE path against diffusers and a closed form; the objective against its two parts."""

from __future__ import annotations

import pytest
import torch
from diffusers import DDIMScheduler
from hypothesis import example, given
from hypothesis import strategies as st

from jsdsd.objectives import JSD, SDS, Anneal, OdePath, OwnNoise, Schedule, Seeded
from jsdsd.sandbox import fit_particles, mode_divergence, off_centre

SCHEDULE = Schedule.scaled_linear()


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_the_path_is_diffusers_ddim(random_denoiser: type) -> None:
    denoiser, eps = random_denoiser(1), noise(2, 3)
    path = OdePath(denoiser.predict_eps, SCHEDULE, eps, steps=27)
    ddim = DDIMScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, clip_sample=False)
    ddim.set_timesteps(27)  # steps of 1000 // 27 = 37 = 999 / 27
    x = eps
    for level in range(999, 0, -37):
        t, x_t, eps_hat = path.at(level)
        assert t == level and torch.allclose(x_t, x, atol=1e-5) and torch.equal(eps_hat, denoiser.predict_eps(x_t, t))
        x = ddim.step(denoiser.predict_eps(x, level), level, x).prev_sample
    assert len(path.points) == 27 == len(path.levels)


def test_the_path_of_a_gaussian_carries_quantiles(gaussian_denoiser: type) -> None:
    """For N(m, s²) the exact flow keeps (x - alpha m) / sqrt(alpha² s² + sigma²) constant; DDIM does so at first
    order in its step."""
    denoiser, eps, errors = gaussian_denoiser(1.0, 0.5), noise(5, 2), []
    for steps in (333, 999):
        path, ends = OdePath(denoiser.predict_eps, SCHEDULE, eps, steps), []
        for t in (999, 99):
            level, x_t, _ = path.at(t)
            alpha, sigma = SCHEDULE.levels(level, x_t)
            ends.append((x_t - alpha * 1.0) / (alpha**2 * 0.25 + sigma**2) ** 0.5)
        errors.append(float((ends[1] - ends[0]).abs().max()))
    assert errors[1] < 0.003 and 2.7 < errors[0] / errors[1] < 3.3


@given(st.integers(0, 10**6), st.integers(1, 40), st.lists(st.integers(0, 999), min_size=1, max_size=4))
def test_a_path_is_walked_once_and_does_not_mind_the_order(
    random_denoiser: type, seed: int, steps: int, asked: list[int]
) -> None:
    denoiser = random_denoiser(seed)
    path = OdePath(denoiser.predict_eps, SCHEDULE, noise(2, 2, seed=seed), steps)
    for t in asked:
        level, x_t, eps_hat = path.at(t)
        assert level == min(it for it in path.levels if it >= t) and level <= t + 999 / steps + 1
        fresh = OdePath(denoiser.predict_eps, SCHEDULE, noise(2, 2, seed=seed), steps).at(t)
        assert torch.equal(x_t, fresh.x_t) and torch.equal(eps_hat, fresh.eps_hat)
    own = len(path.points)
    assert own == sum(level >= min(asked) for level in path.levels[: own + 1])


@given(st.integers(0, 10**6), st.integers(0, 999), st.floats(0, 1))
@example(0, 0, 1e-169)  # compared in float32, it was 0
def test_above_it_pulls_to_the_path_and_below_it_is_the_other(
    random_denoiser: type, seed: int, t: int, until: float
) -> None:
    plain = random_denoiser(seed)
    denoiser = OwnNoise(plain, noise(3, 2, seed=seed))
    x0 = noise(3, 2, seed=seed + 1)
    record = Seeded(JSD(), until).gradient(denoiser, x0, t, generator(seed))
    if t < until * 1000:
        assert torch.equal(record.grad, JSD().gradient(denoiser, x0, t, generator(seed)).grad)
        assert record.unet_calls == 4
        return
    assert record.unet_calls == plain.calls
    (level, x_t, eps_hat), again = denoiser.path_at(t)
    alpha, sigma = SCHEDULE.levels(level, x0)
    x1 = (x_t - sigma * eps_hat) / alpha
    assert record.t == level and again == 0 and plain.calls == record.unet_calls
    assert torch.allclose(record.grad, alpha / sigma * (x0 - x1), rtol=1e-9, atol=1e-9)
    assert torch.allclose(record.targets[0], x1) and torch.equal(record.x_t, x_t)


def test_every_particle_goes_to_the_sample_of_its_noise() -> None:
    """off_centre: the ODE's own samples are the target's; SDS alone sends all particles to one mode."""
    target = off_centre()
    denoiser = OwnNoise(target, noise(128, 2).float())
    alone = fit_particles(target, SDS(), 128, 400, times=Anneal())
    first = fit_particles(denoiser, Seeded(SDS(), 0.2), 128, 400, times=Anneal())
    assert mode_divergence(alone, target) > 0.25 and mode_divergence(first, target) < 0.02
    path = OdePath(target.predict_eps, target.schedule, noise(128, 2).float(), 24)
    t, x_t, eps_hat = path.at(200)
    assert (first - target.schedule.x0_from_eps(x_t, eps_hat, t)).norm(dim=1).median() < 1


def test_what_cannot_work_is_refused_in_words(random_denoiser: type) -> None:
    denoiser, x0 = random_denoiser(0), noise(2, 2)
    with pytest.raises(TypeError, match="OwnNoise"):
        Seeded().gradient(denoiser, x0, 900)
    with pytest.raises(TypeError, match="must be an int"):
        Seeded().gradient(OwnNoise(denoiser, x0), x0, torch.tensor([900, 900]))
    with pytest.raises(ValueError, match="until"):
        Seeded(until=1.5)
    with pytest.raises(TypeError, match="object like"):
        Seeded(JSD)  # type: ignore[arg-type]
    for steps in (0, 1000):
        with pytest.raises(ValueError, match="steps must lie"):
            OdePath(denoiser.predict_eps, SCHEDULE, x0, steps)
    with pytest.raises(ValueError, match="t must lie"):
        OdePath(denoiser.predict_eps, SCHEDULE, x0).at(1000)
