"""Signed distances (negative inside) from points p (3, N) to simple solids; all lengths in scene units.

Formulas after Inigo Quilez, "distance functions" (iquilezles.org, not re-read).  Ellipsoids and cone sides are bounds,
exact near the surface; the toys need no more.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

Point = Sequence[float]


def _at(p: Tensor, centre: Point) -> Tensor:
    return p - p.new_tensor(centre)[:, None]


def _norm(q: Tensor) -> Tensor:
    """Length of the columns of (D, N).  Ten times faster than torch's norm on such short columns."""
    return (q * q).sum(0).sqrt()


def sphere(p: Tensor, centre: Point, radius: float) -> Tensor:
    return _norm(_at(p, centre)) - radius


def ellipsoid(p: Tensor, centre: Point, radii: Point) -> Tensor:
    q, r = _at(p, centre), p.new_tensor(radii)[:, None]
    k0, k1 = _norm(q / r), _norm(q / r**2).clamp(min=1e-9)
    return torch.where(k0 < 1e-6, -r.min(), k0 * (k0 - 1) / k1)


def box(p: Tensor, centre: Point, half: Point, rounding: float = 0.05) -> Tensor:
    """`half`: half edge lengths with the rounding included."""
    q = _at(p, centre).abs() - p.new_tensor(half)[:, None] + rounding
    return _norm(q.clamp(min=0)) + q.amax(0).clamp(max=0) - rounding


def capsule(p: Tensor, start: Point, end: Point, radius: float) -> Tensor:
    q, axis = _at(p, start), p.new_tensor(end) - p.new_tensor(start)
    along = (axis @ q / axis.dot(axis)).clamp(0, 1)  # (N,)
    return _norm(q - axis[:, None] * along) - radius


def cone(p: Tensor, start: Point, end: Point, radius: float, end_radius: float = 0.0) -> Tensor:
    """A capped cone whose radius goes from `radius` at `start` to `end_radius` at `end`; equal radii: a cylinder."""
    q, axis = _at(p, start), p.new_tensor(end) - p.new_tensor(start)
    length = axis.norm()
    axis = axis / length
    h = axis @ q  # (N,): height along the axis
    r = _norm(q - axis[:, None] * h)
    slope = (radius - end_radius) / length
    side = (r - (radius - slope * h)) / torch.sqrt(1 + slope**2)
    cap = torch.maximum(-h, h - length)
    return torch.maximum(side, cap)


def torus(p: Tensor, centre: Point, radius: float, tube: float, axis: int = 2) -> Tensor:
    """A ring around coordinate axis `axis` (0 x, 1 y, 2 z)."""
    q = _at(p, centre)
    u, v = (q[i] for i in range(3) if i != axis)
    return torch.hypot(torch.hypot(u, v) - radius, q[axis]) - tube


def star(p: Tensor, centre: Point, radius: float, inner: float, half_depth: float, points: int = 5) -> Tensor:
    """A star prism that faces -Y, its tips at `radius` and its notches at `inner` from the centre."""
    q = _at(p, centre)
    step = math.pi / points
    angle = torch.atan2(q[0], q[2])
    angle = (torch.remainder(angle + step, 2 * step) - step).abs()  # fold into half a tip
    r = torch.hypot(q[0], q[2])
    along, across = r * angle.cos(), r * angle.sin()
    tip, notch = (radius, 0.0), (inner * math.cos(step), inner * math.sin(step))
    edge = (notch[0] - tip[0], notch[1] - tip[1])
    normal = (edge[1], -edge[0])  # outward
    side = ((along - tip[0]) * normal[0] + (across - tip[1]) * normal[1]) / math.hypot(*edge)
    return torch.maximum(side, q[1].abs() - half_depth)


def minus(solid: Tensor, hole: Tensor) -> Tensor:
    return torch.maximum(solid, -hole)


def cut(solid: Tensor, other: Tensor) -> Tensor:
    return torch.maximum(solid, other)
