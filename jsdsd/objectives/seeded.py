"""The seed decides: an asset gets words of its own for what its prompt leaves open.

With fresh noise at every step a scene is pulled to the mean of many samples, and every seed ends in the mode that this
mean is nearest to.  So the seed first draws *one* sample of the model, and learns what to add to the prompt's embedding
e so that the words mean this sample (jsdsd/sdxl/own_words.py).  The run then asks for

    e + min(1, t / fade) delta,        t as a fraction of the schedule

all of delta while the noise is high, where what is open is decided, and less and less below, where the prompt's own
words know best what things look like.

Words learned from a picture are textual inversion (arXiv 2208.01618, not re-read); that each 3D asset of a prompt may
have its own, learned from a sample of the model, is DiverseDream's idea (arXiv 2312.02192; recalled, not re-read).  To
learn them at high noise only, in the prompt's places only, and to let them fade is this library's (docs/evidence.md).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol, cast

import torch
from torch import Tensor

from .diffusion import Denoiser, Schedule, Time
from .distillation import SDS, DistillationStep
from .jsd import JSD, SDI


class Leaning(Protocol):
    """A denoiser with words of its own."""

    def lean(self, weight: float) -> int:
        """From now on ask for e + weight delta, weight 0 ... 1; returns the U-Net calls that learning delta took, 0
        once it is known."""


@dataclass(frozen=True)
class Seeded:
    """`objective`, asked with the asset's own words, which fade as the noise level falls.

    objective: default JSD without inversion, two U-Net calls a step, whose shapes and colours are no worse than with it
    (docs/evidence.md); any other of SDS, SDI and JSD.  fade: the fraction of the schedule below which the own words
    fade, 0 (never) ... 1; at 0.5 "a toy" keeps its kind and its colour, at 0.7 both are lost (docs/evidence.md).  The
    denoiser must have `lean`: the pipeline's has it.  ValueError for another fraction, TypeError for another objective.
    """

    objective: SDS | SDI | JSD = JSD(inversion_steps=0)
    fade: float = 0.5

    def __post_init__(self) -> None:
        if not 0 <= self.fade <= 1:
            raise ValueError(f"fade is a fraction of the schedule, 0 ... 1, got {self.fade}")
        if not isinstance(self.objective, SDS | SDI | JSD):
            raise TypeError(f"objective must be SDS(), SDI() or JSD(), got {self.objective!r}")

    def weight(self, t: Time, schedule: Schedule) -> float:
        """Of delta at the level t of the schedule; the lowest level of several."""
        fraction = int(torch.as_tensor(t).min()) / len(schedule)
        return min(1.0, fraction / self.fade) if self.fade > 0 else 1.0

    def gradient(
        self, denoiser: Denoiser, x0: Tensor, t: Time, generator: torch.Generator | None = None
    ) -> DistillationStep:
        """x0 (B, ...), used detached; t in the schedule.  The first step's unet_calls count the learning of the words.

        TypeError for a denoiser that cannot lean; else what the objective raises.
        """
        denoiser.schedule.check_t(t)
        if not hasattr(denoiser, "lean"):
            raise TypeError(f"{type(denoiser).__name__} has no words of its own: Seeded() is for generate's denoisers")
        calls = cast(Leaning, denoiser).lean(self.weight(t, denoiser.schedule))
        step = self.objective.gradient(denoiser, x0, t, generator)
        return replace(step, unet_calls=step.unet_calls + calls)
