"""The guidance sweep: each setting at each guidance scale, on the prompts and seeds that all its scales have."""

from __future__ import annotations

from collections.abc import Sequence

from .diversity import open_heads, probabilities, votes
from .jobs import Row
from .prompts import PROMPTS
from .settings import SETTINGS
from .statistics import Interval, bootstrap, divergence_to, mean

MEASURES = ("iou", "saturation", "detail", "colour_error")


def shared(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """scale -> the rows of one setting at that scale, those whose prompt and seed every scale has; {} for one scale."""
    by_scale: dict[str, dict[tuple[str, str], Row]] = {}
    for row in rows:
        if not row["error"]:
            by_scale.setdefault(row["guidance_scale"], {})[row["prompt"], row["seed"]] = row
    if len(by_scale) < 2:
        return {}
    everywhere = set.intersection(*(set(some) for some in by_scale.values()))
    return {
        scale: [row for pair, row in by_scale[scale].items() if pair in everywhere]
        for scale in sorted(by_scale, key=float)
    }


def divergence(rows: Sequence[Row]) -> Interval | None:
    """JSD of the colours to the truth (nats), over the prompts that leave the colour open; None without two seeds."""
    groups, statistics = [], []
    for text in dict.fromkeys(row["prompt"] for row in rows):
        some = [row for row in rows if row["prompt"] == text]
        truth = open_heads(PROMPTS[text]).get("colour")
        if truth is not None and len(some) > 1:
            groups.append(votes(probabilities(some, "colour")))
            statistics.append(divergence_to(truth))
    return bootstrap(groups, statistics).from_zero() if groups else None


def table(rows: Sequence[Row]) -> str:
    """Markdown: settings and scales down, measures across; "" where no setting has two scales."""
    head = ("", "guidance scale", "prompts, assets", *MEASURES, "open prompts, assets", "JSD of the colours")
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for name, setting in SETTINGS.items():
        for scale, some in shared([row for row in rows if row["setting"] == name]).items():
            full = [row for row in some if row["set"] != "ambiguous"]
            open_ = [row for row in some if row["set"] == "ambiguous"]
            counts = [f"{len({row['prompt'] for row in part})}, {len(part)}" for part in (full, open_)]
            cells = [str(mean(full, column) or "-") for column in MEASURES]
            lines.append(
                f"| {setting.label} | {scale} | {counts[0]} | {' | '.join(cells)} | {counts[1]} | "
                f"{divergence(open_) or '-'} |"
            )
    return "\n".join(lines) if len(lines) > 2 else ""
