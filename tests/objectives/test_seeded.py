"""The objective against the one it wraps: the same gradient, from a denoiser that leans as the noise level says."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from jsdsd.objectives import JSD, SDI, SDS, Schedule, Seeded
from jsdsd.objectives.diffusion import Time

SCHEDULE = Schedule.scaled_linear()


@dataclass
class Leaning:
    """A denoiser whose prediction tells its weight; learning takes 7 calls."""

    schedule: Schedule = SCHEDULE
    guidance_scale: float = 3.0
    weights: list[float] = field(default_factory=list)

    def lean(self, weight: float) -> int:
        self.weights.append(weight)
        return 7 if len(self.weights) == 1 else 0

    def predict_eps(self, x_t: torch.Tensor, t: Time, guidance_scale: float | None = None) -> torch.Tensor:
        return x_t.sin() + (self.weights[-1] if self.weights else 0.0)


class Leant(Leaning):
    """Without `lean`: always at one weight."""

    lean = None  # type: ignore[assignment]


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@given(st.integers(0, 10**6), st.integers(0, 999), st.floats(0, 1), st.sampled_from([SDS(), SDI(), JSD()]))
@example(0, 0, 1e-300, SDS())
@example(0, 0, 0.0, SDS())
@example(0, 999, 1.0, JSD())
def test_the_gradient_is_the_objectives_own(seed: int, t: int, fade: float, objective: SDS | SDI | JSD) -> None:
    x0 = torch.randn(2, 3, generator=generator(seed), dtype=torch.float64)
    denoiser = Leaning()
    step = Seeded(objective, fade).gradient(denoiser, x0, t, generator(seed))
    weight = 1.0 if t / 1000 >= fade else t / 1000 / fade
    assert denoiser.weights == [pytest.approx(weight, rel=1e-12)]
    expected = objective.gradient(Leant(weights=denoiser.weights), x0, t, generator(seed))
    assert torch.equal(step.grad, expected.grad) and step.unet_calls == expected.unet_calls + 7
    assert Seeded(objective, fade).gradient(denoiser, x0, t).unet_calls == expected.unet_calls


def test_the_words_fade_over_a_run() -> None:
    weights = [Seeded().weight(t, SCHEDULE) for t in (979, 500, 250, 0)]
    assert weights == [1.0, 1.0, 0.5, 0.0]
    assert [Seeded(fade=0.0).weight(t, SCHEDULE) for t in (979, 0)] == [1.0, 1.0]
    assert Seeded().weight(torch.tensor([900, 100]), SCHEDULE) == pytest.approx(0.2)


def test_what_cannot_work_is_refused_in_words(random_denoiser: type) -> None:
    denoiser, x0 = random_denoiser(0), torch.zeros(2, 2)
    with pytest.raises(TypeError, match="words of its own"):
        Seeded().gradient(denoiser, x0, 500)
    for fade in (1.5, -0.1, float("nan")):
        with pytest.raises(ValueError, match="fraction"):
            Seeded(fade=fade)
    for objective in (JSD, Seeded(), None):
        with pytest.raises(TypeError, match="objective must be"):
            Seeded(objective)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="t must lie"):
        Seeded().gradient(Leaning(), x0, 1000)
    with pytest.raises(FloatingPointError):
        Seeded().gradient(Leaning(), x0 * float("nan"), 900)
