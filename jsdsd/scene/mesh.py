"""From a voxel grid to a coloured triangle mesh.

Inside, Z is up and the front faces -Y; a mesh leaves with Y up and its front facing +Z, as glTF wants it:
(x, y, z) -> (x, z, -y), a rotation, so nothing is mirrored.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from .cameras import orbit
from .voxels import VoxelGrid

if TYPE_CHECKING:
    import trimesh


def extract_mesh(grid: VoxelGrid, threshold: float | None = None, min_part: float = 0.0) -> trimesh.Trimesh:
    """The closed surface where the density equals `threshold`, with one colour and one normal per vertex.

    threshold: 1 / scene unit; None takes `silhouette_threshold`.  min_part: parts with less than this share of the
    solid's nodes are left out, all but the largest; 0 keeps every crumb.  Vertices are in scene units, Y up, facing +Z;
    colours are 8-bit sRGB, as in the renders.  Raises ValueError for a scene with nothing in it, for values that are
    not finite, for a threshold that the density never crosses and for a share outside [0, 1).
    """
    import trimesh

    if not 0 <= min_part < 1:
        raise ValueError(f"min_part is a share of the whole, at least 0 and below 1, got {min_part}")
    with torch.no_grad():
        logits = grid.logits().float().cpu()  # (4, R, R, R); z, y, x
        density, colour = F.softplus(logits[0]), torch.sigmoid(logits[1:])
    if not torch.isfinite(logits).all():
        raise ValueError("the grid holds values that are not finite (NaN or infinity), so it has no surface")
    level = silhouette_threshold(density) if threshold is None else float(threshold)
    peak = density.max().item()
    if not 0 < level < peak:
        raise ValueError(f"threshold must lie between 0 and the grid's highest density {peak:.3g}, got {level:.3g}")
    # The logits, not the density, are linear between nodes: a surface through them is smooth where density is steep.
    above = logits[0].double().numpy() - (level + math.log(-math.expm1(-level)))  # minus the logit of `level`
    points, normals, faces = closed_surface(_without_crumbs(above, min_part))
    rgb = surface_colours(density, colour, points, normals)  # (V, 3)
    y_up = np.array([[1, 0, 0], [0, 0, -1], [0, 1, 0]])  # rows (x, y, z) times this: (x, z, -y)
    mesh = trimesh.Trimesh(points @ y_up, faces, vertex_normals=normals @ y_up, process=False)
    mesh.visual = trimesh.visual.ColorVisuals(mesh, vertex_colors=np.round(rgb * 255).astype(np.uint8))
    return mesh


def subdivided(grid: VoxelGrid) -> VoxelGrid:
    """A grid for a smooth surface, at twice as many nodes, where 160 per axis suffice: density's logits as the control
    points of a cubic B-spline, colours as they are.

    Linear logits are smooth within a cell only, and a mesh of them has a ripple in every cell.  The spline bends
    without a crease: linear interpolation followed by (1, 2, 1) / 4 along each axis is one step of its subdivision
    (Lane and Riesenfeld 1980, not re-read); (1, 4, 1) / 6 are its values at the nodes themselves.
    """
    nodes = 2 * grid.resolution - 1
    nodes, middle = (nodes, 2) if nodes <= 160 else (grid.resolution, 4)
    with torch.no_grad():
        density, colour = grid.upsampled(nodes).logits().split([1, 3])  # (1, R, R, R), (3, R, R, R)
        for axis in (1, 2, 3):
            first, last = density.narrow(axis, 0, 1), density.narrow(axis, -1, 1)  # the faces go on as they are
            before, after = torch.cat([first, density], axis), torch.cat([density, last], axis)
            outer = before.narrow(axis, 0, density.shape[axis]) + after.narrow(axis, 1, density.shape[axis])
            density = (outer + middle * density) / (2 + middle)
        return VoxelGrid([torch.cat([density, colour])])


def _without_crumbs(above: np.ndarray, min_part: float) -> np.ndarray:
    """`above` (R, R, R), negative as well in each part that has less than this share of the positive nodes."""
    from scipy.ndimage import label

    part, count = label(above > 0, np.ones((3, 3, 3)))  # parts that touch in a corner are one, as in a mesh
    if count < 2:
        return above
    nodes = np.bincount(part.ravel())[1:]  # of part 1, 2, ...
    small = (nodes < min_part * nodes.sum()) & (nodes < nodes.max())
    return np.where(np.append(False, small)[part], -np.abs(above), above)


def closed_surface(above: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The surface where the field `above` (R, R, R; z, y, x), linear between nodes of [-1, 1]^3, is zero.

    Points (V, 3) and unit normals (V, 3) in x, y, z; faces (F, 3), corners counter-clockwise seen from outside, where
    the field is negative.  Every edge has two faces and every face an area, whatever the values: two things are settled
    before the marching cubes (Lewiner et al. 2003, not re-read).
    - A node on the surface would give its six edges one vertex in the same place: its value moves off zero, to its
      own side, to a thousandth of its largest neighbour's.
    - Where the solid touches the box, one more node, mirrored, closes it; the last cell is a fiftieth of a spacing
      wide there, so that edges stay sharp.
    """
    from scipy.ndimage import map_coordinates, maximum_filter
    from skimage.measure import marching_cubes
    from trimesh import Trimesh

    size = np.abs(above)
    cross = np.array([abs(np.array([i, j, k])).sum() < 2 for i in (-1, 0, 1) for j in (-1, 0, 1) for k in (-1, 0, 1)])
    most = size.max() or 1.0
    least = 1e-3 * maximum_filter(size, footprint=cross.reshape(3, 3, 3))  # a node and its six neighbours
    field = np.where(above >= 0, 1, -1) * np.maximum(size, np.maximum(least, 1e-6 * most))
    field = np.pad(field, 1, "edge")
    inside = np.zeros(field.shape, bool)
    inside[1:-1, 1:-1, 1:-1] = True
    field = np.where(inside, field, -np.abs(field))
    field *= 2.0**20 / most  # skimage compares products with 1e-7

    index, faces, _, _ = marching_cubes(field.astype(np.float32), 0.0)
    axis = np.linspace(-1, 1, len(above))
    edge = 0.02 * (axis[1] - axis[0])
    axis = np.array([-1 - edge, edge - 1, *axis[1:-1], 1 - edge, 1 + edge])
    points = np.interp(index, np.arange(len(axis)), axis)[:, ::-1].clip(-1, 1)  # (V, 3): x, y, z
    slopes = [map_coordinates(slope, index.T, order=1) for slope in np.gradient(field, axis, axis, axis)]
    normals = -np.stack(slopes[::-1], 1)
    normals /= np.linalg.norm(normals, axis=1, keepdims=True).clip(1e-30)
    flat = Trimesh(points, faces, process=False).vertex_normals  # for a wall too thin for the field's slope
    normals = np.where((normals * flat).sum(1, keepdims=True) > 0.3, normals, flat)
    return points, normals, faces


