"""Toys and scenes of two toys as voxel fields: distances -> density, materials and one distant light -> colour."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from ..scene.voxels import VoxelGrid, grid_points
from .kinds import COLOURS, FIXED, KINDS

DENSITY = 80.0  # 1 / scene unit inside a toy: a cell of 1/32 unit lets 8 % of the light through
AMBIENT = 0.6  # share of the colour that the light's direction does not change
SIZES = (0.85, 1.0)  # the training toys' scale, uniform


@dataclass(frozen=True)
class Toy:
    """One toy: kind and colour by name, scale as a factor, offset in scene units."""

    kind: str
    colour: str
    scale: float = 1.0
    offset: tuple[float, float, float] = (0.0, 0.0, 0.0)


def mean_light() -> Tensor:
    """The light that stands for all lights where one true toy is needed: overhead, (3,)."""
    return torch.tensor([0.0, 0.0, 1.0])


def random_light(generator: torch.Generator) -> Tensor:
    """A unit vector (3,) towards the light, at least 30 degrees above the horizon, uniform there."""
    u = torch.rand(2, generator=generator)
    z, angle = 0.5 + 0.5 * u[0], 2 * torch.pi * u[1]
    flat = torch.sqrt(1 - z**2)
    return torch.stack([flat * angle.cos(), flat * angle.sin(), z])


@lru_cache(maxsize=64)
def _shape(
    kind: str, scale: float, offset: tuple[float, float, float], resolution: int
) -> tuple[Tensor, Tensor, tuple[str, ...]]:
    points = ((grid_points(resolution).reshape(-1, 3) - torch.tensor(offset)) / scale).T.contiguous()  # (3, N)
    parts = KINDS[kind](points)
    distances = torch.stack([d for d, _ in parts]) * scale  # (K, N)
    nearest, index = distances.min(0)
    names = tuple(sorted({m for _, m in parts}))
    which = torch.tensor([names.index(m) for _, m in parts])[index]
    shape = (resolution,) * 3
    return nearest.reshape(shape), which.reshape(shape), names


def build(toys: Sequence[Toy], *, resolution: int = 64, light: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """density (R, R, R) in 1 / scene unit and colour (3, R, R, R) of one or several toys under a distant light.

    light: unit vector (3,) towards the light, default straight above.
    """
    distance, colour = torch.full((resolution,) * 3, 9.0), torch.zeros(3, *(resolution,) * 3)
    for toy in toys:
        near, which, names = _shape(toy.kind, toy.scale, toy.offset, resolution)
        palette = torch.tensor([COLOURS[toy.colour] if name == "main" else FIXED[name] for name in names])  # (M, 3)
        colour = torch.where(near < distance, palette[which].movedim(-1, 0), colour)
        distance = torch.minimum(distance, near)
    cell = 2 / (resolution - 1)
    dz, dy, dx = torch.gradient(distance, spacing=cell)
    lx, ly, lz = (mean_light() if light is None else light).tolist()
    steep = (dx * dx + dy * dy + dz * dz).sqrt().clamp(min=1e-6)
    shade = AMBIENT + (1 - AMBIENT) * ((lx * dx + ly * dy + lz * dz) / steep).clamp(min=0)  # Lambert
    return DENSITY * torch.sigmoid(-distance / (0.3 * cell)), colour * shade


def true_grid(toys: Sequence[Toy] | Toy, *, resolution: int = 64, light: Tensor | None = None) -> VoxelGrid:
    """The ground truth of a toy or a scene as a VoxelGrid, e.g. to render it beside a generated one."""
    return VoxelGrid.from_fields(*build([toys] if isinstance(toys, Toy) else toys, resolution=resolution, light=light))


@lru_cache(maxsize=64)
def extent(kind: str) -> tuple[float, float]:
    """Lowest and highest z of a kind at scale 1."""
    inside = _shape(kind, 1.0, (0.0, 0.0, 0.0), 48)[0] < 0
    z = torch.linspace(-1, 1, 48)[inside.any(-1).any(-1)]
    return z.min().item(), z.max().item()


def on(top: Toy, support: Toy, scale: float = 1.0) -> list[Toy]:
    """`top` standing on `support`, both shrunk so that the pair fills the box."""
    small, large = 0.45 * scale, 0.62 * scale
    floor = -0.8 * scale
    low, high = (large * z for z in extent(support.kind))
    lift = floor - low
    rest = lift + high - small * extent(top.kind)[0]
    return [
        Toy(top.kind, top.colour, small, (0.0, 0.0, rest)),
        Toy(support.kind, support.colour, large, (0.0, 0.0, lift)),
    ]


def next_to(first: Toy, second: Toy, scale: float = 1.0) -> list[Toy]:
    """`first` on the left and `second` on the right of someone who looks at the front, on one floor."""
    small = 0.52 * scale
    pair = zip((first, second), (-0.44 * scale, 0.44 * scale), strict=True)
    return [Toy(t.kind, t.colour, small, (x, 0.0, -0.5 * scale - small * extent(t.kind)[0])) for t, x in pair]
