"""Pinhole cameras around the scene box [-1, 1]^3 (right-handed, Z up, the front of an object faces -Y)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from numbers import Integral

import torch
from torch import Tensor


@dataclass(frozen=True)
class Camera:
    """A batch of B pinhole cameras.

    position: (B, 3), scene units.  rotation: (B, 3, 3), rows are the unit vectors right, up, forward.
    fov: (B,), vertical field of view in radians, 0 < fov < pi.
    Raises ValueError for other shapes, values that are not finite and rotations that are none.
    """

    position: Tensor
    rotation: Tensor
    fov: Tensor

    def __post_init__(self) -> None:
        count = self.position.shape[0] if self.position.dim() == 2 else -1
        shapes = (self.position.shape, self.rotation.shape, self.fov.shape)
        if shapes != ((count, 3), (count, 3, 3), (count,)):
            raise ValueError(
                f"Camera wants shapes (B, 3), (B, 3, 3) and (B,), got {', '.join(map(str, map(tuple, shapes)))}"
            )
        kinds = {(x.dtype, x.device) for x in (self.position, self.rotation, self.fov)}
        if len(kinds) > 1 or not self.position.is_floating_point():
            raise ValueError("Camera wants position, rotation and fov in one floating-point type on one device")
        if not all(torch.isfinite(x).all() for x in (self.position, self.rotation, self.fov)):
            raise ValueError("Camera got a value that is not finite")
        if not ((self.fov > 0) & (self.fov < math.pi)).all():
            raise ValueError("fov must lie strictly between 0 and 180 degrees")
        gram = self.rotation @ self.rotation.transpose(1, 2)
        if not ((gram - torch.eye(3).to(gram)).abs() < 1e-2).all():
            raise ValueError("the rows of rotation must be unit vectors at right angles: right, up, forward")

    def __len__(self) -> int:
        return self.position.shape[0]

    def __getitem__(self, index: int | slice) -> Camera:
        if isinstance(index, int) and not -len(self) <= index < len(self):
            raise IndexError(f"there is no camera {index} in a batch of {len(self)}")
        keep = slice(index, index + 1 or None) if isinstance(index, int) else index
        return Camera(self.position[keep], self.rotation[keep], self.fov[keep])

    def __iter__(self) -> Iterator[Camera]:
        return (self[i] for i in range(len(self)))

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Camera:
        """The same cameras on another device or in another float type."""
        return Camera(*(x.to(device=device, dtype=dtype) for x in (self.position, self.rotation, self.fov)))

    def intrinsics(self, size: int) -> Tensor:
        """(B, 3, 3) matrices K for square images of `size` pixels: (u, v, 1) = K (x, y, z) / z, pixel centres at +0.5.

        x points right, y *down*, z forward, as OpenCV has them.
        """
        focal = size / 2 / torch.tan(self.fov / 2)  # pixels
        K = torch.zeros(len(self), 3, 3, dtype=focal.dtype, device=focal.device)
        K[:, 0, 0] = K[:, 1, 1] = focal
        K[:, 0, 2] = K[:, 1, 2] = size / 2
        K[:, 2, 2] = 1
        return K

    def rays(self, size: int) -> tuple[Tensor, Tensor]:
        """Origins and unit directions of the rays through all pixel centres, each (B, size, size, 3)."""
        if isinstance(size, bool) or not isinstance(size, Integral) or size < 1:
            raise ValueError(f"the image size must be a whole number of pixels, at least 1, got {size!r}")
        pixel = torch.arange(size, dtype=self.fov.dtype, device=self.fov.device)  # (size,)
        centre = (pixel + 0.5) / size * 2 - 1  # in (-1, 1)
        down, right = torch.meshgrid(centre, centre, indexing="ij")
        extent = torch.tan(self.fov / 2)[:, None, None]
        local = torch.stack([right * extent, -down * extent, torch.ones_like(right * extent)], -1)  # (B, H, W, 3)
        with torch.autocast(local.device.type, enabled=False):  # the caller's would round directions to 8 bits
            direction = torch.einsum("bhwi,bij->bhwj", local, self.rotation)
        return self.position[:, None, None].expand_as(direction), direction / direction.norm(dim=-1, keepdim=True)


def look_at(position: Tensor, target: Tensor | None = None, fov: float | Tensor = 30.0) -> Camera:
    """Cameras at `position` (B, 3) that look at `target` (3,) or (B, 3), default the origin, with +Z up in the picture.

    fov: vertical field of view in degrees, a number or (B,).  A camera that looks straight up or down has +Y up.
    Raises ValueError where position and target coincide and for other shapes.
    """
    if position.dim() != 2 or position.shape[1] != 3:
        raise ValueError(f"look_at wants positions of shape (B, 3), got {tuple(position.shape)}")
    if not position.is_floating_point():
        position = position.to(torch.get_default_dtype())
    target = torch.zeros_like(position) if target is None else target.to(position).expand_as(position)
    offset = target - position
    if (offset.norm(dim=-1) < 1e-6).any():
        raise ValueError("a camera cannot look at its own position: move it away from the target")
    forward = torch.nn.functional.normalize(offset, dim=-1)
    up = torch.tensor([0.0, 0.0, 1.0]).to(position).expand_as(position)
    vertical = forward[:, 2:].abs() > 1 - 1e-6
    up = torch.where(vertical, torch.tensor([0.0, 1.0, 0.0]).to(position), up)
    right = torch.nn.functional.normalize(torch.linalg.cross(forward, up), dim=-1)
    angle = torch.deg2rad(torch.as_tensor(fov, dtype=position.dtype, device=position.device)).expand(len(position))
    return Camera(position, torch.stack([right, torch.linalg.cross(right, forward), forward], 1), angle)


def orbit(
    azimuth: float | Sequence[float] | Tensor,
    elevation: float | Sequence[float] | Tensor = 15.0,
    radius: float | Sequence[float] | Tensor = 4.0,
    fov: float | Sequence[float] | Tensor = 30.0,
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str | None = None,
) -> Camera:
    """Cameras on spheres around the origin, looking at it.

    azimuth: degrees, 0 sees the front (the camera is on the -Y side), 90 sees the side that is on the right hand of
    someone who looks at the front.  elevation: degrees above the horizon, -90 to 90.  radius: scene units; 4 with
    fov 30 shows 1.07 units around the centre.  fov: degrees.  Numbers and sequences broadcast to a batch of B cameras.
    Raises ValueError for an elevation, radius or field of view outside its range.
    """
    values = [
        torch.atleast_1d(torch.as_tensor(v, dtype=dtype, device=device)) for v in (azimuth, elevation, radius, fov)
    ]
    az, el, rad, angle = torch.broadcast_tensors(*values)
    if not (el.abs() <= 90).all():
        raise ValueError("elevation must lie between -90 and 90 degrees")
    if not (rad > 0).all():
        raise ValueError("radius must be positive")
    az, el = torch.deg2rad(az), torch.deg2rad(el)
    position = rad[:, None] * torch.stack([az.sin() * el.cos(), -az.cos() * el.cos(), el.sin()], -1)
    # At the poles `look_at` cannot know the azimuth, so the picture's right-hand direction is taken from it directly.
    right = torch.stack([az.cos(), az.sin(), torch.zeros_like(az)], -1)
    forward = -position / rad[:, None]
    return Camera(position, torch.stack([right, torch.linalg.cross(right, forward), forward], 1), torch.deg2rad(angle))
