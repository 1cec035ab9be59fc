"""Volume rendering of a voxel grid, sampled where each ray crosses the grid's own planes.

A ray o + t d is assigned to its *dominant axis*, where |d| is largest, and sampled where it crosses the R node planes
of that axis.  On a plane trilinear interpolation is bilinear: four corners, not eight, and PyTorch's 2D `grid_sample`
is vectorised and parallel over planes, where the 3D one is neither.  Neighbouring samples are `step` = spacing / |d|
apart, at most sqrt(3) spacings.  Sample k stands for the part of the ray inside the box that lies within half a step
of it.  Emission and absorption after Max 1995 ("Optical models for direct volume rendering", not re-read):

    opacity_k = 1 - exp(-density_k length_k)     T_k = product of (1 - opacity_j) before k     w_k = T_k opacity_k
    rgb = sum_k w_k colour_k + T_end * background         opacity = 1 - T_end         depth = sum_k w_k t_k

Rays are grouped as on the six faces of a cube map (three axes, up or down): all rays of a group cross the same planes
in the same order, so that a group is one call of `grid_sample`, with the planes as its batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from .cameras import Camera
from .voxels import VoxelGrid

RAYS = 2**14  # rays marched at once, so that a large picture needs no large memory


@dataclass(frozen=True)
class Render:
    """rgb (B, H, W, 3) in [0, 1]; opacity (B, H, W) in [0, 1]; depth (B, H, W): the opacity-weighted distance from the
    camera in scene units, 0 where nothing is hit (depth / opacity is the mean distance)."""

    rgb: Tensor
    depth: Tensor
    opacity: Tensor


def render(grid: VoxelGrid, camera: Camera, size: int, background: float | Tensor = 1.0) -> Render:
    """Square images of `size` pixels of `grid` from a batch of B cameras, differentiable in the grid's logits.

    background: a grey level, a colour (3,) or one per camera (B, 3), in [0, 1].
    Cameras get no gradient, and gradients have none of their own.  Raises ValueError for a wrong shape, a NaN, a
    background outside [0, 1] and numbers other than float32 and float64.
    """
    back = torch.as_tensor(background)
    if not ((back >= 0) & (back <= 1)).all():  # written so that a NaN fails too
        raise ValueError(f"background must lie in [0, 1], got values from {float(back.min())} to {float(back.max())}")
    return render_fields(*grid.fields(), camera, size, background)


def render_fields(
    density: Tensor, colour: Tensor, camera: Camera, size: int, background: float | Tensor = 1.0
) -> Render:
    """As `render`, from density (R, R, R) in 1 / scene unit, >= 0, and colour (3, R, R, R), both indexed z, y, x.

    Colours are composited, whatever they mean: with C channels instead of three, so have background and picture.
    """
    _check(density, colour)
    back = torch.as_tensor(background, dtype=density.dtype, device=density.device)
    C = len(colour)
    if back.shape not in ((), (C,), (len(camera), C)):
        raise ValueError(
            f"background is a number, a colour ({C},) or one per camera ({len(camera)}, {C}), got shape "
            f"{tuple(back.shape)}"
        )
    with torch.no_grad():  # P = B * size * size rays
        rays, face = _crossings(*camera.to(density.device, density.dtype).rays(size), density.shape[0])
    pieces, order = [], []
    for axis in range(3):  # 0 x, 1 y, 2 z
        if not (face // 2 == axis).any():
            continue
        planes = torch.cat([density.movedim(2 - axis, 0)[:, None], colour.movedim(3 - axis, 0)], 1)  # (R, 1 + C, V, U)
        for backwards in (0, 1):
            group = (face == 2 * axis + backwards).nonzero()[:, 0]
            if backwards and len(group):
                planes = planes.flip(0)  # always in the order in which the rays meet them
            for index in group.split(RAYS):
                if len(index):
                    pieces.append(_march(planes, rays[:, index]))
                    order.append(index)
    result = density.new_tensor([0.0, *C * [0.0], 1.0])[:, None].repeat(1, rays.shape[1])  # a ray that misses the box
    if order:
        result = result.index_copy(1, torch.cat(order), torch.cat(pieces, 1))
    else:  # still a function of the fields, with gradient zero
        result = result + 0 * (density.sum() + colour.sum())
    result = result.T.reshape(len(camera), size, size, 2 + C)  # depth, red, green, blue, transmittance
    depth, rgb, rest = result[..., 0], result[..., 1:-1], result[..., -1]
    return Render(rgb + rest[..., None] * back.expand(len(camera), C)[:, None, None], depth, 1 - rest)


def _check(density: Tensor, colour: Tensor) -> None:
    size = density.shape[0] if density.dim() == 3 else 0
    if size < 2 or density.shape != (size,) * 3 or colour.shape[1:] != density.shape or not len(colour):
        got = f"{tuple(density.shape)} and {tuple(colour.shape)}"
        raise ValueError(f"density has shape (R, R, R) and colour (3, R, R, R) with R >= 2, got {got}")
    half = density.dtype not in (torch.float32, torch.float64)  # their sums of densities would overflow or round
    if half or (density.dtype, density.device) != (colour.dtype, colour.device):
        raise ValueError(
            f"density and colour are both float32 or both float64, on one device, got {density.dtype} on "
            f"{density.device} and {colour.dtype} on {colour.device}"
        )
    low, high = density.detach().aminmax()
    if not (low >= 0 and high < torch.inf):  # not: a NaN makes every comparison false
        raise ValueError(f"density must be finite and >= 0, but it ranges from {low:g} to {high:g}")
    if not colour.detach().sum().isfinite():
        raise ValueError("colour holds a NaN or an infinite value")


def _crossings(origin: Tensor, direction: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Where rays (..., 3) cross the `count` planes of their dominant axis: table (8, P) and face (P,).

    Rows: distance to the first plane, distance between planes (step); where the ray enters and leaves the box; u and v
    on the first plane, in [-1, 1] inside; their growth from plane to plane.  face: 2 * dominant axis, + 1 for a ray
    that crosses the planes downwards, -1 for a ray that misses the box.  A tie between axes goes to the first.
    """
    o, d = origin.reshape(-1, 3), direction.reshape(-1, 3)  # (P, 3)
    sides = torch.stack([(-1 - o) / d, (1 - o) / d])  # (2, P, 3); parallel to a side: +-inf, in it: nan, which misses
    enter, leave = sides.amin(0).amax(1).clamp(min=0), sides.amax(0).amin(1)  # the camera may be inside
    axis = d.abs().argmax(1, keepdim=True)  # (P, 1)
    speed = d.gather(1, axis)
    first = (-1 - speed.sign() * o.gather(1, axis)) / speed.abs()
    step = 2 / (count - 1) / speed.abs()
    plane = torch.tensor([[1, 2], [0, 2], [0, 1]], device=d.device)[axis[:, 0]]  # (P, 2): u faster in memory
    uv, slope = o.gather(1, plane), d.gather(1, plane)
    table = torch.cat([first, step, enter[:, None], leave[:, None], uv + first * slope, step * slope], 1)
    return table.T.contiguous(), torch.where(enter < leave, 2 * axis[:, 0] + (speed[:, 0] < 0), -1)


