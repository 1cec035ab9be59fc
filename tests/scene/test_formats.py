"""Mesh files: every format read back by a program that did not write it."""

from __future__ import annotations

import json
import re
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import trimesh

from jsdsd.scene.asset import Asset
from jsdsd.scene.formats import linear_light

sys.path.insert(0, str(Path(__file__).parent))  # the toys lie beside this file
from shapes import toy


@pytest.mark.parametrize("suffix", [".ply", ".obj"])
def test_trimesh_reads_back_what_was_written(tmp_path: Path, suffix: str) -> None:
    asset = Asset(toy(), "a toy")
    mesh = asset.mesh()
    again = trimesh.load_mesh(asset.save(tmp_path / f"x{suffix}"), process=False)
    assert again.is_watertight
    assert again.volume == pytest.approx(mesh.volume, rel=1e-4)
    np.testing.assert_allclose(again.vertices, mesh.vertices, atol=1e-6)
    read, written = (np.asarray(m.visual.vertex_colors, dtype=float) for m in (again, mesh))
    np.testing.assert_allclose(read, written, atol=1)


@pytest.mark.parametrize("scale", [50.0, 20.0])
def test_an_stl_stands_on_the_plate_in_millimetres(tmp_path: Path, scale: float) -> None:
    """The toy's front knob, at -Y inside, points to -Y; its height is Z; its lowest point lies at Z = 0."""
    asset = Asset(toy(), "a toy")
    mesh = asset.mesh()
    printed = trimesh.load_mesh(asset.save(tmp_path / "x.stl", **({} if scale == 50 else {"mm_per_unit": scale})))
    assert printed.is_watertight and printed.volume == pytest.approx(scale**3 * mesh.volume, rel=1e-4)
    right, up, front = mesh.bounds.T  # glTF's axes: X, Y, Z
    expected = np.array([right, -front[::-1], up - up[0]]).T * scale
    np.testing.assert_allclose(printed.bounds, expected, atol=1e-3)
    assert -printed.bounds[0, 1] > 1.5 * printed.bounds[1, 1]  # the knob


def test_assimp_reads_every_format(tmp_path: Path) -> None:
    program = shutil.which("assimp")
    if program is None:
        pytest.skip("no assimp here: install assimp-utils with the system's package manager")
    asset = Asset(toy(), "a toy")
    mesh = asset.mesh()
    for suffix in (".glb", ".ply", ".obj", ".stl"):
        path = asset.save(tmp_path / f"x{suffix}")
        told = subprocess.run([program, "info", path], capture_output=True, text=True, check=True).stdout
        assert re.search(rf"Faces:\s+{len(mesh.faces)}\b", told), (suffix, told)


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
    material = document["materials"][primitive["material"]]
    assert material["extensions"] == {"KHR_materials_unlit": {}}
    assert document["extensionsUsed"] == ["KHR_materials_unlit"]
    assert material["pbrMetallicRoughness"] == {"metallicFactor": 0, "roughnessFactor": 1}  # where that is not known

    def read(index: int) -> np.ndarray:
        accessor = document["accessors"][index]
        view = document["bufferViews"][accessor["bufferView"]]
        dtype = {5126: "<f4", 5125: "<u4"}[accessor["componentType"]]
        width = {"SCALAR": 1, "VEC3": 3, "VEC4": 4}[accessor["type"]]
        start = view["byteOffset"] + accessor.get("byteOffset", 0)
        assert view["byteLength"] == accessor["count"] * width * np.dtype(dtype).itemsize and start % 4 == 0
        assert view["target"] == (34963 if dtype == "<u4" else 34962)
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
    again = trimesh.load_mesh(asset.save(tmp_path / "x.glb"), skip_materials=True)  # else it shows the material alone
    np.testing.assert_allclose(again.vertices, mesh.vertices, atol=1e-6)
    assert again.is_watertight and again.volume == pytest.approx(mesh.volume, rel=1e-4)
    linear = again.visual.vertex_colors[:, :3] / 255
    np.testing.assert_allclose(linear, linear_light(mesh.visual.vertex_colors[:, :3] / 255), atol=0.51 / 255)


def test_linear_light_at_known_values() -> None:
    """0, 1, the two branches' joint, and middle grey: sRGB 0.5 is 21.4 % of the light."""
    given, expected = np.array([0.0, 0.04045, 0.5, 1.0]), np.array([0.0, 0.0031308, 0.2140411, 1.0])
    np.testing.assert_allclose(linear_light(given), expected, atol=1e-6)
