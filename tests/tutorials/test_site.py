"""The documentation: nothing public is left out, every command and example works, the site builds strictly."""

from __future__ import annotations

import ast
import csv
import functools
import html
import importlib
import inspect
import re
import shutil
import sys
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from diffusers import AutoencoderKL

import jsdsd
from jsdsd import SDS, Ensemble, JensenShannon, ReverseKL
from jsdsd.sdxl import loading

sys.path.insert(0, str(Path(__file__).parents[1] / "sdxl"))  # a model as peculiar as SDXL
import miniature

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md"))]
PUBLIC = ("jsdsd", "jsdsd.objectives", "jsdsd.sandbox", "jsdsd.toybox")


def resolve(identifier: str) -> Any:
    module, _, name = identifier.rpartition(".")
    return getattr(importlib.import_module(module), name)


def documented() -> dict[str, Any]:
    text = "\n".join(page.read_text(encoding="utf-8") for page in (DOCS / "reference").glob("*.md"))
    return {identifier: resolve(identifier) for identifier in re.findall(r"^::: (\S+)$", text, re.M)}


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(encoding="utf-8"), re.M | re.S)


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


def names_used() -> set[tuple[str, str]]:
    """(module, name) of all that tutorials and Python examples import from jsdsd."""
    sources = [p.read_text(encoding="utf-8") for p in sorted((ROOT / "tutorials").glob("[0-9]*.py"))]
    sources += [block for page in PAGES for block in blocks(page, "python")]
    imports = [node for text in sources for node in ast.walk(ast.parse(text)) if isinstance(node, ast.ImportFrom)]
    return {(n.module, alias.name) for n in imports if n.module and n.module.startswith("jsdsd") for alias in n.names}


@pytest.mark.parametrize("module, name", sorted(names_used()))
def test_what_tutorials_and_examples_import_is_in_the_reference(module: str, name: str) -> None:
    value = resolve(f"{module}.{name}")
    if type(value).__name__ != "module":
        assert any(value is one for one in documented().values()), f"{module}.{name} is on no page of docs/reference"


def test_submodules_offered_by_the_package_have_a_page() -> None:
    for name in jsdsd.__all__:
        if type(getattr(jsdsd, name)).__name__ == "module":
            assert (DOCS / "reference" / f"{name}.md").exists()


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "python")], ids=lambda p: p.name)
def test_every_python_example_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Short; what needs SDXL's weights or a GPU gets the miniature of SDXL on the CPU instead, and no run."""
    make = jsdsd.generate

    def short(prompt: str, **settings: Any) -> jsdsd.Asset | None:
        inspect.signature(make).bind(prompt, **settings)
        if settings.get("model", "toybox") != "toybox":
            return None
        return make(prompt, **settings, steps=2, resolution=16, views_per_step=2, progress=False)

    monkeypatch.setattr(jsdsd, "generate", short)
    monkeypatch.setattr(jsdsd.sandbox, "fit_particles", functools.partial(jsdsd.sandbox.fit_particles, steps=20))
    if page.name == "gpu.md":
        sdxl = miniature.pipeline()
        monkeypatch.setattr(loading, "load_pipeline", lambda model, dtype: (sdxl, {}))
        monkeypatch.setattr(AutoencoderKL, "from_pretrained", lambda name: sdxl.vae)
    shutil.copy(ROOT / "tutorials/exercises/ex1.py", tmp_path)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"jsdsd": jsdsd}
    for example in blocks(page, "python"):
        exec(compile(example.replace('"cuda"', '"cpu"'), str(page), "exec"), names)


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
    bare = re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^>]+>", "", anchors)))
    for signature in ("JSD( minority_weight: float = 1.0,", "Guidance( pipe:", "GaussianMixture( means:", "Camera("):
        assert signature in bare, f"the reference does not show the arguments of {signature}"


