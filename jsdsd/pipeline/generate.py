"""`generate`: a prompt becomes an Asset."""

from __future__ import annotations

import math
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from tqdm.auto import tqdm

from ..objectives.distillation import SDS, Objective
from ..objectives.inversion import JSD, SDI
from .asset import Asset, check_writable
from .guidance import Guidance
from .optimise import Progress, optimise

OBJECTIVES: dict[str, type[SDS] | type[SDI] | type[JSD]] = {"sds": SDS, "sdi": SDI, "jsd": JSD}


def generate(
    prompt: str | list[str],
    *,
    model: str | Path | Guidance = "toybox",
    objective: str | Objective = "jsd",
    seed: int = 0,
    steps: int | None = None,
    num_assets: int = 1,
    negative_prompt: str | None = None,
    guidance_scale: float | None = None,
    views_per_step: int | None = None,
    resolution: int | None = None,
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
    callback: Callable[[Progress], None] | None = None,
    progress: bool = True,
    checkpoint: str | Path | None = None,
) -> Asset | list[Asset]:
    """Make a 3D asset from a text; a list of prompts or num_assets > 1 makes a list, with the model loaded once.

    prompt: for the toybox a sentence in its words, as "a red mushroom"; for SDXL anything.
    model: "toybox" (embedded), "sdxl", a hub id, a folder in diffusers' layout, or a Guidance.
    objective: "jsd" (the paper's recipe), "sdi", "sds", or an object with their `gradient`.
    seed: of the first asset; the next ones take seed + 1, ...  On the CPU the same seed gives the same bytes.
    steps: optimiser steps, default 100 (SDS, with 1 U-Net call a step instead of 4: 250); SDXL 2000.
    guidance_scale: diffusers' convention, 1 = none; default 3 for the toybox, 7.5 for SDXL.
    negative_prompt: what to move away from; None is SDXL's zero embedding.
    views_per_step: renders per step, default 4 (SDXL 1).  resolution: voxels per axis, default 40 (SDXL 128).
    device: default a GPU if there is one and the model is not the toybox, else the CPU.  dtype: of the U-Net.
    callback: called with a `Progress` after each step; it may raise KeyboardInterrupt to stop.
    checkpoint: a .safetensors file that always holds the running asset (written every 25 steps).

    Raises ValueError (bad argument or prompt), FileNotFoundError / OSError (model or checkpoint) before any work, and
    FloatingPointError when a run breaks.  On Ctrl-C the KeyboardInterrupt carries what there is of the running asset as
    `.asset`; it and FloatingPointError carry the assets finished before as `.finished`.
    """
    prompts = [prompt] if isinstance(prompt, str) else list(prompt)
    chosen = _check(prompts, objective, steps, num_assets, guidance_scale, views_per_step, resolution, checkpoint)
    if device is None:
        device = "cuda" if torch.cuda.is_available() and str(model) != "toybox" else "cpu"
    guidance = model if isinstance(model, Guidance) else Guidance.load(model, device=device, dtype=dtype)
    for text in prompts:
        guidance.check_prompt(text)
    toy = guidance.image_size < 256  # else SDXL-sized: fewer and larger renders, more steps
    if steps is None:
        steps = (250 if isinstance(chosen, SDS) else 100) if toy else 2000
    settings = {
        "steps": steps,
        "views_per_step": views_per_step if views_per_step is not None else 4 if toy else 1,
        "resolution": resolution if resolution is not None else 40 if toy else 128,
        "guidance_scale": guidance.guidance_scale if guidance_scale is None else guidance_scale,
        "negative_prompt": negative_prompt,
        "model": "Guidance object" if isinstance(model, Guidance) else str(model),
        "objective": repr(chosen),
        "dtype": str(guidance.dtype),
        "device": str(guidance.device),
    }
    assets: list[Asset] = []
    try:
        for text in prompts:
            for i in range(num_assets):
                config = {"prompt": text, "seed": seed + i, **settings, "versions": versions()}
                assets.append(_one(guidance, text, chosen, config, callback, progress, checkpoint))
    except (KeyboardInterrupt, FloatingPointError) as stop:
        stop.finished = assets  # type: ignore[union-attr]
        raise
    return assets if isinstance(prompt, list) or num_assets > 1 else assets[0]


