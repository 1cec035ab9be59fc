"""Figures for a slide: rows = settings, columns = seeds, every seed there is, none picked."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from jsdsd.scene.asset import Asset
from jsdsd.scene.cameras import orbit
from jsdsd.scene.renderer import render
from jsdsd.scene.voxels import VoxelGrid
from jsdsd.toybox.scenes import true_grid

from .jobs import Row, asset_of
from .prompts import PROMPTS
from .settings import REFERENCES, SETTINGS

# Where one toy is right, the settings with equal U-Net calls ("seeded" has fewer) and the ceiling: a slide has no room
# for all.  Where much is right, whatever has been run.
EQUAL_CALLS = ("sds_random_400", "sds_400", "sdi_133", "jsd_k1", "jsd_no_inversion_200", "seeded", "fitted")
EVERY = (*SETTINGS, "fitted")
# name -> prompt, azimuths of one cell, settings, what it shows.  Prompts chosen before any run, but for "a duck", of
# which all assets were kept, and "a toy".
SHOWN = {
    "saturation": ("a yellow duck", (30.0,), EQUAL_CALLS, "Saturation: one prompt, every seed; the truth at the end"),
    "diversity": ("a duck", (30.0,), EVERY, "Diversity: a prompt that leaves the colour open, every seed"),
    "kinds": ("a toy", (30.0,), EVERY, "Diversity: a prompt that leaves kind and colour open, every seed"),
    "janus": ("a blue car", (0.0, 180.0), EQUAL_CALLS, "Janus: front and back of every seed; the truth at the end"),
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
    """The figures of `rows` (of one guidance scale), written to `folder`: (path, caption).

    A figure that `folder` has already stays as it is where assets of its rows are not in `out` any more: a row knows
    the numbers, not the picture.
    """
    labels = {name: setting.label for name, setting in SETTINGS.items()} | REFERENCES
    made = []
    for name, (text, azimuths, settings, words) in SHOWN.items():
        path = folder / f"{name}.png"
        some = [row for row in rows if row["prompt"] == text and not row["error"]]
        places = {s: [asset_of(row, out) for row in some if row["setting"] == s][:COLUMNS] for s in settings}
        gone = [place for line in places.values() for place in line if not place.exists()]
        if not (gone and path.exists()):
            lines = [
                (labels[s], [picture(Asset.load(place).grid, azimuths) for place in line if place not in gone])
                for s, line in places.items()
                if set(line) - set(gone)
            ]
            if not lines:
                continue
            if not PROMPTS[text].ambiguous:
                lines.append(("the true toy", [picture(true_grid(PROMPTS[text].scene()), azimuths)]))
            sheet(lines, path)
        made.append((path, f'{words} ("{text}").'))
    return made
