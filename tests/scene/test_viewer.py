"""The HTML page: self-contained, safe with any prompt, and showing in a real browser what the renderer shows."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from jsdsd.scene.asset import Asset
from jsdsd.scene.voxels import VoxelGrid, grid_points


def two_coloured(prompt: str) -> Asset:
    """A ball, red on the left and blue on the right, with a yellow knob on top and in front."""
    points = grid_points(24)
    knob = (points - torch.tensor([0.0, -0.3, 0.6])).norm(dim=-1) - 0.25
    distance = torch.minimum(points.norm(dim=-1) - 0.6, knob)
    x = points[..., 0]
    paint = torch.stack([(x < 0).float(), torch.zeros_like(x), (x >= 0).float()])
    paint = torch.where(knob < 0.1, torch.tensor([1.0, 0.9, 0.1])[:, None, None, None], paint)
    return Asset(VoxelGrid.from_fields(80 * (0.5 - distance * 6).clamp(0, 1), paint), prompt)


def test_the_page_is_self_contained_and_carries_the_mesh(tmp_path: Path) -> None:
    asset = two_coloured("a ball")
    page = asset.save(tmp_path / "x.html").read_text(encoding="utf-8")
    assert not re.search(r"https?://|<link|@import|src=(?!\"data:)", page)
    mesh = asset.mesh()
    arrays = re.findall(r'const (\w+) = new \w+\(bytes\("([^"]+)"\)\)', page)
    data = {name: base64.b64decode(text) for name, text in arrays}
    positions = np.frombuffer(data["positions"], "<i2").reshape(-1, 3) / 32767
    np.testing.assert_allclose(positions, mesh.vertices, atol=2e-5)
    np.testing.assert_array_equal(np.frombuffer(data["colours"], "u1").reshape(-1, 3), mesh.visual.vertex_colors[:, :3])
    np.testing.assert_array_equal(np.frombuffer(data["faces"], "<u2").reshape(-1, 3), mesh.faces)
    instead = re.search(r'<img alt="a ball" src="data:image/png;base64,([^"]+)"', page)  # where there is no WebGL
    assert instead
    with Image.open(io.BytesIO(base64.b64decode(instead[1]))) as picture:
        np.testing.assert_array_equal(np.asarray(picture), np.asarray(asset.turntable(1, 400)[0]))


def test_a_prompt_cannot_break_out_of_the_page(tmp_path: Path) -> None:
    prompt = '</title><script>alert("$faces")</script> ${title} &'
    page = two_coloured(prompt).save(tmp_path / "x.html").read_text(encoding="utf-8")
    assert "<script>alert" not in page
    assert page.count("<script>") == 1
    assert "&lt;script&gt;alert(&quot;$faces&quot;)&lt;/script&gt; ${title} &amp;" in page


def test_chromium_shows_what_the_renderer_shows(tmp_path: Path, chromium: Callable[..., str]) -> None:
    asset = two_coloured("a ball")
    page, shot = asset.save(tmp_path / "x.html"), tmp_path / "shot.png"
    chromium(f"{page.as_uri()}#still", "--window-size=400,400", "--virtual-time-budget=3000", f"--screenshot={shot}")
    with Image.open(shot) as picture:
        # The window's width is exact; some versions count a title bar into its height. The object sits in the middle.
        side = min(picture.size)
        left, top = (picture.width - side) // 2, (picture.height - side) // 2
        square = picture.convert("RGB").crop((left, top, left + side, top + side))
        shown = np.asarray(square.resize((128, 128), Image.Resampling.BOX)) / 255
    expected = asset.render(0, size=128)
    middle = slice(16, 112)  # the text lies outside
    shown, expected = shown[middle, middle], expected[middle, middle]
    seen, wanted = (x.min(-1) < 0.6 for x in (shown, expected))
    assert (seen & wanted).sum() / (seen | wanted).sum() > 0.95
    assert np.abs(shown - expected)[seen & wanted].mean() < 0.05
