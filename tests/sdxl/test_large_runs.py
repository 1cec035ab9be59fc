"""Runs of large models, on the miniature: the penalties' balance and the recipe that goes with a model's size."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from jsdsd.objectives import SDS
from jsdsd.optimise import optimise
from jsdsd.sdxl.guidance import Guidance
from jsdsd.sdxl.numerics import Numerics
from jsdsd.sdxl.recipe import LARGE, TOY

sys.path.insert(0, str(Path(__file__).parent))  # the miniature lies beside this file
import miniature


class Scaled(SDS):
    """SDS whose gradient is larger by a factor that Adam does not see."""

    factor = 1.0

    def gradient(self, *args: object, **rest: object) -> object:  # type: ignore[override]
        step = super().gradient(*args, **rest)  # type: ignore[arg-type]
        return replace(step, grad=self.factor * step.grad)


def share(model: Any, size: int, factor: float, limit: float | None = None) -> float:
    """|gradient of density with the recipe's sparsity - without| / |without|, in the first step of a run."""
    found = []
    for empty in (1.0, 0.0):
        guidance, objective = Guidance(model, numerics=Numerics(pixel_gradient_limit=limit)), Scaled()
        objective.factor = factor
        recipe = replace(LARGE, empty=empty)
        run: dict[str, Any] = {"seed": 0, "steps": 1, "views_per_step": 2, "resolution": 16, "recipe": recipe}
        (last,) = optimise(guidance, "a red mug", objective, sizes=(size,), **run)
        found.append(torch.cat([x.grad.flatten() for x in last.scene.density_levels]))  # type: ignore[union-attr]
    return float((found[0] - found[1]).norm() / found[1].norm())


def test_the_penalties_share_does_not_know_the_guidances_scale() -> None:
    model = miniature.pipeline()
    usual = share(model, 32, 1.0)
    assert usual > 0.1
    for factor in (0.03, 0.25, 4.0):
        assert share(model, 32, factor) == pytest.approx(usual, rel=1e-3)


def test_nor_a_trained_models_render_size_or_pixel_limit() -> None:
    """Of a fixed size, the share would be 16 times as large at four times the side, and 50 times under the limit.  (A
    random VAE's gradients do not add up over pixels, so the miniature cannot say this.)"""
    model = Guidance.load("toybox").pipe
    usual = share(model, 48, 1.0)
    for size in (24, 96):
        assert share(model, size, 1.0) == pytest.approx(usual, rel=0.1)
    for limit in (0.1, 0.02):  # which also turns the guidance's gradient: 1.5 and 2.1 times
        assert 0.5 * usual < share(model, 48, 1.0, limit) < 2.5 * usual


def test_a_models_size_chooses_its_recipe() -> None:
    assert Guidance(miniature.pipeline(sample_size=32)).recipe is LARGE
    assert Guidance(miniature.pipeline()).recipe is Guidance.load("toybox").recipe is TOY