def _march(planes: Tensor, rays: Tensor) -> Tensor:
    """(5, P): depth, red, green, blue, transmittance of rays (8, P) that meet planes (R, 4, V, U) in this order."""
    first, step, enter, leave = rays[:4]
    k = torch.arange(len(planes), dtype=rays.dtype, device=rays.device)[:, None]  # (R, 1)
    t = first + k * step  # (R, P)
    begin, end = (side.clamp(t - step / 2, t + step / 2) for side in (enter, leave))
    at = torch.addcmul(rays[4:6], k[:, None], rays[6:8])  # (R, 2, P)
    return _Gather.apply(planes, at, end - begin, (begin + end) / 2)


class _Gather(torch.autograd.Function):
    """What P rays gather on R planes, with the gradient written out: fewer passes over the samples than autograd's.

    planes (R, 4, V, U): density and colour; at (R, 2, P), length (R, P), t (R, P) -> (5, P): light and transmittance

        light = sum_k w_k value_k,  value = (t, red, green, blue)          T_end = product of all (1 - opacity_k)
        dL/dvalue_k = w_k dL/dlight                                        v_k = value_k . dL/dlight
        dL/ddensity_k = length_k (T_{k+1} v_k - sum_{j > k} w_j v_j - T_end dL/dT_end)
    """

    @staticmethod
    def forward(ctx: Any, planes: Tensor, at: Tensor, length: Tensor, t: Tensor) -> Tensor:
        at = at.movedim(1, -1)[:, None]  # (R, 1, P, 2)
        sample = F.grid_sample(planes, at, align_corners=True, padding_mode="border")[:, :, 0]  # (R, 4, P)
        opacity = -torch.expm1(-sample[:, 0] * length)  # (R, P)
        after = (1 - opacity).cumprod(0)  # T_{k+1}
        weight = opacity
        weight[1:].mul_(after[:-1])
        sample[:, 0] = t  # density has done its work
        ctx.save_for_backward(planes, at, length, sample, after, weight)
        return torch.cat([(weight[:, None] * sample).sum(0), after[-1:]])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None, None, None]:
        planes, at, length, sample, after, weight = ctx.saved_tensors
        g_light, g_end = g[:-1], g[-1:]  # (4, P), (1, P)
        v = (sample * g_light).sum(1)  # (R, P)
        from_here = (weight * v).flip(0).cumsum(0).flip(0)  # sum over j >= k, added from the back: small numbers first
        behind = torch.cat([from_here[1:], torch.zeros_like(g_end)]) + after[-1] * g_end
        g_sample = weight[:, None] * g_light  # (R, 4, P)
        g_sample[:, 0] = length * (after * v - behind)
        how = 0, 1, True, [True, False]  # bilinear, border, align_corners; the gradient of planes, not that of at
        g_planes, _ = torch.ops.aten.grid_sampler_2d_backward(g_sample[:, :, None], planes, at, *how)
        return g_planes, None, None, None
