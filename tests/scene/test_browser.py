"""What other programs make of the exports: three.js, glTF-Validator, and Chromium with a page full of viewers."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from jsdsd.scene.asset import Asset
from jsdsd.scene.cameras import orbit
from jsdsd.scene.formats import glb_bytes
from jsdsd.scene.renderer import render
from jsdsd.scene.voxels import VoxelGrid

sys.path.insert(0, str(Path(__file__).parent))  # the toys and the browser lie beside this file
import browser
from shapes import ball, toy

pytestmark = pytest.mark.browser


def test_grey_128_is_128_in_three_js_whatever_the_light() -> None:
    density, _ = ball(peak=80.0).fields()
    body = Asset(VoxelGrid.from_fields(density.detach(), torch.full((3, *density.shape), 128 / 255)), "a grey ball")
    (seen,) = browser.in_three(glb_bytes(body.mesh()), [20.0], 15.0, 128)
    np.testing.assert_array_equal(np.round(seen[48:80, 48:80] * 255), 128)
    np.testing.assert_allclose(body.render(20, 15, 128)[48:80, 48:80] * 255, 128, atol=0.6)


def test_without_the_extension_it_is_lit_and_not_a_dark_metal() -> None:
    density, _ = ball(peak=80.0).fields()
    body = Asset(VoxelGrid.from_fields(density.detach(), torch.full((3, *density.shape), 128 / 255)), "a grey ball")
    glb = glb_bytes(body.mesh()).replace(b"KHR_materials_unlit", b"XYZ_materials_unlit")  # as if it were not known
    (seen,) = browser.in_three(glb, [20.0], 15.0, 128)
    assert 60 < seen[48:80, 48:80].mean() * 255 < 200


def test_three_js_shows_what_the_renderer_shows(tmp_path: Path) -> None:
    """And a figure to look at (pytest --basetemp=DIR keeps it): renders above, three.js below."""
    asset = Asset(toy(), "a toy")
    azimuths = [0.0, 60.0, 130.0, 250.0]
    shots = browser.in_three(glb_bytes(asset.mesh()), azimuths, 15.0, 256)
    renders = [asset.render(azimuth, 15, 256) for azimuth in azimuths]
    figure = np.concatenate([np.concatenate(renders, 1), np.concatenate(shots, 1)])
    Image.fromarray(np.round(figure * 255).astype(np.uint8)).save(tmp_path / "three_js_below_render.png")
    for azimuth, shot, picture in zip(azimuths, shots, renders, strict=True):
        with torch.no_grad():
            opacity = render(asset.grid.upsampled(106), orbit(azimuth, 15), 256).opacity[0].numpy()
        seen, solid = shot.min(-1) < 0.98, opacity > 0.5
        assert (seen & solid).sum() / (seen | solid).sum() > 0.97
        assert np.abs(shot - picture)[seen & (opacity > 0.99)].mean() < 0.02


VALIDATE = """const validator = require("gltf-validator"), file = require("fs").readFileSync(process.argv[1]);
validator.validateBytes(new Uint8Array(file)).then(report => console.log(JSON.stringify(report.issues)))"""


def test_gltf_validator_has_nothing_to_say(tmp_path: Path) -> None:
    path = Asset(toy(), "a toy").save(tmp_path / "x.glb")
    where = browser.modules() if (browser.NODE_MODULES / "gltf-validator").is_dir() else None
    if where is None:
        pytest.skip("no glTF-Validator here: `make browser` installs it")
    told = subprocess.run(["node", "-e", VALIDATE, str(path)], cwd=where, check=True, capture_output=True, text=True)
    issues = json.loads(told.stdout)
    assert (issues["numErrors"], issues["numWarnings"], issues["numInfos"]) == (0, 0, 0), issues


COUNT = 20  # more than the 16 contexts that a browser keeps
PAGE = "<!DOCTYPE html><style>iframe {{ width: 300px; height: 300px; border: 0; {style} }}</style>" + "".join(
    f'<iframe src="/viewer.html#still" sandbox="allow-scripts" title="{i}"></iframe>' for i in range(COUNT)
)


@pytest.fixture(scope="module")
def viewer() -> bytes:
    return Asset(toy(), "a toy")._encoded(".html")


@pytest.fixture
def context() -> Iterator[Any]:
    with browser.chromium(viewport={"width": 640, "height": 640}) as context:
        yield context


def drawn(frame: Any) -> bool:
    return frame.evaluate("gl !== null && !gl.isContextLost() && document.querySelectorAll('canvas').length === 1")


def coloured(page: Any) -> np.ndarray:
    """Which of the frames in sight show an object: the part of pixels that are not white, per frame of 300 pixels."""
    image = browser.screenshot(page)
    return (image.min(-1) < 0.9)[:600, :600].reshape(2, 300, 2, 300).mean((1, 3))


def test_twenty_viewers_on_a_page_are_all_there_when_scrolled_to(context: Any, viewer: bytes) -> None:
    browser.serve(context, {"": PAGE.format(style="display: block"), "viewer.html": viewer})
    page = context.new_page()
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.goto(browser.SITE)
    frames = page.frames[1:]
    for number in [*range(COUNT), *reversed(range(COUNT))]:
        page.locator(f'iframe[title="{number}"]').scroll_into_view_if_needed()
        frames[number].wait_for_function("gl !== null")
        assert drawn(frames[number])
        title, hint = (text.bounding_box() for text in frames[number].locator("p").all())
        assert title["y"] + title["height"] < hint["y"] - 150
    assert sum(drawn(frame) for frame in frames) <= 4  # in sight; the others wait without a context
    assert said == []


def test_twenty_viewers_in_sight_at_once_show_an_object_each(context: Any, viewer: bytes, tmp_path: Path) -> None:
    browser.serve(context, {"": PAGE.format(style=""), "viewer.html": viewer})
    page = context.new_page()
    page.set_viewport_size({"width": 1600, "height": 1300})
    page.goto(browser.SITE)
    for frame in page.frames[1:]:
        frame.wait_for_function("stage.hasAttribute('tabindex')")  # it was drawn at least once
    page.screenshot(path=tmp_path / "twenty.png")
    image = browser.screenshot(page)
    for i in range(COUNT):
        box = page.locator("iframe").nth(i).bounding_box()
        x, y = int(box["x"]), int(box["y"])
        assert 0.05 < (image[y : y + 300, x : x + 300].min(-1) < 0.9).mean() < 0.6, i
    lost = [frame for frame in page.frames[1:] if not drawn(frame)]
    assert lost  # the browser did take some away
    lost[0].frame_element().scroll_into_view_if_needed()
    lost[0].locator("#stage").hover()
    lost[0].wait_for_function("gl !== null")


def test_a_lost_context_shows_the_picture_and_comes_back(context: Any, viewer: bytes, tmp_path: Path) -> None:
    browser.serve(context, {"": PAGE.format(style="display: block"), "viewer.html": viewer})
    page = context.new_page()
    page.goto(browser.SITE)
    frame = page.frames[1]
    frame.wait_for_function("gl !== null")
    before = coloured(page)[0, 0]
    frame.evaluate("gl.getExtension('WEBGL_lose_context').loseContext()")
    frame.wait_for_function("gl === null")
    assert frame.locator("canvas").count() == 0
    page.screenshot(path=tmp_path / "lost.png")
    assert abs(coloured(page)[0, 0] - before) < 0.02  # the picture has the same view
    page.evaluate("scrollTo(0, 3000)")
    page.frames[11].wait_for_function("gl !== null")  # the one that is in sight now
    page.evaluate("scrollTo(0, 0)")
    frame.wait_for_function("gl !== null")


def test_the_wheel_scrolls_the_page_until_the_object_is_clicked(context: Any, viewer: bytes) -> None:
    browser.serve(context, {"": PAGE.format(style="display: block"), "viewer.html": viewer})
    page = context.new_page()
    page.goto(browser.SITE)
    frame = page.frames[1]
    frame.wait_for_function("gl !== null")

    def scrolls(by: int) -> None:
        top, far = page.evaluate("scrollY"), frame.evaluate("view.distance")
        page.mouse.wheel(0, by)
        page.wait_for_function(f"scrollY === {top + by}")
        assert frame.evaluate("view.distance") == far

    def zooms(by: int) -> None:
        top, far = page.evaluate("scrollY"), frame.evaluate("view.distance")
        page.mouse.wheel(0, by)
        frame.wait_for_function(f"({by} > 0) === (view.distance > {far}) && view.distance !== {far}")
        assert page.evaluate("scrollY") == top

    page.mouse.move(150, 150)
    scrolls(100)
    scrolls(-100)
    page.keyboard.down("Control")
    zooms(100)
    page.keyboard.up("Control")
    page.wait_for_timeout(3100)
    page.mouse.click(150, 150)
    zooms(-100)
    page.wait_for_timeout(3100)  # the wheel is given back
    scrolls(100)


def test_alone_in_its_window_the_wheel_zooms_at_once(context: Any, viewer: bytes) -> None:
    browser.serve(context, {"": viewer})
    page = context.new_page()
    page.goto(browser.SITE + "#still")
    page.wait_for_function("gl !== null")
    page.mouse.move(300, 300)
    page.mouse.wheel(0, 200)
    page.wait_for_function("view.distance > 4.5")


def test_the_keyboard_turns_zooms_and_starts_again(context: Any, viewer: bytes) -> None:
    browser.serve(context, {"": viewer})
    page = context.new_page()
    page.goto(browser.SITE + "#still")
    page.wait_for_function("gl !== null")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "stage"
    told = page.get_by_role("img", name="a toy, in 3D: arrow keys turn, plus and minus zoom")
    assert told.count() == 1
    for key, name, sign in [("ArrowLeft", "azimuth", 1), ("ArrowRight", "azimuth", -1), ("ArrowUp", "elevation", 1),
                            ("ArrowDown", "elevation", -1), ("+", "distance", -1), ("-", "distance", 1)]:  # fmt: skip
        before = page.evaluate(f"view.{name}")
        page.keyboard.press(key)
        assert (page.evaluate(f"view.{name}") - before) * sign > 0, key
    page.keyboard.press("ArrowUp")
    page.keyboard.press("Home")
    assert page.evaluate("JSON.stringify(view) === JSON.stringify(start)")
    page.keyboard.press("Space")
    page.wait_for_function("view.azimuth > 0.05")
    page.keyboard.press("Space")
    assert not page.evaluate("turning")


def test_without_scripts_there_is_a_picture_and_no_false_instruction(viewer: bytes, tmp_path: Path) -> None:
    with browser.chromium(java_script_enabled=False, viewport={"width": 400, "height": 400}) as context:
        browser.serve(context, {"": viewer})
        page = context.new_page()
        page.goto(browser.SITE)
        assert page.locator("body").inner_text().strip() == "a toy"
        assert page.get_by_role("img", name="a toy").count() == 1 and page.locator("[tabindex]").count() == 0
        page.screenshot(path=tmp_path / "no_scripts.png")
        image = browser.screenshot(page)
    assert 0.05 < (image[40:].min(-1) < 0.9).mean() < 0.6


def test_without_webgl_there_is_a_picture_and_no_false_instruction(context: Any, viewer: bytes) -> None:
    context.add_init_script("HTMLCanvasElement.prototype.getContext = () => null")
    browser.serve(context, {"": viewer})
    page = context.new_page()
    page.goto(browser.SITE)
    page.wait_for_timeout(500)
    assert page.locator("body").inner_text().strip() == "a toy"
    assert page.locator("canvas").count() == 0 and page.get_by_role("img", name="a toy").count() == 1
