"""The site on a phone of 390 pixels: nothing is wider than the screen, formulas are seen whole, pages are not blank."""

from __future__ import annotations

import functools
import html
import json
import re
import threading
from collections.abc import Callable, Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]
PHONE = 390  # CSS pixels
LONGEST = 53  # characters of a formula's line; docs/phone.css chooses the letters' size for it

# Chromium's own window has a least width, so each page is opened in a frame as wide as a phone. The page with the
# frames has loaded when all of them have; then it measures, and Chromium prints it.
PROBE = """<!doctype html><body>$FRAMES<pre id="found"></pre><script>
window.onload = () => {
  const found = {};
  for (const frame of document.querySelectorAll("iframe")) {
    const root = frame.contentDocument.documentElement;
    const wide = [...root.querySelectorAll("pre > code")].filter(code => code.scrollWidth > code.clientWidth);
    found[frame.id] = {width: root.scrollWidth, code: wide.map(code => code.innerText)};
  }
  document.getElementById("found").textContent = JSON.stringify(found);
};
</script>"""


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def address(site: Path) -> Iterator[str]:
    """http://... of the folder above the site."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(site.parent)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def formulas() -> list[tuple[str, str]]:
    """(file, line) of the theory page's blocks and of the tutorials' indented ones."""
    theory = (ROOT / "docs/theory.md").read_text(encoding="utf-8")
    found = [
        ("theory.md", line)
        for block in re.findall(r"^```\n(.*?)^```$", theory, re.M | re.S)
        for line in block.splitlines()
    ]
    for path in sorted((ROOT / "tutorials").glob("[0-9]*.py")):
        found += [(path.name, line) for line in re.findall(r"^#     (.+)$", path.read_text(encoding="utf-8"), re.M)]
    return found


def test_no_formula_is_longer_than_fits() -> None:
    assert not [(name, line) for name, line in formulas() if len(line) > LONGEST]


def test_no_page_is_wider_than_a_phone(site: Path, address: str, chromium: Callable[..., str]) -> None:
    (site.parent / "wide.html").write_text(f'<div style="width: {PHONE + 20}px">.</div>')  # the probe must see it
    pages = ["wide.html", *sorted(str(p.relative_to(site.parent)) for p in site.rglob("*.html"))]
    frame = '<iframe id="{0}" src="{0}" style="border: 0; width: {1}px; height: 800px"></iframe>'
    frames = "".join(frame.format(page, PHONE) for page in pages)
    (site.parent / "probe.html").write_text(PROBE.replace("$FRAMES", frames), encoding="utf-8")
    dumped = chromium(f"{address}/probe.html", "--dump-dom")
    result = re.search(r'<pre id="found">(.*?)</pre>', dumped, re.S)
    assert result, dumped[-2000:]
    found = json.loads(html.unescape(result[1]))
    assert set(found) == set(pages) and found["wide.html"]["width"] > PHONE
    assert not [page for page in pages[1:] if found[page]["width"] > PHONE]
    assert max(len(line) for name, line in formulas() if name == "theory.md") == LONGEST
    assert found["site/theory.html"]["code"] == [], "these formulas run out of a phone's screen"
    assert found["site/quickstart.html"]["code"], "its long commands do: the probe sees such"


@pytest.mark.parametrize("page", ["site/index.html", "site/theory.html"])
def test_a_phone_shows_the_page(page: str, site: Path, address: str, chromium: Callable[..., str]) -> None:
    frame = f'<body style="margin: 0"><iframe src="{page}" style="border: 0; width: {PHONE}px; height: 800px"></iframe>'
    (site.parent / "frame.html").write_text(f"<!doctype html>{frame}")
    shot = site.parent / "shot.png"
    chromium(f"{address}/frame.html", "--window-size=600,1000", f"--screenshot={shot}")
    with Image.open(shot) as picture:
        seen = np.asarray(picture.convert("L"))[:800, :PHONE]
    lines = (seen[100:] < 128).any(1)  # below the page's bar
    assert 0.2 < lines.mean() < 0.95, "rows of pixels with letters"
