"""What is compared.  All settings share the grid, the cameras, the regularisation and the guidance scale, which are
`generate`'s for the toybox; what differs is the objective, the rule for t and the number of steps, and for each of the
three there are settings that differ in it alone.

Cost is counted in U-Net calls: one call sees the four views of a step, with and without the prompt.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from jsdsd.objectives import JSD, SDI, SDS, Anneal, Ensemble, JensenShannon, Objective, ReverseKL, Seeded, UniformTime
from jsdsd.objectives.diffusion import Denoiser, Time
from jsdsd.objectives.distillation import DistillationStep, Times, noise_like

STEPS = 100  # equal steps
CALLS = 400  # equal U-Net calls, those of JSD with two inversion steps


@dataclass(frozen=True)
class Setting:
    """One thing to compare.

    name: in commands and results; label: in tables.  objective: makes a new object for every run.  joint: all seeds of
    a prompt are one ensemble; learned: its log-odds come from discriminators.  compared: at equal "calls", at equal
    "steps", at both, or at neither (a variant that no claim is about).
    """

    name: str
    label: str  # in tables
    objective: Callable[[], Objective]
    steps: int = STEPS
    times: Times = Anneal(power=2)
    joint: bool = False
    learned: bool = False
    compared: tuple[str, ...] = ()


@dataclass
class FixedNoise:
    """`objective` with one noise for all steps and views of an asset instead of fresh noise: the seed's own noise
    then decides which mode the asset takes.  Carries the noise: use one object per run."""

    objective: SDS | JSD
    noise: Tensor | None = field(default=None, init=False, repr=False)

    def gradient(
        self, denoiser: Denoiser, x0: Tensor, t: Time, generator: torch.Generator | None = None
    ) -> DistillationStep:
        """x0 (B, ...): as the objective's own; its noise is one draw for the run, the same in all B rows."""
        if self.noise is None:
            self.noise = noise_like(x0[:1], None, generator)
        return self.objective.gradient(denoiser, x0, t, generator, self.noise.expand_as(x0).contiguous())


@dataclass
class OwnNoiseFirst:
    """SDS with one noise per asset while t is above `until`, where the mode is chosen, then JSD, which keeps it: 1
    U-Net call a step, then 4.  Carries the noise: use one object per run."""

    until: float = 0.6  # of the schedule
    first: FixedNoise = field(default_factory=lambda: FixedNoise(SDS()), init=False, repr=False)

    def gradient(
        self, denoiser: Denoiser, x0: Tensor, t: Time, generator: torch.Generator | None = None
    ) -> DistillationStep:
        objective = self.first if t >= self.until * len(denoiser.schedule) else JSD()
        return objective.gradient(denoiser, x0, t, generator)


def _kl() -> Ensemble:
    return Ensemble(ReverseKL())


def _jsd() -> Ensemble:
    return Ensemble(JensenShannon())


def _no_inversion() -> JSD:
    return JSD(inversion_steps=0)


BOTH = ("calls", "steps")
_ALL = (
    Setting("sds_random_400", "SDS, random t, 400 steps", SDS, CALLS, UniformTime(), compared=("calls",)),
    Setting("sds_400", "SDS, 400 steps", SDS, CALLS, compared=("calls",)),
    Setting("sdi_133", "SDI, 133 steps", SDI, CALLS // 3, compared=("calls",)),
    Setting("jsd_k0.3", "JSD, k = 0.3", lambda: JSD(0.3), compared=BOTH),
    Setting("jsd_k1", "JSD, k = 1", lambda: JSD(1.0), compared=BOTH),
    Setting("jsd_k3", "JSD, k = 3", lambda: JSD(3.0), compared=BOTH),
    Setting("jsd_no_inversion_200", "JSD, no inversion, 200 steps", _no_inversion, CALLS // 2, compared=("calls",)),
    Setting("jsd_no_inversion_100", "JSD, no inversion, 100 steps", _no_inversion, compared=("steps",)),
    Setting("sds_random_100", "SDS, random t, 100 steps", SDS, times=UniformTime(), compared=("steps",)),
    Setting("sds_100", "SDS, 100 steps", SDS, compared=("steps",)),
    Setting("sdi_100", "SDI, 100 steps", SDI, compared=("steps",)),
    Setting("ensemble_kl_400", "ensemble, reverse KL, 400 steps", _kl, CALLS, joint=True, compared=("calls",)),
    Setting("ensemble_jsd_400", "ensemble, JSD, 400 steps", _jsd, CALLS, joint=True, learned=True, compared=("calls",)),
    Setting("ensemble_kl_100", "ensemble, reverse KL, 100 steps", _kl, joint=True, compared=("steps",)),
    Setting("ensemble_jsd_100", "ensemble, JSD, 100 steps", _jsd, joint=True, learned=True, compared=("steps",)),
    # No claim is about these: what the calls buy, the official code's recipe, the seed's own noise.
    Setting("jsd_inversion_1", "JSD, 1 inversion step", lambda: JSD(inversion_steps=1)),
    Setting("jsd_inversion_8", "JSD, 8 inversion steps", lambda: JSD(inversion_steps=8)),
    Setting(
        "jsd_official", "JSD, 8 inversion steps, t to 0.25", lambda: JSD(inversion_steps=8), times=Anneal(end=0.25)
    ),
    Setting("jsd_50", "JSD, 50 steps", JSD, 50),
    Setting("jsd_plain", "JSD, inversion at guidance 1", lambda: JSD(inversion_guidance_scale=1.0)),
    Setting(
        "jsd_plain_1",
        "JSD, 1 inversion step at guidance 1",
        lambda: JSD(inversion_steps=1, inversion_guidance_scale=1.0),
    ),
    Setting(
        "seeded_inverted",
        "seeded JSD, 1 inversion step",
        lambda: Seeded(JSD(inversion_steps=1, inversion_guidance_scale=1.0)),
    ),
    Setting("seeded_sds", "seeded SDS, 100 steps", lambda: Seeded(SDS())),
    Setting("seeded_jsd", "seeded JSD, the paper's recipe", lambda: Seeded(JSD())),
    Setting("seeded", "seeded JSD, the default of generate", Seeded),
    Setting("sds_one_noise", "SDS, one noise per asset, 100 steps", lambda: FixedNoise(SDS())),
    Setting("jsd_one_noise", "JSD, one noise per asset", lambda: FixedNoise(JSD())),
    Setting("own_noise_first", "SDS with one noise per asset, then JSD, 100 steps", OwnNoiseFirst),
)
SETTINGS: dict[str, Setting] = {setting.name: setting for setting in _ALL}
COMPARED = tuple(name for name, setting in SETTINGS.items() if setting.compared)
SINGLE = tuple(name for name in COMPARED if not SETTINGS[name].joint)
REFERENCES = {"prior": "the prior's own pictures (2D)", "fitted": "a grid fitted to true renders"}
