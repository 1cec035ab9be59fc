"""One job: make the asset (a joint ensemble's assets, a reference), keep it, measure it, give back its rows."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from jsdsd.objectives import Ensemble
from jsdsd.optimise import optimise
from jsdsd.scene.asset import Asset
from jsdsd.sdxl.guidance import Guidance

from .joint import discriminators, optimise_jointly
from .judge import Judge, load_judge
from .measures import measure, stability
from .prompts import PROMPTS, Prompt
from .references import DDIM_STEPS, ROWS, fit_to_truth, prior_pictures, prior_rows, slug
from .settings import REFERENCES, SETTINGS, STEPS, Setting

VIEWS_PER_STEP, RESOLUTION, SIZES = 4, 48, (48, 96)  # `generate`'s for the toybox
SIZE = SIZES[-1]  # where there is one
KEY = ("prompt", "setting", "guidance_scale", "steps", "particles", "seed")
COLUMNS = (
    *("set", "split", *KEY, "error"),
    *("kind_right", "colour_right", "view_right", "iou", "volume_iou", "colour_error", "saturation", "detail"),
    *("fronts", "haze", "size", "grad_spread", "grad_peak", "unet_calls", "seconds", "kind_p", "colour_p", "model"),
)
Row = dict[str, Any]


@dataclass(frozen=True)
class Job:
    """What to make.  seeds: one, or those of a joint ensemble.  share: of the setting's steps, 1 but for tests."""

    prompt: str
    setting: str
    guidance_scale: float
    seeds: tuple[int, ...]
    share: float = 1.0

    @property
    def steps(self) -> int:
        if self.setting == "prior":
            return 0
        full = 2 * STEPS if self.setting == "fitted" else SETTINGS[self.setting].steps
        return max(2, round(self.share * full))

    def rows(self) -> list[Row]:
        """The rows it will give, without what is measured."""
        seeds = range(ROWS) if self.setting == "prior" else self.seeds
        prompt = PROMPTS[self.prompt]
        return [
            {
                "set": prompt.set,
                "split": prompt.split,
                "prompt": self.prompt,
                "setting": self.setting,
                "guidance_scale": f"{self.guidance_scale:g}",
                "steps": str(self.steps),
                "particles": str(len(self.seeds)),
                "seed": str(seed),
            }
            for seed in seeds
        ]

    def assets(self, folder: Path) -> list[Path]:
        """Where the assets of its seeds are kept."""
        return [asset_of(row, folder) for row in self.rows()]


def asset_of(row: Row, folder: Path) -> Path:
    """Where the asset of a row is kept."""
    together = f"_of{row['particles']}" if row["particles"] != "1" else ""
    name = f"{row['setting']}_{row['steps']}_guidance{row['guidance_scale']}{together}_seed{row['seed']}.safetensors"
    return folder / "assets" / slug(row["prompt"]) / name


def planned(
    prompts: Sequence[Prompt],
    settings: Sequence[str],
    guidance_scales: Sequence[float],
    seeds: Sequence[int],
    share: float = 1.0,
) -> list[Job]:
    """Every job once, so ordered that a run that is stopped compares all settings on the same prompts and seeds: seeds
    outermost, then prompts, guidance scales, settings.  A joint ensemble comes with its last seed (of one seed it would
    be SDS: left out), references with the first; a grid is fitted to the truth only where there is one truth."""
    jobs = []
    for seed in seeds:
        for prompt in prompts:
            for scale in guidance_scales:
                for name in settings:
                    joint = name in SETTINGS and SETTINGS[name].joint
                    reference = name in REFERENCES
                    if (
                        (joint and (seed != seeds[-1] or len(seeds) == 1))
                        or (reference and seed != seeds[0])
                        or (name == "fitted" and (prompt.ambiguous or scale != guidance_scales[0]))
                    ):
                        continue
                    jobs.append(Job(prompt.text, name, scale, tuple(seeds) if joint else (seed,), share))
    return jobs


@lru_cache(maxsize=1)
def tools(model: str) -> tuple[Guidance, Judge, str]:
    """The prior, the judge, and the first eight characters of the U-Net's SHA-256; loaded once per process."""
    guidance = Guidance.load(model)
    state = b"".join(x.numpy().tobytes() for x in guidance.unet.state_dict().values())
    return guidance, load_judge(), hashlib.sha256(state).hexdigest()[:8]


