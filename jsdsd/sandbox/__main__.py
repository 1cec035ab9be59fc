"""`python -m jsdsd.sandbox`: one target, several objectives, a picture and a table in seconds."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from ..objectives import (
    CSD,
    ISM,
    JSD,
    NFSD,
    SDI,
    SDS,
    Anneal,
    Denoiser,
    Ensemble,
    ForwardKL,
    GuidanceLogOdds,
    Jeffreys,
    JensenShannon,
    LearnedLogOdds,
    LocalJSD,
    Objective,
    Repulsive,
    ReverseKL,
    SoftenedReverseKL,
    SquaredHellinger,
    TwoSided,
    UniformTime,
    named_objective,
)
from .distributions import TARGETS, ConditionalMixture, GaussianMixture, random_mixture
from .metrics import mode_histogram, on_mode_share, sliced_wasserstein, spread_ratio
from .particles import fit_particles

OBJECTIVES: dict[str, Callable[[], Objective]] = {
    "sds": SDS,
    "sdi": SDI,
    "jsd": JSD,
    "ensemble_reverse_kl": lambda: Ensemble(ReverseKL()),
    "ensemble_jsd": lambda: Ensemble(JensenShannon()),
    "ensemble_jsd_learned": lambda: Ensemble(JensenShannon(), LearnedLogOdds()),
    "ensemble_forward_kl": lambda: Ensemble(ForwardKL()),
    "ensemble_softened": lambda: Ensemble(SoftenedReverseKL()),
    "ensemble_hellinger": lambda: Ensemble(SquaredHellinger()),
    "ensemble_jeffreys": lambda: Ensemble(Jeffreys()),
    "two_sided": lambda: TwoSided(JensenShannon()),
    "local_jsd": LocalJSD,
    "ism": ISM,
    "repulsive": Repulsive,
}
OF_CLASSES: dict[str, Callable[[], Objective]] = {  # these ask for both halves of guidance: --label
    "two_sided_guidance": lambda: TwoSided(JensenShannon(), log_odds=GuidanceLogOdds()),
    "csd": CSD,
    "nfsd": NFSD,
}
HEADER = f"{'objective':<22}{'mode JSD':>10}{'on mode':>9}{'spread':>8}{'SW2':>7}{'s':>7}  mode histogram"


def named_target(name: str) -> GaussianMixture:
    """A built-in target by name, or random:SEED. ValueError (naming the choices) for any other name."""
    if name.startswith("random:") and name[7:].isdigit():
        return random_mixture(int(name[7:]))
    targets = {make.__name__: make for make in TARGETS}
    if name not in targets:
        raise ValueError(f"unknown target {name!r}; choose one of {', '.join(targets)}, random:SEED")
    return targets[name]()


def named_objectives(names: str) -> dict[str, Objective]:
    """Fresh objectives from a comma-separated list of names, one's own as module:Name. ValueError (naming the choices)
    for an unknown or no name.
    """
    wanted = [name.strip() for name in names.split(",") if name.strip()]
    known = OBJECTIVES | OF_CLASSES
    if not wanted:
        raise ValueError(f"no objective: choose from {', '.join(known)}")
    return {name: named_objective(name, known) for name in wanted}


def chosen_class(target: GaussianMixture, label: int | None, guidance_scale: float) -> Denoiser:
    """The target, or its class `label` with guidance towards it; the classes are its modes, even and odd ones."""
    if label is None:
        return target
    if label not in (0, 1) or len(target.mode_weights) < 2:
        raise ValueError(
            f"--label is 0 (the target's even modes) or 1 (its odd ones), of two or more; got {label}"
        )
    classes = GaussianMixture(target.means, target.std, target.weights, target.groups % 2, target.schedule)
    return ConditionalMixture(classes, label, guidance_scale)


def mode_shares(target: GaussianMixture, label: int | None) -> Tensor:
    """(M,) what the histogram of modes should be, float64: the target's, or those of a class alone."""
    shares = target.mode_weights.double()
    if label is not None:
        shares = torch.where(torch.arange(len(shares)) % 2 == label, shares, 0.0)
    return shares / shares.sum()


