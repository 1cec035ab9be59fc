"""Do the seeds of an ambiguous prompt cover what it leaves open, in the true shares?

From the rows alone: the histogram of what the judge sees (one vote per asset), its Jensen-Shannon divergence to the
true distribution, and DiverseDream's two numbers (arXiv 2312.02192, not re-read: recalled definitions), with the judge
in Inception's place: IV, the entropy of the mean of the probabilities (more is more diverse), and IQ, the mean of their
entropies (less is clearer).  From the assets: the distance between seeds as the judge's features have it.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import torch
from torch import Tensor
from torch.nn import functional as F

from jsdsd.scene.voxels import VoxelGrid
from jsdsd.toybox.captions import attributes

from .jobs import Row
from .judge import HEADS, Judge
from .measures import NAN, eight_views
from .prompts import Prompt


def open_heads(prompt: Prompt) -> dict[str, Tensor]:
    """What the prompt leaves open, "kind" or "colour", and the true probabilities in the order of HEADS."""
    if len(prompt.toys) > 1:
        return {}
    truth = attributes(prompt.text)[0]
    tables = {head: torch.tensor([truth[head].get(name, 0.0) for name in HEADS[head]]) for head in ("kind", "colour")}
    return {head: p for head, p in tables.items() if (p > 0).sum() > 1}


def probabilities(rows: Sequence[Row], head: str) -> Tensor:
    """(S, K) of rows that have them."""
    return torch.tensor([[float(x) for x in row[f"{head}_p"].split()] for row in rows if row.get(f"{head}_p")])


def votes(p: Tensor) -> Tensor:
    """(S, K) probabilities -> one-hot (S, K)."""
    return F.one_hot(p.argmax(1), p.shape[1]).double()


def pairwise(seen: Tensor) -> float:
    """Mean cosine distance between S assets, view by view: features (S, V, F) -> 0 ... 2.  NaN for fewer than two."""
    if len(seen) < 2:
        return NAN
    return float(torch.stack([1 - (a * b).sum(-1).mean() for a, b in combinations(seen, 2)]).mean())


def asset_features(judge: Judge, grids: Sequence[VoxelGrid]) -> Tensor:
    """(S, 8, F): the eight views from around of each asset."""
    return torch.stack([judge.features(eight_views(grid)[0]) for grid in grids])


def picture_features(judge: Judge, pictures: Tensor) -> Tensor:
    """(M, 8, F) of the prior's pictures (W, M, H, W, 3), whose first eight words are those of the eight views."""
    return torch.stack([judge.features(some) for some in pictures[:8]], 1)
