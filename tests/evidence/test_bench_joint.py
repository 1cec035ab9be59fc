"""The joint ensemble: alone it is SDS, together it is one ensemble per view; the noise rule and the fixed noise."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor

import jsdsd
from benchmarks.evidence.jobs import RESOLUTION, SIZE, VIEWS_PER_STEP, Job, perform
from benchmarks.evidence.joint import PerView, discriminators, optimise_jointly
from benchmarks.evidence.settings import FixedNoise
from jsdsd.objectives import JSD, SDS, Anneal, Ensemble, ReverseKL, Schedule, UniformTime
from jsdsd.optimise import optimise
from jsdsd.sdxl.guidance import Guidance


@dataclass
class Words:
    """A denoiser that answers to the word it looks at, and notes what it was shown."""

    schedule: Schedule = field(default_factory=Schedule.scaled_linear)
    guidance_scale: float = 1.0
    index: list[int] = field(default_factory=list)

    def look(self, index: list[int]) -> None:
        self.index = index

    def predict_eps(self, x_t: Tensor, t: int, guidance_scale: float | None = None) -> Tensor:
        word = torch.tensor(self.index, dtype=x_t.dtype).view(-1, *[1] * (x_t.ndim - 1))
        return 0.5 * x_t + word


def test_n_assets_and_b_views_are_one_ensemble_per_view() -> None:
    x0 = torch.randn(3 * 2, 4, 2, 2)
    joint = PerView([Ensemble(ReverseKL())] * 5)
    joint.look([4, 1])
    step = joint.gradient(Words(), x0, 700, torch.Generator().manual_seed(0))  # type: ignore[arg-type]
    generator = torch.Generator().manual_seed(0)
    for b, word in enumerate((4, 1)):
        alone = Ensemble(ReverseKL()).gradient(Words(index=[word] * 3), x0[b::2], 700, generator)
        assert torch.equal(step.grad[b::2], alone.grad) and torch.equal(step.x_t[b::2], alone.x_t)
    assert step.unet_calls == 1


def test_an_ensemble_of_one_has_the_gradient_of_sds() -> None:
    x0, denoiser = torch.randn(2, 4, 3, 3), Words()
    joint = PerView([Ensemble(ReverseKL())] * 3)
    joint.look([2, 0])
    step = joint.gradient(denoiser, x0, 400, torch.Generator().manual_seed(1))  # type: ignore[arg-type]
    eps = (step.x_t - denoiser.schedule.alpha(400) * x0) / denoiser.schedule.sigma(400)
    denoiser.look([2, 0])
    assert torch.allclose(step.grad, SDS().gradient(denoiser, x0, 400, noise=eps).grad, atol=1e-5)


def test_each_word_has_a_discriminator_of_its_own() -> None:
    latents = torch.stack([torch.full((6, 4, 2, 2), float(w)) for w in range(3)])
    ensembles = discriminators(Ensemble(ReverseKL()), latents, seed=0)
    draws = [e.log_odds.sample_target(5, torch.Generator().manual_seed(0)) for e in ensembles]  # type: ignore[union-attr]
    assert [draw.unique().tolist() for draw in draws] == [[0.0], [1.0], [2.0]]
    assert len({id(e.log_odds) for e in ensembles}) == 3


@pytest.mark.usefixtures("one_thread")
def test_a_joint_run_of_one_is_an_sds_run() -> None:
    """Same start, cameras, noise, rates and regularisation: the same grid, up to rounding."""
    guidance = Guidance.load("toybox")
    sizes = {"steps": 3, "views_per_step": VIEWS_PER_STEP, "resolution": 16, "guidance_scale": 3.0}
    for step in optimise(guidance, "a blue car", SDS(), seed=5, sizes=[SIZE], times=Anneal(), **sizes):  # type: ignore[arg-type]
        alone = step.grid
    ensembles = [Ensemble(ReverseKL())] * len(guidance.all_views()[0])
    run = optimise_jointly(guidance, "a blue car", ensembles, seeds=[5], size=SIZE, times=Anneal(), **sizes)  # type: ignore[arg-type]
    for grids, _ in run:
        together = grids[0]
    for a, b in zip(alone.levels, together.levels, strict=True):
        assert (a - b).abs().mean() < 1e-3 * a.abs().mean() + 1e-6  # Adam turns rounding of tiny gradients into steps


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize(("setting", "objective"), [("jsd_k1", "jsd"), ("seeded", None)])
def test_a_setting_is_what_generate_makes(tmp_path, setting: str, objective: str | None) -> None:  # type: ignore[no-untyped-def]
    job = Job("a blue car", setting, 3.0, (2,), share=0.02)
    perform(job, tmp_path)
    mine = jsdsd.Asset.load(job.assets(tmp_path)[0])
    theirs = jsdsd.generate("a blue car", objective=objective, seed=2, steps=2, progress=False)
    assert mine.grid.resolution == RESOLUTION
    assert all(torch.equal(a, b) for a, b in zip(mine.grid.levels, theirs.grid.levels, strict=True))  # type: ignore[union-attr]


def test_random_times_are_random_and_repeat_with_the_seed() -> None:
    guidance = Guidance.load("toybox")
    sizes = {"steps": 3, "views_per_step": 1, "resolution": 8, "sizes": [16]}

    def levels(seed: int, **more: object) -> list[object]:
        run = optimise(guidance, "a blue car", SDS(), seed=seed, **sizes, **more)  # type: ignore[arg-type]
        return [step.record.t for step in run]

    assert levels(0, times=UniformTime()) == levels(0, times=UniformTime()) != levels(1, times=UniformTime())
    assert levels(0) == levels(1) == levels(0, times=Anneal(power=2)) == [979, 260, 20]


@pytest.mark.parametrize("objective", [SDS(), JSD(inversion_eta=0.0)])
def test_one_noise_is_the_same_in_all_views_and_steps(objective: SDS | JSD) -> None:
    fixed, denoiser = FixedNoise(objective), Words(index=[0, 0])
    x0 = torch.randn(1, 4, 2, 2).expand(2, -1, -1, -1).contiguous()
    generator = torch.Generator().manual_seed(0)
    first, second = (fixed.gradient(denoiser, x0, 500, generator) for _ in range(2))
    assert torch.equal(first.grad[0], first.grad[1]) and torch.equal(first.grad, second.grad)
    other = FixedNoise(objective).gradient(denoiser, x0, 500, generator)
    assert not torch.equal(first.grad, other.grad)