def parser() -> argparse.ArgumentParser:
    """The command line; every default is shown by --help."""
    formatter = argparse.ArgumentDefaultsHelpFormatter
    p = argparse.ArgumentParser(
        prog="python -m jsdsd.sandbox",
        description="Move points to a 2D target by score distillation, once per objective, and compare. "
        f"Targets: {', '.join(make.__name__ for make in TARGETS)}, random:SEED. Objectives: {', '.join(OBJECTIVES)}; "
        f"with --label also {', '.join(OF_CLASSES)}; your own: module:Name, of a module or a file here.",
        formatter_class=formatter,
    )
    p.add_argument("--target", default="off_centre", help="what the points should become")
    p.add_argument("--objectives", default="sds,ensemble_reverse_kl,ensemble_jsd", help="comma-separated names")
    p.add_argument("--particles", type=int, default=256, help="number of points")
    p.add_argument("--steps", type=int, default=1500, help="optimiser steps")
    p.add_argument(
        "--times", choices=("anneal", "uniform"), default="uniform", help="noise level: falling, or at random (default)"
    )
    p.add_argument("--label", type=int, help="of the target's modes only the even (0) or odd (1) ones: a prompt")
    p.add_argument("--guidance-scale", type=float, default=1.0, help="towards --label; 1 = none")
    p.add_argument("--seed", type=int, default=0, help="of the start and of all noise")
    p.add_argument("-o", "--out", type=Path, default=Path("out"), help="folder for the figure, the table and GIFs")
    p.add_argument("--gif", action="store_true", help="also write an animation per objective (runs each a second time)")
    return p


def main(arguments: list[str] | None = None) -> int:
    """Run it; returns 0, or ends with a message for a bad argument."""
    p = parser()
    args = p.parse_args(arguments)
    try:
        target, objectives = named_target(args.target), named_objectives(args.objectives)
        denoiser = chosen_class(target, args.label, args.guidance_scale)
        if args.label is None and (asking := [name for name in objectives if name in OF_CLASSES]):
            raise ValueError(f"{', '.join(asking)} compares a class with all of the target: give --label 0 or 1")
        args.out.mkdir(parents=True, exist_ok=True)
        if args.particles < 1 or args.steps < 1:
            raise ValueError(f"particles and steps must be >= 1, got {args.particles} and {args.steps}")
    except (ValueError, OSError) as error:
        p.error(str(error))
    from matplotlib.figure import Figure

    from .particles import trajectories
    from .plots import animate, plot_particles

    figure = Figure(figsize=(3.2 * len(objectives), 3.5), dpi=120, layout="tight")
    axes = figure.subplots(1, len(objectives), squeeze=False)[0]
    goal = denoiser.given_label if isinstance(denoiser, ConditionalMixture) else target
    truth = goal.sample(args.particles, torch.Generator().manual_seed(args.seed + 1))
    shares = mode_shares(target, args.label)
    times = Anneal() if args.times == "anneal" else UniformTime()
    lines = [HEADER]
    print(HEADER)
    stem = f"{args.target.replace(':', '_')}"
    written = [args.out / f"{stem}.png", args.out / f"{stem}.txt"]
    for ax, (name, objective) in zip(axes, objectives.items(), strict=True):
        started = time.perf_counter()
        x = fit_particles(denoiser, objective, args.particles, args.steps, args.seed, times=times)
        seconds = time.perf_counter() - started
        modes = " ".join(f"{share:.2f}" for share in mode_histogram(x, target).tolist()[:9])
        histogram = mode_histogram(x, target).double()
        score = float(JensenShannon().discrete(shares, histogram / histogram.sum()))
        lines.append(
            f"{name:<22}{score:>10.4f}{on_mode_share(x, target):>9.3f}{spread_ratio(x, target):>8.2f}"
            f"{sliced_wasserstein(x, truth, generator=torch.Generator().manual_seed(0)):>7.2f}{seconds:>7.1f}  {modes}"
        )
        print(lines[-1], flush=True)
        plot_particles(ax, target, x, f"{name}: {score:.4f} nats")
        if args.gif:
            frames = min(60, args.steps)
            fresh = named_objectives(name)[name]
            path = trajectories(denoiser, fresh, args.particles, args.steps, args.seed, frames, times)
            written.append(animate(target, path, args.out / f"{stem}_{name}.gif"))
    figure.savefig(written[0])
    written[1].write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("wrote " + ", ".join(str(file) for file in written))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
