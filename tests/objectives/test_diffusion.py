"""The forward process: against diffusers, and against itself."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from jsdsd.objectives import Denoiser, Schedule, guide
from jsdsd.objectives.diffusion import randn_like

SCHEDULE = Schedule.scaled_linear()
LEVELS = st.integers(0, 999)


def gaussian(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_signal_and_noise_power_sum_to_one_at_every_level() -> None:
    t = torch.arange(1000)
    total = torch.as_tensor(SCHEDULE.alpha(t)) ** 2 + torch.as_tensor(SCHEDULE.sigma(t)) ** 2
    assert torch.allclose(total, torch.ones(1000, dtype=torch.float64), atol=1e-15)


def test_it_is_diffusers_schedule_and_forward_process() -> None:
    from diffusers import DDIMScheduler

    theirs = DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False)
    ours = Schedule.from_scheduler(theirs)
    assert torch.allclose(ours.alphas_cumprod, SCHEDULE.alphas_cumprod, rtol=1e-4)  # theirs is float32
    x0, eps, t = gaussian(4, 3, 5).float(), gaussian(4, 3, 5, seed=1).float(), torch.tensor([0, 10, 500, 999])
    x_t = ours.add_noise(x0, eps, t)
    assert torch.allclose(x_t, theirs.add_noise(x0, eps, t), atol=1e-6)
    theirs.set_timesteps(1000)
    for i, level in enumerate(t.tolist()):
        guess = theirs.step(eps[i : i + 1], level, x_t[i : i + 1]).pred_original_sample
        assert torch.allclose(ours.x0_from_eps(x_t[i : i + 1], eps[i : i + 1], level), guess, atol=2e-5)


@given(LEVELS, st.integers(0, 10**6))
def test_conversions_are_inverses(t: int, seed: int) -> None:
    x0, eps = gaussian(3, 2, seed=seed), gaussian(3, 2, seed=seed + 1)
    x_t = SCHEDULE.add_noise(x0, eps, t)
    assert torch.allclose(SCHEDULE.x0_from_eps(x_t, eps, t), x0, atol=1e-12)
    assert torch.allclose(SCHEDULE.eps_from_x0(x_t, x0, t), eps, atol=1e-12)
    assert torch.allclose(SCHEDULE.eps_from_score(SCHEDULE.score_from_eps(eps, t), t), eps, atol=1e-12)
    alpha, sigma = SCHEDULE.levels(t, x0)
    assert torch.allclose(SCHEDULE.eps_from_v(x_t, alpha * eps - sigma * x0, t), eps, atol=1e-12)


def test_one_t_per_sample_is_a_loop_over_samples() -> None:
    x0, eps, t = gaussian(3, 4, 2, 2), gaussian(3, 4, 2, 2, seed=1), torch.tensor([0, 400, 999])
    together = SCHEDULE.add_noise(x0, eps, t)
    alone = [SCHEDULE.add_noise(x0[i : i + 1], eps[i : i + 1], int(t[i])) for i in range(3)]
    assert torch.equal(together, torch.cat(alone))


def test_guidance_scale_one_is_none_and_zero_is_unconditional() -> None:
    eps_0, eps_y = gaussian(2, 3), gaussian(2, 3, seed=1)
    assert torch.allclose(guide(eps_0, eps_y, 1.0), eps_y, atol=1e-15)
    assert torch.equal(guide(eps_0, eps_y, 0.0), eps_0)
    assert torch.allclose(guide(eps_0, eps_y, 3.0) - eps_y, 2 * (eps_y - eps_0), atol=1e-14)


def test_noise_depends_on_the_generator_alone() -> None:
    x = torch.zeros(3, 2)
    draws = [randn_like(x, torch.Generator().manual_seed(seed)) for seed in (5, 5, 6)]
    assert torch.equal(draws[0], draws[1]) and not torch.equal(draws[0], draws[2])
    assert randn_like(x.double(), None).dtype == torch.float64


def test_a_denoiser_is_known_by_its_form(gaussian_denoiser: type) -> None:
    assert isinstance(gaussian_denoiser(), Denoiser) and not isinstance(SCHEDULE, Denoiser)


@pytest.mark.parametrize(
    ("table", "words"),
    [
        (torch.ones(3, 3) / 2, "shape"),
        (torch.tensor([0.9]), "T >= 2"),
        (torch.tensor([0.9, 0.0]), "strictly between"),
        (torch.tensor([1.0, 0.5]), "strictly between"),
        (torch.tensor([0.9, float("nan")]), "strictly between"),
        (torch.tensor([0.1, 0.9]), "reversed"),
    ],
)
def test_bad_tables_are_refused(table: torch.Tensor, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Schedule(table)


@pytest.mark.parametrize("t", [-1, 1000, torch.tensor([0, 1000]), torch.tensor([-3, 5])])
def test_t_outside_the_schedule_is_refused(t: int | torch.Tensor) -> None:
    with pytest.raises(ValueError, match=r"0 \.\.\. 999"):
        SCHEDULE.alpha(t)


@pytest.mark.parametrize("t", [0.5, True, torch.tensor([0.5]), torch.tensor([[1, 2]]), "10"])
def test_t_of_the_wrong_kind_is_refused(t: object) -> None:
    with pytest.raises(TypeError, match="t must be"):
        SCHEDULE.sigma(t)  # type: ignore[arg-type]


def test_as_many_t_as_samples() -> None:
    with pytest.raises(ValueError, match="one t per sample needs 3"):
        SCHEDULE.add_noise(gaussian(3, 2), gaussian(3, 2), torch.tensor([1, 2]))


def test_schedule_without_a_table_or_with_bad_betas() -> None:
    with pytest.raises(ValueError, match="no alphas_cumprod"):
        Schedule.from_scheduler(object())
    with pytest.raises(ValueError, match="beta_start"):
        Schedule.scaled_linear(beta_start=0.5, beta_end=0.1)
