"""Scenes of known shape and colour, for the tests of meshes, their files and the viewer."""

from __future__ import annotations

import torch

from jsdsd.scene.voxels import VoxelGrid, grid_points


def ball(
    resolution: int = 32, radius: float = 0.6, peak: float = 40.0, centre: tuple[float, ...] = (0, 0, 0)
) -> VoxelGrid:
    """A ball whose density falls from `peak` to 0 over two node spacings around `radius`; colour = position."""
    points = grid_points(resolution)
    distance = (points - torch.tensor(centre)).norm(dim=-1)
    density = peak * ((radius - distance) * (resolution - 1) / 4 + 0.5).clamp(0, 1)
    return VoxelGrid.from_fields(density, ((points + 1) / 2).movedim(-1, 0))


def toy() -> VoxelGrid:
    """A red box with a blue ball on its right and a green knob in front: no symmetry, parts both thin and thick."""
    points = grid_points(36)
    sharp = 35 / 4  # the surface is two node spacings thick

    def box(centre: list[float], half: list[float]) -> torch.Tensor:
        return ((points - torch.tensor(centre)).abs() - torch.tensor(half)).amax(-1)

    parts = torch.stack([
        box([-0.1, 0.0, -0.2], [0.35, 0.25, 0.45]),
        (points - torch.tensor([0.4, 0.0, 0.3])).norm(dim=-1) - 0.35,
        box([-0.1, -0.35, 0.1], [0.1, 0.25, 0.1]),
    ])  # fmt: skip
    nearest = parts.argmin(0)
    paint = torch.tensor([[0.9, 0.1, 0.1], [0.1, 0.2, 0.9], [0.1, 0.7, 0.2]])
    density = 80 * (0.5 - parts.amin(0) * sharp).clamp(0, 1)
    return VoxelGrid.from_fields(density, paint[nearest].movedim(-1, 0))
