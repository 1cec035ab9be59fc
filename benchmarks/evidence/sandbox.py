"""`python -m benchmarks.evidence.sandbox`: every figure and table of docs/sandbox.md, from nothing, all seeds kept.

Each run is one line of docs/sandbox/runs.csv; --resume keeps the lines already there (a long command may be stopped),
and with --seconds 0 the page is written from those lines alone.
"""

from __future__ import annotations

import argparse
import csv
import math
import statistics
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from jsdsd.objectives import Anneal, ForwardKL, JensenShannon, ReverseKL, UniformTime
from jsdsd.sandbox.__main__ import OBJECTIVES, named_target
from jsdsd.sandbox.fits import fit_gaussian, two_modes
from jsdsd.sandbox.metrics import mode_divergence, on_mode_share, spread_ratio
from jsdsd.sandbox.particles import Particles, fit_particles

NAMES = {
    "sds": "reverse KL, each alone (SDS)",
    "ensemble_reverse_kl": "reverse KL, ensemble",
    "ensemble_jsd": "JSD, ensemble",
    "ensemble_jsd_learned": "JSD, ensemble, learned log-odds",
    "ensemble_forward_kl": "forward KL, ensemble",
}
EXACT = ("sds", "ensemble_reverse_kl", "ensemble_jsd", "ensemble_forward_kl")
LEARNED = ("ensemble_jsd_learned",)
CORE_TARGETS = ("ring", "unbalanced", "off_centre")
OTHER_TARGETS = ("grid", "moons", "checkerboard", "spiral")
# Arguments of fit_particles; the first two settings in full, the rest one change each, on the random mixtures.
SETTINGS: dict[str, dict[str, Any]] = {
    "uniform": {"times": UniformTime()},
    "annealed": {"times": Anneal()},
    "annealed from 0.7": {"times": Anneal(start=0.7)},
    "annealed from 0.5": {"times": Anneal(start=0.5)},
    "annealed from 0.3": {"times": Anneal(start=0.3)},
    "annealed, 100 steps": {"times": Anneal(), "steps": 100},
    "annealed, rate 0.01": {"times": Anneal(), "lr": 0.01},
    "annealed, 32 particles": {"times": Anneal(), "particles": 32},
    "uniform, 100 steps": {"times": UniformTime(), "steps": 100},
    "uniform, rate 0.01": {"times": UniformTime(), "lr": 0.01},
    "uniform, 32 particles": {"times": UniformTime(), "particles": 32},
}
MAIN = ("uniform", "annealed")
BEGIN, END = "<!-- results: begin -->", "<!-- results: end -->"


@dataclass(frozen=True)
class Run:
    """One run, and what came of it: nats, shares and ratios without unit, seconds of wall time."""

    target: str
    objective: str
    setting: str
    seed: int
    steps: int  # unless the setting says otherwise
    mode_jsd: float = float("nan")
    on_mode: float = float("nan")
    spread: float = float("nan")
    seconds: float = float("nan")

    @property
    def key(self) -> tuple[object, ...]:
        return self.target, self.objective, self.setting, self.seed, self.steps


def planned(seeds: int, mixtures: int, steps: int) -> Iterator[Run]:
    """The runs of the page, the ones that matter most first. The random mixtures have seeds 1000, 1001, ..."""

    def family(objectives: tuple[str, ...], setting: str) -> Iterator[Run]:
        for number in range(mixtures):
            for objective in objectives:
                yield Run(f"random:{1000 + number}", objective, setting, number, steps)

    def named(targets: tuple[str, ...], objectives: tuple[str, ...], setting: str, count: int) -> Iterator[Run]:
        for seed in range(count):
            for target in targets:
                for objective in objectives:
                    yield Run(target, objective, setting, seed, steps)

    for objectives in (EXACT[:3], LEARNED, EXACT[3:]):
        for setting in MAIN:
            yield from family(objectives, setting)
            yield from named(CORE_TARGETS, objectives, setting, seeds)
    for setting in SETTINGS:
        if setting not in MAIN:
            yield from family(EXACT[1:], setting)
    for setting in MAIN:
        yield from named(OTHER_TARGETS, EXACT, setting, min(seeds, 3))


def perform(run: Run) -> Run:
    """Do it."""
    target, started = named_target(run.target), time.perf_counter()
    arguments = {"steps": run.steps, **SETTINGS[run.setting]}
    x = fit_particles(target, OBJECTIVES[run.objective](), seed=run.seed, **arguments)
    scores = mode_divergence(x, target), on_mode_share(x, target), spread_ratio(x, target)
    numbers = (round(v, 6) for v in (*scores, time.perf_counter() - started))
    return Run(*run.key, *numbers)  # type: ignore[arg-type]


