"""`generate`: a prompt becomes an Asset."""

from __future__ import annotations

import math
import platform
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from tqdm import TqdmWarning

from . import checkpoint as checkpoints
from .objectives import (
    CSD,
    JSD,
    SDI,
    SDS,
    GuidanceLogOdds,
    JensenShannon,
    LocalJSD,
    Objective,
    Seeded,
    TwoSided,
    check_for_asset,
    named_objective,
)
from .optimise import Progress, optimise
from .scene.asset import Asset, check_writable
from .scene.views import ViewWords
from .sdxl.device import default_device, device_errors_in_words
from .sdxl.guidance import Guidance
from .sdxl.memory import check_memory
from .sdxl.numerics import Preset
from .sdxl.perp_neg import unet_batch

with warnings.catch_warnings():  # in a notebook without ipywidgets the bar is text, which needs no warning
    warnings.simplefilter("ignore", TqdmWarning)
    from tqdm.auto import tqdm

OBJECTIVES: dict[str, Callable[[], Objective]] = {
    "sds": SDS,
    "sdi": SDI,
    "jsd": JSD,
    "seeded": Seeded,
    "two_sided": lambda: TwoSided(JensenShannon(), log_odds=GuidanceLogOdds()),
    "local_jsd": LocalJSD,
    "csd": CSD,
}


@device_errors_in_words()
def generate(
    prompt: str | list[str],
    *,
    model: str | Path | Guidance = "toybox",
    objective: str | Objective | None = None,
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
    resume: bool = False,
    preset: Preset | int | None = None,
    view_words: ViewWords | None = None,
    perp_neg: float = 0.0,
    render_sizes: Sequence[int] | None = None,
    latent: bool | None = None,
) -> Asset | list[Asset]:
    """Make a 3D asset from a text; a list of prompts or num_assets > 1 makes a list, with the model loaded once.

    prompt: for the toybox a sentence in its words, as "a red mushroom"; for SDXL anything.
    model: "toybox" (embedded), "sdxl", a hub id, a folder in diffusers' layout, or a Guidance.
    objective: "jsd" (the paper's recipe), "seeded" (JSD, asked with words that each seed learns for itself), "sdi",
    "sds", "two_sided" (its discriminator made of guidance), "local_jsd", "csd" (docs/choosing.md), your own as
    "module:Name", or an object with their `gradient`.  Default: "seeded" for the toybox, on which it was chosen
    (docs/evidence.md), "jsd" for other models.
    seed: of the first asset; the next ones take seed + 1, ...  On one machine's CPU, with the same number of threads,
    the same seed gives the same bytes.
    steps: optimiser steps, default 100 (SDS, with 1 U-Net call a step instead of 4: 250); SDXL 2000.
    guidance_scale: diffusers' convention, 1 = none; default 3 for the toybox, 7.5 for SDXL.
    negative_prompt: what to move away from; None is SDXL's zero embedding.
    views_per_step: renders per step, default 4.  resolution: voxels per axis, default 40.  (For SDXL: the preset's.)
    preset: SDXL's sizes for a GPU of 8, 12, 16, 24, 40 or 80 GB, or a Preset; default by the device's memory.
    render_sizes: pixels of a render, one after the other in equal shares of the run; default the preset's.
    latent: True optimises a grid of latents without the VAE, for less memory and worse shapes (docs/gpu.md); the asset
    is an ordinary one, its colours a linear map of the latents.  Default the preset's; False for the toybox.
    view_words: words and angles for the views; None = the model's own.  perp_neg: weight of the other views' words as
    negatives (Perp-Neg), against an object with several fronts; 0 = not, and then U-Net batches are half as large.
    device: default a GPU if there is one and the model is not the toybox, else the CPU.  dtype: of the U-Net.
    callback: called with a `Progress` after each step; it may raise KeyboardInterrupt to stop.
    checkpoint: a .safetensors file that always holds the running asset and all that is needed to go on (written every
    25 steps and at the end).  Of several assets each has its own: "run.safetensors" becomes run-0, run-1, ... in order.
    resume: goes on from the checkpoints that are there, on the CPU to the same bytes as without the break.  `steps` may
    be larger than before; the noise levels still to come are then those of the longer run.

    Raises ValueError (bad argument or prompt), FileNotFoundError / OSError (model or checkpoint) before any work, and
    FloatingPointError when a run breaks, MemoryError when a GPU is full; ValueError too where a checkpoint is of
    another run.  On Ctrl-C the KeyboardInterrupt carries what there is of the running asset as `.asset`; it and
    FloatingPointError carry the assets finished before as `.finished`.
    """
    prompts = [prompt] if isinstance(prompt, str) else list(prompt)
    chosen = _check(prompts, objective, steps, num_assets, guidance_scale, views_per_step, resolution, checkpoint)
    if resume and checkpoint is None:
        raise ValueError("resume=True needs checkpoint=, the file to go on from")
    if render_sizes is not None and not all(isinstance(n, int) and n >= 16 for n in render_sizes):
        raise ValueError(f"render_sizes are whole numbers of pixels, at least 16, got {render_sizes!r}")
    if latent not in (None, True, False):
        raise ValueError(f"latent is True, False or None (the preset's), got {latent!r}")
    if not 0 <= perp_neg < float("inf"):
        raise ValueError(f"perp_neg must be finite and at least 0, got {perp_neg}")
    if isinstance(model, Guidance) and preset is not None:
        raise ValueError("preset= belongs to Guidance.load where model is a Guidance")
    if not isinstance(model, Guidance):
        model = Guidance.load(model, device=device or default_device(model), dtype=dtype, preset=preset)
    guidance = model
    for text in prompts:
        guidance.check_prompt(text, view_words)
    toy = guidance.image_size < 256  # else SDXL-sized: fewer and larger renders, more steps
    chosen = chosen or (Seeded() if toy else JSD())
    if steps is None:
        steps = (250 if isinstance(chosen, SDS) else 100) if toy else 2000
    sizes = Preset(None, 4, 40, (guidance.image_size,), guidance.numerics) if toy else guidance.preset
    settings: dict[str, Any] = {
        "steps": steps,
        "views_per_step": views_per_step if views_per_step is not None else sizes.views_per_step,
        "resolution": resolution if resolution is not None else sizes.resolution,
        "render_sizes": list(render_sizes or sizes.render_sizes),
        "numerics": repr(guidance.numerics),
        "memory_gb": sizes.gigabytes,
        "guidance_scale": guidance.guidance_scale if guidance_scale is None else guidance_scale,
        "negative_prompt": negative_prompt,
        "latent": sizes.latent if latent is None else latent,
        "view_words": str(view_words) if view_words else None,
        "perp_neg": perp_neg,
        "model": guidance.name,
        "objective": repr(chosen),
        "dtype": str(guidance.dtype),
        "device": str(guidance.device),
    }
    side = guidance.latent_shape[-1]
    if settings["latent"] and min(settings["render_sizes"]) < side:
        raise ValueError(
            f"latent=True needs renders of at least the latents' {side} pixels: render_sizes are "
            f"{settings['render_sizes']}"
        )
    rows = unet_batch(*guidance.all_views(view_words)) if perp_neg else 2
    size = settings["views_per_step"], settings["resolution"], max(settings["render_sizes"])
    told = (*size, rows, settings["latent"]) in guidance.plans
    need = check_memory(guidance, *size, rows, settings["latent"])
    if not toy and progress and not told:
        slow = "\nno GPU is used: a step of SDXL takes a minute or more" if guidance.device.type == "cpu" else ""
        tqdm.write(f"{need}{slow}", file=sys.stderr)
    settings["versions"] = versions()
    runs = [{"prompt": text, "seed": seed + i, **settings} for text in prompts for i in range(num_assets)]
    assets: list[Asset] = []
    try:
        for i, config in enumerate(runs):
            place = Path(checkpoint) if checkpoint else None
            if place and len(runs) > 1:
                place = place.with_stem(f"{place.stem}-{i}")
            assets.append(_one(guidance, chosen, config, callback, progress, place, resume))
    except (KeyboardInterrupt, FloatingPointError) as stop:
        stop.finished = assets  # type: ignore[union-attr]
        raise
    return assets if isinstance(prompt, list) or num_assets > 1 else assets[0]


