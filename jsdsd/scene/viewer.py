"""A mesh as one HTML page that works offline: WebGL 2 by hand, no library, nothing to download."""

from __future__ import annotations

import base64
import html
import string
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import trimesh


def viewer_html(mesh: trimesh.Trimesh, title: str, picture: bytes) -> str:
    """The page: drag to turn, wheel or pinch to zoom, double click to start again; or arrow keys, + and -, Home.

    mesh: Y up, facing +Z, inside [-1, 1]^3, with vertex colours.  title: plain text, shown above the object.
    picture: a PNG of the same view, square; it stands there until the object is drawn, where scripts or WebGL 2 are
    missing, and while the browser has taken the drawing context away (it keeps about 16 a page).

    The page opens on the view of azimuth 0 and elevation 15 and turns slowly until it is touched, except where the
    reader has asked for less motion or the address ends in `#still`.  In a frame of another page the wheel scrolls that
    page until the object was clicked.  The camera is that of `jsdsd.orbit`: distance 4, field of view 30 degrees.
    """
    positions = np.round(mesh.vertices * 32767).astype("<i2")  # 16 bits: 3e-5 scene units, far below a pixel
    bits = 16 if len(positions) < 2**16 - 1 else 32  # the highest index is not one: it restarts a strip
    return string.Template(Path(__file__).with_name("viewer.html").read_text(encoding="utf-8")).substitute(
        title=html.escape(title),
        positions=_base64(positions),
        colours=_base64(mesh.visual.vertex_colors[:, :3].astype("u1")),
        faces=_base64(mesh.faces.astype(f"<u{bits // 8}")),
        index_bits=bits,
        picture=base64.b64encode(picture).decode(),
    )


def _base64(values: np.ndarray) -> str:
    return base64.b64encode(np.ascontiguousarray(values).tobytes()).decode()