def all_runs(file: Path, plan: list[Run], resume: bool, seconds: float = math.inf) -> list[Run]:
    """The plan performed, each line written to `file` as soon as it is known; no run is begun after `seconds`."""
    end = time.perf_counter() + seconds
    done: dict[tuple[object, ...], Run] = {}
    if resume and file.exists():
        with file.open(encoding="utf-8") as lines:
            for row in csv.DictReader(lines):
                kinds = {"target": str, "objective": str, "setting": str, "seed": int, "steps": int}
                run = Run(**{name: kinds.get(name, float)(value) for name, value in row.items()})
                done[run.key] = run
    with file.open("w", newline="", encoding="utf-8") as lines:
        writer = csv.DictWriter(lines, list(asdict(plan[0])), lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(run) for run in done.values())
        for number, run in enumerate(plan):
            if run.key not in done and time.perf_counter() < end:
                done[run.key] = perform(run)
                writer.writerow(asdict(done[run.key]))
                lines.flush()
                print(f"{number + 1}/{len(plan)} {done[run.key]}", flush=True)
    return [done[run.key] for run in plan if run.key in done]


def summary(runs: list[Run], objective: str, metric: str, digits: int) -> str:
    """Median (least ... greatest; number of runs) of a metric over the runs of one objective; '-' without a run."""
    values = [getattr(run, metric) for run in runs if run.objective == objective]
    if not values:
        return "-"
    span = f"{min(values):.{digits}f} ... {max(values):.{digits}f}; {len(values)}"
    return f"{statistics.median(values):.{digits}f} ({span})"


