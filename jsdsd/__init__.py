"""jsdsd: text to 3D by score distillation, small enough to read.

    asset = jsdsd.generate("a red mushroom")
    asset.save("mushroom.glb")

The public names below are imported when they are first used, so that `import jsdsd` itself costs milliseconds.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:  # the same names for type checkers and editors
    from . import objectives, sandbox, scene, sdxl, toybox
    from .generation import generate
    from .objectives import (
        JSD,
        SDI,
        SDS,
        Ensemble,
        ForwardKL,
        Jeffreys,
        JensenShannon,
        ReverseKL,
        Schedule,
        Seeded,
        SkewJS,
        SoftenedReverseKL,
        SquaredHellinger,
        TwoSided,
    )
    from .scene.asset import Asset
    from .scene.cameras import Camera, look_at, orbit
    from .scene.renderer import Render, render
    from .scene.voxels import VoxelGrid

__all__ = [
    "JSD", "SDI", "SDS", "Asset", "Camera", "Ensemble", "ForwardKL", "Jeffreys", "JensenShannon", "Render",
    "ReverseKL", "Schedule", "Seeded", "SkewJS", "SoftenedReverseKL", "SquaredHellinger", "TwoSided", "VoxelGrid",
    "__version__", "generate", "look_at", "objectives", "orbit", "render", "sandbox", "scene", "sdxl", "toybox",
]  # fmt: skip

_SUBMODULES = {"objectives", "sandbox", "scene", "sdxl", "toybox"}
_HOME = {
    "generate": "generation",
    "Asset": "scene.asset",
    "Camera": "scene.cameras", "look_at": "scene.cameras", "orbit": "scene.cameras",
    "Render": "scene.renderer", "render": "scene.renderer",
    "VoxelGrid": "scene.voxels",
    "SDS": "objectives", "SDI": "objectives", "JSD": "objectives", "Ensemble": "objectives", "Seeded": "objectives",
    "Schedule": "objectives", "TwoSided": "objectives",
    "ReverseKL": "objectives", "ForwardKL": "objectives", "JensenShannon": "objectives", "SkewJS": "objectives",
    "SoftenedReverseKL": "objectives", "SquaredHellinger": "objectives", "Jeffreys": "objectives",
}  # fmt: skip


def __getattr__(name: str) -> Any:
    if name in _SUBMODULES:
        return import_module(f".{name}", __name__)
    if name in _HOME:
        value = getattr(import_module(f".{_HOME[name]}", __name__), name)
        globals()[name] = value  # the next look-up is an ordinary one
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
