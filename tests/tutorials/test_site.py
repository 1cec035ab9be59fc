"""The documentation: nothing public is left out, every command and example works, the site builds strictly."""

from __future__ import annotations

import functools
import importlib
import re
import shlex
from pathlib import Path
from typing import Any

import pytest

import jsdsd
import jsdsd.__main__
import jsdsd.sandbox.__main__

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md"))]
PUBLIC = ("jsdsd", "jsdsd.objectives", "jsdsd.sandbox", "jsdsd.toybox", "jsdsd.check")


def resolve(identifier: str) -> Any:
    module, _, name = identifier.rpartition(".")
    return getattr(importlib.import_module(module), name)


def documented() -> dict[str, Any]:
    text = "\n".join(page.read_text(encoding="utf-8") for page in (DOCS / "reference").glob("*.md"))
    return {identifier: resolve(identifier) for identifier in re.findall(r"^::: (\S+)$", text, re.M)}


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(encoding="utf-8"), re.M | re.S)


def commands() -> list[tuple[str, str]]:
    """(page, command) of every line in a block without a language that begins with make or python -m jsdsd."""
    found = []
    for page in PAGES:
        for block in blocks(page, ""):
            for line in block.splitlines():
                line = re.sub(r"^(?:[A-Z_]+=\S+ )+", "", line.strip())
                if line.startswith(("make ", "python -m jsdsd", ".venv/bin/python -m jsdsd")):
                    found.append((page.name, line.removeprefix(".venv/bin/")))
    return found


@pytest.mark.parametrize("module", PUBLIC)
def test_every_public_name_has_its_place_in_the_reference(module: str) -> None:
    home = importlib.import_module(module)
    objects = list(documented().values())
    for name in home.__all__:
        value = getattr(home, name)
        if name == "__version__" or type(value).__name__ == "module":
            continue
        assert any(value is one for one in objects), f"{module}.{name} is on no page of docs/reference"


def test_every_documented_name_has_something_to_say() -> None:
    for identifier, value in documented().items():
        if callable(value):
            assert value.__doc__, f"{identifier} has no docstring"
            assert not value.__doc__.startswith(f"{value.__name__}("), (
                f"{identifier} has only dataclass's own docstring"
            )


def test_submodules_offered_by_the_package_have_a_page() -> None:
    for name in jsdsd.__all__:
        if type(getattr(jsdsd, name)).__name__ == "module":
            assert (DOCS / "reference" / f"{name}.md").exists()


@pytest.mark.parametrize("page, command", commands())
def test_every_printed_command_exists(page: str, command: str) -> None:
    words = shlex.split(command, comments=True)
    if words[0] == "make":
        makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
        for word in words[1:]:
            assert "=" in word or re.search(rf"^{re.escape(word)}:", makefile, re.M), f"no target {word}"
    elif words[2] in ("jsdsd", "jsdsd.sandbox"):
        main = jsdsd.__main__ if words[2] == "jsdsd" else jsdsd.sandbox.__main__
        if "--help" not in words:
            arguments = main.parser().parse_args(words[3:])  # exits where an option is unknown
            if words[2] == "jsdsd.sandbox":
                main.named_target(arguments.target)
                main.named_objectives(arguments.objectives)
    else:
        assert importlib.util.find_spec(words[2]) is not None


@pytest.mark.parametrize("page", ["README.md", "docs/quickstart.md", "docs/sandbox.md", "docs/toybox.md"])
def test_every_python_example_runs(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    short = functools.partial(jsdsd.generate, steps=2, resolution=16, views_per_step=2, progress=False)
    monkeypatch.setattr(jsdsd, "generate", short)
    monkeypatch.setattr(jsdsd.sandbox, "fit_particles", functools.partial(jsdsd.sandbox.fit_particles, steps=20))
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    examples = blocks(ROOT / page, "python")
    assert examples
    for example in examples:
        exec(compile(example, page, "exec"), names)


def test_the_site_builds_strictly_and_asks_the_network_for_nothing(site: Path) -> None:
    pages = {str(p.relative_to(site)): p.read_text(encoding="utf-8") for p in site.rglob("*.html")}
    assert len(pages) >= len(list(DOCS.rglob("*.md"))) + len(list((ROOT / "tutorials").glob("[0-9]*.py")))
    for name, text in pages.items():
        fetched = re.findall(r"<(?:script|img|iframe)[^>]+src=\"?(https?://[^\"> ]+)", text)
        fetched += [x for x in re.findall(r"<link[^>]+>", text) if "https://" in x and "stylesheet" in x]
        assert not fetched, f"{name} fetches {fetched}"
    anchors = "".join(text for name, text in pages.items() if name.startswith("reference"))
    for identifier in documented():
        assert f'id="{identifier}"' in anchors or f"id={identifier}" in anchors, f"{identifier} is not on the site"


def test_the_reader_finds_every_page() -> None:
    nav = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    for page in DOCS.rglob("*.md"):
        assert str(page.relative_to(DOCS)) in nav, f"{page.name} is not in the navigation of mkdocs.yml"


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md"])  # mkdocs looks at the others
def test_links_to_files_lead_somewhere(page: str) -> None:
    links = re.findall(r"\]\(([^)#]+)", (ROOT / page).read_text(encoding="utf-8"))
    missing = [link for link in links if not link.startswith("https://") and not (ROOT / link).exists()]
    assert not missing


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_one_spelling(page: Path) -> None:
    prose = re.sub(r"```.*?```|`[^`]*`|https?://\S+", "", page.read_text(encoding="utf-8"), flags=re.S)
    other = re.findall(r"(?i)\b(?:colors?|centers?|gray|optimi[z]\w+|normali[z]\w+|behaviors?)\b", prose)
    assert not other, f"the project writes colour, centre, grey, optimise: {other}"