def score_table(columns: dict[str, list[Run]], metric: str, digits: int) -> str:
    """Objectives down, columns across."""
    lines = ["| | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for objective, words in NAMES.items():
        cells = [summary(some, objective, metric, digits) for some in columns.values()]
        if set(cells) != {"-"}:
            lines.append(f"| {words} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def settings_table(runs: list[Run]) -> str:
    """Settings down, the three ensembles across, and how the medians of JSD and reverse KL compare."""
    names = EXACT[1:]
    lines = ["| | " + " | ".join(NAMES[o] for o in names) + " | JSD / reverse KL |", "|---" * (len(names) + 2) + "|"]
    for setting in SETTINGS:
        some = [run for run in runs if run.setting == setting]
        cells = [summary(some, objective, "mode_jsd", 5) for objective in names]
        if "-" not in cells:
            reverse, jsd = (statistics.median(r.mode_jsd for r in some if r.objective == o) for o in names[:2])
            lines.append(f"| {setting} | " + " | ".join(cells) + f" | {jsd / reverse:.2f} |")
    return "\n".join(lines)


def gaussian_table() -> str:
    """Where the one Gaussian of least divergence covers two modes, and where it takes one."""
    lines = ["| modes at ± | reverse KL | JSD | forward KL |", "|---|---|---|---|"]
    for separation, weight in ((2.5, 0.5), (3, 0.5), (4, 0.5), (5, 0.5), (3, 0.6), (4, 0.6)):
        cells = []
        for divergence in (ReverseKL(), JensenShannon(), ForwardKL()):
            fit = fit_gaussian(divergence, two_modes(separation, weight))
            word = "one mode" if fit.std < 1.5 else "covers"
            cells.append(f"{word}: mean {fit.mean + 0.0:.2f}, std {fit.std:.2f}, {fit.value:.4f} nats")
        lines.append(f"| {separation}, weights {weight} {1 - weight:.1f} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def speed_table(sizes: tuple[tuple[int, int], ...] = ((256, 200), (1000, 60), (3000, 12), (10000, 4))) -> str:
    """Milliseconds per step, the median of a few steps, on this machine now; sizes: (particles, steps)."""
    lines = [
        f"| particles ({torch.get_num_threads()} threads) | SDS, ms/step | JSD ensemble, ms/step |",
        "|---|---|---|",
    ]
    for n, steps in sizes:
        cells = []
        for objective in ("sds", "ensemble_jsd"):
            records = Particles(n).run(named_target("ring"), OBJECTIVES[objective](), steps)
            cells.append(f"{1e3 * statistics.median(record.seconds for record in records):.2f}")
        lines.append(f"| {n} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def report(runs: list[Run], speed: str) -> str:
    """The generated part of the page."""

    def by_target(setting: str, names: tuple[str, ...]) -> dict[str, list[Run]]:
        return {name: [r for r in runs if r.setting == setting and r.target.split(":")[0] == name] for name in names}

    core = (*CORE_TARGETS, "random")
    parts = ["### One Gaussian, two modes\n", gaussian_table()]
    for setting, words in zip(MAIN, ("t drawn uniformly (the default)", "t annealed"), strict=True):
        parts += [
            f"\n### Mode-histogram divergence of 256 particles, nats, {words}\n",
            "Median (least ... greatest; number of runs).\n",
            score_table(by_target(setting, core), "mode_jsd", 5),
            f"\n### Spread inside the modes, 1 = the target's, {words}\n",
            score_table(by_target(setting, core), "spread", 2),
            f"\n### Other targets, mode-histogram divergence, nats, {words}\n",
            score_table(by_target(setting, OTHER_TARGETS), "mode_jsd", 5),
        ]
    family = [run for run in runs if run.target.startswith("random")]
    parts += ["\n### One change at a time, random mixtures, mode-histogram divergence, nats\n", settings_table(family)]
    return "\n".join([*parts, "\n### Cost\n", speed])


def figures(folder: Path, steps: int) -> None:
    """particles.png, weights.png, one_gaussian.png, landscape.png."""
    from matplotlib.figure import Figure

    from jsdsd.sandbox.plots import plot_loss_landscape, plot_one_gaussian, plot_particles, plot_weights

    figure = Figure(figsize=(13, 6.6), dpi=100, layout="tight")
    target = named_target("off_centre")
    for row, setting in zip(figure.subplots(2, 4), MAIN, strict=True):
        for axes, objective in zip(row, EXACT, strict=True):
            x = fit_particles(target, OBJECTIVES[objective](), **{"steps": steps, **SETTINGS[setting]})
            plot_particles(axes, target, x, f"{NAMES[objective]}, t {setting}")
    figure.savefig(folder / "particles.png")
    figure = Figure(figsize=(6, 4), dpi=100, layout="tight")
    plot_weights(figure.subplots())
    figure.savefig(folder / "weights.png")
    three = (ReverseKL(), JensenShannon(), ForwardKL())
    figure = Figure(figsize=(13, 3), dpi=100, layout="tight")
    for axes, separation in zip(figure.subplots(1, 4), (2.5, 3, 4, 5), strict=True):
        plot_one_gaussian(axes, two_modes(separation), three)
        axes.set_title(f"modes at ±{separation}", fontsize=9)
    figure.savefig(folder / "one_gaussian.png")
    figure = Figure(figsize=(11, 3.4), dpi=100, layout="tight")
    for axes, divergence in zip(figure.subplots(1, 3), three, strict=True):
        plot_loss_landscape(axes, two_modes(3), divergence)
    figure.savefig(folder / "landscape.png")


def main() -> None:
    """See --help."""
    p = argparse.ArgumentParser(prog="python -m benchmarks.evidence.sandbox", description=__doc__)
    p.add_argument("-o", "--out", type=Path, default=Path("docs"), help="the docs folder (default: docs)")
    p.add_argument("--seeds", type=int, default=10, help="seeds 0 ... n-1 per target (default: 10)")
    p.add_argument("--mixtures", type=int, default=10, help="random mixtures (default: 10)")
    p.add_argument("--steps", type=int, default=1500, help="optimiser steps per run (default: 1500)")
    p.add_argument("--resume", action="store_true", help="keep the runs already in runs.csv")
    p.add_argument("--seconds", type=float, default=math.inf, help="begin no run after so many (default: no limit)")
    args = p.parse_args()
    folder, page = args.out / "sandbox", args.out / "sandbox.md"
    folder.mkdir(parents=True, exist_ok=True)
    plan = list(planned(args.seeds, args.mixtures, args.steps))
    runs = all_runs(folder / "runs.csv", plan, args.resume, args.seconds)
    figures(folder, args.steps)
    text = page.read_text(encoding="utf-8") if page.exists() else f"{BEGIN}\n{END}\n"
    head, tail = text.split(BEGIN)[0], text.split(END)[-1]
    page.write_text(f"{head}{BEGIN}\n\n{report(runs, speed_table())}\n\n{END}{tail}", encoding="utf-8")
    print(f"wrote {page} and {folder}/; {len(runs)} of {len(plan)} planned runs are done")


if __name__ == "__main__":
    main()
