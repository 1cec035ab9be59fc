"""The page of results: tables from the rows, claims from intervals, the raw numbers beside it."""

from __future__ import annotations

import csv
import json
import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

from safetensors.torch import load_file

from jsdsd.scene.asset import Asset

from . import claims, sweep
from .diversity import asset_features, open_heads, pairwise, picture_features, probabilities, votes
from .figures import figures
from .jobs import COLUMNS, Row, asset_of
from .judge import Judge, load_judge
from .prompts import PROMPTS
from .references import pictures_of
from .runs import read_rows
from .settings import REFERENCES, SETTINGS
from .statistics import bootstrap, divergence_to, entropy, mean, perfect_divergence

ANSWERED = ("jsd_k1", "seeded")  # the paper's recipe and ours: what the page says first
LABELS = {**{name: setting.label for name, setting in SETTINGS.items()}, **REFERENCES}
FIDELITY = ("kind_right", "colour_right", "view_right", "iou", "volume_iou", "colour_error")
LOOKS = ("saturation", "detail", "fronts", "haze", "grad_spread", "grad_peak")


def named(rows: Sequence[Row], setting: str) -> list[Row]:
    return [row for row in rows if row["setting"] == setting]


def means_table(rows: Sequence[Row], columns: Sequence[str]) -> str:
    """Settings down, measures across."""
    lines = ["| | prompts, assets | " + " | ".join(columns) + " |", "|---" * (len(columns) + 2) + "|"]
    for name, label in LABELS.items():
        some = named(rows, name)
        if some:
            count = f"{len({row['prompt'] for row in some})}, {len(some)}"
            cells = [str(mean(some, column) or "-") for column in columns]
            lines.append(f"| {label} | {count} | {' | '.join(cells)} |")
    return "\n".join(lines)


def numbers(rows: Sequence[Row], column: str) -> list[float]:
    return [float(row[column]) for row in rows if row[column]]


def goals_table(rows: Sequence[Row]) -> str:
    """What a default has to reach and what it costs, on each half of the prompts: plain means, the worst single toy's
    IoU, and how many runs broke."""
    columns = ("kind_right", "colour_right", "iou", "saturation", "haze", "unet_calls", "seconds")
    lines = ["| | half | " + " | ".join(columns) + " | worst single toy's iou | failed |", "|---" * 11 + "|"]
    for name, label in LABELS.items():
        for split in ("development", "confirmation"):
            some = [row for row in named(rows, name) if row["split"] == split]
            if some:
                known = [numbers(some, column) for column in columns]
                worst = min(numbers([row for row in some if row["set"] == "single"], "iou"), default=math.nan)
                cells = [f"{fmean(values):.3g}" if values else "-" for values in known] + [f"{worst:.3g}"]
                failed = f"{sum(bool(row['error']) for row in some)} of {len(some)}"
                lines.append(f"| {label} | {split} | " + " | ".join([*cells, failed]) + " |")
    return "\n".join(lines)


def diversity_table(rows: Sequence[Row], out: Path, known: dict[str, str]) -> str:
    """Ambiguous prompts down, settings inside: histogram, JSD to the truth with its interval over seeds, IV, IQ, and
    the distance between seeds over that of the prior's pictures, which goes into `known` where the assets are at hand
    and comes from there where they are not (- if from neither)."""
    judge = load_judge()
    lines = [
        "| prompt | | assets | open | votes | JSD to the truth | of perfect draws | IV | IQ | distance / prior's |"
    ]
    lines.append("|---" * 10 + "|")
    for text in (text for text, prompt in PROMPTS.items() if prompt.ambiguous):
        for name, label in LABELS.items():
            some = [row for row in named(rows, name) if row["prompt"] == text and not row["error"]]
            if len(some) < 2:
                continue
            of = ", ".join((text, name, some[0]["guidance_scale"], f"{len(some)} assets"))
            if name != "prior" and (found := _distance(judge, some, out)):
                known[of] = found
            apart = known.get(of, "-") if name != "prior" else "1"
            for part, truth in open_heads(PROMPTS[text]).items():
                p = probabilities(some, part)
                ballot = votes(p)
                measured = [
                    bootstrap([ballot], divergence_to(truth)).from_zero(),
                    f"{perfect_divergence(truth, len(some)):.3g}",
                    f"{float(entropy(p.mean(0))):.3g}",
                    f"{float(entropy(p).mean()):.3g}",
                ]
                counts = " ".join(str(int(x)) for x in ballot.sum(0))
                cells = " | ".join(map(str, measured))
                lines.append(f"| {text} | {label} | {len(some)} | {part} | {counts} | {cells} | {apart} |")
    return "\n".join(lines)


