"""The seed decides: an asset has a noise of its own, and a run begins with what the model makes of it.

With fresh noise at every step a scene is pulled to the mean of many samples, and every seed ends in the mode that this
mean is nearest to.  DDIM's ODE from *one* noise ends in *one* sample of the model, whatever the scene looks like:

    x_T = eps,    x1 = x0_hat(x_t),    x_t' = alpha' x1 + sigma' eps_hat(x_t)    (arXiv 2010.02502, Eq. 12 at eta 0; not
                                                                                  re-read)
The sketch is x1 half way down.  Three stages, as the run's noise level falls:

    t high      grad = (alpha/sigma) (x0 - x1) = eps_hat(x_t) - (x_t - alpha x0)/sigma      pull to the sketch
    t middle    another objective's gradient, whose fresh noise is replaced by eps          keep what was decided
    t low       the other objective's gradient with fresh noise                             details

All views of an asset share eps, so that they agree on what the prompt leaves open.  That the seed should fix an ODE
path is the idea of Diverse Score Distillation (arXiv 2412.06780; recalled, not re-read), which puts the path's noise
around x0 at every t; here x0 plays no part in the path, so that one walk serves all steps and views.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol, cast

import torch
from torch import Tensor

from .diffusion import Denoiser, Schedule, Time
from .distillation import SDS, DistillationStep, checked_x0, finite_step
from .inversion import JSD


class Sketch(NamedTuple):
    """Where the ODE is at the level t: shapes like the noise it came from."""

    t: int
    x_t: Tensor
    eps_hat: Tensor  # predicted there


@torch.no_grad()
def ddim_sketch(
    predict: Callable[[Tensor, int], Tensor], schedule: Schedule, noise: Tensor, t: int, steps: int = 24
) -> Sketch:
    """DDIM from `noise` (B, ...) at the schedule's last level down to t, in steps of 1/`steps` of the schedule.

    predict(x_t, t) -> eps_hat (B, ...), called once a level, t included: 13 times half way down 24 steps.  ValueError
    for a t outside the schedule or steps < 1.
    """
    schedule.check_t(t)
    if steps < 1:
        raise ValueError(f"steps must be >= 1, got {steps}")
    last = len(schedule) - 1
    count = max(1, round(steps * (last - t) / last)) if t < last else 0
    level, x_t = last, noise
    eps_hat = predict(x_t, level)
    for i in range(1, count + 1):
        x1 = schedule.x0_from_eps(x_t, eps_hat, level)
        level = round(last + (t - last) * i / count)
        x_t = schedule.add_noise(x1, eps_hat, level)
        eps_hat = predict(x_t, level)
    return Sketch(level, x_t, eps_hat)


class Sketcher(Protocol):
    """A denoiser that knows the noise of what it looks at: `noise` (1 or B, ...)."""

    noise: Tensor | None

    def sketch(self, t: int) -> tuple[Sketch, int]:
        """`ddim_sketch` of that noise (B, ...) down to t, and the calls of predict_eps it took: 0 when asked again."""


@dataclass(frozen=True)
class Seeded:
    """The sketch of the asset's own noise first, then `objective`, which at first has no other noise.

    objective: JSD or SDS; default JSD with one inversion step at guidance 1, which is cheap and leaves colours as they
    are.  sketch_until, noise_until, depth: fractions of the schedule, 0 ... 1.  The sketch is followed while t >=
    sketch_until, and the own noise serves while t >= noise_until: later and shapes suffer, earlier and seeds forget
    their colours (docs/evidence.md).  A sketch from further down (a lower depth) is sharper, and its views agree less.
    The denoiser must have `sketch`: the pipeline's has it, `OwnNoise` gives it to any other.  ValueError for other
    fractions, TypeError for another objective.
    """

    objective: JSD | SDS = JSD(inversion_steps=1, inversion_guidance_scale=1.0)
    sketch_until: float = 0.8
    noise_until: float = 0.4
    depth: float = 0.5

    def __post_init__(self) -> None:
        fractions = self.sketch_until, self.noise_until, self.depth
        if not all(0 <= fraction <= 1 for fraction in fractions):
            raise ValueError(f"sketch_until, noise_until and depth are fractions of the schedule, got {fractions}")
        if not isinstance(self.objective, JSD | SDS):
            raise TypeError(f"objective must be JSD() or SDS(), whose noise can be given, got {self.objective!r}")

    def gradient(
        self, denoiser: Denoiser, x0: Tensor, t: Time, generator: torch.Generator | None = None
    ) -> DistillationStep:
        """x0 (B, ...), used detached; t in the schedule.  While the sketch is followed, the record's t is its level.

        TypeError for a denoiser that has no sketch; else what the objective raises.
        """
        schedule = denoiser.schedule
        schedule.check_t(t)
        noise: Tensor | None = getattr(denoiser, "noise", None)
        if noise is None:
            raise TypeError(f"{type(denoiser).__name__} has no noise of its own: wrap it, OwnNoise(denoiser, noise)")
        fraction = int(torch.as_tensor(t).min()) / len(schedule)
        if fraction < self.sketch_until:
            own = noise.to(x0).expand_as(x0) if fraction >= self.noise_until else None
            return self.objective.gradient(denoiser, x0, t, generator, own)
        x0 = checked_x0(x0, t)
        (level, x_t, eps_hat), calls = cast(Sketcher, denoiser).sketch(round(self.depth * (len(schedule) - 1)))
        eps_ref = schedule.eps_from_x0(x_t, x0, level)
        x1 = schedule.x0_from_eps(x_t, eps_hat, level)
        return finite_step(DistillationStep(eps_hat - eps_ref, level, x_t, eps_hat, eps_ref, (x1,), None, calls))


class OwnNoise:
    """`denoiser` for points that each have their noise: row after row of noise (B, ...) belongs to that of x0 (B, ...).

    In the sandbox, with `Seeded`, every particle begins at the sample that the ODE makes of its noise.
    """

    def __init__(self, denoiser: Denoiser, noise: Tensor):
        self.schedule, self.guidance_scale = denoiser.schedule, denoiser.guidance_scale
        self.denoiser, self.noise = denoiser, noise
        self._sketches: dict[int, Sketch] = {}

    def predict_eps(self, x_t: Tensor, t: Time, guidance_scale: float | None = None) -> Tensor:
        return self.denoiser.predict_eps(x_t, t, guidance_scale)

    def sketch(self, t: int) -> tuple[Sketch, int]:
        calls = 0

        def predict(x_t: Tensor, level: int) -> Tensor:
            nonlocal calls
            calls += 1
            return self.predict_eps(x_t, level)

        if t not in self._sketches:
            self._sketches[t] = ddim_sketch(predict, self.schedule, self.noise, t)
        return self._sketches[t], calls
