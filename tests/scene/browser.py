"""What the browser tests share: Chromium by Playwright, three.js and glTF-Validator by npm: `make browser`."""

from __future__ import annotations

import base64
import io
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

SITE = "http://jsdsd.test/"  # answered by the test itself: nothing leaves this machine
NODE_MODULES = Path(sys.prefix) / "js" / "node_modules"


@contextmanager
def chromium(**context: Any) -> Iterator[Any]:
    """A browser context without a window or a GPU; skips, in words, where a part is missing."""
    playwright = pytest.importorskip("playwright.sync_api", reason="no Playwright here: `make browser` installs it")
    names = ("chromium", "chromium-browser", "google-chrome", "chrome")
    program = next((path for name in names if (path := shutil.which(name))), None)
    if program is None:
        pytest.skip("no Chromium here: install it with the system's package manager")
    flags = ["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
    with playwright.sync_playwright() as tools:
        browser = tools.chromium.launch(executable_path=program, args=flags)
        window = browser.new_context(**context)
        window.set_default_timeout(180_000)  # ms: WebGL without a GPU, perhaps on a busy machine
        yield window
        browser.close()


def serve(context: Any, files: dict[str, bytes | str | Path]) -> None:
    """Answer requests for SITE + name; every other address fails."""
    kinds = {".html": "text/html", ".js": "text/javascript", ".glb": "model/gltf-binary"}

    def answer(route: Any) -> None:
        name = route.request.url.removeprefix(SITE).split("?")[0]
        found = files.get(name)
        if found is None and name.startswith("three/"):
            found = modules() / name
        if found is None:
            return route.abort()
        body = found.read_bytes() if isinstance(found, Path) else found
        return route.fulfill(body=body, content_type=kinds.get(Path(name).suffix, "text/html"))

    context.route("**/*", answer)


def modules() -> Path:
    """The folder of three.js and gltf-validator."""
    if not (NODE_MODULES / "three").is_dir():
        pytest.skip("no three.js here: `make browser` installs it")
    return NODE_MODULES


def picture(url: str) -> np.ndarray:
    """A canvas's data URL as float (H, W, 3) in [0, 1]."""
    with Image.open(io.BytesIO(base64.b64decode(url.split(",")[1]))) as image:
        return np.asarray(image.convert("RGB")) / 255


def screenshot(page: Any) -> np.ndarray:
    """What is in sight of a page, as float (H, W, 3) in [0, 1]."""
    with Image.open(io.BytesIO(page.screenshot())) as image:
        return np.asarray(image.convert("RGB")) / 255


THREE = """<!DOCTYPE html><script type="importmap">
{"imports": {"three": "/three/build/three.module.js", "three/addons/": "/three/examples/jsm/"}}</script>
<script type="module">
import * as THREE from "three";
import {GLTFLoader} from "three/addons/loaders/GLTFLoader.js";
window.shot = async (size, [x, y, z]) => {
  const renderer = new THREE.WebGLRenderer({antialias: true, preserveDrawingBuffer: true});
  renderer.setSize(size, size, false);
  const scene = new THREE.Scene();
  scene.background = new THREE.Color("white");
  scene.add(new THREE.HemisphereLight(0xffffff, 0x888888, 1));
  scene.add((await new GLTFLoader().loadAsync("/x.glb")).scene);
  const camera = new THREE.PerspectiveCamera(30, 1, 0.1, 20);
  camera.position.set(x, y, z);
  camera.lookAt(0, 0, 0);
  renderer.render(scene, camera);
  const url = renderer.domElement.toDataURL();
  renderer.dispose();
  renderer.forceContextLoss();
  return url;
};
window.ready = true;
</script>"""


def in_three(glb: bytes, azimuths: list[float], elevation: float, size: int) -> list[np.ndarray]:
    """What three.js shows of a GLB from the cameras of `jsdsd.orbit`: float (size, size, 3) each."""
    angle, up = np.deg2rad(azimuths), np.deg2rad(elevation)
    places = 4 * np.stack([np.sin(angle) * np.cos(up), 0 * angle + np.sin(up), np.cos(angle) * np.cos(up)], 1)  # Y up
    with chromium() as context:
        serve(context, {"": THREE, "x.glb": glb})
        page = context.new_page()
        page.goto(SITE)
        page.wait_for_function("window.ready")
        return [picture(page.evaluate("([size, at]) => shot(size, at)", [size, list(map(float, at))])) for at in places]