def _one(
    guidance: Guidance,
    prompt: str,
    objective: Objective,
    config: dict[str, Any],
    callback: Callable[[Progress], None] | None,
    progress: bool,
    checkpoint: str | Path | None,
) -> Asset:
    history: list[dict[str, float]] = []
    last: Progress | None = None
    run = optimise(
        guidance,
        prompt,
        objective,
        seed=config["seed"],
        steps=config["steps"],
        views_per_step=config["views_per_step"],
        resolution=config["resolution"],
        size=min(512, guidance.image_size),
        negative_prompt=config["negative_prompt"],
        guidance_scale=config["guidance_scale"],
    )
    bar = tqdm(total=config["steps"], desc=prompt, unit="step", disable=not progress)
    try:
        for last in run:
            record = last.record
            history.append(
                {
                    "step": record.step,
                    "t": int(record.t),
                    "grad_norm": record.grad_norm,
                    "unet_calls": record.unet_calls,
                    "seconds": record.seconds,
                    "opacity": float(last.render.opacity.detach().mean()),
                }
            )
            bar.set_postfix_str(f"{record.seconds:.2f} s and {record.unet_calls} U-Net calls a step", refresh=False)
            bar.update()
            if callback is not None:
                callback(last)
            if checkpoint is not None and (record.step + 1) % 25 == 0:
                Asset(last.grid, prompt, config, history).save(checkpoint)
    except KeyboardInterrupt as stop:
        if last is not None:
            stop.asset = Asset(last.grid, prompt, config, history)  # type: ignore[attr-defined]
        raise
    finally:
        bar.close()
    assert last is not None  # steps >= 1
    asset = Asset(last.grid, prompt, config, history)
    if checkpoint is not None:
        asset.save(checkpoint)
    return asset


def _check(
    prompts: list[str],
    objective: str | Objective,
    steps: int | None,
    num_assets: int,
    guidance_scale: float | None,
    views_per_step: int | None,
    resolution: int | None,
    checkpoint: str | Path | None,
) -> Objective:
    """Refuse in words what cannot work, before anything is loaded; returns the objective."""
    if not prompts or not all(isinstance(p, str) and p.strip() for p in prompts):
        raise ValueError('the prompt is empty: say what to make, as "a red mushroom"')
    for name, value, least in (
        ("steps", steps, 1),
        ("num_assets", num_assets, 1),
        ("views_per_step", views_per_step, 1),
        ("resolution", resolution, 8),
    ):
        if value is not None and (not isinstance(value, int) or value < least):
            raise ValueError(f"{name} must be a whole number of at least {least}, got {value!r}")
    if guidance_scale is not None and not math.isfinite(guidance_scale):
        raise ValueError(f"guidance_scale must be finite, got {guidance_scale}")
    if checkpoint is not None:
        if Path(checkpoint).suffix != ".safetensors":
            raise ValueError(f'checkpoint must be a .safetensors file, got "{checkpoint}"')
        check_writable(Path(checkpoint))
    if isinstance(objective, str):
        if objective.lower() not in OBJECTIVES:
            raise ValueError(
                f'unknown objective "{objective}": known are {", ".join(OBJECTIVES)}; or give an object '
                "with a gradient method"
            )
        return OBJECTIVES[objective.lower()]()
    if not callable(getattr(objective, "gradient", None)):
        raise ValueError(f"objective must be a name or have a gradient method, got {objective!r}")
    return objective


def versions() -> dict[str, str]:
    """Versions of what a result depends on."""
    from importlib.metadata import version

    from .. import __version__

    others = {name: version(name) for name in ("torch", "diffusers", "transformers")}
    return {"jsdsd": __version__, "python": platform.python_version(), **others}
