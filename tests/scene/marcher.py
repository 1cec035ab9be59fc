"""Slow, obvious ray marchers, the renderer's oracle.  One ray at a time, one sample at a time, eight corners each.

Everything differentiable is a torch scalar, so autograd gives the gradient of exactly what is written here.  At the end
stand the scenes and cameras that the renderer's tests draw.
"""

from __future__ import annotations

import itertools
import math

import torch
from hypothesis import strategies as st
from torch import Tensor

from jsdsd.scene.cameras import Camera, look_at
from jsdsd.scene.renderer import Render
from jsdsd.scene.voxels import grid_points

F64 = torch.float64


def trilinear(field: Tensor, point: list[float]) -> Tensor:
    """`field` (C, R, R, R), indexed z, y, x, at a point (x, y, z) of the box [-1, 1]^3; beyond it the nearest value."""
    count = field.shape[1]
    where = [min(max((p + 1) / 2 * (count - 1), 0.0), count - 1.0) for p in point]
    base = [min(int(w), count - 2) for w in where]
    part = [w - b for w, b in zip(where, base, strict=True)]
    total = torch.zeros(len(field), dtype=field.dtype)
    for ix in (0, 1):
        for iy in (0, 1):
            for iz in (0, 1):
                share = math.prod(f if i else 1 - f for f, i in zip(part, (ix, iy, iz), strict=True))
                total = total + share * field[:, base[2] + iz, base[1] + iy, base[0] + ix]
    return total


def box_span(origin: list[float], direction: list[float]) -> tuple[float, float]:
    """Where the ray enters and leaves the box; enter >= leave where it misses.  Nothing behind the camera counts."""
    enter, leave = 0.0, math.inf
    for o, d in zip(origin, direction, strict=True):
        if d == 0:  # parallel to these two sides: between them all the way, or never
            if abs(o) >= 1:
                return 0.0, 0.0
            continue
        sides = sorted([(-1 - o) / d, (1 - o) / d])
        enter, leave = max(enter, sides[0]), min(leave, sides[1])
    return enter, leave


def plane_samples(origin: list[float], direction: list[float], count: int) -> list[tuple[float, float, float]]:
    """(t of the plane, begin, end) of each sample of the plane-aligned rule, nearest first."""
    axis = max(range(3), key=lambda i: abs(direction[i]))  # the first of equals
    step = 2 / (count - 1) / abs(direction[axis])
    enter, leave = box_span(origin, direction)
    samples = []
    for i in range(count):
        t = (-1 + 2 * i / (count - 1) - origin[axis]) / direction[axis]
        begin, end = max(enter, t - step / 2), min(leave, t + step / 2)
        if begin < end:
            samples.append((t, begin, end))
    return sorted(samples)


def even_samples(origin: list[float], direction: list[float], count: int) -> list[tuple[float, float, float]]:
    """`count` equal parts of the way through the box, each sampled in its middle."""
    enter, leave = box_span(origin, direction)
    if enter >= leave:
        return []
    edges = [enter + (leave - enter) * i / count for i in range(count + 1)]
    return [((a + b) / 2, a, b) for a, b in zip(edges[:-1], edges[1:], strict=True)]


def march(
    field: Tensor, origin: list[float], direction: list[float], samples: list[tuple[float, float, float]]
) -> Tensor:
    """(5,): red, green, blue, depth, transmittance of one ray through density and colour `field` (4, R, R, R)."""
    rgb, depth, transmittance = torch.zeros(3, dtype=field.dtype), torch.zeros((), dtype=field.dtype), torch.ones(())
    for t, begin, end in samples:
        density, *colour = trilinear(field, [o + t * d for o, d in zip(origin, direction, strict=True)])
        passed = torch.exp(-density * (end - begin))
        weight = transmittance * (1 - passed)
        rgb = rgb + weight * torch.stack(colour)
        depth = depth + weight * (begin + end) / 2
        transmittance = transmittance * passed
    return torch.cat([rgb, depth[None], transmittance.to(field.dtype)[None]])


def render_slowly(
    density: Tensor, colour: Tensor, camera: Camera, size: int, background: float = 1.0, samples: int | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """rgb (B, H, W, 3), depth and opacity (B, H, W).  samples: even ones per ray; None: where it meets the planes."""
    field = torch.cat([density[None], colour])
    origins, directions = camera.rays(size)
    rays = []
    for o, d in zip(origins.reshape(-1, 3).tolist(), directions.reshape(-1, 3).tolist(), strict=True):
        where = even_samples(o, d, samples) if samples else plane_samples(o, d, len(density))
        rays.append(march(field, o, d, where))
    result = torch.stack(rays).reshape(len(camera), size, size, 5)
    rest = result[..., 4]
    return result[..., :3] + rest[..., None] * background, result[..., 3], 1 - rest


def fields(resolution: int, seed: int, scale: float = 3.0) -> tuple[Tensor, Tensor]:
    """Random nodes: density up to `scale`, a third of the nodes empty."""
    generator = torch.Generator().manual_seed(seed)
    raw = torch.rand(4, resolution, resolution, resolution, generator=generator, dtype=F64)
    return scale * (1.5 * raw[0] - 0.5).clamp(min=0), raw[1:]


def smooth(resolution: int) -> tuple[Tensor, Tensor]:
    """A soft ball with a colour that changes linearly: what a fine grid and a coarse one should agree on."""
    points = grid_points(resolution, dtype=F64)
    return 4 * torch.exp(-3 * points.square().sum(-1)), (points.movedim(-1, 0) + 1) / 2


def everything(picture: Render) -> Tensor:
    """(B, H, W, 5)"""
    return torch.cat([picture.rgb, picture.depth[..., None], picture.opacity[..., None]], -1)


@st.composite
def cameras(draw: st.DrawFn, count: int = 1) -> Camera:
    """Anywhere within three units of the centre, so inside the box too, looking at a point near the centre."""
    near = st.floats(-0.5, 0.5, allow_subnormal=False)
    wide = st.one_of(st.floats(-3, 3, allow_subnormal=False), st.sampled_from([0.0, 0.5, -2.0, 3.0]))
    places = [[draw(wide) for _ in range(3)] for _ in range(count)]
    target = torch.tensor([[draw(near) for _ in range(3)] for _ in range(count)], dtype=F64)
    position = torch.tensor(places, dtype=F64)
    position = torch.where((position - target).norm(dim=1, keepdim=True) < 0.1, target + 2, position)
    return look_at(position, target, fov=draw(st.sampled_from([20.0, 40.0, 90.0])))


SYMMETRIES = [
    torch.diag(torch.tensor(signs, dtype=F64))[list(order)]
    for signs in itertools.product((1.0, -1.0), repeat=3)
    for order in itertools.permutations(range(3))
]


def turned(field: Tensor, matrix: Tensor) -> Tensor:
    """A field (C, R, R, R) moved by a signed permutation: the value at point p goes to point matrix @ p."""
    points = grid_points(field.shape[1], dtype=F64) @ matrix  # where each node's value comes from
    index = ((points + 1) / 2 * (field.shape[1] - 1)).round().long()
    return field[:, index[..., 2], index[..., 1], index[..., 0]]
