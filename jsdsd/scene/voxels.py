"""A scene as density and colour on a regular grid over the box [-1, 1]^3, stored as a sum of coarse and fine levels."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

EMPTY_LOGIT = -10.0  # softplus(-10) = 4.5e-5 per unit length: a ray through the whole box loses 1e-4 of its light


def resample(field: Tensor, resolution: int) -> Tensor:
    """Trilinear resampling of (C, D, H, W) to (C, R, R, R), nodes on the box's faces: a linear field stays exact."""
    if field.dim() != 4 or resolution < 2:
        raise ValueError(
            f"resample wants a field (C, D, H, W) and a resolution >= 2, got {tuple(field.shape)} and {resolution}"
        )
    size = (resolution,) * 3
    if field.shape[1:] == size:
        return field
    return F.interpolate(field[None], size, mode="trilinear", align_corners=True)[0]


def sum_levels(levels: Iterable[Tensor], resolution: int) -> Tensor:
    """Levels (C, r, r, r), coarsest first, added up at `resolution`."""
    total: Tensor | None = None
    for level in levels:
        at = max(level.shape[1], 0 if total is None else total.shape[1])
        total = resample(level, at) if total is None else resample(total, at) + resample(level, at)
    assert total is not None
    return resample(total, resolution)


def _inverse_softplus(x: Tensor) -> Tensor:
    """The logit with log(1 + exp(logit)) = x > 0, written so that exp cannot overflow."""
    return x + torch.log(-torch.expm1(-x))


class VoxelGrid(nn.Module):
    """Density and colour at R x R x R nodes, node i of an axis at -1 + 2 i / (R - 1).

    `levels` is a list of logits (4, r, r, r), indexed [channel, z, y, x], channel 0 density, 1-3 red, green, blue.  The
    scene's logits are the sum of all levels resampled to the finest.  One level is the ordinary voxel grid; several
    make Adam move whole regions together, where independent voxels turn the gradient's noise into speckle.

        density = softplus(logit)  [1 / scene unit]        colour = sigmoid(logit)  [0, 1]
    """

    def __init__(self, levels: Sequence[Tensor]):
        super().__init__()
        if not levels:
            raise ValueError("a VoxelGrid needs at least one level of logits")
        for level in levels:
            if level.dim() != 4 or level.shape[0] != 4 or len(set(level.shape[1:])) != 1 or level.shape[1] < 2:
                raise ValueError(f"a level has shape (4, r, r, r) with r >= 2, got {tuple(level.shape)}")
            if level.dtype not in (torch.float32, torch.float64):
                raise ValueError(f"a level holds logits in float32 or float64, got {level.dtype}")
            if (level.dtype, level.device) != (levels[0].dtype, levels[0].device):
                raise ValueError("all levels need one floating-point type on one device")
        # Two lists, since density and colour want different learning rates.
        self.density_levels = nn.ParameterList(nn.Parameter(level[:1].clone()) for level in levels)  # (1, r, r, r) each
        self.colour_levels = nn.ParameterList(nn.Parameter(level[1:].clone()) for level in levels)  # (3, r, r, r) each

    @property
    def levels(self) -> list[Tensor]:
        """The logits (4, r, r, r) of every level, detached copies."""
        return [torch.cat([d, c]).detach() for d, c in zip(self.density_levels, self.colour_levels, strict=True)]

    @classmethod
    def blob(
        cls,
        resolutions: Sequence[int] = (5, 10, 20, 40),
        *,
        radius: float = 0.4,
        density: float = 6.0,
        colour_std: float = 0.0,
        generator: torch.Generator | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> VoxelGrid:
        """A grey ball of `radius` (scene units) and `density` (1 / unit) at the centre, fading into empty space.

        resolutions: nodes per axis of the levels, coarsest first.  The last level holds the ball; the others start at
        zero.  colour_std: standard deviation of the colour logits' random offset (drawn on the first level), so that
        seeds start with different tints.  Raises ValueError for a number outside its range.
        """
        if not resolutions or min(resolutions) < 2:
            raise ValueError(f"resolutions wants one or more numbers >= 2, got {tuple(resolutions)}")
        if not 0 < radius < 1:
            raise ValueError(f"radius must lie in (0, 1), got {radius}")
        if not 0 < density < float("inf"):
            raise ValueError(f"density must be positive and finite, got {density}")
        if not 0 <= colour_std < float("inf"):
            raise ValueError(f"colour_std must be finite and >= 0, got {colour_std}")
        levels = [torch.zeros(4, r, r, r, dtype=dtype) for r in resolutions]
        top = _inverse_softplus(torch.tensor(density, dtype=torch.float64)).item()
        distance = grid_points(resolutions[-1], dtype=dtype).norm(dim=-1)  # (R, R, R)
        fade = ((distance - radius) / (0.5 * radius)).clamp(0, 1)  # 0 inside, 1 from 1.5 radii outwards
        levels[-1][0] = torch.lerp(torch.full_like(fade, top), torch.full_like(fade, EMPTY_LOGIT), fade)
        levels[0][1:] += colour_std * torch.randn(levels[0][1:].shape, generator=generator, dtype=dtype)
        return cls(levels)

    @classmethod
    def from_fields(cls, density: Tensor, colour: Tensor) -> VoxelGrid:
        """The one-level grid with this density (R, R, R), >= 0, and colour (3, R, R, R), in [0, 1].

        What logits of +-10 cannot express is moved there: density below 4.5e-5, colour closer than that to 0 or 1.
        Raises ValueError for other shapes or values.
        """
        if density.dim() != 3 or colour.shape != (3, *density.shape):
            got = f"{tuple(density.shape)} and {tuple(colour.shape)}"
            raise ValueError(f"from_fields wants shapes (R, R, R) and (3, R, R, R), got {got}")
        # written so that a NaN fails too
        if not ((density >= 0) & (density < float("inf"))).all() or not ((colour >= 0) & (colour <= 1)).all():
            raise ValueError("density must be finite and >= 0 and colour must lie in [0, 1]")
        logit = _inverse_softplus(density.clamp(min=1e-9)).clamp(min=EMPTY_LOGIT)
        return cls([torch.cat([logit[None], torch.logit(colour, eps=4.5e-5)])])

    def __repr__(self) -> str:
        levels = ", ".join(str(level.shape[1]) for level in self.density_levels)
        return f"VoxelGrid({self.resolution} x {self.resolution} x {self.resolution} nodes, levels {levels})"

    @property
    def resolution(self) -> int:
        """Nodes per axis of the finest level."""
        return max(level.shape[1] for level in self.density_levels)

    def logits(self) -> Tensor:
        """The summed logits (4, R, R, R)."""
        return torch.cat([sum_levels(x, self.resolution) for x in (self.density_levels, self.colour_levels)])

    def fields(self) -> tuple[Tensor, Tensor]:
        """density (R, R, R) in 1 / scene unit, colour (3, R, R, R) in [0, 1]."""
        logits = self.logits()
        return F.softplus(logits[0]), torch.sigmoid(logits[1:])

    def upsampled(self, resolution: int) -> VoxelGrid:
        """A one-level grid with the same logits at another resolution (exact between nodes for linear logits)."""
        return VoxelGrid([resample(self.logits().detach(), resolution)])


def grid_points(resolution: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """The nodes' coordinates (R, R, R, 3), last axis x, y, z, array axes z, y, x."""
    axis = torch.linspace(-1, 1, resolution, dtype=dtype)
    z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
    return torch.stack([x, y, z], -1)
