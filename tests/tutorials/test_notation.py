"""One spelling and one notation: docs/notation.md is the law for code, docs and tutorials."""

from __future__ import annotations

import ast
import importlib
import inspect
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TEXTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"]
TEXTS += [p for p in sorted((ROOT / "docs").rglob("*.md")) if p.name != "bibliography.md"]  # it holds others' titles
CODE = [p for folder in ("jsdsd", "tutorials", "tests", "benchmarks") for p in sorted((ROOT / folder).rglob("*.py"))]
PARTS = ("objectives", "sandbox", "toybox", "sdxl.guidance", "sdxl.view_denoiser")
MODULES = ("jsdsd", *(f"jsdsd.{part}" for part in PARTS))
AMERICAN = re.compile(
    r"(?i)\b(?:colors?|colored|centers?|centered|gray|behaviors?|neighbors?|label(?:ed|ing)|model(?:ed|ing)|analyz\w+"
    r"|[a-z]+iz(?:e|ed|es|er|ers|ing|ations?))\b"
)
ALLOWED = {"size", "sizes", "sized", "resize", "resized", "tokenizer", "tokenizers"}
FORBIDDEN = {"timestep", "timesteps", "cfg", "cfg_scale", "xt", "x_0", "eps_pred", "noise_pred", "ratio", "k"}


def prose(path: Path) -> str:
    """What a reader reads: comments and docstrings of code, text outside of code elsewhere."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".py":
        tokens = tokenize.generate_tokens(io.StringIO(text).readline)
        read = [token.string for token in tokens if token.type == tokenize.COMMENT]
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                read.append(ast.get_docstring(node) or "")
        text = "\n".join(read)
    return re.sub(r"```.*?```|`[^`]*`|https?://\S+", "", text, flags=re.S)


def american(text: str) -> list[str]:
    return [word for word in AMERICAN.findall(text) if word.lower() not in ALLOWED]


def test_one_spelling() -> None:
    assert american("The size of a colored tokenizer, optimized.") == ["colored", "optimized"]
    other = {str(path.relative_to(ROOT)): found for path in TEXTS + CODE if (found := american(prose(path)))}
    assert not other, "the project writes colour, centre, grey, optimise"


def parameters() -> Iterator[tuple[str, str]]:
    """(owner, name) of every parameter, field and attribute of what is public."""
    for module in MODULES:
        home = importlib.import_module(module)
        own = [name for name, value in vars(home).items() if getattr(value, "__module__", "") == module]
        for name in getattr(home, "__all__", [name for name in own if name[0] != "_"]):
            value = getattr(home, name)
            members = [value]
            if isinstance(value, type):
                members += [member for n, member in vars(value).items() if n[0] != "_"]
            for member in members:
                member = getattr(member, "__func__", member)
                if callable(member):
                    yield from ((name, p) for p in inspect.signature(member).parameters)
            if isinstance(value, type):
                yield from ((name, n) for n in vars(value) if n[0] != "_")


def test_the_names_of_the_notation_are_those_of_the_code() -> None:
    rows = re.findall(r"^\| [^|]+ \| ([^|]+) \|", (ROOT / "docs/notation.md").read_text(encoding="utf-8"), re.M)
    written = set(re.findall(r"[a-z]\w*", " ".join(code for cell in rows for code in re.findall(r"`([^`]+)`", cell))))
    assert {"t", "x0", "predict_eps", "guidance_scale", "minority_weight", "log_ratio"} <= written
    missing = written - {name for _, name in parameters()} - {"schedule"}
    assert not missing, f"docs/notation.md speaks of {missing}, the public code does not"


def test_no_public_name_says_it_otherwise() -> None:
    found = [(owner, name) for owner, name in parameters() if name in FORBIDDEN]
    assert not found, "docs/notation.md has one name for each"


@pytest.mark.parametrize("name", ["renderer", "voxels", "cameras", "mesh"])
def test_alpha_and_sigma_belong_to_diffusion(name: str) -> None:
    path = ROOT / f"jsdsd/scene/{name}.py"
    text = path.read_text(encoding="utf-8")
    names = {t.string for t in tokenize.generate_tokens(io.StringIO(text).readline) if t.type == tokenize.NAME}
    assert not names & {"alpha", "alphas", "sigma", "sigmas"}, "say opacity, density, transmittance"


def test_the_weight_is_a_function_of_the_ratio_and_only_the_code_takes_its_logarithm() -> None:
    """w_f(r) = r² f''(r), `weight(log_ratio)`: w_f(log r) would be neither."""
    places = [*TEXTS, *(path for path in CODE if path.parts[-3] != "tests")]
    assert not [path.name for path in places if re.search(r"w_f\(\s*log", path.read_text(encoding="utf-8"))]