def silhouette_threshold(density: Tensor) -> float:
    """The density [1 / scene unit] whose surface has the outline that the eye sees in `density` (R, R, R).

    The eye sees an outline where a ray turns half opaque, 1 - exp(-integral of density) = 1/2.  A surface at density s
    covers a ray whose highest density is above s.  So: count the half-opaque rays of six views, and choose s such
    that the same number of rays exceed it.  Raises ValueError where no ray is half opaque.
    """
    step = 2 / (density.shape[0] - 1)
    along = torch.arange(4 - 3**0.5, 4 + 3**0.5, step, dtype=density.dtype)  # (K,): the box seen from 4
    depths, peaks = [], []  # optical depth and highest density of every ray
    cameras = orbit([10, 70, 130, 190, 250, 310], [15, 50, 15, 50, 15, 50])  # none looks along an axis
    for origin, direction in zip(*cameras.to(dtype=density.dtype).rays(48), strict=True):  # (48, 48, 3) each
        where = origin + along[:, None, None, None] * direction  # (K, 48, 48, 3)
        sample = F.grid_sample(density[None, None], where[None], align_corners=True)[0, 0]  # (K, 48, 48)
        depths.append(sample.sum(0).flatten() * step)
        peaks.append(sample.amax(0).flatten())
    depth, peak = torch.cat(depths), torch.cat(peaks).sort(descending=True).values
    count = int((depth > math.log(2)).sum())
    if count == 0:
        seen = -math.expm1(-float(depth.max()))
        raise ValueError(
            f"the scene is empty: its most opaque ray stops {100 * seen:.1f} % of the light, less than half. "
            "There is no surface to extract; pass threshold= to extract one from the haze."
        )
    threshold = float(peak[count - 1 : count + 1].mean())
    return min(threshold, 0.9 * float(density.max()))  # a block of one density has its surface below that density


def surface_colours(density: Tensor, colour: Tensor, points: np.ndarray, normals: np.ndarray) -> np.ndarray:
    """What a ray that meets the surface head-on sees at each of `points` (V, 3): float (V, 3) in [0, 1].

    The colours at the surface itself are half those of empty space, which were never seen and may be anything.  So each
    vertex is rendered: a short ray goes in along the normal and is composited as the renderer does it.  Outside the box
    the fields go on as they are on its faces: an object that is cut there keeps its colour.
    """
    spacing = 2 / (density.shape[0] - 1)
    step = spacing / 2
    last = max(8 * spacing, 0.4)  # scene units: the ray begins one node spacing before the surface and ends there
    depth = torch.arange(-spacing, last, step, dtype=density.dtype)  # (K,)
    at, inward = (torch.from_numpy(np.ascontiguousarray(x)).to(density) for x in (points, -normals))
    where = at + depth[:, None, None] * inward  # (K, V, 3)
    field = torch.cat([density[None], colour])[None]  # (1, 4, R, R, R)
    sample = F.grid_sample(field, where[None, None], align_corners=True, padding_mode="border")[0, :, 0]  # (4, K, V)
    tau = sample[0] * step
    weight = torch.exp(tau - tau.cumsum(0)) * -torch.expm1(-tau)  # (K, V)
    rgb = (weight * sample[1:]).sum(1) / weight.sum(0).clamp(min=1e-12)  # (3, V)
    return rgb.T.clamp(0, 1).numpy()
