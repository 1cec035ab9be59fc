"""Both sides of the Jensen-Shannon gradient in the plane, against SDS and ensembles: where 256 particles end.

    python benchmarks/two_sided.py                 ten seeds, t drawn uniformly: docs/sandbox/two_sided.csv and a table
    python benchmarks/two_sided.py --times anneal  t annealed
    python benchmarks/two_sided.py --table         the table again, from the file
    python benchmarks/two_sided.py --figure        docs/sandbox/two_sided.png: where the two sides pull a particle

Every run is one line of the file and is not done twice. A perfect sample of 256 points has a mode-histogram
divergence of about (modes - 1)/2048 nats.
"""

from __future__ import annotations

import argparse
import csv
import math
import statistics
from collections.abc import Callable
from pathlib import Path

import torch
from matplotlib.figure import Figure

from jsdsd.objectives import SDS, Anneal, Ensemble, JensenShannon, Objective, ReverseKL, TwoSided, UniformTime
from jsdsd.sandbox import (
    TARGETS,
    GaussianMixture,
    fit_particles,
    mode_divergence,
    mode_histogram,
    on_mode_share,
    spread_ratio,
)

OBJECTIVES: dict[str, Callable[[], Objective]] = {
    "SDS": SDS,
    "TwoSided, share 1": lambda: TwoSided(JensenShannon(), 1.0),
    "TwoSided, share ½": lambda: TwoSided(JensenShannon(), 0.5),
    "TwoSided, share 0": lambda: TwoSided(JensenShannon(), 0.0),
    "Ensemble, reverse KL (VSD)": lambda: Ensemble(ReverseKL()),
    "Ensemble, JSD, share 1": lambda: Ensemble(JensenShannon()),
    "Ensemble, JSD, share ½": lambda: Ensemble(JensenShannon(), share=0.5),
    "Ensemble, JSD, share 0": lambda: Ensemble(JensenShannon(), share=0.0),
}
STEPS = 500
TIMES = {"uniform": UniformTime(), "anneal": Anneal()}
COLUMNS = ("times", "target", "objective", "seed", "mode_jsd", "on_mode", "spread", "modes")
Row = dict[str, str]


def run(times: str, target_name: str, objective: str, seed: int) -> Row:
    """256 particles, 500 steps; modes: their share in each, the first eight."""
    target = next(make for make in TARGETS if make.__name__ == target_name)()
    x = fit_particles(target, OBJECTIVES[objective](), steps=STEPS, seed=seed, times=TIMES[times])
    modes = " ".join(f"{share:.3f}" for share in mode_histogram(x, target).tolist()[:8])
    numbers = (f"{score(x, target):.6f}" for score in (mode_divergence, on_mode_share, spread_ratio))
    return dict(zip(COLUMNS, (times, target_name, objective, str(seed), *numbers, modes), strict=True))


def table(rows: list[Row], times: str) -> str:
    """Mode-histogram divergence, nats: median (least ... greatest) over the seeds; and the median share on a mode."""
    names = [make.__name__ for make in TARGETS]
    lines = [f"| t {times} | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for objective in OBJECTIVES:
        cells = []
        for name in names:
            some = [r for r in rows if (r["times"], r["target"], r["objective"]) == (times, name, objective)]
            values = [float(r["mode_jsd"]) for r in some]
            on = statistics.median(float(r["on_mode"]) for r in some) if some else 0.0
            span = f"{min(values):.4f} ... {max(values):.4f}" if some else ""
            cells.append(f"{statistics.median(values):.4f} ({span}), {on:.0%}" if some else "-")
        lines.append(f"| {objective} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def figure(file: Path, t: int = 350) -> None:
    """One particle between three modes: D as colour, samples of either side sized by their weight, their mean pull."""
    modes = torch.tensor([[2.0, 0.0], [-1.0, 1.5], [-1.0, -2.0]])
    target, at = GaussianMixture(modes, 0.4), torch.tensor([0.7, 0.8])
    alpha, sigma = float(target.schedule.alpha(t)), float(target.schedule.sigma(t))
    axis = torch.linspace(-3.2, 3.2, 200)
    plane = torch.cartesian_prod(axis, axis)
    log_q = -(plane - alpha * at).square().sum(1) / (2 * sigma**2) - math.log(2 * math.pi * sigma**2)
    d = torch.sigmoid(target.log_prob(plane, t) - log_q).view(200, 200).T
    x0 = at.expand(40000, 2)
    picture = Figure(figsize=(10, 4.6), dpi=100, layout="constrained")
    axes = picture.subplots(1, 2, sharey=True)
    titles = "generated: x_t ~ q_t, weight ½ D", "target: x' ~ p_t, weight ½ (1 - D)"
    for ax, share, title in zip(axes, (1.0, 0.0), titles, strict=True):
        step = TwoSided(JensenShannon(), share).gradient(target, x0, t, torch.Generator().manual_seed(0))
        assert step.weight is not None
        image = ax.pcolormesh(axis, axis, d, cmap="RdBu", vmin=0, vmax=1, shading="auto", rasterized=True)
        few = slice(0, 150)
        ax.scatter(*step.x_t[few].T, s=60 * step.weight[few] + 1, c="k", alpha=0.6, label="sample, area: weight")
        ax.scatter(*(alpha * modes).T, marker="+", c="k", s=80, label="modes of p_t")
        ax.scatter(*(alpha * at), marker="*", c="gold", edgecolors="k", s=180, label="the particle", zorder=4)
        pull = -8 * step.grad.mean(0)
        ax.annotate("", (alpha * at + pull).tolist(), (alpha * at).tolist(), arrowprops={"width": 2, "color": "k"})
        ax.set_title(f"{title}\nmean pull ({pull[0]:.2f}, {pull[1]:.2f}) / 8", fontsize=10)
        ax.set_aspect("equal")
    axes[0].legend(loc="lower left", fontsize=8)
    picture.colorbar(image, ax=axes, label="D = p_t / (p_t + q_t)")
    picture.savefig(file)


def main() -> None:
    """See above."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--times", choices=tuple(TIMES), default="uniform")
    p.add_argument("--seeds", type=int, nargs="*", default=list(range(10)), help="(default: 0 ... 9)")
    p.add_argument("--file", type=Path, default=Path("docs/sandbox/two_sided.csv"))
    p.add_argument("--table", action="store_true", help="no runs, the table alone")
    p.add_argument("--figure", action="store_true", help="no runs, the figure alone")
    args = p.parse_args()
    if args.figure:
        figure(args.file.with_suffix(".png"))
        return
    rows: list[Row] = []
    if args.file.exists():
        with args.file.open(encoding="utf-8") as lines:
            rows = list(csv.DictReader(lines))
    done = {tuple(row[c] for c in COLUMNS[:4]) for row in rows}
    if not args.table:
        with args.file.open("w", newline="", encoding="utf-8") as lines:
            writer = csv.DictWriter(lines, COLUMNS, lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
            for seed in args.seeds:
                for make in TARGETS:
                    for objective in OBJECTIVES:
                        key = (args.times, make.__name__, objective, str(seed))
                        if key not in done:
                            rows.append(run(*key[:3], seed))
                            writer.writerow(rows[-1])
                            lines.flush()
    print(table(rows, args.times))


if __name__ == "__main__":
    main()
