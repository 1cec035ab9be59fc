"""The claims of the paper's abstract (arXiv 2503.10660) against score distillation with reverse KL (SDS), decided by
intervals and by nothing else.

A claim has one or more measures; a candidate is compared with SDS at equal U-Net calls and at equal steps, each with t
annealed and at random.  Every comparison is an interval of paired differences (same prompt, same seed), turned so that
above 0 is what the paper claims.  All above 0: supported.  None above 0: not supported.  Else: mixed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .diversity import open_heads, probabilities, votes
from .jobs import Row
from .prompts import PROMPTS
from .statistics import Interval, bootstrap, divergence_to, entropy, log_ratio

BASELINES = {
    "calls": ("sds_400", "sds_random_400"),
    "steps": ("sds_100", "sds_random_100"),
}
CANDIDATES = (
    *("jsd_official", "jsd_k1", "jsd_k0.3", "jsd_k3", "jsd_no_inversion_100", "jsd_no_inversion_200", "seeded"),
    *("ensemble_jsd_100", "ensemble_jsd_400"),
)


@dataclass(frozen=True)
class Claim:
    """words: the abstract's.  measures: (name in words, what to compare, +1 where more is what is claimed)."""

    words: str
    measures: tuple[tuple[str, Callable[[Row], float] | str, int], ...]


def number(name: str) -> Callable[[Row], float]:
    """The column as a number; NaN where it is empty."""
    return lambda row: float(row[name] or "nan")


def gap(name: str) -> Callable[[Row], float]:
    """|log| of a ratio's column."""
    return lambda row: log_ratio(float(row[name] or "nan"))


def failed(row: Row) -> float:
    """1 for a run that broke."""
    return float(bool(row["error"]))


CLAIMS = (
    Claim(
        "less saturation",
        (("saturation / true", number("saturation"), -1), ("its distance from 1, log", gap("saturation"), -1)),
    ),
    Claim("richer detail", (("detail / true", number("detail"), 1), ("its distance from 1, log", gap("detail"), -1))),
    Claim(
        "higher geometric fidelity", (("silhouette IoU", number("iou"), 1), ("volumetric IoU", number("volume_iou"), 1))
    ),
    Claim("greater diversity", (("IV of the colours, nats", "iv colour", 1), ("IV of the kinds, nats", "iv kind", 1))),
    Claim(
        "better distribution alignment",
        (("JSD of the colours, nats", "jsd colour", -1), ("JSD of the kinds, nats", "jsd kind", -1)),
    ),
    Claim(
        "more stable optimisation",
        (
            ("spread of gradient norms", number("grad_spread"), -1),
            ("largest / median gradient norm", number("grad_peak"), -1),
            ("share of failed runs", failed, -1),
        ),
    ),
)


def by_pair(rows: Sequence[Row], setting: str, scale: str) -> dict[tuple[str, str], Row]:
    """(prompt, seed) -> the row of a setting; of several ensembles the largest."""
    some = [row for row in rows if row["setting"] == setting and row["guidance_scale"] == scale]
    return {(row["prompt"], row["seed"]): row for row in sorted(some, key=lambda row: int(row["particles"]))}


def difference(
    rows: Sequence[Row], scale: str, setting: str, baseline: str, what: Callable[[Row], float] | str, sign: int
) -> Interval | None:
    """sign * (setting - baseline) over the prompts and seeds that both have; None without any."""
    mine, theirs = by_pair(rows, setting, scale), by_pair(rows, baseline, scale)
    both = [pair for pair in mine if pair in theirs]
    if what is failed and not any(row["error"] for row in rows):
        return None  # where nothing failed, failures tell nothing apart
    if isinstance(what, str):
        return _of_distributions([(mine[pair], theirs[pair]) for pair in both], what, sign)
    values: dict[str, list[float]] = {}
    for pair in both:
        values.setdefault(pair[0], []).append(sign * (what(mine[pair]) - what(theirs[pair])))
    groups = [torch.tensor(some)[:, None] for some in values.values()]
    groups = [group[group.isfinite()][:, None] for group in groups]
    groups = [group for group in groups if len(group)]
    return bootstrap(groups) if groups else None


