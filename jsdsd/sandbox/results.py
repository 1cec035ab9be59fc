"""`python -m jsdsd.sandbox.results`: every figure and table of docs/sandbox.md, from nothing, all seeds kept.

Each run is one line of docs/sandbox/runs.csv; --resume keeps the lines already there (a long command may be stopped).
"""

from __future__ import annotations

import argparse
import csv
import statistics
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from ..objectives import Anneal, ForwardKL, JensenShannon, ReverseKL
from .__main__ import OBJECTIVES, named_target
from .fits import fit_gaussian, two_modes
from .metrics import mode_divergence, on_mode_share, spread_ratio
from .particles import Particles, fit_particles

NAMES = {
    "sds": "reverse KL, each alone (SDS)",
    "ensemble_reverse_kl": "reverse KL, ensemble",
    "ensemble_jsd": "JSD, ensemble",
    "ensemble_jsd_learned": "JSD, ensemble, learned log-odds",
    "ensemble_forward_kl": "forward KL, ensemble",
}
EXACT = ("sds", "ensemble_reverse_kl", "ensemble_jsd", "ensemble_forward_kl")
CORE_TARGETS = ("ring", "unbalanced", "off_centre")
OTHER_TARGETS = ("grid", "moons", "checkerboard", "spiral")
BEGIN, END = "<!-- results: begin -->", "<!-- results: end -->"


@dataclass(frozen=True)
class Run:
    """One run of 256 particles, and what came of it."""

    target: str
    objective: str
    seed: int
    steps: int
    start: float  # fraction of the schedule where the annealing begins
    mode_jsd: float = float("nan")
    on_mode: float = float("nan")
    spread: float = float("nan")
    seconds: float = float("nan")

    @property
    def key(self) -> tuple[object, ...]:
        return self.target, self.objective, self.seed, self.steps, self.start


def planned(seeds: int, mixtures: int, steps: int) -> Iterator[Run]:
    """The runs of the page, the ones that matter most first. The random mixtures have seeds 1000, 1001, ..."""
    for seed in range(seeds):
        for target in CORE_TARGETS:
            for objective in EXACT:
                yield Run(target, objective, seed, steps, 0.98)
    for objectives in (EXACT, ("ensemble_jsd_learned",)):
        for number in range(mixtures):
            for objective in objectives:
                yield Run(f"random:{1000 + number}", objective, number, steps, 0.98)
    for seed in range(seeds):
        for target in CORE_TARGETS:
            yield Run(target, "ensemble_jsd_learned", seed, steps, 0.98)
    for target in ("unbalanced", "off_centre"):
        for start in (0.7, 0.5, 0.3):
            for seed in range(min(seeds, 3)):
                for objective in EXACT:
                    yield Run(target, objective, seed, steps, start)
    for target in OTHER_TARGETS:
        for seed in range(min(seeds, 3)):
            for objective in EXACT:
                yield Run(target, objective, seed, steps, 0.98)


def perform(run: Run) -> Run:
    """Do it."""
    target, started = named_target(run.target), time.perf_counter()
    x = fit_particles(
        target, OBJECTIVES[run.objective](), steps=run.steps, seed=run.seed, times=Anneal(start=run.start)
    )
    scores = mode_divergence(x, target), on_mode_share(x, target), spread_ratio(x, target)
    numbers = (round(v, 6) for v in (*scores, time.perf_counter() - started))
    return Run(*run.key, *numbers)  # type: ignore[arg-type]


def all_runs(file: Path, plan: list[Run], resume: bool) -> list[Run]:
    """The plan performed, each line written to `file` as soon as it is known."""
    done: dict[tuple[object, ...], Run] = {}
    if resume and file.exists():
        with file.open(encoding="utf-8") as lines:
            for row in csv.DictReader(lines):
                kinds = {"target": str, "objective": str, "seed": int, "steps": int}
                run = Run(**{name: kinds.get(name, float)(value) for name, value in row.items()})
                done[run.key] = run
    with file.open("w", newline="", encoding="utf-8") as lines:
        writer = csv.DictWriter(lines, list(asdict(plan[0])), lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(run) for run in done.values())
        for number, run in enumerate(plan):
            if run.key not in done:
                done[run.key] = perform(run)
                writer.writerow(asdict(done[run.key]))
                lines.flush()
                print(f"{number + 1}/{len(plan)} {done[run.key]}", flush=True)
    return [done[run.key] for run in plan if run.key in done]


