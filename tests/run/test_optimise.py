"""Whole runs of a few steps: what the guidance's scale and the renders' size may change, and what ends a run."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch

from jsdsd import optimise
from jsdsd.objectives import JSD
from jsdsd.objectives.distillation import DistillationStep
from jsdsd.scene.renderer import Render
from jsdsd.scene.voxels import VoxelGrid
from jsdsd.sdxl.guidance import Guidance

RUN: dict[str, Any] = {"seed": 0, "steps": 6, "views_per_step": 2, "resolution": 16, "sizes": (48,)}


@pytest.fixture(scope="module")
def guidance() -> Guidance:
    return Guidance.load("toybox")


@dataclass(frozen=True)
class Scaled:
    """An objective whose gradient is `factor` times JSD's."""

    factor: float

    def gradient(self, *args: Any, **options: Any) -> DistillationStep:
        step = JSD(inversion_steps=0).gradient(*args, **options)
        return replace(step, grad=self.factor * step.grad)


def made(guidance: Guidance, factor: float) -> Render:
    """The last step's renders."""
    *_, last = optimise.optimise(guidance, "a red mushroom", Scaled(factor), **RUN)
    return last.render


def test_a_run_does_not_know_the_guidances_scale(guidance: Guidance) -> None:
    """Adam cancels the factor, and the penalties go with the guidance; Adam's epsilon, beside the gradients of what is
    empty, leaves a few millionths.  With penalties of a fixed size opacity differs by .029 and .0029."""
    plain, weak, strong = (made(guidance, factor) for factor in (1, 1 / 32, 4))
    for other in (weak, strong):
        assert (other.opacity - plain.opacity).abs().mean() < 1e-4 and (other.rgb - plain.rgb).abs().mean() < 1e-4


def test_renders_of_two_sizes_and_a_grid_of_48(guidance: Guidance) -> None:
    settings = {**RUN, "steps": 4, "views_per_step": 1, "resolution": 48, "sizes": (48, 96)}
    steps = list(optimise.optimise(guidance, "a red mushroom", Scaled(1), **settings))
    assert [s.render.rgb.shape[1] for s in steps] == [48, 48, 96, 96] and steps[-1].grid.resolution == 48
    assert all(s.record.grad_norm > 0 for s in steps)


def test_a_run_that_fills_its_box_ends_in_words(guidance: Guidance, monkeypatch: pytest.MonkeyPatch) -> None:
    full = VoxelGrid.from_fields(torch.full((16, 16, 16), 40.0), torch.full((3, 16, 16, 16), 0.5))
    monkeypatch.setattr(optimise, "start", lambda resolution, generator: full)
    steps = optimise.optimise(guidance, "a red mushroom", Scaled(1), **RUN)
    seen: list[int] = []
    with pytest.raises(FloatingPointError, match=r"fills its box at step 3 \(mean opacity"):
        seen.extend(step.record.step for step in steps)
    assert seen == [0, 1, 2]  # fog in the first third is let be
