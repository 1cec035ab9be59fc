"""Every command that README, docs and tutorials print is a make target or is run here; none is passed over.

What takes hours or a GPU is run up to its work: the program's own parser takes the arguments, and the work itself is
done, shorter, by the tests and make targets named in ELSEWHERE.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import os
import re
import runpy
import shlex
import shutil
import sys
from pathlib import Path
from typing import Any

import grade
import jupytext
import pytest
from accelerate.commands.launch import launch_command_parser

import jsdsd
import jsdsd.__main__
import jsdsd.sandbox.__main__
from jsdsd import Asset, VoxelGrid
from jsdsd.sdxl.guidance import Guidance
from jsdsd.toybox.captions import parse

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
PAGES += sorted((ROOT / "tutorials").rglob("*.py"))
PROGRAMS = {"make", "python", "python3", ".venv/bin/python", "accelerate", "pip", "hf", "git"}
PROGRAMS |= {"cd", "cp", "mkdir", "sed", "for"}
SETTINGS = r"^(?:[A-Z_]+=\S+ )+"  # of the environment, before a command
ELSEWHERE = {  # module or script -> what does its work
    "benchmarks.evidence.evaluate": "make evaluate, tests/evidence/test_evaluate.py",
    "jsdsd.toybox.train": "make train, tests/toybox/test_train.py",
    "jsdsd.picture": "tests/sdxl/test_picture.py",
    "benchmarks.evidence.judge": "tests/evidence/test_evaluate.py",
    "benchmarks/gpu_check.py": "tests/tutorials/test_commands.py",
    "benchmarks/damaged_assets.py": "tests/tutorials/test_commands.py",
    "benchmarks.evidence": "make evidence, tests/evidence/test_bench_runs.py",
    "benchmarks.evidence.sandbox": "make sandbox-results, tests/evidence/test_sandbox.py",
    "benchmarks/renderer.py": "make bench",
    "benchmarks/sdxl_full.py": "make sdxl-full",
    "benchmarks/layouts.py": "tests/tutorials/test_commands.py",
    "benchmarks/processes.py": "tests/tutorials/test_commands.py",
    "benchmarks/pixel_gradients.py": "tests/tutorials/test_commands.py",
    "benchmarks/own_words.py": "tests/tutorials/test_commands.py",
    "benchmarks/cheaper_steps.py": "tests/tutorials/test_commands.py",
    "benchmarks/two_sided.py": "tests/sandbox/test_benchmarks.py",
    "benchmarks/neighbours.py": "tests/sandbox/test_benchmarks.py",
    "tutorials/run.py": "make tutorials",
}
NOT_OURS = {  # other people's programs: they need a network, a GPU or a key
    "git clone https://": "fetches",
    "hf download": "fetches",
    "pip install": "fetches",
    "python -m pip install": "fetches; `make` does the same",
    "python3 -m venv": "`make` does the same",
    "sed -i": "edits T3Bench's files",
    "python run_": "T3Bench's own",
}


def markdown(page: Path) -> str:
    if page.suffix == ".md":
        return page.read_text(encoding="utf-8")
    return "\n\n".join(cell.source for cell in jupytext.read(page).cells if cell.cell_type == "markdown")


def is_command(line: str) -> bool:
    words = re.sub(SETTINGS, "", line.strip()).split()
    return len(words) > 1 and (words[0] in PROGRAMS or words == [".", ".venv/bin/activate"])


def parts(line: str) -> list[str]:
    """The single commands of a line of shell, without comment, loop and settings of the environment."""
    found = [re.sub(r"^do ", "", part.strip()) for part in re.split(r"&&|;", re.sub(r"\s#\s.*$", "", line))]
    found = [re.sub(SETTINGS, "", part).removeprefix(".venv/bin/") for part in found]
    return [part for part in found if part and part != "done" and not part.startswith(("for ", "echo "))]


def printed(text: str) -> tuple[list[str], list[str]]:
    """(commands, lines among them that look like none): of blocks without a language, and of code inside prose."""
    found, odd = [], []
    fence = re.compile(r"^```(\w*)\n(.*?)^```$", re.M | re.S)
    prose = fence.sub("", text)
    blocks = [block for language, block in fence.findall(text) if not language]
    blocks += re.findall(r"(?:^ {4}\S.*\n?)+", prose, re.M)
    for block in blocks:
        lines = [line for line in re.sub(r"\\\n\s*", "", block).splitlines() if line.strip()]
        if any(is_command(line) for line in lines):
            odd += [line for line in lines if not is_command(line)]
            found += [part for line in lines for part in parts(line.strip())]
    for code in re.findall(r"`([^`]+)`", prose):
        code = " ".join(code.split())
        if is_command(code):
            found += parts(code)
    return found, odd


def commands() -> list[tuple[str, str]]:
    return list(dict.fromkeys((page.name, command) for page in PAGES for command in printed(markdown(page))[0]))


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint of a run that was begun."""
    path = tmp_path_factory.mktemp("begun") / "checkpoint.safetensors"
    jsdsd.generate("a ball", steps=2, resolution=8, views_per_step=1, progress=False, checkpoint=path)
    return path


