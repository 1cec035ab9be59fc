"""`generate`: prompts become Runs, and each Run an Asset."""

from __future__ import annotations

import copy
import platform
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from tqdm import TqdmWarning

from . import checkpoint as checkpoints
from .files import check_writable
from .objectives import JSD, SDS, Objective, Seeded
from .objectives.named import named
from .optimise import Progress, optimise
from .run import Run, identity, truth, whole
from .scene.asset import Asset
from .scene.views import ViewWords
from .sdxl.device import default_device, device_errors_in_words
from .sdxl.guidance import Guidance
from .sdxl.numerics import Preset

with warnings.catch_warnings():  # in a notebook without ipywidgets the bar is text, which needs no warning
    warnings.simplefilter("ignore", TqdmWarning)
    from tqdm.auto import tqdm

LOOP = (  # of a Run, handed on to `optimise`
    "seed", "steps", "views_per_step", "resolution", "negative_prompt", "guidance_scale", "view_words", "perp_neg",
)  # fmt: skip


@device_errors_in_words()
@torch.inference_mode(False)  # the caller's modes are none of ours
@torch.enable_grad()
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
    steps: optimiser steps, default 100 (SDS, with 1 U-Net call a step instead of 4: 250); SDXL 5000.
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
    if prompt in ("", [], ()):
        raise ValueError('the prompt is empty: say what to make, as "a red mushroom"')
    if not isinstance(prompt, (str, list, tuple)):
        raise ValueError(f'the prompt is a text or a list of texts, as "a red mushroom"; got {prompt!r}')
    prompts = [prompt] if isinstance(prompt, str) else list(prompt)
    count = whole(1, 10**6)("num_assets", num_assets)
    first = Run(
        prompts[0], seed, steps=steps, negative_prompt=negative_prompt, guidance_scale=guidance_scale,
        views_per_step=views_per_step, resolution=resolution, view_words=view_words, perp_neg=perp_neg,
        render_sizes=render_sizes, latent=latent,  # type: ignore[arg-type]  # checked and made a tuple
    )  # fmt: skip
    runs = [replace(first, prompt=text, seed=first.seed + i) for text in prompts for i in range(count)]
    chosen = named(objective)
    places = _places(checkpoint, len(runs))
    if truth("resume", resume) and checkpoint is None:
        raise ValueError("resume=True needs checkpoint=, the file to go on from")
    if callback is not None and not callable(callback):
        raise ValueError(f"callback is a function of a Progress, got {callback!r}")
    if not isinstance(model, (str, Path, Guidance)):
        raise ValueError(f"model is a name, a folder or a Guidance, got {model!r}")
    given = [n for n, v in (("preset", preset), ("device", device), ("dtype", dtype)) if v is not None]
    if not isinstance(model, Guidance):
        guidance = Guidance.load(model, device=device or default_device(model), dtype=dtype, preset=preset)
    elif given:
        raise ValueError(f"{given[0]}= belongs to Guidance.load where model is a Guidance")
    else:
        guidance = model
    check_language(guidance, runs)
    toy = guidance.image_size < 256  # else SDXL-sized: fewer and larger renders, more steps
    chosen = chosen or (Seeded() if toy else JSD())
    runs = [decided(run, guidance, chosen) for run in runs]
    _check_memory(guidance, runs[0], progress and not toy)
    assets: list[Asset] = []
    try:
        for run, place in zip(runs, places, strict=True):
            assets.append(_one(guidance, copy.deepcopy(chosen), run, callback, progress, place, resume))
    except (KeyboardInterrupt, FloatingPointError) as stop:
        stop.finished = assets  # type: ignore[union-attr]
        raise
    return assets if isinstance(prompt, (list, tuple)) or count > 1 else assets[0]


