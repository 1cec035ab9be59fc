"""Intervals: a hierarchical bootstrap over prompts and, inside each, over seeds.

Percentile intervals (Efron & Tibshirani 1993, not re-read), moved by the bootstrap's bias.  Prompts are drawn with
replacement, then as many of a drawn prompt's seeds as it has; so both sources of chance count.  Comparisons are of
differences on the same prompt and seed: what a prompt is hard for, both settings suffer.

    theta  = statistic(all items),     theta*_b = statistic(items drawn with replacement),    b = 1 ... draws
    interval = quantiles 0.025 and 0.975 of theta*_b, minus (mean_b theta*_b - theta)

The means of measures have no bias.  A divergence of a histogram has: few draws look less even than what they are drawn
from, and drawn from again still less so; without the shift an interval of 16 seeds' divergence can miss its own
estimate.  With it, the interval is for what as many seeds would measure on average, and the tests count how often it
covers that.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

LEVEL = 0.95


@dataclass(frozen=True)
class Interval:
    """An estimate, the ends of its 95 % interval, and how many prompts and items it rests on."""

    estimate: float
    low: float
    high: float
    prompts: int
    items: int

    def __str__(self) -> str:
        return f"{self.estimate:.3g} [{self.low:.3g}, {self.high:.3g}]"

    def from_zero(self) -> Interval:
        """Of what is never negative: the low end is 0 at least."""
        return replace(self, low=max(0.0, self.low))

    def side(self) -> int:
        """+1 where all of the interval is above 0, -1 where all is below, else 0."""
        return (self.low > 0) - (self.high < 0)


def only(means: Tensor) -> Tensor:
    """The statistic of plain means: (..., 1) -> (...)."""
    return means[..., 0]


def bootstrap(
    groups: Sequence[Tensor],
    statistics: Callable[[Tensor], Tensor] | Sequence[Callable[[Tensor], Tensor]] = only,
    draws: int = 2000,
    seed: int = 0,
) -> Interval:
    """The mean over prompts of a statistic of the mean over each prompt's items.

    groups: one (S_i, K) per prompt, S_i >= 1.  statistics: means (..., K) -> (...), the same for every prompt or one
    each.  With one prompt the interval knows the seeds' chance only; with one seed the prompts' only.  ValueError
    without a prompt, for an empty one, or values that are not finite.
    """
    if not groups or any(len(group) == 0 or not group.isfinite().all() for group in groups):
        raise ValueError("bootstrap needs one prompt at least, each with at least one item, all finite")
    each = [statistics] * len(groups) if callable(statistics) else list(statistics)
    generator = torch.Generator().manual_seed(seed)
    P, S = len(groups), max(map(len, groups))
    chosen = torch.randint(P, (draws, P), generator=generator)
    u = torch.rand(draws, P, S, generator=generator)
    found = torch.empty(draws, P, dtype=torch.float64)
    for i, group in enumerate(groups):  # all draws of prompt i at once
        where = chosen == i  # (draws, P)
        index = (u[where][:, : len(group)] * len(group)).long()  # (n, S_i)
        found[where] = each[i](group.double()[index].mean(1))
    estimates = found.mean(1)
    estimate = float(torch.stack([f(group.double().mean(0)) for f, group in zip(each, groups, strict=True)]).mean())
    moved = estimates - estimates.mean() + estimate
    low, high = (float(torch.quantile(moved, q)) for q in ((1 - LEVEL) / 2, (1 + LEVEL) / 2))
    return Interval(estimate, low, high, P, sum(map(len, groups)))


def mean(rows: Sequence[Mapping[str, str]], column: str) -> Interval | None:
    """Of a column of results, over prompts and, inside each, seeds; None where nothing is known."""
    groups: dict[str, list[float]] = {}
    for row in rows:
        if row[column]:
            groups.setdefault(row["prompt"], []).append(float(row[column]))
    return bootstrap([torch.tensor(values)[:, None] for values in groups.values()]) if groups else None


def perfect_divergence(truth: Tensor, count: int, draws: int = 2000, seed: int = 0) -> float:
    """Mean Jensen-Shannon divergence (nats) between `truth` (K,) and the histogram of `count` draws from it: what a
    perfect sampler would score."""
    generator = torch.Generator().manual_seed(seed)
    which = torch.multinomial(truth.expand(draws, -1), count, replacement=True, generator=generator)  # (draws, count)
    share = torch.zeros(draws, len(truth), dtype=torch.float64).scatter_add(
        1, which, torch.full(which.shape, 1 / count, dtype=torch.float64)
    )
    return float(divergence_to(truth)(share).mean())


def divergence_to(truth: Tensor) -> Callable[[Tensor], Tensor]:
    """histogram (..., K) -> Jensen-Shannon divergence to `truth` (K,), nats."""
    from jsdsd.objectives import JensenShannon

    p = truth.double() / truth.double().sum()
    return lambda share: JensenShannon().discrete(p.expand_as(share), share / share.sum(-1, keepdim=True))


def entropy(p: Tensor) -> Tensor:
    """Of distributions (..., K), nats: (...)."""
    return torch.special.entr(p).sum(-1)


def log_ratio(value: float) -> float:
    """|log value|: how far a ratio is from 1, too much and too little alike; NaN for 0 or less."""
    return abs(math.log(value)) if value > 0 else math.nan
