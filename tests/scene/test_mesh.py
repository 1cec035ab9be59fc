"""Meshes: the right size, closed, the right way round, with the renders' colours and outline."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from jsdsd.scene.asset import Asset
from jsdsd.scene.cameras import orbit
from jsdsd.scene.mesh import closed_surface, extract_mesh, silhouette_threshold, subdivided, surface_colours
from jsdsd.scene.renderer import render
from jsdsd.scene.voxels import VoxelGrid, grid_points

sys.path.insert(0, str(Path(__file__).parent))  # the toys lie beside this file
from shapes import ball, toy


def rasterise(mesh: trimesh.Trimesh, azimuth: float, elevation: float, size: int) -> tuple[np.ndarray, np.ndarray]:
    """A slow twin: rgb (size, size, 3) and mask of the mesh, from points strewn densely over its triangles.

    It draws 4 times larger than asked for and keeps the pixel next to each centre, so an outline is right to 1/8 pixel.
    """
    n, fine = 10, 4 * size
    weights = np.array([(i / n, j / n, 1 - (i + j) / n) for i in range(n + 1) for j in range(n + 1 - i)])
    points = np.einsum("kc,fcx->fkx", weights, mesh.vertices[mesh.faces]).reshape(-1, 3)
    colours = np.einsum("kc,fcx->fkx", weights, mesh.visual.vertex_colors[mesh.faces][..., :3] / 255).reshape(-1, 3)
    points = np.stack([points[:, 0], -points[:, 2], points[:, 1]], 1)  # back to Z up
    camera = orbit(azimuth, elevation)
    x, y, z = ((points - camera.position[0].numpy()) @ camera.rotation[0].numpy().T).T  # right, up, forward
    focal = fine / 2 / np.tan(camera.fov[0].item() / 2)
    column, row = (np.floor(v / z * focal + fine / 2).astype(int) for v in (x, -y))
    order = np.argsort(-z)  # far to near: the nearest is written last
    rgb, mask = np.ones((fine, fine, 3)), np.zeros((fine, fine), bool)
    rgb[row[order], column[order]] = colours[order]
    mask[row, column] = True
    return rgb[2::4, 2::4], mask[2::4, 2::4]


def test_a_sphere_has_its_radius_and_volume() -> None:
    mesh = extract_mesh(ball(), threshold=20.0)  # half the peak: exactly at the radius
    radius = np.linalg.norm(mesh.vertices, axis=1)
    assert np.abs(radius - 0.6).max() < 0.01  # a node spacing is 0.065
    assert mesh.volume == pytest.approx(4 / 3 * np.pi * 0.6**3, rel=0.01)
    assert mesh.is_watertight and mesh.is_winding_consistent
    outward = (mesh.face_normals * mesh.triangles_center).sum(1)
    assert (outward > 0).all()


def test_up_is_y_and_the_front_faces_z() -> None:
    right, front, top = ((1, 0, 0), (0, -1, 0), (0, 0, 1))  # directions inside
    for inside, outside in ((right, (1, 0, 0)), (front, (0, 0, 1)), (top, (0, 1, 0))):
        centre = tuple(0.5 * c for c in inside)
        mesh = extract_mesh(ball(24, 0.3, centre=centre))
        np.testing.assert_allclose(mesh.vertices.mean(0), 0.5 * np.array(outside), atol=0.02)


def test_an_object_cut_by_the_box_is_closed_on_its_face() -> None:
    mesh = extract_mesh(ball(24, 0.6, centre=(0.9, 0, 0)))
    assert mesh.is_watertight and mesh.volume > 0
    assert mesh.vertices[:, 0].max() == pytest.approx(1.0)
    assert np.abs(mesh.vertices).max() <= 1


def field(grid: VoxelGrid) -> np.ndarray:
    return grid.logits()[0].detach().double().numpy()


small = st.integers(-3, 3).map(float) | st.floats(-50, 50, width=32)


@settings(max_examples=300)
@given(st.integers(2, 5).flatmap(lambda r: arrays(np.float64, (r, r, r), elements=small)))
@example(np.where(np.indices((4, 4, 4)).sum(0) % 2, 1.0, -1.0))  # every face has two equally good cuts
@example(np.zeros((3, 3, 3)))
@example(np.full((2, 2, 2), 7.0))
def test_every_surface_is_closed_and_every_face_has_an_area(above: np.ndarray) -> None:
    if above.max() < 0:
        return
    points, normals, faces = closed_surface(above)
    mesh = trimesh.Trimesh(points, faces, process=False)
    assert mesh.is_watertight and mesh.is_winding_consistent and mesh.volume > 0
    assert mesh.area_faces.min() > 0 and np.abs(points).max() <= 1
    assert len(np.unique(points.astype(np.float32), axis=0)) == len(points)
    np.testing.assert_allclose(np.linalg.norm(normals, axis=1), 1, atol=1e-6)
    assert ((normals * mesh.vertex_normals).sum(1) > 0).all()


def test_a_threshold_equal_to_nodes_values_gives_a_closed_mesh() -> None:
    """faults.md, 7: 255 of 400 such grids were not closed."""
    density = torch.zeros(4, 4, 4)
    density[1:3, 1:3, 1:3] = torch.tensor([[[10.0, 5], [10, 10]], [[5, 10], [10, 0]]])
    generator = torch.Generator().manual_seed(0)
    for case in [density, *torch.randint(0, 4, (60, 5, 5, 5), generator=generator) * 5.0]:
        mesh = extract_mesh(VoxelGrid.from_fields(case, torch.full((3, *case.shape), 0.5)), 5.0)
        assert mesh.is_watertight and mesh.volume > 0 and mesh.area_faces.min() > 0


def test_vertices_lie_where_the_field_is_zero() -> None:
    above = field(VoxelGrid.blob((9,)))
    points, _, _ = closed_surface(above)
    where = torch.from_numpy(points)[None, None, None]
    value = torch.nn.functional.grid_sample(torch.from_numpy(above)[None, None], where, align_corners=True).flatten()
    assert value.abs().max() < 0.01 * np.abs(above).max()  # on the grid's edges the field is linear


def test_normals_are_the_fields_slope() -> None:
    points = grid_points(40)
    above = (0.6 - points.norm(dim=-1)).double().numpy()
    at, normals, _ = closed_surface(above)
    np.testing.assert_allclose(normals, at / np.linalg.norm(at, axis=1, keepdims=True), atol=0.01)


def test_a_spline_is_smooth_where_linear_logits_ripple() -> None:
    """How far a ball strays from a sphere; its field rises over six node spacings."""
    above = ((0.6 - grid_points(24).norm(dim=-1)) * 23 / 2).clamp(-3, 3)
    logits = torch.cat([above[None] + 10, torch.zeros(3, *above.shape)])
    grid = VoxelGrid([logits])
    stray = []
    for shown in (grid.upsampled(47), subdivided(grid)):
        points, _, _ = closed_surface(field(shown) - 10)
        stray.append(np.linalg.norm(points, axis=1).std())
    assert stray[1] < 0.2 * stray[0]


@pytest.mark.parametrize(("nodes", "finer"), [(5, 9), (81, 81)])
def test_a_subdivided_grid_has_the_splines_values(nodes: int, finer: int) -> None:
    """Cubic B-spline with control points c: (c[-1] + 4 c[0] + c[1]) / 6 at a node once the steps have converged; the
    subdivision's own nodes are the control points of the next finer level, (c[-1] + 6 c[0] + c[1]) / 8."""
    line = torch.randn(nodes, generator=torch.Generator().manual_seed(0))
    logits = line.expand(4, nodes, nodes, nodes)  # along x only
    grid = VoxelGrid([logits.clone()])
    found = subdivided(grid).logits()[0, 1, 1].detach()
    assert torch.equal(subdivided(grid).logits()[1:], grid.upsampled(finer).logits()[1:])  # colours as they are
    inner = (line[:-2] + (6 if finer > nodes else 4) * line[1:-1] + line[2:]) / (8 if finer > nodes else 6)
    assert found.shape == (finer,)
    torch.testing.assert_close(found[2:-2:2] if finer > nodes else found[1:-1], inner)