class Parsed(BaseException):
    """The arguments were taken; the work would begin here."""


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder like a checkout, with the files that the commands name; models and long runs are replaced."""
    for name in ("tutorials", "tests", "benchmarks"):
        (tmp_path / name).symlink_to(ROOT / name)
    for number in (1, 2, 3):
        shutil.copy(ROOT / f"tutorials/exercises/ex{number}.py", tmp_path)
    (tmp_path / "data").mkdir()
    (tmp_path / "submissions").mkdir()
    shutil.copy(tmp_path / "ex1.py", tmp_path / "submissions")
    own = re.search(r"```python\n(.*?)```", (ROOT / "docs/own_objective.md").read_text(encoding="utf-8"), re.S)
    (tmp_path / "mine.py").write_text(own[1] if own else "", encoding="utf-8")
    for name in ("list.txt", "data/prompt_single.txt"):
        (tmp_path / name).write_text("a red mushroom\n# not this\na blue mug\n", encoding="utf-8")
    def generate(prompt: str, *, model: str, **settings: Any) -> Asset:
        if model == "toybox":
            parse(prompt)  # an error for a word that the toybox does not know
        return Asset(VoxelGrid.blob((12,)), prompt, {"seed": settings["seed"]}, [{"step": 0}])

    turntable = Asset.turntable
    monkeypatch.setattr(Asset, "turntable", lambda self, frames=30, size=256, elevation=15: turntable(self, 2, 16))
    fit = jsdsd.sandbox.__main__.fit_particles
    short = lambda target, objective, n, steps, seed, times: fit(target, objective, n, 2, seed, times=times)  # noqa: E731
    monkeypatch.setattr(jsdsd.sandbox.__main__, "fit_particles", short)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(jsdsd, "generate", generate)
    monkeypatch.setattr(Guidance, "load", lambda model, **rest: model)
    monkeypatch.setattr("jsdsd.generation.check_language", lambda model, runs: None)
    return tmp_path


def taken(run: Any, words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Start a program; it must come to the end of reading its arguments."""
    parse_args = argparse.ArgumentParser.parse_args

    def then_stop(self: argparse.ArgumentParser, *a: Any) -> None:
        parse_args(self, *a)
        raise Parsed

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", then_stop)
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(Parsed):
        run()


def test_nothing_that_looks_like_a_command_is_passed_over() -> None:
    assert len(commands()) > 60
    odd = [(page.name, line) for page in PAGES for line in printed(markdown(page))[1]]
    assert not odd, "lines between commands that this test does not know"
    text = "```\nmake demo  # x\nA=1 python -m jsdsd \\\n    --help\n```\nor `python -m jsdsd.sandbox\nx`, `make`\n"
    assert printed(text)[0] == ["make demo", "python -m jsdsd --help", "python -m jsdsd.sandbox x"]
    assert printed(text.replace("make demo", "curl x"))[1] == ["curl x  # x"]
    assert printed(f"```python\nx = 1\n```\n{text}") == printed(text)


