"""A mesh as a file: GLB with the renders' own colours, STL for a printer, and what trimesh writes (PLY, OBJ)."""

from __future__ import annotations

import json
import struct
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import trimesh


def mesh_bytes(mesh: trimesh.Trimesh, suffix: str, mm_per_unit: float = 50.0) -> bytes:
    """The content of a .glb, .ply, .obj or .stl file of a mesh with Y up, facing +Z, in scene units.

    STL knows no colours and no units; slicers take millimetres and Z up, so that the object stands on the plate:
    (x, y, z) -> mm_per_unit (x, -z, y), facing -Y, with the lowest point at Z = 0.
    """
    if suffix == ".glb":
        return glb_bytes(mesh)
    if suffix == ".stl":
        x, y, z = mesh.vertices.T
        mesh = mesh.copy()
        mesh.vertices = mm_per_unit * np.stack([x, -z, y - y.min()], 1)
    data = mesh.export(file_type=suffix[1:])
    return data.encode() if isinstance(data, str) else data


def linear_light(srgb: np.ndarray) -> np.ndarray:
    """sRGB values in [0, 1] to linear light in [0, 1] (IEC 61966-2-1)."""
    return np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)


def glb_bytes(mesh: trimesh.Trimesh) -> bytes:
    """The mesh as one binary glTF 2.0 file.

    Vertex colours are stored in linear light, as the specification asks (section 3.7.2.1).  The renders' light is in
    the colours already, so the material is unlit (KHR_materials_unlit): a viewer shows them as they are.  One that does
    not know the extension lights a rough surface that is no metal; without a material it would be a metal, and dark.
    """
    rgb = linear_light(mesh.visual.vertex_colors[:, :3] / 255)  # floats: 8 bits of linear light lose the dark ones
    columns = [  # values, numpy type, glTF component type, glTF shape, buffer target (34962 vertices, 34963 indices)
        (mesh.vertices, "<f4", 5126, "VEC3", 34962),
        (mesh.vertex_normals, "<f4", 5126, "VEC3", 34962),
        (rgb, "<f4", 5126, "VEC3", 34962),
        (mesh.faces.reshape(-1), "<u4", 5125, "SCALAR", 34963),
    ]
    blob, views, accessors = b"", [], []
    for number, (values, dtype, component, shape, target) in enumerate(columns):
        data = np.ascontiguousarray(values, dtype=dtype)
        views.append({"buffer": 0, "byteOffset": len(blob), "byteLength": data.nbytes, "target": target})
        accessors.append({"bufferView": number, "componentType": component, "count": len(data), "type": shape})
        blob += data.tobytes()  # every length here is a multiple of 4, as alignment demands
    positions = np.asarray(mesh.vertices, dtype="<f4")
    accessors[0] |= {"min": positions.min(0).tolist(), "max": positions.max(0).tolist()}
    attributes = {"POSITION": 0, "NORMAL": 1, "COLOR_0": 2}
    material = {
        "pbrMetallicRoughness": {"metallicFactor": 0, "roughnessFactor": 1},
        "extensions": {"KHR_materials_unlit": {}},
    }
    document = {
        "asset": {"version": "2.0", "generator": "jsdsd"},
        "extensionsUsed": ["KHR_materials_unlit"],
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0}],
        "meshes": [{"primitives": [{"attributes": attributes, "indices": 3, "material": 0}]}],
        "materials": [material],
        "accessors": accessors,
        "bufferViews": views,
        "buffers": [{"byteLength": len(blob)}],
    }
    text = json.dumps(document, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 4)
    chunks = struct.pack("<I4s", len(text), b"JSON") + text + struct.pack("<I4s", len(blob), b"BIN\0") + blob
    return struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks
