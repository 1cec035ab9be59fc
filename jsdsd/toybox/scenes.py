"""Toys and scenes of two toys: their distances and colours at points, and as voxel fields under one distant light."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from ..scene.voxels import VoxelGrid, grid_points
from .kinds import COLOURS, FIXED, KINDS

SIZE = 0.95  # scale of every single toy: captions do not say a size, so it must not vary
LIGHT = (-0.35, -0.5, 0.8)  # towards the one light, not normalised: left, in front, above
AMBIENT = 0.6  # share of the colour that the light's direction does not change
DENSITY = 80.0  # 1 / scene unit inside a toy: a cell of 1/32 unit lets 8 % of the light through


@dataclass(frozen=True)
class Toy:
    """One toy: kind and colour by name, scale as a factor, offset in scene units."""

    kind: str
    colour: str
    scale: float = SIZE
    offset: tuple[float, float, float] = (0.0, 0.0, 0.0)

    def parts(self, points: Tensor) -> list[tuple[Tensor, str]]:
        """Signed distances (N,) in scene units, negative inside, and materials of the parts at points (3, N)."""
        local = (points - points.new_tensor(self.offset)[:, None]) / self.scale
        return [(self.scale * distance, material) for distance, material in KINDS[self.kind](local)]

    def material(self, name: str) -> tuple[float, float, float]:
        return COLOURS[self.colour] if name == "main" else FIXED[name]


def distance(toys: Sequence[Toy], points: Tensor) -> Tensor:
    """(N,) signed distance to the nearest toy at points (3, N), scene units."""
    nearest: Tensor | None = None
    for toy in toys:
        for part, _ in toy.parts(points):
            nearest = part if nearest is None else torch.minimum(nearest, part)
    assert nearest is not None
    return nearest


def palette(toys: Sequence[Toy]) -> Tensor:
    """(K, 3) unlit colours of all parts, in the order of their distances."""
    return torch.tensor([toy.material(name) for toy in toys for _, name in toy.parts(torch.zeros(3, 1))])


def materials(toys: Sequence[Toy], points: Tensor, paint: Tensor) -> Tensor:
    """(C, N): the row of paint (K, C) that belongs to the nearest part at points (3, N)."""
    nearest = torch.stack([d for toy in toys for d, _ in toy.parts(points)]).argmin(0)
    return paint.to(points)[nearest].T


def shade(slope: Tensor) -> Tensor:
    """(...) brightness of a surface whose distance grows along `slope` (3, ...), any length: Lambert's cosine law."""
    light = torch.nn.functional.normalize(slope.new_tensor(LIGHT), dim=0)
    cosine = torch.einsum("c,c...->...", light, slope) / slope.square().sum(0).sqrt().clamp(min=1e-9)
    return AMBIENT + (1 - AMBIENT) * cosine.clamp(min=0)


def build(toys: Sequence[Toy], *, resolution: int = 64) -> tuple[Tensor, Tensor]:
    """density (R, R, R) in 1 / scene unit and colour (3, R, R, R) of one or several toys under the light."""
    points = grid_points(resolution).reshape(-1, 3).T.contiguous()  # (3, R^3)
    near = distance(toys, points).view((resolution,) * 3)
    cell = 2 / (resolution - 1)
    slope = torch.stack(torch.gradient(near, spacing=cell)).flip(0)  # x, y, z
    colour = materials(toys, points, palette(toys)).view(3, *near.shape) * shade(slope)
    # the ramp lies inside, so that the renders' outlines agree with the traced ones: IoU .97 to .99 (at 0: .90)
    return DENSITY * torch.sigmoid(-(near + 0.6 * cell) / (0.15 * cell)), colour


def true_grid(toys: Sequence[Toy] | Toy, *, resolution: int = 64) -> VoxelGrid:
    """The ground truth of a toy or a scene as a VoxelGrid, e.g. to render it beside a generated one; `trace` has its
    pictures without voxels."""
    return VoxelGrid.from_fields(*build([toys] if isinstance(toys, Toy) else toys, resolution=resolution))


@lru_cache(maxsize=64)
def extent(kind: str) -> tuple[float, float]:
    """Lowest and highest z of a kind at scale 1."""
    points = grid_points(48).reshape(-1, 3).T.contiguous()
    inside = distance([Toy(kind, "red", 1.0)], points).view(48, 48, 48) < 0
    z = torch.linspace(-1, 1, 48)[inside.any(-1).any(-1)]
    return z.min().item(), z.max().item()


def on(top: Toy, support: Toy, scale: float = SIZE) -> list[Toy]:
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


def next_to(first: Toy, second: Toy, scale: float = SIZE) -> list[Toy]:
    """`first` on the left and `second` on the right of someone who looks at the front, on one floor."""
    small = 0.52 * scale
    pair = zip((first, second), (-0.44 * scale, 0.44 * scale), strict=True)
    return [Toy(t.kind, t.colour, small, (x, 0.0, -0.5 * scale - small * extent(t.kind)[0])) for t, x in pair]
