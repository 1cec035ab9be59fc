"""`Asset`: what `generate` returns - a scene, where it came from, and every way to look at it and to save it."""

from __future__ import annotations

import base64
import html
import io
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ..files import whole_file
from .asset_file import pack, unpack
from .cameras import orbit
from .display import run_table
from .renderer import render_fields
from .voxels import VoxelGrid

if TYPE_CHECKING:
    import trimesh
    from PIL import Image

SUFFIXES = (".safetensors", ".glb", ".ply", ".obj", ".stl", ".gif", ".png", ".html")
Background = float | Sequence[float]
# Pictures are made from a finer grid: logits interpolated *before* softplus and sigmoid give a crisp edge.
FINER = 3  # node spacings in place of one, per axis
FINEST = 160  # nodes per axis at most, unless the grid has more itself: 65 MB of logits


@dataclass(eq=False, repr=False)
class Asset:
    """A generated object.

    grid: the scene.  prompt: the text it was made from.  config: every setting of the run and the versions.
    history: one record per optimiser step (step, t, grad_norm, unet_calls, seconds, ...).
    unchecked: it was loaded from a file of version 0.1.0, which has no digest: damage would go unnoticed.
    Raises TypeError for other types.
    """

    grid: VoxelGrid
    prompt: str
    config: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    unchecked: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.grid, VoxelGrid):
            raise TypeError(f"grid is a VoxelGrid, got {type(self.grid).__name__}")
        if not isinstance(self.prompt, str) or not isinstance(self.config, dict):
            kinds = f"{type(self.prompt).__name__} and {type(self.config).__name__}"
            raise TypeError(f"prompt is a text and config a dictionary, got {kinds}")
        if not isinstance(self.history, list) or not all(isinstance(record, dict) for record in self.history):
            raise TypeError("history is a list of dictionaries, one per step")

    def render(
        self, azimuth: float, elevation: float = 15.0, size: int = 256, background: Background = 1.0
    ) -> np.ndarray:
        """One view: float32 (size, size, 3) in [0, 1], sRGB.

        azimuth: degrees, 0 sees the front, 90 the side on the right hand of someone who looks at the front.
        elevation: degrees above the horizon, -90 to 90.  background: a grey level or (r, g, b) in [0, 1].
        Raises ValueError for a value outside its range, and TypeError for anything that is not one number.
        """
        _number("azimuth", azimuth)
        return next(self._frames([azimuth], elevation, size, background))

    def turntable(
        self, frames: int = 30, size: int = 256, elevation: float = 15.0, background: Background = 1.0
    ) -> list[Image.Image]:
        """One round in `frames` RGB pictures of `size` pixels, starting at the front."""
        from PIL import Image

        _whole("frames", frames, 3600)
        azimuths = [360 * i / frames for i in range(frames)]
        return [Image.fromarray(_bytes(x)) for x in self._frames(azimuths, elevation, size, background)]

    def views(self, count: int = 8, size: int = 256, elevation: float = 15.0, columns: int = 4) -> Image.Image:
        """A contact sheet of `count` views around the object, the front first, rows from left to right."""
        from PIL import Image

        _whole("columns", columns)
        _whole("count", count, 3600)
        pictures = self.turntable(count, size, elevation)
        columns = min(columns, count)
        sheet = Image.new("RGB", (columns * size, math.ceil(count / columns) * size), "white")
        for i, picture in enumerate(pictures):
            sheet.paste(picture, (i % columns * size, i // columns * size))
        return sheet

    def mesh(self, threshold: float | None = None, min_part: float = 0.0) -> trimesh.Trimesh:
        """The surface as a triangle mesh with vertex colours (8-bit sRGB), Y up, facing +Z, in scene units.

        threshold: the density [1 / scene unit] of the surface; None finds the one whose outline agrees with the
        renders.  min_part: loose parts below this share of the whole are left out; .02 drops crumbs, 0 nothing.
        The mesh is closed, whatever the threshold.  Raises ValueError for an empty scene, a density that is never
        crossed and a share outside [0, 1).
        """
        from .mesh import extract_mesh, subdivided

        return extract_mesh(subdivided(self.grid), threshold, min_part)

    def save(self, path: str | Path, *, min_part: float = 0.0, mm_per_unit: float = 50.0) -> Path:
        """Write the asset in the format that the suffix names and return the path.

        .safetensors: all of it, for `Asset.load`.  .glb .ply .obj .stl: the mesh (STL has no colours).
        .gif: a turntable, 30 frames of 256 pixels.  .png: 8 views.  .html: a page to turn it in, which works offline.
        min_part: as in `mesh`, for the formats that hold one.
        mm_per_unit: millimetres per scene unit in an STL, which has Z up as slicers want it; the box is 2 units wide,
        so an object that fills it is 100 mm tall.

        Missing folders are made.  A file appears whole or not at all.  Raises ValueError (unknown suffix, empty
        scene, values out of range or not finite) and OSError (a place that cannot be written to); both before the work.
        """
        path = Path(path)
        suffix = path.suffix.lower()
        if suffix not in SUFFIXES:
            raise ValueError(f'cannot save as "{path.name}": the name must end in one of {", ".join(SUFFIXES)}')
        if not 0 <= _number("min_part", min_part) < 1:
            raise ValueError(f"min_part is a share of the whole, at least 0 and below 1, got {min_part}")
        if not 1e-3 <= _number("mm_per_unit", mm_per_unit) <= 1e6:
            raise ValueError(f"mm_per_unit must lie between 0.001 and 1,000,000, got {mm_per_unit}")
        self.check_finite()
        with whole_file(path) as file:
            file.write(self._encoded(suffix, min_part, mm_per_unit))
        return path

    @staticmethod
    def load(path: str | Path) -> Asset:
        """Read what `save("name.safetensors")` wrote.

        Every bit counts: a SHA-256 digest over tensors and facts is in the file.  Files of version 0.1.0 have none;
        they load as well, with `unchecked` True.  Raises FileNotFoundError, and ValueError for a file that is damaged,
        not an asset, from a newer version, or with values that are not finite.  Nothing in it is ever executed.
        """
        return read_asset_file(path)[0]

    def facts(self) -> dict[str, Any]:
        """prompt, config and history as plain JSON values (NaN and infinity as None, other objects as their text)."""
        return {"prompt": self.prompt, "config": _plain(self.config), "history": _plain(self.history)}

    def __repr__(self) -> str:
        size = self.grid.resolution
        steps = f", {len(self.history)} steps" if self.history else ""
        seed = f", seed {self.config['seed']}" if "seed" in self.config else ""
        unchecked = ", unchecked" if self.unchecked else ""
        return f"Asset({self.prompt!r}, {size} x {size} x {size} voxels{seed}{steps}{unchecked})"

    def _repr_png_(self) -> bytes:
        return _png(self.views(4, 192))

    def _repr_html_(self) -> str:
        """In a notebook: the object itself, turning, and a table of its run; four pictures where it has no surface."""
        table = run_table(self.prompt, self.config, self.history)
        try:
            page = html.escape(self._encoded(".html").decode(), quote=True)
        except ValueError:
            picture = _base64(self._repr_png_())
            return f'<img alt="{html.escape(repr(self))}" src="data:image/png;base64,{picture}">{table}'
        frame = '<iframe srcdoc="{}" sandbox="allow-scripts" width="400" height="400" style="border:0"></iframe>'
        return frame.format(page) + table

    def safetensors(self, more: dict[str, Tensor]) -> bytes:
        """The .safetensors file's content, with `more` tensors beside the grid's."""
        self.check_finite()
        return pack(self.facts(), {f"levels.{i}": level.cpu() for i, level in enumerate(self.grid.levels)} | more)

    def _encoded(self, suffix: str, min_part: float = 0.0, mm_per_unit: float = 50.0) -> bytes:
        """The file's content."""
        if suffix == ".safetensors":
            return self.safetensors({})
        if suffix == ".gif":
            frames = [frame.quantize(256) for frame in self.turntable()]
            data = io.BytesIO()
            frames[0].save(data, "GIF", save_all=True, append_images=frames[1:], duration=80, loop=0)  # ms a frame
            return data.getvalue()
        if suffix == ".png":
            return _png(self.views())
        mesh = self.mesh(min_part=min_part)
        if suffix == ".html":
            from .viewer import viewer_html

            return viewer_html(mesh, self.prompt, _png(self.turntable(1, 400)[0])).encode("utf-8", "replace")
        from .formats import mesh_bytes

        return mesh_bytes(mesh, suffix, mm_per_unit)

    def _frames(
        self, azimuths: Sequence[float], elevation: float, size: int, background: Background
    ) -> Iterator[np.ndarray]:
        """Renders (size, size, 3), made one by one: a batch of large ones would need gigabytes."""
        if not abs(_number("elevation", elevation)) <= 90:
            raise ValueError(f"elevation must lie between -90 and 90 degrees, got {elevation}")
        _whole("size", size, 4096)  # pixels: about 1 GB
        back = np.asarray(background, dtype=object)
        if back.shape not in ((), (3,)):
            raise ValueError(f"background is a grey level or (r, g, b), got {background!r}")
        for level in back.flat:
            if not 0 <= _number("background", level) <= 1:
                raise ValueError(f"background must lie in [0, 1], got {background!r}")
        cameras = orbit(azimuths, elevation)
        with torch.no_grad():
            nodes = self.grid.resolution
            nodes = max(nodes, min(FINER * (nodes - 1) + 1, FINEST))
            fields = self.grid.upsampled(nodes).fields()  # once, not once a frame
            colour = torch.tensor(back.tolist(), dtype=fields[0].dtype, device=fields[0].device)
        for camera in cameras:
            with torch.no_grad():
                rgb = render_fields(*fields, camera, size, colour).rgb[0].float().clamp(0, 1).cpu().numpy()
            yield rgb

    def check_finite(self) -> None:
        for i, level in enumerate(self.grid.levels):
            if not torch.isfinite(level).all():
                raise ValueError(
                    f"level {i} of the grid holds NaN or infinity: the run broke, and its history says where; "
                    "generate the asset again with another seed or a lower guidance_scale"
                )


def read_asset_file(path: str | Path) -> tuple[Asset, dict[str, Tensor]]:
    """The asset in a .safetensors file, and the tensors that are not part of it (a checkpoint's).  See Asset.load."""
    facts, tensors, checked = unpack(path)
    try:
        levels = sum(name.startswith("levels.") for name in tensors)
        grid = VoxelGrid([tensors.pop(f"levels.{i}") for i in range(levels or len(tensors))])
        asset = Asset(grid, facts["prompt"], facts["config"], facts["history"], unchecked=not checked)
        asset.check_finite()
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f'"{path}" is an asset file with a part missing or broken ({error}); generate it again'
        ) from error
    return asset, tensors


def _number(name: str, value: Any) -> float:
    """`value`, if it is one finite number; TypeError or ValueError if not."""
    if isinstance(value, np.generic) or (isinstance(value, (Tensor, np.ndarray)) and value.ndim == 0):
        value = value.item()
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be a number, got {value!r}")
    if not abs(value) < 1e300:  # also a NaN, and a whole number too long for a float
        raise ValueError(f"{name} must be a finite number, got {value!r}")
    return float(value)


def _whole(name: str, value: Any, most: int = 2**31) -> None:
    """TypeError where `value` is no whole number, ValueError where it is below 1 or above `most`."""
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"{name} must be a whole number, got {value!r}")
    if not 1 <= int(value) <= most:
        raise ValueError(f"{name} must lie between 1 and {most}, got {value}")


def _bytes(rgb: np.ndarray) -> np.ndarray:
    return np.round(rgb * 255).astype(np.uint8)


def _png(picture: Image.Image) -> bytes:
    data = io.BytesIO()
    picture.save(data, "PNG")
    return data.getvalue()


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _plain(value: Any) -> Any:
    """The nearest JSON value."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, (Tensor, np.ndarray, np.generic)):
        return _plain(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, (str, int)) else str(value)
