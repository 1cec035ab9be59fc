"""Meshes: the right size, closed, the right way round, with the renders' colours and outline, in every format."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
from PIL import Image

from jsdsd.pipeline.asset import Asset
from jsdsd.pipeline.cameras import orbit
from jsdsd.pipeline.mesh import extract_mesh, linear_light, silhouette_threshold, surface_colours
from jsdsd.pipeline.renderer import render
from jsdsd.pipeline.voxels import VoxelGrid, grid_points


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


@pytest.mark.parametrize("suffix", [".ply", ".obj", ".stl"])
def test_trimesh_reads_back_what_was_written(tmp_path: Path, suffix: str) -> None:
    asset = Asset(toy(), "a toy")
    mesh = asset.mesh()
    again = trimesh.load_mesh(asset.save(tmp_path / f"x{suffix}"), process=suffix == ".stl")
    assert again.is_watertight
    assert again.volume == pytest.approx(mesh.volume, rel=1e-4)
    if suffix != ".stl":  # which knows no colours
        np.testing.assert_allclose(again.vertices, mesh.vertices, atol=1e-6)
        read, written = (np.asarray(m.visual.vertex_colors, dtype=float) for m in (again, mesh))
        np.testing.assert_allclose(read, written, atol=1)


def glb_parts(data: bytes) -> tuple[dict, bytes]:
    """The JSON and the binary part, with the container's own rules checked (glTF 2.0, section 4)."""
    magic, version, length = struct.unpack_from("<4sII", data)
    assert (magic, version, length) == (b"glTF", 2, len(data))
    text_length, kind = struct.unpack_from("<I4s", data, 12)
    assert kind == b"JSON" and text_length % 4 == 0
    blob_length, kind = struct.unpack_from("<I4s", data, 20 + text_length)
    assert kind == b"BIN\0" and blob_length % 4 == 0 and 28 + text_length + blob_length == len(data)
    return json.loads(data[20 : 20 + text_length]), data[28 + text_length :]


def test_glb_read_by_the_specification_has_the_meshs_colours(tmp_path: Path) -> None:
    """Reads the file as the specification says and shares no code with the writer."""
    asset = Asset(toy(), "a toy")
    mesh = asset.mesh()
    document, blob = glb_parts(asset.save(tmp_path / "x.glb").read_bytes())
    primitive = document["meshes"][0]["primitives"][0]

    def read(index: int) -> np.ndarray:
        accessor = document["accessors"][index]
        view = document["bufferViews"][accessor["bufferView"]]
        dtype = {5126: "<f4", 5125: "<u4"}[accessor["componentType"]]
        width = {"SCALAR": 1, "VEC3": 3, "VEC4": 4}[accessor["type"]]
        start = view["byteOffset"] + accessor.get("byteOffset", 0)
        assert view["byteLength"] == accessor["count"] * width * np.dtype(dtype).itemsize and start % 4 == 0
        values = np.frombuffer(blob, dtype, accessor["count"] * width, start).reshape(-1, width)
        return values

    positions, normals = read(primitive["attributes"]["POSITION"]), read(primitive["attributes"]["NORMAL"])
    np.testing.assert_allclose(positions, mesh.vertices, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(normals, axis=1), 1, atol=1e-4)
    np.testing.assert_array_equal(read(primitive["indices"]).reshape(-1, 3), mesh.faces)
    accessor = document["accessors"][primitive["attributes"]["POSITION"]]
    np.testing.assert_array_equal([accessor["min"], accessor["max"]], [positions.min(0), positions.max(0)])

    linear = read(primitive["attributes"]["COLOR_0"])[:, :3]
    shown = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)  # what a screen gets
    np.testing.assert_allclose(shown * 255, mesh.visual.vertex_colors[:, :3], atol=0.5)


def test_trimesh_reads_the_glb_with_colours(tmp_path: Path) -> None:
    asset = Asset(toy(), "a toy")
    mesh = asset.mesh()
    again = trimesh.load_mesh(asset.save(tmp_path / "x.glb"))
    np.testing.assert_allclose(again.vertices, mesh.vertices, atol=1e-6)
    assert again.is_watertight and again.volume == pytest.approx(mesh.volume, rel=1e-4)
    linear = again.visual.vertex_colors[:, :3] / 255
    np.testing.assert_allclose(linear, linear_light(mesh.visual.vertex_colors[:, :3] / 255), atol=0.51 / 255)


def test_linear_light_at_known_values() -> None:
    """0, 1, the two branches' joint, and middle grey: sRGB 0.5 is 21.4 % of the light."""
    given, expected = np.array([0.0, 0.04045, 0.5, 1.0]), np.array([0.0, 0.0031308, 0.2140411, 1.0])
    np.testing.assert_allclose(linear_light(given), expected, atol=1e-6)