def score_table(runs: list[Run], columns: dict[str, list[Run]], metric: str, digits: int) -> str:
    """Objectives down, columns across; median (least ... greatest) of a metric."""
    lines = ["| | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for objective, words in NAMES.items():
        cells = []
        for some in columns.values():
            values = [getattr(run, metric) for run in some if run.objective == objective]
            one = "-" if not values else f"{statistics.median(values):.{digits}f}"
            span = f" ({min(values):.{digits}f} ... {max(values):.{digits}f})" if len(values) > 1 else ""
            cells.append(one + span)
        if set(cells) != {"-"}:
            lines.append(f"| {words} | " + " | ".join(cells) + " |")
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


def speed_table() -> str:
    """Milliseconds per step, the median of a few steps, on this machine now."""
    lines = [
        f"| particles ({torch.get_num_threads()} threads) | SDS, ms/step | JSD ensemble, ms/step |",
        "|---|---|---|",
    ]
    for n, steps in ((256, 200), (1000, 60), (3000, 12), (10000, 4)):
        cells = []
        for objective in ("sds", "ensemble_jsd"):
            records = Particles(n).run(named_target("ring"), OBJECTIVES[objective](), steps)
            cells.append(f"{1e3 * statistics.median(record.seconds for record in records):.2f}")
        lines.append(f"| {n} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def report(runs: list[Run]) -> str:
    """The generated part of the page."""
    main = [run for run in runs if run.start == 0.98]
    core = {name: [r for r in main if r.target == name] for name in CORE_TARGETS}
    core["random mixtures"] = [r for r in main if r.target.startswith("random")]
    other = {name: [r for r in main if r.target == name] for name in OTHER_TARGETS}
    starts = {
        f"{name}, from {start}": [r for r in runs if r.target == name and r.start == start]
        for name in ("unbalanced", "off_centre")
        for start in (0.98, 0.7, 0.5, 0.3)
    }
    parts = [
        "### One Gaussian, two modes\n",
        gaussian_table(),
        "\n### Mode-histogram divergence of 256 particles, nats: median (least ... greatest) over all seeds\n",
        score_table(main, core, "mode_jsd", 5),
        "\n### Spread inside the modes, 1 = the target's\n",
        score_table(main, core, "spread", 2),
        "\n### Other targets, mode-histogram divergence, nats\n",
        score_table(main, other, "mode_jsd", 5),
        "\n### The same when annealing begins at less noise, nats\n",
        score_table(runs, starts, "mode_jsd", 4),
        "\n### Cost\n",
        speed_table(),
    ]
    return "\n".join(parts)


def figures(folder: Path, steps: int) -> None:
    """particles.png, weights.png, one_gaussian.png, landscape.png."""
    from matplotlib.figure import Figure

    from .plots import plot_loss_landscape, plot_one_gaussian, plot_particles, plot_weights

    figure = Figure(figsize=(13, 6.6), dpi=100, layout="tight")
    for row, name in zip(figure.subplots(2, 4), ("off_centre", "unbalanced"), strict=True):
        for axes, objective in zip(row, EXACT, strict=True):
            x = fit_particles(named_target(name), OBJECTIVES[objective](), steps=steps)
            plot_particles(axes, named_target(name), x, NAMES[objective])
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
    p = argparse.ArgumentParser(prog="python -m jsdsd.sandbox.results", description=__doc__)
    p.add_argument("-o", "--out", type=Path, default=Path("docs"), help="the docs folder (default: docs)")
    p.add_argument("--seeds", type=int, default=10, help="seeds 0 ... n-1 per target (default: 10)")
    p.add_argument("--mixtures", type=int, default=10, help="random mixtures (default: 10)")
    p.add_argument("--steps", type=int, default=1500, help="optimiser steps per run (default: 1500)")
    p.add_argument("--resume", action="store_true", help="keep the runs already in runs.csv")
    args = p.parse_args()
    folder, page = args.out / "sandbox", args.out / "sandbox.md"
    folder.mkdir(parents=True, exist_ok=True)
    runs = all_runs(folder / "runs.csv", list(planned(args.seeds, args.mixtures, args.steps)), args.resume)
    figures(folder, args.steps)
    text = page.read_text(encoding="utf-8") if page.exists() else f"{BEGIN}\n{END}\n"
    head, tail = text.split(BEGIN)[0], text.split(END)[-1]
    page.write_text(f"{head}{BEGIN}\n\n{report(runs)}\n\n{END}{tail}", encoding="utf-8")
    print(f"wrote {page} and {folder}/")


if __name__ == "__main__":
    main()
