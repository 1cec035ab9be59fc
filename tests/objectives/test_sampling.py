"""DDIM against diffusers and a closed form."""

from __future__ import annotations

import pytest
import torch
from diffusers import DDIMScheduler

from jsdsd.objectives import Schedule, ddim_sample

SCHEDULE = Schedule.scaled_linear()


def noise(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_the_sample_is_diffusers_ddim(random_denoiser: type) -> None:
    denoiser, x = random_denoiser(1), noise(2, 3)
    mine = ddim_sample(denoiser.predict_eps, SCHEDULE, x, 27)
    assert denoiser.calls == 27
    ddim = DDIMScheduler(
        beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, clip_sample=False, set_alpha_to_one=True
    )
    ddim.set_timesteps(27)  # steps of 1000 // 27 = 37 = 999 / 27
    for t in range(999, 0, -37):
        x = ddim.step(denoiser.predict_eps(x, t), t, x).prev_sample if t > 37 else ddim.step(
            denoiser.predict_eps(x, t), t, x
        ).pred_original_sample  # fmt: skip
    assert torch.allclose(mine, x, atol=1e-5)


def test_the_sample_of_a_gaussian_keeps_quantiles(gaussian_denoiser: type) -> None:
    """For N(m, s²) the exact flow keeps z = (x - alpha m) / sqrt(alpha² s² + sigma²) constant, and the sample is the
    posterior's mean at the lowest level, m + s z alpha s / sqrt(alpha² s² + sigma²); DDIM gets there at first order."""
    denoiser, eps, errors = gaussian_denoiser(1.0, 0.5), noise(5, 2), []
    alpha, sigma = SCHEDULE.levels(999, eps)
    z = (eps - alpha * 1.0) / (alpha**2 * 0.25 + sigma**2) ** 0.5
    for steps in (333, 999):
        alpha, sigma = SCHEDULE.levels(999 // steps, eps)
        exact = 1.0 + 0.5 * z * alpha * 0.5 / (alpha**2 * 0.25 + sigma**2) ** 0.5
        errors.append(float((ddim_sample(denoiser.predict_eps, SCHEDULE, eps, steps) - exact).abs().max()))
    assert errors[1] < 0.003 and 2.5 < errors[0] / errors[1] < 3.5


def test_steps_that_cannot_be_are_refused(random_denoiser: type) -> None:
    for steps in (0, 1001):
        with pytest.raises(ValueError, match="steps"):
            ddim_sample(random_denoiser(0).predict_eps, SCHEDULE, noise(1, 2), steps)
