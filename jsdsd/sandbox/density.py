"""A 2D density as shades: what every other picture of the sandbox is drawn on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from .distributions import GaussianMixture

Box = tuple[float, float, float, float]  # left, right, bottom, top, units of the data


def frame(target: GaussianMixture, margin: float = 1.0) -> Box:
    """A box around a 2D target: its means, three std and a margin on every side. ValueError unless it is 2D."""
    if target.dim != 2:
        raise ValueError(f"only a 2D target can be drawn as a map, this one has dimension {target.dim}")
    reach = (3 * target.std[:, None]).expand_as(target.means)
    low = (target.means - reach).amin(0) - margin
    high = (target.means + reach).amax(0) + margin
    return float(low[0]), float(high[0]), float(low[1]), float(high[1])


def lattice(box: Box, points: int) -> Tensor:
    """(points², 2) positions of an even lattice over the box, x fastest."""
    if points < 2:
        raise ValueError(f"points must be >= 2, got {points}")
    y, x = torch.meshgrid(torch.linspace(box[2], box[3], points), torch.linspace(box[0], box[1], points), indexing="ij")
    return torch.stack([x.flatten(), y.flatten()], 1)


def plot_density(axes: Axes, target: GaussianMixture, t: int | None = None, points: int = 160) -> Axes:
    """The target's density p_t as shades (square root, so that light modes show); t None = clean."""
    box = frame(target)
    p = target.log_prob(lattice(box, points), t).exp().sqrt().view(points, points)
    axes.imshow(p.numpy(), extent=box, origin="lower", cmap="Blues", interpolation="bilinear")
    axes.set_aspect("equal")
    return axes
