"""Figures for a slide: rows = settings, columns = seeds, every seed there is, none picked."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from ...pipeline.asset import Asset
from ...pipeline.cameras import orbit
from ...pipeline.renderer import render
from ...pipeline.voxels import VoxelGrid
from .jobs import Row, asset_of
from .measures import true_grid
from .prompts import PROMPTS
from .settings import REFERENCES, SETTINGS

# name -> prompt, azimuths of one cell, what it shows.  Chosen before any run, but for "a duck", of which all assets
# were kept, and "a toy".
SHOWN = {
    "saturation": ("a yellow duck", (30.0,), "Saturation: the same prompt, every seed; the truth in the last row"),
    "diversity": ("a duck", (30.0,), "Diversity: a prompt that leaves the colour open, every seed"),
    "kinds": ("a toy", (30.0,), "Diversity: a prompt that leaves kind and colour open, every seed"),
    "janus": ("a blue car", (0.0, 180.0), "Janus: front and back of every seed; the truth in the last row"),
}
COLUMNS, PIXELS = 16, 72


def picture(grid: VoxelGrid, azimuths: Sequence[float]) -> Tensor:
    """(H, A * H, 3): the views beside each other."""
    with torch.no_grad():
        return torch.cat(list(render(grid, orbit(azimuths, 15.0), PIXELS, 0.95).rgb.clamp(0, 1)), 1)


def sheet(lines: Sequence[tuple[str, Sequence[Tensor]]], path: Path) -> None:
    """A labelled row of pictures for each of `lines`."""
    from matplotlib.figure import Figure

    height, width = lines[0][1][0].shape[:2]
    columns = max(len(cells) for _, cells in lines)
    figure = Figure(figsize=(2.4 + 0.01 * columns * width, 0.01 * len(lines) * height), dpi=100)
    left = 2.4 / (2.4 + 0.01 * columns * width)
    for i, (label, cells) in enumerate(lines):
        axes = figure.add_axes((left, 1 - (i + 1) / len(lines), (1 - left) * len(cells) / columns, 1 / len(lines)))
        axes.imshow(torch.cat(list(cells), 1).numpy())
        axes.axis("off")
        figure.text(0.98 * left, 1 - (i + 0.5) / len(lines), label, ha="right", va="center", fontsize=8)
    figure.savefig(path)


def figures(rows: Sequence[Row], out: Path, folder: Path) -> list[tuple[Path, str]]:
    """The figures whose assets are in `out`, written to `folder`: (path, caption).  rows: of one guidance scale."""
    made = []
    for name, (text, azimuths, words) in SHOWN.items():
        lines = []
        for setting, label in {**{n: s.label for n, s in SETTINGS.items()}, "fitted": REFERENCES["fitted"]}.items():
            some = [r for r in rows if (r["prompt"], r["setting"]) == (text, setting) and not r["error"]]
            places = [place for r in some[:COLUMNS] if (place := asset_of(r, out)).exists()]
            if places:
                lines.append((label, [picture(Asset.load(place).grid, azimuths) for place in places]))
        if lines and not PROMPTS[text].ambiguous:
            lines.append(("the true toy", [picture(true_grid(PROMPTS[text].scene()), azimuths)]))
        if lines:
            sheet(lines, folder / f"{name}.png")
            made.append((folder / f"{name}.png", f'{words} ("{text}").'))
    return made