def _of_distributions(pairs: list[tuple[Row, Row]], what: str, sign: int) -> Interval | None:
    """The difference of "jsd HEAD" or "iv HEAD" over the prompts that leave HEAD open and have two seeds or more."""
    name, head = what.split()
    groups, statistics = [], []
    for text in dict.fromkeys(mine["prompt"] for mine, _ in pairs):
        some = [pair for pair in pairs if pair[0]["prompt"] == text and not (pair[0]["error"] or pair[1]["error"])]
        truth = open_heads(PROMPTS[text]).get(head)
        if truth is None or len(some) < 2:
            continue
        p, q = (probabilities([pair[i] for pair in some], head) for i in (0, 1))
        if name == "jsd":
            p, q = votes(p), votes(q)
        groups.append(torch.cat([p, q], 1))
        statistics.append(_minus(divergence_to(truth) if name == "jsd" else entropy, len(truth), sign))
    return bootstrap(groups, statistics) if groups else None


def _minus(statistic: Callable[[Tensor], Tensor], width: int, sign: int) -> Callable[[Tensor], Tensor]:
    return lambda means: sign * (statistic(means[..., :width]) - statistic(means[..., width:]))


def verdict(intervals: Sequence[Interval]) -> str:
    """supported, mixed, not supported, or not measured."""
    sides = [interval.side() for interval in intervals]
    if not sides:
        return "not measured"
    if all(side > 0 for side in sides):
        return "supported"
    if any(side > 0 for side in sides):
        return "mixed"
    return "opposite" if all(side < 0 for side in sides) else "not supported"


def baselines(setting: str) -> list[tuple[str, str]]:
    """(equal what, name) of the baselines that a candidate is compared with."""
    equal = [e for e in BASELINES if not setting.endswith({"calls": ("_100",), "steps": ("_200", "_400")}[e])]
    if setting == "jsd_official":  # ten calls a step: no baseline has as many
        equal = ["steps"]
    return [(e, name) for e in equal for name in BASELINES[e]]


Decision = tuple[Claim, str, list[list[Interval | None]]]  # the verdict; intervals, measures x baselines


def decide(rows: Sequence[Row], scale: str, setting: str) -> list[Decision]:
    """The verdict on each claim, over all its comparisons."""
    decided = []
    for claim in CLAIMS:
        found = [
            [difference(rows, scale, setting, name, what, sign) for _, name in baselines(setting)]
            for _, what, sign in claim.measures
        ]
        decided.append((claim, verdict([interval for line in found for interval in line if interval]), found))
    return decided


def table(setting: str, decided: Sequence[Decision]) -> str:
    """Markdown: a line per claim and measure."""
    against = baselines(setting)
    lines = ["| claim | measure | " + " | ".join(f"{name}, equal {equal}" for equal, name in against) + " |"]
    lines.append("|---" * (len(against) + 2) + "|")
    for claim, word, found in decided:
        for i, (line, (measure, _, sign)) in enumerate(zip(found, claim.measures, strict=True)):
            cells = " | ".join(str(interval) if interval else "-" for interval in line)
            first = f"{claim.words}: **{word}**" if i == 0 else ""
            lines.append(f"| {first} | {measure}{', less' if sign < 0 else ', more'} | {cells} |")
    return "\n".join(lines)


def summary(all_decided: dict[str, Sequence[Decision]]) -> str:
    """Markdown: claims down, candidates across, verdicts."""
    lines = ["| claim | " + " | ".join(all_decided) + " |", "|---" * (len(all_decided) + 1) + "|"]
    for number, claim in enumerate(CLAIMS):
        words = " | ".join(decided[number][1] for decided in all_decided.values())
        lines.append(f"| {claim.words} | {words} |")
    return "\n".join(lines)


def answer(decided: dict[str, Sequence[Decision]], labels: dict[str, str]) -> str:
    """Markdown: each claim with its first measure; a line for each candidate: the verdict, which all measures decide,
    and how large the first one's difference to each baseline is."""
    across = [(equal, name) for equal in ("steps", "calls") for name in BASELINES[equal]]
    lines = ["| claim: its first measure | | verdict | " + " | ".join(labels[name] for _, name in across) + " |"]
    lines.append("|---" * (3 + len(across)) + "|")
    for number, claim in enumerate(CLAIMS):
        measure, _, sign = claim.measures[0]
        first = f"{claim.words}: {measure}{', less' if sign < 0 else ', more'}"
        for candidate, decisions in decided.items():
            _, word, found = decisions[number]
            known = dict(zip(baselines(candidate), found[0], strict=True))
            cells = [str(known.get(place) or "-") for place in across]
            lines.append(f"| {first} | {labels[candidate]} | **{word}** | {' | '.join(cells)} |")
            first = ""
    return "\n".join(lines)
