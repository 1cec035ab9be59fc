"""The house itself: imports run one way, files stay small, and a prompt does not wander through all of them."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "jsdsd"
LONGEST = 300  # lines of a file
LARGEST = 9400  # lines of the package; the aim is 6,500
WAY = 32  # files that the default runs through from prompt to asset; the aim is 10

# What each room may know, besides itself.  The run's own files stand at the top and may know all rooms but sandbox.
ROOMS = {
    "files": set(),
    "objectives": set(),
    "scene": {"files"},
    "sandbox": {"objectives"},
    "sdxl": {"objectives", "scene"},
    "toybox": {"scene", "files", "objectives", "sdxl"},  # training writes a model's folder
}
# The run's own files: each knows those before it.
RUN = ("run", "checkpoint", "penalties", "optimise", "generation", "jobs", "picture", "__main__")


def sources() -> dict[str, Path]:
    """Module name without "jsdsd." -> file."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imported(module: str, path: Path, *, late: bool) -> set[str]:
    """The package's modules that a file imports; late: also inside functions.  Those for type checkers are left out."""
    tree, found = ast.parse(path.read_text(encoding="utf-8")), set()
    here = ["jsdsd", *filter(None, module.split("."))]
    here = here if path.stem == "__init__" else here[:-1]
    known = sources()

    def visit(node: ast.AST) -> None:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            return
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)) and not late:
            return
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = here[: len(here) - node.level + 1] if node.level else []
            start = ".".join([*base, *([node.module] if node.module else [])])
            names = [f"{start}.{alias.name}" for alias in node.names] + [start]
            names = [n for n in names if n.removeprefix("jsdsd.") in known] or [start]
            names = names[:1] if len(node.names) == 1 else [n for n in names if n != start] or [start]
        else:
            names = []
        for name in names:
            if name.startswith("jsdsd.") and name.removeprefix("jsdsd.") in known:
                found.add(name.removeprefix("jsdsd."))
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(tree)
    return found - {module}


def test_no_file_is_longer_than_one_can_read() -> None:
    assert not [p.name for p in PACKAGE.rglob("*.py") if len(p.read_text(encoding="utf-8").splitlines()) > LONGEST]


def test_the_package_does_not_grow() -> None:
    assert sum(len(p.read_text(encoding="utf-8").splitlines()) for p in PACKAGE.rglob("*.py")) <= LARGEST


@pytest.mark.parametrize("room", ROOMS)
def test_imports_run_one_way(room: str) -> None:
    for module, path in sources().items():
        if module.split(".")[0] == room:
            others = {name.split(".")[0] for name in imported(module, path, late=True)} - {room}
            assert others <= ROOMS[room], f"{module} may not know {others - ROOMS[room]}"


def test_the_run_stands_above_the_rooms() -> None:
    for i, module in enumerate(RUN):
        above = {n.split(".")[0] for n in imported(module, PACKAGE / f"{module}.py", late=True)}
        assert not above & ({*RUN[i:]} | {"sandbox"}), f"{module} knows {above & {*RUN[i:]}}"


def test_there_is_no_circle() -> None:
    """Among modules, whatever is imported late counted too."""
    graph = {module: imported(module, path, late=True) for module, path in sources().items()}
    done: set[str] = set()

    def walk(module: str, way: tuple[str, ...]) -> None:
        assert module not in way, " -> ".join([*way[way.index(module) :], module])
        if module not in done:
            for other in sorted(graph[module]):
                walk(other, (*way, module))
            done.add(module)

    for module in graph:
        walk(module, ())


ENTERED = """
import sys
import jsdsd
import jsdsd.generation, jsdsd.toybox  # what importing runs is no part of the way
from jsdsd.sdxl.guidance import Guidance
model = Guidance.load("toybox")
entered = set()
sys.setprofile(lambda frame, event, _: entered.add(frame.f_code.co_filename))
jsdsd.generate("a red mushroom", model=model, objective="sds", steps=1, resolution=8, views_per_step=1, progress=False)
sys.setprofile(None)
print("\\n".join(sorted(name for name in entered if "jsdsd" in name)))
"""


def test_a_prompts_way_is_short() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", ENTERED], cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    files = sorted({str(Path(x).relative_to(PACKAGE)) for x in done.stdout.split() if Path(x).is_relative_to(PACKAGE)})
    assert "generation.py" in files and "optimise.py" in files
    assert len(files) <= WAY, files