def _one(
    guidance: Guidance,
    objective: Objective,
    config: dict[str, Any],
    callback: Callable[[Progress], None] | None,
    progress: bool,
    place: Path | None,
    resume: bool,
) -> Asset:
    prompt, steps = config["prompt"], config["steps"]
    before = checkpoints.read(place) if resume and place and place.exists() else None
    if before:
        before.check_same_run(config)
        if before.steps == steps:
            return before.asset
    history: list[dict[str, Any]] = before.asset.history if before else []
    last: Progress | None = None
    run = optimise(
        guidance,
        prompt,
        objective,
        seed=config["seed"],
        steps=steps,
        views_per_step=config["views_per_step"],
        resolution=config["resolution"],
        sizes=config["render_sizes"],
        negative_prompt=config["negative_prompt"],
        guidance_scale=config["guidance_scale"],
        view_words=ViewWords.parse(config["view_words"]) if config["view_words"] else None,
        perp_neg=config["perp_neg"],
        latent=config["latent"],
        resume=before,
    )
    bar = tqdm(total=steps, initial=len(history), desc=prompt, unit="step", disable=not progress)
    try:
        for last in run:
            record = last.record
            history.append(
                {
                    "step": record.step,
                    "t": int(record.t),
                    "grad_norm": record.grad_norm,
                    "discriminator": record.distilled.mean_d,
                    "unet_calls": record.unet_calls,
                    "seconds": record.seconds,
                    "opacity": float(last.render.opacity.detach().mean()),
                }
            )
            bar.set_postfix_str(f"{record.seconds:.2f} s and {record.unet_calls} U-Net calls a step", refresh=False)
            bar.update()
            if callback is not None:
                callback(last)
            if place is not None and ((record.step + 1) % checkpoints.EVERY == 0 or record.step + 1 == steps):
                checkpoints.write(place, Asset(last.grid, prompt, config, history), last)
    except KeyboardInterrupt as stop:
        if last is not None:
            stop.asset = Asset(last.grid, prompt, config, history)  # type: ignore[attr-defined]
        raise
    finally:
        bar.close()
    assert last is not None  # at least one step was left to do
    return Asset(last.grid, prompt, config, history)


def _check(
    prompts: list[str],
    objective: str | Objective | None,
    steps: int | None,
    num_assets: int,
    guidance_scale: float | None,
    views_per_step: int | None,
    resolution: int | None,
    checkpoint: str | Path | None,
) -> Objective | None:
    """Refuse in words what cannot work, before anything is loaded; returns the objective, None for the default."""
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
        objective = named_objective(objective, OBJECTIVES)
    if objective is not None and (isinstance(objective, type) or not callable(getattr(objective, "gradient", None))):
        raise ValueError(f"objective must be a name or an object with a gradient method, got {objective!r}")
    if objective is not None:
        check_for_asset(objective, checkpoint is not None)
    return objective


def versions() -> dict[str, str]:
    """Versions of what a result depends on."""
    from importlib.metadata import version

    from . import __version__

    others = {name: version(name) for name in ("torch", "diffusers", "transformers")}
    return {"jsdsd": __version__, "python": platform.python_version(), **others}