def _distance(judge: Judge, rows: Sequence[Row], out: Path) -> str | None:
    places = [asset_of(row, out) for row in rows]
    pictures = pictures_of(rows[0]["prompt"], float(rows[0]["guidance_scale"]), out / "pictures")
    if not pictures.exists() or not all(place.exists() for place in places):
        return None
    own = load_file(pictures)["pictures"].float() / 255
    mine = asset_features(judge, [Asset.load(place).grid for place in places])
    return f"{pairwise(mine) / pairwise(picture_features(judge, own)):.3g}"


def main_scale(rows: Sequence[Row]) -> str:
    """The guidance scale that most rows have: the tables and figures are its, the others are the sweep's."""
    return Counter(row["guidance_scale"] for row in rows).most_common(1)[0][0]


def decisions(rows: Sequence[Row], scale: str) -> dict[str, list[claims.Decision]]:
    """What is decided about each candidate that has rows at a guidance scale."""
    some = [row for row in rows if row["guidance_scale"] == scale]
    return {c: claims.decide(some, scale, c) for c in claims.CANDIDATES if named(some, c)}


def summary(decided: dict[str, list[claims.Decision]]) -> str:
    return claims.summary({LABELS[c]: found for c, found in decided.items()})


def content(rows: Sequence[Row], decided: dict[str, list[claims.Decision]], out: Path, known: dict[str, str]) -> str:
    """The page's tables; decided: at the main scale.  `known` distances are used and added to."""
    hours = sum(numbers(rows, "seconds")) / 3600
    models = ", ".join(dict.fromkeys(row["model"] for row in rows))
    parts = [f"{len(rows)} rows; {hours:.1f} hours of optimisation, one thread each; U-Net {models} (SHA-256).\n"]
    scale = main_scale(rows)
    some = [row for row in rows if row["guidance_scale"] == scale]
    full = [row for row in some if row["set"] != "ambiguous"]
    parts += [f"### Guidance scale {scale}\n", "#### The abstract's claims\n", summary(decided), ""]
    for candidate, found in decided.items():
        parts += [f"#### {LABELS[candidate]}, against SDS\n", claims.table(candidate, found), ""]
    parts += ["#### Against the truth\n", means_table(full, FIDELITY), "", means_table(full, LOOKS), ""]
    parts += ["#### What a default has to reach, and cost\n", goals_table(full), ""]
    parts += ["#### Ambiguous prompts\n", diversity_table(some, out, known), ""]
    if swept := sweep.table(rows):
        parts += ["### Other guidance scales\n", "Each setting on the prompts and seeds that all its scales have.\n"]
        parts += [swept, ""]
        for other in sorted({row["guidance_scale"] for row in rows} - {scale}, key=float):
            parts += [f"#### The abstract's claims at guidance scale {other}\n", summary(decisions(rows, other)), ""]
    return "\n".join(parts)


def write(out: Path, page: Path) -> None:
    """The page's two generated parts, the answer and the tables; and rows.csv, sorted, distances.json and figures in a
    folder of the page's name.

    FileNotFoundError without rows.
    """
    order = {text: i for i, text in enumerate((*PROMPTS, *LABELS))}
    numbered = ("guidance_scale", "steps", "particles", "seed")
    rows = read_rows(out / "rows.csv")  # in the order in which they became known
    rows.sort(key=lambda row: (order[row["prompt"]], order[row["setting"]], *(float(row[name]) for name in numbered)))
    if not rows:
        raise FileNotFoundError(f'there are no rows in "{out}": run the benchmark first')
    folder = page.with_suffix("")
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "rows.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    distances = folder / "distances.json"
    known = json.loads(distances.read_text(encoding="utf-8")) if distances.exists() else {}
    text = page.read_text(encoding="utf-8") if page.exists() else ""
    at_main = [row for row in rows if row["guidance_scale"] == main_scale(rows)]
    drawn = [f"![{words}]({folder.name}/{path.name})\n\n*{words}*\n" for path, words in figures(at_main, out, folder)]
    decided = decisions(rows, main_scale(rows))
    text = filled(text, "answer", claims.answer({c: decided[c] for c in ANSWERED if c in decided}, LABELS))
    text = filled(text, "bench", "\n".join([content(rows, decided, out, known), *drawn]))
    distances.write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")
    page.write_text(text, encoding="utf-8")


def filled(text: str, name: str, part: str) -> str:
    """`text` with what stands between the marks of `name` replaced; at its end where it has no such marks.

    ValueError where one of the two marks is missing or stands twice.
    """
    begin, end = (f"<!-- {name}: {word} -->" for word in ("begin", "end"))
    if begin not in text and end not in text:
        text += f"{begin}\n{end}\n"
    if (text.count(begin), text.count(end)) != (1, 1) or text.index(end) < text.index(begin):
        raise ValueError(f'the page needs "{begin}" and, after it, "{end}", once each')
    return f"{text.split(begin)[0]}{begin}\n\n{part}\n{end}{text.split(end)[1]}"