def test_a_full_box_keeps_its_colour_to_the_edges() -> None:
    grid = VoxelGrid.from_fields(torch.full((16,) * 3, 20.0), torch.full((3, 16, 16, 16), 128 / 255))
    mesh = Asset(grid, "a box").mesh()
    assert mesh.is_watertight and mesh.volume == pytest.approx(8, rel=0.01)
    np.testing.assert_array_equal(mesh.visual.vertex_colors[:, :3], 128)


def test_small_parts_are_dropped_and_the_largest_never() -> None:
    points = grid_points(24)
    big, crumb = ((points - torch.tensor(c)).norm(dim=-1) for c in ([0.0, 0, 0], [0.8, 0.8, 0.8]))
    density = 40 * torch.maximum(((0.5 - big) * 6).clamp(0, 1), ((0.15 - crumb) * 12).clamp(0, 1))
    grid = VoxelGrid.from_fields(density, torch.full((3, 24, 24, 24), 0.5))
    assert extract_mesh(grid, 20.0).body_count == 2
    whole = extract_mesh(grid, 20.0, min_part=0.02)
    assert whole.body_count == 1 and whole.is_watertight and np.abs(whole.vertices).max() < 0.55
    assert extract_mesh(grid, 20.0, min_part=0.999).body_count == 1