def perform(job: Job, folder: Path, model: str = "toybox") -> list[Row]:
    """Make what is not there yet, measure it, and return its rows.  A run that breaks gives rows that say why."""
    guidance, judge, name = tools(model)
    prompt = PROMPTS[job.prompt]
    rows = [row | {"error": "", "model": name} for row in job.rows()]
    if job.setting == "prior":
        pictures = prior_pictures(guidance, prompt, job.guidance_scale, folder / "pictures")
        found = prior_rows(judge, prompt, pictures)
        return [row | numbers | {"unet_calls": DDIM_STEPS} for row, numbers in zip(rows, found, strict=True)]
    places = job.assets(folder)
    if not all(place.exists() for place in places):
        try:
            for asset, place in zip(_make(guidance, job, folder), places, strict=True):
                asset.save(place)
        except FloatingPointError as error:
            return [row | {"error": str(error)} for row in rows]
    for row, place in zip(rows, places, strict=True):
        asset = Asset.load(place)
        row |= measure(judge, prompt, asset.grid) | stability([record["grad_norm"] for record in asset.history])
        row |= {k: sum(record[k] for record in asset.history) for k in ("unet_calls", "seconds")}
        row["unet_calls"] += asset.config.get("calls_before", 0)
    return rows


def _make(guidance: Guidance, job: Job, folder: Path) -> Iterator[Asset]:
    sizes: dict[str, Any] = {"views_per_step": VIEWS_PER_STEP, "resolution": RESOLUTION}
    config = {"setting": job.setting, "guidance_scale": job.guidance_scale, "seeds": list(job.seeds)}
    if job.setting == "fitted":
        prompt = PROMPTS[job.prompt]
        yield Asset(fit_to_truth(prompt, seed=job.seeds[0], steps=job.steps, size=SIZE, **sizes), job.prompt, config)
        return
    setting = SETTINGS[job.setting]
    if setting.joint:
        yield from _together(guidance, job, setting, config, folder)
        return
    history = []
    run = optimise(
        guidance,
        job.prompt,
        setting.objective(),
        seed=job.seeds[0],
        steps=job.steps,
        sizes=SIZES,
        times=setting.times,
        guidance_scale=job.guidance_scale,
        **sizes,
    )
    for progress in run:
        history.append(_facts(progress.record, 1))
        grid = progress.grid
    yield Asset(grid, job.prompt, config, history)


def _together(guidance: Guidance, job: Job, setting: Setting, config: dict[str, Any], folder: Path) -> Iterator[Asset]:
    ensemble, count = setting.objective(), len(job.seeds)
    assert isinstance(ensemble, Ensemble)
    words = guidance.all_views()[0]
    ensembles = [ensemble] * len(words)
    if setting.learned:
        pictures = prior_pictures(guidance, PROMPTS[job.prompt], job.guidance_scale, folder / "pictures")
        real = guidance.encode_images(pictures.flatten(0, 1)).unflatten(0, pictures.shape[:2])  # (W, M, 4, h, w)
        ensembles = discriminators(ensemble, real, job.seeds[0])
        config["calls_before"] = round(len(words) * pictures.shape[1] * DDIM_STEPS / (VIEWS_PER_STEP * count))
    history = []
    run = optimise_jointly(
        guidance,
        job.prompt,
        ensembles,
        seeds=job.seeds,
        steps=job.steps,
        times=setting.times,
        guidance_scale=job.guidance_scale,
        views_per_step=VIEWS_PER_STEP,
        resolution=RESOLUTION,
        size=SIZE,
    )
    for step in run:
        history.append(_facts(step[1], count))
    for grid in step[0]:
        yield Asset(grid, job.prompt, config, history)


def _facts(record: Any, count: int) -> dict[str, Any]:
    """One step of one of `count` assets made together."""
    return {
        "step": record.step,
        "t": int(record.t),
        "grad_norm": record.grad_norm,
        "unet_calls": record.unet_calls,
        "seconds": record.seconds / count,
    }
