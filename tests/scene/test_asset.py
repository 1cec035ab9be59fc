"""Asset: what is saved comes back, and what cannot work is refused in words before any work."""

from __future__ import annotations

import hashlib
import io
import json
import os
import stat
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image

from jsdsd.scene import asset as asset_module
from jsdsd.scene.asset import SUFFIXES, Asset
from jsdsd.scene.asset_file import MARK, digest
from jsdsd.scene.cameras import orbit
from jsdsd.scene.renderer import render
from jsdsd.scene.voxels import VoxelGrid, grid_points


def coloured_ball(resolution: int = 16) -> VoxelGrid:
    """Left half red, right half blue, seen from the front; green on top."""
    points = grid_points(resolution)  # (R, R, R, 3)
    density = 40 * (5 * (0.6 - points.norm(dim=-1))).clamp(0, 1)
    x, _, z = points.unbind(-1)
    return VoxelGrid.from_fields(density, torch.stack([(x < 0).float(), (z + 1) / 2, (x >= 0).float()]))


@pytest.fixture
def ball() -> Asset:
    config = {"seed": 3, "steps": 2, "dtype": torch.float32, "versions": {"torch": "2"}}
    return Asset(coloured_ball(), "a ball – größer", config, [{"t": 980, "seconds": 0.5}, {"t": 20, "seconds": 0.25}])


@pytest.mark.parametrize(("nodes", "finer"), [(16, 46), (60, 160), (170, 170)])
def test_render_is_the_renderers_picture_of_a_finer_grid(nodes: int, finer: int) -> None:
    ball = Asset(coloured_ball(nodes), "a ball")
    picture = ball.render(30, elevation=40, size=24, background=0.5)
    with torch.no_grad():
        expected = render(ball.grid.upsampled(finer), orbit(30, 40), 24, 0.5).rgb[0].numpy()
    assert ball.grid.resolution == nodes
    assert picture.dtype == np.float32 and picture.shape == (24, 24, 3)
    assert picture.min() >= 0 and picture.max() <= 1
    np.testing.assert_allclose(picture, expected, atol=1e-6)


def test_render_takes_a_coloured_background(ball: Asset) -> None:
    np.testing.assert_allclose(ball.render(0, size=8, background=(1, 0.5, 0))[0, 0], [1, 0.5, 0], atol=1e-3)