@pytest.mark.parametrize("page, command", commands())
def test_every_printed_command_works(
    page: str, command: str, workplace: Path, begun: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = command.replace('"$file"', "ex1.py").replace("$(seq 0 15)", " ".join(map(str, range(16))))
    words = shlex.split(command)
    if any(command.startswith(start) for start in NOT_OURS):
        return
    if words[0] == "make":
        makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
        for word in words[1:]:
            assert "=" in word or re.search(rf"^{re.escape(word)}:", makefile, re.M), f"no target {word}"
    elif words[0] == "accelerate":
        launched = launch_command_parser().parse_args(words[2:])
        assert launched.module
        run_module([launched.training_script, *launched.training_script_args], workplace, begun, monkeypatch)
    elif words[0] == "mkdir":
        assert words[1] == "-p" and words[2].startswith("out/") and len(words) == 3
    elif words[0] == "cp":
        assert (ROOT / words[1]).is_file() and len(words) == 3
    elif words[0] == ".":
        assert words[1] == ".venv/bin/activate"  # made by make
    elif words[0] == "cd":
        assert words[1:] == ["T3Bench"]  # cloned one block above
    elif words[1] == "tutorials/grade.py":
        assert grade.main(words[2:] or ["ex1.py"]) in (grade.ALL_PASSED, grade.NOT_ALL_PASSED)
    elif words[1] == "-m":
        run_module(words[2:], workplace, begun, monkeypatch)
    else:
        script = words[1] if (ROOT / words[1]).exists() else f"tutorials/exercises/{words[1]}"
        assert (ROOT / script).is_file()
        if "benchmarks" in script and "ArgumentParser" in (ROOT / script).read_text(encoding="utf-8"):
            taken(lambda: runpy.run_path(str(ROOT / script), run_name="__main__"), words[1:], monkeypatch)
        assert script in ELSEWHERE or script.startswith("tutorials/exercises/")  # tests/coursework runs those
        assert "pixel_gradients" not in script or len(words) == 2


def run_module(words: list[str], workplace: Path, begun: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name, arguments = words[0], words[1:]
    if "--help" in arguments:
        with pytest.raises(SystemExit, match="0"):
            jsdsd.__main__.main(arguments)
    elif name == "jsdsd":
        asked = jsdsd.__main__.parser().parse_args(arguments)
        if asked.resume:
            (workplace / asked.resume).mkdir()
            shutil.copy(begun, workplace / asked.resume)
        assert jsdsd.__main__.main([*arguments, "--quiet"]) == 0
        folder = workplace / (asked.resume or asked.output)
        assert list(folder.rglob("asset.safetensors")) and list(folder.rglob("run.json"))
    elif name == "jsdsd.sandbox":
        assert jsdsd.sandbox.__main__.main(arguments) == 0
        assert list((workplace / "out").glob("*.png"))
    elif name == "pytest":
        if arguments[0] == "-m":
            assert f'    "{arguments[1]}: ' in (ROOT / "pyproject.toml").read_text(encoding="utf-8"), "no such marker"
        else:
            assert len(arguments) == 1 and (ROOT / arguments[0]).exists()
    else:
        assert name in ELSEWHERE
        package = (importlib.util.find_spec(name) or pytest.fail(name)).submodule_search_locations
        program = importlib.import_module(f"{name}.__main__" if package else name)
        taken(program.main, [name, *arguments], monkeypatch)


def test_what_is_done_elsewhere_is_done_there() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for work, places in ELSEWHERE.items():
        for place in places.split(", "):
            if place.startswith("make "):
                recipe = re.search(rf"^{place[5:]}:.*\n((?:\t.*\n)+)", makefile, re.M)
                assert recipe and work in recipe[1], f"{place} does not run {work}"
            else:
                name = work.removesuffix(".py").replace("/", ".").split(".")[-1]
                assert name in (ROOT / place).read_text(encoding="utf-8"), f"{place} knows no {name}"


def test_every_make_target_is_listed_and_its_recipe_leads_somewhere() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = re.findall(r"^([a-z-]+):.*?(##.*)?$", makefile, re.M)
    assert all(note for _, note in targets), "`make` alone lists what has a ##"
    phony = re.search(r"^\.PHONY: (.*)$", makefile, re.M)
    assert phony and set(phony[1].split()) == {name for name, _ in targets}
    for module in re.findall(r"\$\(PY\) -m ([\w.]+)", makefile):
        assert importlib.util.find_spec(module), module
    for script in re.findall(r"\$\(PY\) (\S+\.py)", makefile):
        assert (ROOT / script).is_file(), script


@pytest.mark.slow
@pytest.mark.parametrize(
    "name, arguments",
    [
        *(("pixel_gradients", []), ("layouts", []), ("processes", ["--rounds", "1", "--steps", "1"])),
        *(("own_words", []), ("cheaper_steps", [])),
    ],
)
def test_the_benchmarks_run(
    name: str, arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Short: two steps, one round, without torch.compile (minutes)."""
    module = runpy.run_path(str(ROOT / f"benchmarks/{name}.py"))
    space = module["main"].__globals__
    short = {"SEEDS": (0,), "SHOWN": ("a blue car",), "STEPS": 2, "ROUNDS": 1, "compiled": module.get("plain")}
    space.update(short)
    monkeypatch.setattr(sys, "argv", [name, *arguments])
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    module["main"]()
    result = r"median \d|VAE, forward and backward +\d|no inversion.* 0\.\d{3}  4 calls|half the rate.*view +\d+%"
    assert re.search(result, capsys.readouterr().out)
