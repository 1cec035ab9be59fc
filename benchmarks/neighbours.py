"""Where SDS's neighbours end in the plane: the table of docs/neighbours.md.

    python benchmarks/neighbours.py

64 particles from N(0, 0.25 I), 500 steps, t drawn uniformly, seeds 0 ... 4 together. The prompt is the even modes of
the target (two of off_centre's four, four of the ring's eight), guidance 3 for SDS and NFSD. Counted: the share within
3 std of a mode of the class, of another mode, of none; and the median distance of these last from the origin.
"""

from __future__ import annotations

import torch
from torch import Tensor

from jsdsd.objectives import (
    CSD,
    ISM,
    NFSD,
    SDS,
    Bridge,
    Ensemble,
    GuidanceLogOdds,
    JensenShannon,
    LocalJSD,
    Objective,
    Repulsive,
    ReverseKL,
    TwoSided,
)
from jsdsd.sandbox import ConditionalMixture, GaussianMixture, fit_particles, off_centre, ring

SEEDS, PARTICLES, STEPS = range(5), 64, 500


def rows(classes: GaussianMixture) -> dict[str, tuple[Objective, float]]:
    """Objective and guidance scale; Bridge starts from the other class."""
    other = ConditionalMixture(classes, 1)
    return {
        "SDS": (SDS(), 1.0),
        "SDS, guidance 3": (SDS(), 3.0),
        "CSD": (CSD(), 1.0),
        "SDS-Bridge, from the other class": (Bridge(other), 1.0),
        "NFSD, guidance 3": (NFSD(), 3.0),
        "ISM": (ISM(), 1.0),
        "Repulsive": (Repulsive(), 1.0),
        "VSD, `Ensemble(ReverseKL())`": (Ensemble(ReverseKL()), 1.0),
        "TwoSided, GuidanceLogOdds": (TwoSided(JensenShannon(), log_odds=GuidanceLogOdds()), 1.0),
        "LocalJSD": (LocalJSD(), 1.0),
    }


def ends(x: Tensor, classes: GaussianMixture) -> str:
    """`own / other / none (distance)` in per cent."""
    distance = torch.cdist(x, classes.means) / classes.std
    nearest = distance.min(1)
    on, group = nearest.values <= 3, classes.groups[nearest.indices]
    own, other = (float((on & (group == label)).float().mean()) for label in (0, 1))
    away = f" ({float(x[~on].norm(dim=1).median()):.2g})" if not on.all() else ""
    return f"{own:.0%} / {other:.0%} / {1 - own - other:.0%}{away}"


def main() -> None:
    """Print the table."""
    targets = {}
    for make in (off_centre, ring):
        m = make()
        targets[make.__name__] = GaussianMixture(m.means, m.std, m.weights, m.groups % 2)
    print("| | " + " | ".join(targets) + " |\n|---|---|---|")
    for name in rows(targets["ring"]):
        cells = []
        for classes in targets.values():
            objective, scale = rows(classes)[name]
            target = ConditionalMixture(classes, 0, scale)
            x = torch.cat([fit_particles(target, objective, PARTICLES, STEPS, seed) for seed in SEEDS])
            cells.append(ends(x, classes))
        print(f"| {name} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