GRIDS = {"toy": toy(), "soft": ball(peak=6.0), "hard": ball(peak=300.0), "blob": VoxelGrid.blob()}


@pytest.mark.parametrize("name", GRIDS)
def test_the_automatic_threshold_gives_the_renders_outline(name: str) -> None:
    grid = GRIDS[name]
    mesh = extract_mesh(grid)
    for azimuth, elevation in ((0, 15), (35, 0), (100, 40), (200, -20)):
        with torch.no_grad():
            seen = render(grid, orbit(azimuth, elevation), 64).opacity[0].numpy() > 0.5
        _, mask = rasterise(mesh, azimuth, elevation, 64)
        assert (seen & mask).sum() / (seen | mask).sum() > 0.95


def test_the_mesh_beside_the_render(tmp_path: Path) -> None:
    """Colours inside, and a figure to look at (pytest --basetemp=DIR keeps it): renders above, the mesh below."""
    grid = toy()
    mesh = extract_mesh(grid)
    errors, columns = [], []
    for azimuth in (0, 60, 130, 250):
        with torch.no_grad():
            picture = render(grid, orbit(azimuth), 64, 1.0)
        rgb, mask = rasterise(mesh, azimuth, 15, 64)  # white around, as the render
        solid = mask & (picture.opacity[0].numpy() > 0.99)
        errors.append(np.abs(picture.rgb[0].numpy() - rgb)[solid].mean())
        columns.append(np.concatenate([picture.rgb[0].numpy(), rgb]))
    assert max(errors) < 0.03
    figure = np.concatenate(columns, 1)  # (2 * 64, 4 * 64, 3)
    Image.fromarray((figure.clip(0, 1) * 255).round().astype(np.uint8)).save(tmp_path / "mesh_beside_render.png")
    assert np.abs(figure[:64] - figure[64:]).mean() < 0.03  # outlines included


def test_colours_ignore_what_lies_in_empty_space() -> None:
    density, colour = ball().fields()
    red, cyan = (torch.tensor(rgb)[:, None, None, None] for rgb in ([1.0, 0.0, 0.0], [0.0, 1.0, 1.0]))
    mesh = extract_mesh(VoxelGrid.from_fields(density.detach(), torch.where(density > 1, red, cyan)))
    rgb = mesh.visual.vertex_colors[:, :3] / 255
    assert rgb[:, 0].mean() > 0.93 and rgb[:, 1:].mean() < 0.07


def test_a_slabs_colour_is_the_closed_form() -> None:
    """Head-on into z < 0, colour there changes with depth: sum of exp(-D s) D c(s) ds, c linear, gives c(1/D)."""
    points = grid_points(101)
    z = points[..., 2]
    density = torch.where(z <= 0, 40.0, 0.0)
    colour = torch.stack([-z.clamp(-1, 0), torch.zeros_like(z), torch.ones_like(z)])
    rgb = surface_colours(density, colour, np.array([[0.0, 0.0, 0.0]]), np.array([[0.0, 0.0, 1.0]]))
    np.testing.assert_allclose(rgb, [[1 / 40, 0, 1]], atol=0.01)


def test_threshold_of_a_slab_of_known_opacity() -> None:
    """The longest ray through the whole box is 2 sqrt(3) = 3.46: half opaque at density ln 2 / 3.46 = 0.2."""
    with pytest.raises(ValueError, match="the scene is empty: its most opaque ray stops"):
        silhouette_threshold(torch.full((12, 12, 12), 0.17))
    for density in (0.25, 1.0):
        assert silhouette_threshold(torch.full((12,) * 3, density)) == pytest.approx(0.9 * density)  # just below it


def test_bad_scenes_and_thresholds_are_refused_in_words() -> None:
    with pytest.raises(ValueError, match="the scene is empty"):
        extract_mesh(VoxelGrid([torch.full((4, 8, 8, 8), -10.0)]))
    for threshold in (-1.0, 0.0, 1e9, float("nan")):
        with pytest.raises(ValueError, match="threshold must lie between 0 and the grid's highest density"):
            extract_mesh(ball(12), threshold)
    broken = torch.zeros(4, 4, 4, 4)
    broken[1, 0, 0, 0] = float("nan")
    with pytest.raises(ValueError, match="not finite"):
        extract_mesh(VoxelGrid([broken]))