def test_the_results_printed_beside_the_2d_example_are_those_of_its_runs() -> None:
    """docs/sandbox/runs.csv, made by `make sandbox-results`, has the same runs: off_centre, t at random, seed 0."""
    with (DOCS / "sandbox" / "runs.csv").open(encoding="utf-8") as file:
        runs = list(csv.DictReader(file))
    asked = {"target": "off_centre", "setting": "uniform", "seed": "0"}
    nats = {row["objective"]: f"{float(row['mode_jsd']):.3f} nats" for row in runs if asked.items() <= row.items()}
    objectives = {"sds": SDS(), "ensemble_reverse_kl": Ensemble(ReverseKL()), "ensemble_jsd": Ensemble(JensenShannon())}
    output = "".join(f"{objective!r} {nats[name]}\n" for name, objective in objectives.items())
    for page in ("README.md", "docs/quickstart.md"):
        assert output in blocks(ROOT / page, "text"), f"{page} should print\n{output}"


def test_every_paper_that_is_cited_is_in_the_bibliography() -> None:
    places = [*PAGES, *(p for folder in ("jsdsd", "tutorials", "benchmarks") for p in (ROOT / folder).rglob("*.py"))]
    text = " ".join(" ".join(p.read_text(encoding="utf-8").split()) for p in places)
    cited = set(re.findall(r"arXiv:? (\d{4}\.\d{4,5})", text))
    listed = set(re.findall(r"arXiv (\d{4}\.\d{4,5})", (DOCS / "bibliography.md").read_text(encoding="utf-8")))
    assert len(listed) > 20
    assert cited <= listed, f"not listed: {cited - listed}"


def test_every_page_is_in_the_navigation_and_every_link_on_the_site_leads_somewhere(site: Path) -> None:
    pages = {p.relative_to(site).as_posix(): p.read_text(encoding="utf-8") for p in site.rglob("*.html")}
    named = {name: set(re.findall(r"\bid=\"?([^\"\s>]+)", text)) for name, text in pages.items()}
    navigation = pages["index.html"].split('<nav class="md-nav md-nav--primary', 1)[1].split("</nav>\n  </div>", 1)[0]
    in_navigation = {"index.html", *re.findall(r'href="([^"#]+\.html)"', navigation)}
    missing = set(pages) - in_navigation - {"404.html"}
    assert not missing, f"not in the navigation: {missing}"
    broken = []
    for name, text in pages.items():
        for quoted, bare in re.findall(r"\b(?:href|src)=(?:\"([^\"]*)\"|([^\s>\"]+))", text):
            address, _, place = unquote(html.unescape(quoted or bare)).partition("#")
            if name == "404.html" or re.match(r"[a-z]+:", address):
                continue
            target = ((site / name).parent / address).resolve() if address else site / name
            target = target / "index.html" if target.is_dir() else target
            inside = target.relative_to(site.resolve()).as_posix() if target.exists() and address else name
            if not target.exists() or (place and inside in named and place not in named[inside] | {"__skip"}):
                broken.append((name, quoted or bare))
    assert not broken


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md"])  # mkdocs looks at the others
def test_links_to_files_lead_somewhere(page: str) -> None:
    links = re.findall(r"\]\(([^)#]+)", (ROOT / page).read_text(encoding="utf-8"))
    missing = [link for link in links if not link.startswith("https://") and not (ROOT / link).exists()]
    assert not missing


@pytest.mark.parametrize("page", [*PAGES, *sorted((ROOT / "tutorials").glob("[0-9]*.py"))], ids=lambda p: p.name)
def test_no_formula_is_taken_for_html(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    if page.suffix == ".py":
        text = "\n".join(line[2:] for line in text.splitlines() if line.startswith("# "))
    prose = re.sub(r"```.*?```|`[^`]*`|<!--.*?-->|^ {4}.*?$", "", text, flags=re.S | re.M)
    assert not re.findall(r"<[a-z][^>]*>", prose), "write it as code: a browser would hide it"
    assert not re.findall(r"^ *>.*", prose, re.M), "a line that begins with > becomes a quotation"
    broken = re.findall(r"^(?!\d+\. )[^\s|#*+-].*\n(?:[-+] |=+$|\d+[.)] ).*", prose, re.M)
    assert not broken, "a line of a paragraph that begins like a list or a heading"
