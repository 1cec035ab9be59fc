"""`Recipe`: the loop's own numbers, one set for toys and one for large models, each with its reason.

What a run decides by itself (steps, views, sizes, seed) is not here.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..objectives.distillation import Anneal, Times

Points = tuple[tuple[float, float], ...]  # (share of the run that is done, value), with straight lines between


@dataclass(frozen=True)
class Recipe:
    """times: the rule for the noise level.
    density_rates, colour_rates: Adam's, logits per step.  Toys: a surface sharpens only at a high rate, but at one from
    the start a scene of fog can fill its box.  Large: falling to a tenth, against the noise's walk in a long run.
    solid, smooth: weights of the penalties (penalties.py), shares of the guidance's gradient; both grow linearly from 0
    over the run, so that a body may form in fog and must end solid.  smooth: total variation of colour logits;
    smooth_density: of density logits.  empty: weight of sqrt(o² + 0.01), falling to 0, for a backdrop of fog.
    """

    times: Times = Anneal(power=2)
    density_rates: Points = ((0.0, 0.1), (0.4, 0.5), (1.0, 0.5))
    colour_rates: Points = ((0.0, 0.03), (1.0, 0.03))
    solid: float = 2.0
    smooth: float = 0.015
    smooth_density: float = 0.0
    empty: float = 0.0


TOY = Recipe()  # measured: docs/toybox.md
# From precedents, unseen here: t as SDI and the paper's code (0.98 -> 0.25), the rates' fall as Latent-NeRF, sparsity
# as threestudio's (0.15 -> 0; there of a loss, here a share).
LARGE = Recipe(
    times=Anneal(0.98, 0.25), density_rates=((0.0, 0.1), (1.0, 0.01)), colour_rates=((0.0, 0.03), (1.0, 0.003)),
    smooth_density=0.005, empty=0.15,
)  # fmt: skip


def between(points: Points, done: float) -> float:
    """The value at the share `done` of the run, on straight lines between `points`."""
    for (x0, y0), (x1, y1) in zip(points, points[1:], strict=False):
        if done <= x1:
            return y0 + (y1 - y0) * (done - x0) / (x1 - x0)
    return points[-1][1]