def _one(
    guidance: Guidance,
    objective: Objective,  # its own copy: what it learns is this asset's
    run: Run,
    callback: Callable[[Progress], None] | None,
    progress: bool,
    place: Path | None,
    resume: bool,
) -> Asset:
    steps = run.steps
    assert steps is not None  # `decided`
    config = run.to_json()
    before = checkpoints.read(place) if resume and place and place.exists() else None
    if before:
        before.check_same_run(run)
        if before.steps == steps:
            return before.asset
        before.restore_learning(objective)
    history: list[dict[str, Any]] = before.asset.history if before else []
    last: Progress | None = None
    loop = optimise(
        guidance, run.prompt, objective, sizes=run.render_sizes or (), latent=bool(run.latent), resume=before,
        **{name: getattr(run, name) for name in LOOP},
    )  # fmt: skip
    bar = tqdm(total=steps, initial=len(history), desc=run.prompt, unit="step", disable=not progress)
    try:
        for last in loop:
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
                checkpoints.write(place, Asset(last.grid, run.prompt, config, history), last, objective)
    except KeyboardInterrupt as stop:
        if last is not None:
            stop.asset = Asset(last.grid, run.prompt, config, history)  # type: ignore[attr-defined]
        raise
    finally:
        bar.close()
    assert last is not None  # at least one step was left to do
    return Asset(last.grid, run.prompt, config, history)


def check_language(guidance: Guidance, runs: Sequence[Run]) -> None:
    """ValueError for the first run whose prompt, negative prompt or view words the model was never taught."""
    known = guidance.facts.words
    for run in {(r.prompt, r.negative_prompt, r.view_words): r for r in runs}.values():
        guidance.check_prompt(run.prompt, run.view_words)
        if known is not None:
            from .toybox.captions import check_words, parse

            views = [f"a toy, {word} view" for word in run.view_words.words] if run.view_words else []
            for text in (run.prompt, *([run.negative_prompt] if run.negative_prompt else []), *views):
                check_words(text, known)
                parse(text)


def decided(run: Run, guidance: Guidance, objective: Objective) -> Run:
    """The run with everything decided that the caller left to the model and the objective."""
    says, toy = guidance.facts, guidance.image_size < 256
    sizes = Preset(None, 4, 40, (guidance.image_size,), guidance.numerics) if toy else guidance.preset
    usual = (250 if isinstance(objective, SDS) else 100) if toy else 5000
    run = run.filled(
        steps=says.steps or usual,
        views_per_step=says.views_per_step or sizes.views_per_step,
        resolution=says.resolution or sizes.resolution,
        render_sizes=says.render_sizes or sizes.render_sizes,
        guidance_scale=guidance.guidance_scale,
        latent=sizes.latent,
        numerics=repr(guidance.numerics),
        memory_gb=sizes.gigabytes,
        model=guidance.name,
        weights=guidance.digest,
        objective=identity(objective),
        recipe=identity(guidance.recipe),
        dtype=str(guidance.dtype),
        device=str(guidance.device),
        versions=versions(),
    )
    side = guidance.latent_shape[-1]
    if run.latent and min(run.render_sizes or (side,)) < side:
        raise ValueError(
            f"latent=True needs renders of at least the latents' {side} pixels: render_sizes are "
            f"{list(run.render_sizes or ())}"
        )
    return run


def _places(checkpoint: str | Path | None, count: int) -> list[Path | None]:
    """The checkpoint of each run.  ValueError or OSError where there cannot be one."""
    if checkpoint is None:
        return [None] * count
    if not isinstance(checkpoint, (str, Path)) or Path(checkpoint).suffix != ".safetensors":
        raise ValueError(f'checkpoint must be a .safetensors file, got "{checkpoint}"')
    place = Path(checkpoint)
    places = [place.with_stem(f"{place.stem}-{i}") for i in range(count)] if count > 1 else [place]
    for one in places:
        check_writable(one)
    return list(places)


def _check_memory(guidance: Guidance, run: Run, progress: bool) -> None:
    """MemoryError before the work, where a GPU is too small; says once what will be needed."""
    from .sdxl.memory import check_memory
    from .sdxl.perp_neg import unet_batch

    rows = unet_batch(*guidance.all_views(run.view_words)) if run.perp_neg else 2
    sizes = (run.views_per_step or 1, run.resolution or 8, max(run.render_sizes or (0,)), rows, bool(run.latent))
    told = sizes in guidance.plans
    need = check_memory(guidance, *sizes)
    if progress and not told:
        slow = "\nno GPU is used: a step of SDXL takes a minute or more" if guidance.device.type == "cpu" else ""
        tqdm.write(f"{need}{slow}", file=sys.stderr)


def versions() -> dict[str, str]:
    """Versions of what a result depends on."""
    from importlib.metadata import version

    from . import __version__

    others = {name: version(name) for name in ("torch", "diffusers", "transformers")}
    return {"jsdsd": __version__, "python": platform.python_version(), **others}
