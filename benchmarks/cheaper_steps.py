"""What can be saved of a run of JSD?  `python benchmarks/cheaper_steps.py` (half an hour on a processor
without bfloat16 of its own).

One inversion step at guidance 1; that noise kept for its view word for some steps; one random noise for each view word;
fresh noise, which is `JSD(inversion_steps=0)`; and of the last fewer steps, larger ones, and the U-Net in bfloat16.
Silhouette IoU with the true scene, seed 0, and seconds of processor time.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from benchmarks.evidence.jobs import RESOLUTION, SIZE, VIEWS_PER_STEP
from benchmarks.evidence.judge import Judge, load_judge
from benchmarks.evidence.measures import measure
from benchmarks.evidence.prompts import PROMPTS
from jsdsd import JSD, SDS
from jsdsd.objectives.diffusion import Denoiser, Time
from jsdsd.objectives.distillation import DistillationStep, Objective, noise_like
from jsdsd.objectives.inversion import ddim_invert
from jsdsd.optimise import optimise
from jsdsd.sdxl.guidance import Guidance

SHOWN = ("a red mushroom", "an orange fish", "a green tree on a white cube", "a blue car")
STEPS, SEED = 100, 0


@dataclass
class KeptNoise:
    """JSD at k = 1 whose first noise belongs to a view word, whatever the azimuth: found for the views of a step, and
    used again where a word comes back within `steps` steps.  It is inverted from the render, or random."""

    steps: int
    inverted: bool = True
    found: dict[int, tuple[int, Tensor]] = field(default_factory=dict, init=False, repr=False)  # word -> (step, noise)
    step: int = field(default=0, init=False)

    def gradient(
        self, denoiser: Denoiser, x0: Tensor, t: Time, generator: torch.Generator | None = None
    ) -> DistillationStep:
        words, calls = denoiser.index, 0  # index: ViewDenoiser has it
        ages = [self.step - self.found[word][0] if word in self.found else self.steps for word in words]
        if max(ages) >= self.steps:
            x0 = x0.detach()
            if self.inverted:
                noise, calls = denoiser.schedule.eps_from_x0(ddim_invert(denoiser, x0, t, 1, 1.0), x0, t), 1
            else:
                noise = noise_like(x0, None, generator)
            self.found |= {word: (self.step, noise[i]) for i, word in enumerate(words)}
        kept = torch.stack([self.found[word][1] for word in words])
        self.step += 1
        # JSD's gradient is (1 + k) of SDS's at x0, with the kept noise, and k of SDS's at x1, with fresh noise; k = 1
        at_x0 = SDS().gradient(denoiser, x0, t, generator, kept)
        at_x1 = SDS().gradient(denoiser, at_x0.targets[0], t, generator)
        return replace(at_x0, grad=2 * at_x0.grad + at_x1.grad, unet_calls=2 + calls)


WAYS: dict[str, Callable[[], Objective]] = {
    "one inversion step at guidance 1": lambda: JSD(inversion_steps=1, inversion_guidance_scale=1.0),
    "its noise kept for 2 steps": lambda: KeptNoise(2),
    "its noise kept for 4 steps": lambda: KeptNoise(4),
    "its noise kept for 8 steps": lambda: KeptNoise(8),
    "one random noise for each view word": lambda: KeptNoise(STEPS, inverted=False),
    "fresh noise, no inversion": lambda: JSD(inversion_steps=0),
}


def run(
    way: str, model: Guidance, judge: Judge, objective: Callable[[], Objective], steps: int, larger: float = 1.0
) -> None:
    """Makes and measures all of SHOWN and prints a line.  larger: factor of the learning rates of `optimise`."""
    found, calls, started = [], 0, time.process_time()
    for text in SHOWN:
        for progress in optimise(
            model, text, objective(), seed=SEED, steps=steps, views_per_step=VIEWS_PER_STEP, resolution=RESOLUTION,
            sizes=[SIZE], density_rate=0.1 * larger, colour_rate=0.03 * larger,
        ):  # fmt: skip
            calls += progress.record.unet_calls
        found.append(float(measure(judge, PROMPTS[text], progress.grid)["iou"]))
    cells, each = "  ".join(f"{iou:.3f}" for iou in found), (time.process_time() - started) / len(SHOWN)
    print(f"{way:40} {cells}  {sum(found) / len(found):.3f}  {calls / len(SHOWN):.0f} calls, {each:.0f} s", flush=True)


def main() -> None:
    model, judge = Guidance.load("toybox"), load_judge()
    print(
        f"{STEPS} steps, seed {SEED}: silhouette IoU of {', '.join(SHOWN)}; their mean; U-Net calls and seconds of each"
    )
    for way, objective in WAYS.items():
        run(way, model, judge, objective, STEPS)
    fresh = WAYS["fresh noise, no inversion"]
    run("fresh noise, half the steps", model, judge, fresh, STEPS // 2)
    run("fresh noise, half the steps, twice as large", model, judge, fresh, STEPS // 2, 2.0)
    run("fresh noise, U-Net in bfloat16", Guidance.load("toybox", dtype=torch.bfloat16), judge, fresh, STEPS)


if __name__ == "__main__":
    main()
