"""What a perfect picture of a toy looks like: rays walked through the distance functions themselves, without voxels.

A ray goes on by the distance to the nearest surface, which it cannot overshoot, until it is as good as there (sphere
tracing, Hart 1996, not re-read).  One distant light, from above, left and in front, the same in every picture; no
shadows: colour = material (AMBIENT + (1 - AMBIENT) max(0, normal . light)), a function of the place alone, so that a
voxel grid can hold it.  Each pixel is the mean of samples x samples rays.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from ..scene.cameras import Camera
from .scenes import Toy, distance, materials, palette, shade

STEPS = 64  # of a ray; one that grazes a surface needs the most
NEAR = 1e-3  # scene units: so near is there (a pixel of a 256 px picture is 8e-3)
RELAX = 0.9  # share of the distance that is walked: ellipsoids and folds are bounds only near their surface
RAYS = 2**20  # walked at once, to bound the memory


@torch.no_grad()
def trace(
    toys: Sequence[Toy] | Toy, camera: Camera, size: int, samples: int = 2, paint: Tensor | None = None
) -> Tensor:
    """Pictures (B, size, size, 4) of a scene from B cameras: red, green, blue *times* opacity, and opacity, in [0, 1].

    On a background b the picture is p[..., :3] + (1 - p[..., 3:]) b.  paint: (K, C) replaces the K parts' colours, and
    the picture has C + 1 channels.  Computed on the camera's device.
    """
    toys = [toys] if isinstance(toys, Toy) else list(toys)
    paint = palette(toys) if paint is None else paint
    origin, direction = (x.reshape(-1, 3) for x in camera.rays(size * samples))  # (P, 3)
    parts = zip(origin.split(RAYS), direction.split(RAYS), strict=True)
    out = torch.cat([_walk(toys, o, d, paint) for o, d in parts])  # (P, C + 1)
    fine = out.view(len(camera), size * samples, size * samples, -1).movedim(-1, 1)
    return F.avg_pool2d(fine, samples).movedim(1, -1)


def _walk(toys: list[Toy], origin: Tensor, direction: Tensor, paint: Tensor) -> Tensor:
    """(P, C + 1) lit paint and hits of rays (P, 3)."""
    sides = torch.stack([(-1 - origin) / direction, (1 - origin) / direction])  # of the box [-1, 1]^3
    enter, leave = sides.amin(0).amax(1).clamp(min=0), sides.amax(0).amin(1)  # (P,)
    t, gap = enter.clone(), torch.full_like(enter, torch.inf)
    alive = (enter < leave).nonzero()[:, 0]
    for step in range(STEPS):
        if not len(alive):
            break
        at = t[alive]
        near = distance(toys, (origin[alive] + at[:, None] * direction[alive]).T.contiguous())
        gap[alive], t[alive] = near, at + RELAX * near
        if step % 2:  # drop who has arrived or left
            alive = alive[(near > NEAR) & (t[alive] < leave[alive])]
    out = origin.new_zeros(len(origin), paint.shape[1] + 1)
    hit = ((gap < 2 * NEAR) & (t < leave)).nonzero()[:, 0]
    if len(hit):
        points = (origin[hit] + t[hit, None] * direction[hit]).T.contiguous()  # (3, M)
        h = 2e-3 * torch.eye(3, device=points.device)[:, :, None]
        slope = torch.stack([distance(toys, points + e) - distance(toys, points - e) for e in h])  # (3, M)
        out[hit, :-1] = (materials(toys, points, paint) * shade(slope)).T
        out[hit, -1] = 1
    return out
