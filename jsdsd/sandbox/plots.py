"""Pictures of the sandbox. Each function draws into the axes it is given and returns them; matplotlib comes in only
here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..objectives.diffusion import Denoiser
from ..objectives.distillation import Objective
from ..objectives.divergence import Divergence
from ..objectives.divergences import DIVERGENCES
from .density import Box, lattice, plot_density
from .distributions import GaussianMixture
from .fits import fit_gaussian, gaussian_divergence

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes

def plot_particles(axes: Axes, target: GaussianMixture, points: Tensor, title: str = "") -> Axes:
    """Particles (N, 2) over the target's density. ValueError for another shape or a target that is not 2D."""
    if points.ndim != 2 or points.shape[1] != 2:
        raise ValueError(f"points must have shape (N, 2), got {tuple(points.shape)}")
    plot_density(axes, target)
    x, y = points.detach().T.numpy()
    axes.scatter(x, y, s=5, color="crimson", linewidths=0)
    axes.set_title(title, fontsize=9)
    axes.set_xticks([])
    axes.set_yticks([])
    return axes


def plot_trajectories(axes: Axes, target: GaussianMixture, path: Tensor, shown: int = 64) -> Axes:
    """Paths (frames, N, 2) of the first `shown` particles, from dot to dot. ValueError for another shape."""
    if path.ndim != 3 or path.shape[2] != 2 or len(path) == 0:
        raise ValueError(f"a path must have shape (frames, N, 2) with frames >= 1, got {tuple(path.shape)}")
    plot_density(axes, target)
    for i in range(min(shown, path.shape[1])):
        axes.plot(*path[:, i].T.numpy(), color="crimson", alpha=0.35, linewidth=0.7)
    x, y = path[-1, :shown].T.numpy()
    axes.scatter(x, y, s=6, color="black", linewidths=0, zorder=3)
    return axes


def plot_gradient_field(
    axes: Axes, target: Denoiser, objective: Objective, t: int, box: Box, points: int = 15, draws: int = 64
) -> Axes:
    """Where the objective moves a *lone* particle put at each lattice point: minus its mean gradient over `draws`
    seeds.

    Every point is its own batch of one, so an Ensemble shows what it does to a single particle. ValueError for
    points < 2 or draws < 1.
    """
    if draws < 1:
        raise ValueError(f"draws must be >= 1, got {draws}")
    x = lattice(box, points)
    generator = torch.Generator().manual_seed(0)
    move = torch.zeros_like(x)
    for i in range(len(x)):
        for _ in range(draws):
            move[i] -= objective.gradient(target, x[i : i + 1], t, generator).grad[0] / draws
    axes.quiver(*x.T.numpy(), *move.T.numpy(), angles="xy", color="dimgray", width=0.004)
    axes.set_aspect("equal")
    return axes


def plot_weights(axes: Axes, divergences: Sequence[Divergence] = DIVERGENCES, reach: float = 6.0) -> Axes:
    """The weights w_f over log r: left the generator has too much mass, right it misses some of the target's."""
    u = torch.linspace(-reach, reach, 241, dtype=torch.float64)
    for divergence in divergences:
        axes.plot(u.numpy(), divergence.weight(u).numpy(), label=repr(divergence).removesuffix("()"))
    axes.set_yscale("log")
    axes.set_ylim(1e-3, 1e3)
    axes.set_xlabel("log r = log p/q (nats)")
    axes.set_ylabel("w_f(r)")
    axes.legend(fontsize=7)
    return axes


def plot_one_gaussian(axes: Axes, target: GaussianMixture, divergences: Sequence[Divergence]) -> Axes:
    """A 1-D target and, for each divergence, the one Gaussian that minimises it."""
    reach = float(target.means.abs().max()) + 4 * float(target.std.max())
    x = torch.linspace(-reach, reach, 400, dtype=torch.float64)
    axes.fill_between(x.numpy(), target.log_prob(x[:, None]).exp().numpy(), color="lightsteelblue", label="target")
    for divergence in divergences:
        fit = fit_gaussian(divergence, target)
        q = torch.exp(-0.5 * ((x - fit.mean) / fit.std) ** 2) / (fit.std * math.sqrt(2 * math.pi))
        axes.plot(x.numpy(), q.numpy(), label=repr(divergence).removesuffix("()"))
    axes.set_yticks([])
    axes.legend(fontsize=6)
    return axes


def plot_loss_landscape(axes: Axes, target: GaussianMixture, divergence: Divergence, points: int = 60) -> Axes:
    """D_f(target ‖ N(mean, std²)) over mean and std of one Gaussian (1-D target), nats, with its minimum."""
    reach = float(target.means.abs().max()) + 2
    means = torch.linspace(-reach, reach, points, dtype=torch.float64)
    log_stds = torch.linspace(-0.5, math.log(1.5 * reach), points, dtype=torch.float64)
    m, s = torch.meshgrid(means, log_stds, indexing="xy")
    values = gaussian_divergence(divergence, target, m.flatten(), s.flatten()).view(points, points)
    axes.contourf(m.numpy(), s.exp().numpy(), values.numpy(), levels=20, cmap="viridis_r")
    fit = fit_gaussian(divergence, target)
    axes.plot([fit.mean], [fit.std], "r*", markersize=10)
    axes.set_title(f"{divergence!r}: least {fit.value:.3f} nats", fontsize=8)
    axes.set_xlabel("mean")
    axes.set_ylabel("std")
    return axes


def animate(target: GaussianMixture, path: Tensor, file: str | Path, fps: int = 15) -> Path:
    """Write the particles' paths (frames, N, 2) as a GIF; returns its path. ValueError for another suffix."""
    file = Path(file)
    if file.suffix != ".gif":
        raise ValueError(f"an animation is written as .gif, got {file.name}")
    from matplotlib.animation import FuncAnimation, PillowWriter
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4, 4), dpi=90, layout="tight")
    axes = plot_particles(figure.subplots(), target, path[0])
    dots = axes.collections[-1]

    def draw(i: int) -> list[Artist]:
        dots.set_offsets(path[i].numpy())
        return [dots]

    FuncAnimation(figure, draw, frames=len(path)).save(file, writer=PillowWriter(fps=fps))
    return file
