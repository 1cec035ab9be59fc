"""Digests of short runs, to see that a change of the code changes no bytes: `python -m benchmarks.digests`.

Each line is a name and the start of a SHA-256 over what the run ends with: every objective on 2D points and, with the
toybox, in 3D, without a break and resumed.  Bytes depend on the machine and on PyTorch's version: compare on one.
"""

from __future__ import annotations

import hashlib
import tempfile
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import torch

import jsdsd
from jsdsd import checkpoint, optimise
from jsdsd.objectives import DIVERGENCES, JSD, SDI, SDS, Ensemble, LearnedLogOdds, UniformTime
from jsdsd.sandbox import fit_particles, off_centre
from jsdsd.sdxl.guidance import Guidance
from jsdsd.sdxl.own_words import own_words

STEPS = 4
IN_2D: dict[str, Any] = {
    "sds": SDS(),
    "sdi": SDI(),
    "jsd": JSD(),
    **{f"ensemble {d}": Ensemble(d) for d in DIVERGENCES},
    "ensemble learned": Ensemble(jsdsd.JensenShannon(), LearnedLogOdds()),
}
IN_3D: dict[str, dict[str, Any]] = {
    "sds": {"objective": "sds"},
    "sdi": {"objective": "sdi"},
    "jsd": {"objective": "jsd"},
    "seeded": {"objective": "seeded"},
    "two_sided": {"objective": "two_sided"},
    "local_jsd": {"objective": "local_jsd"},
    "csd": {"objective": "csd"},
    "latent": {"objective": "sds", "latent": True},
    "perp_neg": {"objective": "sds", "perp_neg": 1.0},
    "negative prompt": {"objective": "sds", "negative_prompt": "a blue toy", "guidance_scale": 5.0},
}


def digest(*tensors: torch.Tensor) -> str:
    """The first 16 hexadecimal digits."""
    found = hashlib.sha256()
    for x in tensors:
        found.update(x.detach().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()[:16]


def in_2d(objective: Any) -> str:
    return digest(fit_particles(off_centre(), objective, particles=16, steps=20, seed=3, times=UniformTime()))


def in_3d(model: Guidance, settings: dict[str, Any], broken_after: int | None = None) -> str:
    """broken_after: stop after that step and go on from the checkpoint."""

    def stop(progress: optimise.Progress) -> None:
        if progress.record.step + 1 == broken_after:
            raise KeyboardInterrupt

    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "run.safetensors"
        run = partial(
            jsdsd.generate, "a red mushroom", model=model, steps=STEPS, resolution=16, views_per_step=2, seed=5,
            progress=False, checkpoint=place, **settings,
        )  # fmt: skip
        if broken_after:
            with suppress(KeyboardInterrupt):
                run(callback=stop)
        asset = run(resume=broken_after is not None)
    assert isinstance(asset, jsdsd.Asset) and len(asset.history) == STEPS
    return digest(*asset.grid.levels)


def main() -> None:
    torch.set_num_threads(1)
    checkpoint.EVERY = 1
    optimise.own_words = partial(own_words, steps=2, batch=2, sample_steps=3)  # type: ignore[assignment]
    for name, objective in IN_2D.items():
        print(f"2D {name}: {in_2d(objective)}", flush=True)
    model = Guidance.load("toybox")
    for name, settings in IN_3D.items():
        whole, resumed = in_3d(model, settings), in_3d(model, settings, broken_after=2)
        print(f"3D {name}: {whole}{'' if resumed == whole else f'  RESUMED OTHERWISE: {resumed}'}", flush=True)


if __name__ == "__main__":
    main()