def test_azimuth_turns_the_way_the_cameras_do(ball: Asset) -> None:
    front, back = ball.render(0, 0, 32), ball.render(180, 0, 32)
    assert front[16, 10, 0] > 0.8 > 0.2 > front[16, 10, 2]  # red on the left
    assert back[16, 10, 2] > 0.8 > 0.2 > back[16, 10, 0]  # blue on the left


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda a: a.render(0, [0, 10]), TypeError, "elevation must be a number, got"),
        (lambda a: a.render([0, 10]), TypeError, "azimuth must be a number, got"),
        (lambda a: a.render(0, []), TypeError, "elevation must be a number, got"),
        (lambda a: a.render(float("nan")), ValueError, "azimuth must be a finite number, got nan"),
        (lambda a: a.render(0, 91), ValueError, "elevation must lie between -90 and 90 degrees, got 91"),
        (lambda a: a.turntable(2, 8, float("inf")), ValueError, "elevation must be a finite number"),
        (lambda a: a.render(0, size=16.0), TypeError, "size must be a whole number, got 16.0"),
        (lambda a: a.render(0, size=(16, 24)), TypeError, "size must be a whole number"),
        (lambda a: a.render(0, size=0), ValueError, "size must lie between 1 and 4096, got 0"),
        (lambda a: a.render(0, size=10**9), ValueError, "size must lie between 1 and 4096"),
        (lambda a: a.turntable(0), ValueError, "frames must lie between 1 and 3600, got 0"),
        (lambda a: a.turntable(True), TypeError, "frames must be a whole number, got True"),
        (lambda a: a.views(columns=0), ValueError, "columns must lie between 1"),
        (lambda a: a.views(-1), ValueError, "count must lie between 1"),
        (lambda a: a.render(0, background=float("nan")), ValueError, "background must be a finite number"),
        (lambda a: a.render(0, background=255), ValueError, r"background must lie in \[0, 1\], got 255"),
        (lambda a: a.render(0, background=(0, 0, -1)), ValueError, r"background must lie in \[0, 1\]"),
        (lambda a: a.render(0, background=(0, 0)), ValueError, "background is a grey level or"),
        (lambda a: a.render(0, background="red"), TypeError, "background must be a number, got 'red'"),
        (lambda a: a.mesh(min_part=1.0), ValueError, "min_part is a share of the whole"),
        (lambda a: a.save("x.glb", min_part=-0.1), ValueError, "min_part is a share of the whole"),
        (lambda a: a.save("x.stl", mm_per_unit=0), ValueError, "mm_per_unit must lie between"),
        (lambda a: a.save("x.stl", mm_per_unit="50"), TypeError, "mm_per_unit must be a number"),
        (lambda a: Asset(a.grid.levels, "x"), TypeError, "grid is a VoxelGrid, got list"),
        (lambda a: VoxelGrid([x.half() for x in a.grid.levels]), ValueError, "float32 or float64, got torch.float16"),
        (lambda a: Asset(deepcopy(a.grid).bfloat16(), "x").render(0), ValueError, "float32 or float64, got torch.b"),
        (lambda a: Asset(deepcopy(a.grid).half(), "x").mesh(), ValueError, "float32 or float64, got torch.float16"),
    ],
)
def test_what_cannot_be_shown_is_refused_in_one_sentence(
    ball: Asset, call: Callable[[Asset], object], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        call(ball)


def test_numbers_of_numpy_and_torch_are_numbers(ball: Asset) -> None:
    given = ball.render(np.float32(30), torch.tensor(40), np.int64(8), np.array([0.5, 0.5, 0.5]))
    np.testing.assert_array_equal(given, ball.render(30, 40, 8, 0.5))


@pytest.mark.parametrize("suffix", set(SUFFIXES) - {".gif"})
def test_the_callers_modes_change_no_byte(ball: Asset, tmp_path: Path, suffix: str) -> None:
    plain = ball.save(tmp_path / f"a{suffix}").read_bytes()
    torch.set_default_dtype(torch.float64)
    try:
        assert ball.save(tmp_path / f"b{suffix}").read_bytes() == plain
    finally:
        torch.set_default_dtype(torch.float32)
    with torch.inference_mode():
        assert ball.save(tmp_path / f"c{suffix}").read_bytes() == plain
    with torch.autocast("cpu"):
        assert ball.save(tmp_path / f"d{suffix}").read_bytes() == plain


def test_turntable_is_one_round_of_renders(ball: Asset) -> None:
    frames = ball.turntable(frames=4, size=16)
    assert [f.size for f in frames] == [(16, 16)] * 4 and frames[0].mode == "RGB"
    for i, frame in enumerate(frames):
        np.testing.assert_allclose(np.asarray(frame) / 255, ball.render(90 * i, size=16), atol=0.5 / 255 + 1e-6)
    with pytest.raises(ValueError, match="frames must lie between 1"):
        ball.turntable(frames=0)


def test_views_are_in_reading_order(ball: Asset) -> None:
    sheet = np.asarray(ball.views(count=6, size=16, columns=4))
    assert sheet.shape == (32, 64, 3)
    for i, frame in enumerate(ball.turntable(6, 16)):
        top, left = 16 * (i // 4), 16 * (i % 4)
        np.testing.assert_array_equal(sheet[top : top + 16, left : left + 16], np.asarray(frame))
    assert (sheet[16:, 32:] == 255).all()


def test_looking_asks_for_no_gradient(ball: Asset) -> None:
    ball.turntable(1, 8)
    assert all(parameter.grad is None for parameter in ball.grid.parameters())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_what_is_saved_comes_back(tmp_path: Path, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    grid = VoxelGrid([torch.randn(4, r, r, r, generator=generator).to(dtype) for r in (3, 5)])
    asset = Asset(grid, 'a "ball"\n', {"seed": 1, "list": [1.5, None, True]}, [{"t": 5, "loss": 0.1}])
    path = asset.save(tmp_path / "x.safetensors")
    again = Asset.load(path)
    assert path == tmp_path / "x.safetensors"
    assert (again.prompt, again.config, again.history) == (asset.prompt, asset.config, asset.history)
    assert len(again.grid.levels) == 2 and not again.unchecked
    for a, b in zip(asset.grid.levels, again.grid.levels, strict=True):
        assert a.dtype == b.dtype and torch.equal(a, b)


def test_the_same_asset_gives_the_same_bytes(ball: Asset, tmp_path: Path) -> None:
    for suffix in set(SUFFIXES) - {".gif"}:  # which only adds time to .png
        first = ball.save(tmp_path / f"a{suffix}").read_bytes()
        assert first == ball.save(tmp_path / f"b{suffix}").read_bytes(), suffix


def test_facts_are_json_whatever_was_put_in() -> None:
    config: dict[str, Any] = {
        "path": Path("a/b"), "nan": float("nan"), "inf": float("-inf"), "array": np.array([1, 2]),
        "type": torch.float16,
        "tensor": torch.tensor(1.5), "scalar": np.float32(0.5), "tuple": (1, 2), 3: "number as key",
    }  # fmt: skip
    facts = Asset(VoxelGrid.blob((4,)), "x", config).facts()
    assert json.loads(json.dumps(facts, allow_nan=False))["config"] == {
        "path": "a/b", "nan": None, "inf": None, "array": [1, 2], "type": "torch.float16", "tensor": 1.5, "scalar": 0.5,
        "tuple": [1, 2], "3": "number as key",
    }  # fmt: skip


def test_gif_turns_for_ever(ball: Asset, tmp_path: Path) -> None:
    with Image.open(ball.save(tmp_path / "x.gif")) as gif:
        assert (gif.n_frames, gif.size, gif.info["loop"]) == (30, (256, 256), 0)
        assert gif.info["duration"] == 80  # ms: the first frame is not there twice, which is stored as one of 160
        gif.seek(15)
        back = np.asarray(gif.convert("RGB")) / 255
    assert np.abs(back - ball.render(180)).mean() < 0.02  # 256 colours a frame


def test_png_is_eight_views(ball: Asset, tmp_path: Path) -> None:
    with Image.open(ball.save(tmp_path / "x.PNG")) as png:
        assert png.size == (1024, 512)


def test_save_makes_missing_folders_and_leaves_nothing_else(ball: Asset, tmp_path: Path) -> None:
    path = ball.save(str(tmp_path / "new" / "newer" / "x.safetensors"))
    assert isinstance(path, Path) and [p.name for p in path.parent.iterdir()] == ["x.safetensors"]


def test_a_saved_file_has_the_usual_permissions(ball: Asset, tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    path = ball.save(tmp_path / "x.safetensors")
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE((tmp_path / "plain").stat().st_mode)


def test_a_save_that_fails_leaves_the_old_file(ball: Asset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = ball.save(tmp_path / "x.safetensors")
    before = path.read_bytes()

    def full(*_: object) -> bytes:
        raise OSError("no space left")

    monkeypatch.setattr(Asset, "_encoded", full)
    with pytest.raises(OSError, match="no space left"):
        ball.save(path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["x.safetensors"]


@pytest.fixture
def no_work(monkeypatch: pytest.MonkeyPatch) -> None:
    def work(*_: object) -> bytes:
        raise AssertionError("work was done before the place was checked")

    monkeypatch.setattr(Asset, "_encoded", work)


@pytest.mark.usefixtures("no_work")
def test_bad_places_are_refused_before_the_work(ball: Asset, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "folder.gif").mkdir()
    with pytest.raises(ValueError, match=r'"x.stp".*\.safetensors, \.glb'):
        ball.save(tmp_path / "x.stp")
    with pytest.raises(ValueError, match="must end in one of"):
        ball.save(tmp_path / "glb")
    with pytest.raises(OSError, match="is a file, not a folder"):
        ball.save(tmp_path / "file" / "x.gif")
    with pytest.raises(OSError, match="is a file, not a folder"):
        ball.save(tmp_path / "file" / "deeper" / "x.gif")
    with pytest.raises(IsADirectoryError, match="there is a folder of that name"):
        ball.save(tmp_path / "folder.gif")


@pytest.mark.usefixtures("no_work")
@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission_is_refused(ball: Asset, tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(PermissionError, match="cannot write into the folder"):
        ball.save(tmp_path / "x.gif")


def test_a_refused_folder_is_named(ball: Asset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(asset_module.Path, "open", refuse)
    with pytest.raises(PermissionError, match=f'cannot write into the folder "{tmp_path}": Permission denied'):
        ball.save(tmp_path / "x.gif")


def test_load_refuses_a_file_that_is_cut_anywhere(ball: Asset, tmp_path: Path) -> None:
    data = ball.save(tmp_path / "x.safetensors").read_bytes()
    for length in (0, 4, 8, 100, len(data) // 2, len(data) - 1):
        (tmp_path / "cut.safetensors").write_bytes(data[:length])
        with pytest.raises(ValueError, match=r'cut\.safetensors" is damaged.*generate the\s+asset again'):
            Asset.load(tmp_path / "cut.safetensors")


def same(a: Asset, b: Asset) -> bool:
    levels = list(zip(a.grid.levels, b.grid.levels, strict=False))
    return (
        a.facts() == b.facts()
        and len(a.grid.levels) == len(b.grid.levels)
        and all(x.dtype == y.dtype and torch.equal(x, y) for x, y in levels)
    )


def test_every_flipped_bit_is_refused_in_words(tmp_path: Path) -> None:
    asset = Asset(VoxelGrid.blob((2, 3)), 'a "ball" größer', {"seed": 1, "list": [1e-7, None, True]}, [{"t": 5}])
    data = asset.save(tmp_path / "x.safetensors").read_bytes()
    assert same(Asset.load(tmp_path / "x.safetensors"), asset)
    header = 8 + int.from_bytes(data[:8], "little")
    bits = [*range(0, 8 * header, 7), *range(8 * header, 8 * len(data), 97)]
    for bit in bits:
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        (tmp_path / "y.safetensors").write_bytes(damaged)
        with pytest.raises(ValueError, match=r"y\.safetensors"):
            Asset.load(tmp_path / "y.safetensors")


def test_damage_is_said_with_a_way_out(tmp_path: Path) -> None:
    path = Asset(VoxelGrid.blob((3,)), "x").save(tmp_path / "x.safetensors")
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r'x\.safetensors" is damaged.*digest; copy it again.*or generate the asset'):
        Asset.load(path)


def test_the_digest_is_sha256_of_a_written_out_text() -> None:
    tensors = {"b": torch.tensor([1, -1], dtype=torch.int16), "a": torch.tensor(1.0)}
    told = b"{}\na torch.float32 ()\n\0\0\x80\x3f\nb torch.int16 (2,)\n\1\0\xff\xff"
    assert digest(tensors, "{}") == hashlib.sha256(told).hexdigest()


def test_a_file_of_version_1_loads_and_says_that_it_is_unchecked(tmp_path: Path) -> None:
    old = Asset.load(with_facts(tmp_path / "x.safetensors", GOOD))
    assert old.unchecked and repr(old).endswith(", unchecked)")
    assert not Asset.load(old.save(tmp_path / "y.safetensors")).unchecked


def with_facts(path: Path, facts: object, tensors: dict[str, torch.Tensor] | None = None) -> Path:
    tensors = {"levels.0": torch.zeros(4, 3, 3, 3)} if tensors is None else tensors
    safetensors.torch.save_file(tensors, path, {MARK: facts if isinstance(facts, str) else json.dumps(facts)})
    return path


GOOD = {"version": 1, "prompt": "x", "config": {}, "history": []}


def test_load_accepts_what_these_tests_break(tmp_path: Path) -> None:
    assert Asset.load(with_facts(tmp_path / "x", GOOD)).prompt == "x"


@pytest.mark.parametrize(
    ("facts", "tensors", "words"),
    [
        ({**GOOD, "version": 3}, None, "has asset format 3, but this jsdsd reads up to 2: upgrade"),
        ({**GOOD, "version": 2}, None, "its SHA-256 digest is missing"),
        ({**GOOD, "version": 0}, None, "a part missing or broken .version 0"),
        ({**GOOD, "version": True}, None, "a part missing or broken .version True"),
        ({**GOOD, "version": "1"}, None, "a part missing or broken .version '1'"),
        ({**GOOD, "sha256": 3}, None, "a part missing or broken .*digest 3"),
        ({**GOOD, "sha256": ""}, None, "does not match its SHA-256 digest"),
        ({**GOOD, "prompt": 3}, None, "prompt is a text and config a dictionary, got int and dict"),
        ({**GOOD, "config": []}, None, "prompt is a text and config a dictionary, got str and list"),
        ({**GOOD, "history": {}}, None, "history is a list of dictionaries"),
        ({**GOOD, "history": [3]}, None, "history is a list of dictionaries"),
        ("[" * 10000, None, "a part missing or broken"),
        ({"version": 1}, None, "a part missing or broken .'prompt'"),
        ("{", None, "a part missing or broken"),
        ("[]", None, "a part missing or broken"),
        (GOOD, {"weight": torch.zeros(4, 3, 3, 3)}, "a part missing or broken .'levels.0'"),
        (GOOD, {"levels.0": torch.full((4, 3, 3, 3), float("nan"))}, "NaN or infinity"),
        (GOOD, {"levels.0": torch.full((4, 3, 3, 3), float("inf"))}, "NaN or infinity"),
        (GOOD, {"levels.0": torch.zeros(3, 3, 3)}, "shape"),
        (GOOD, {}, "at least one level"),
    ],
)
def test_load_refuses_what_is_not_an_asset(
    tmp_path: Path, facts: object, tensors: dict[str, torch.Tensor] | None, words: str
) -> None:
    path = with_facts(tmp_path / "x.safetensors", facts, tensors)
    with pytest.raises(ValueError, match=words) as caught:
        Asset.load(path)
    assert "x.safetensors" in str(caught.value)


def test_load_refuses_foreign_files(tmp_path: Path) -> None:
    safetensors.torch.save_file({"weight": torch.zeros(3)}, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match=r"model\.safetensors.*was not written by Asset\.save"):
        Asset.load(tmp_path / "model.safetensors")
    torch.save({"levels.0": torch.zeros(3)}, tmp_path / "pickle.safetensors")
    with pytest.raises(ValueError, match="damaged or not a safetensors file"):
        Asset.load(tmp_path / "pickle.safetensors")
    with pytest.raises(FileNotFoundError, match='there is no asset file ".*nothing'):
        Asset.load(tmp_path / "nothing.safetensors")
    with pytest.raises(FileNotFoundError):
        Asset.load(tmp_path)


def test_a_grid_with_nan_is_not_saved(tmp_path: Path) -> None:
    grid = VoxelGrid.blob((4,))
    with torch.no_grad():
        grid.density_levels[0][0, 0, 0, 0] = float("nan")
    with pytest.raises(ValueError, match="NaN or infinity"):
        Asset(grid, "x").save(tmp_path / "x.safetensors")
    assert not list(tmp_path.iterdir())


def test_notebook_display(ball: Asset) -> None:
    with Image.open(io.BytesIO(ball._repr_png_())) as picture:
        assert picture.size == (768, 192)
    page = ball._repr_html_()
    assert page.startswith("<iframe") and "webgl2" in page
    frame, table = page.split("<table>")
    assert "seed" in table
    assert frame.count('"') == 10  # what the page contains is escaped: only the attributes' own quotes remain


def test_notebook_display_of_an_empty_scene_is_a_picture() -> None:
    empty = Asset(VoxelGrid([torch.full((4, 4, 4, 4), -10.0)]), "<nothing>")
    page = empty._repr_html_()
    assert page.startswith("<img") and "<nothing>" not in page and "&lt;nothing&gt;" in page


def test_repr_says_what_it_is(ball: Asset) -> None:
    assert repr(ball) == "Asset('a ball – größer', 16 x 16 x 16 voxels, seed 3, 2 steps)"
