"""What can happen to a student's file is told in words, with its line, and stops no other problem."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from jsdsd import JensenShannon
from tutorials.coursework import SETS, BadFile, Verdict, check_file, student, which_set
from tutorials.coursework.__main__ import ALL_PASSED, BAD_INPUT, NOT_ALL_PASSED, main

Check = Callable[..., Verdict]
RIGHT_KL = "import torch\ndef kl(p, q):\n    return (torch.xlogy(p, p) - torch.xlogy(p, q)).sum(-1)\n"


def kl(body: str) -> str:
    return f"import torch\ndef kl(p, q):\n    {body}\n"


@pytest.mark.parametrize("number", [1, 2, 3])
def test_blanks_are_not_done_yet(number: int, exercises: Path) -> None:
    verdicts = [v for _, v in check_file(exercises / f"ex{number}.py")]
    assert [v.status for v in verdicts] == ["not done yet"] * len(SETS[number - 1].problems)


@pytest.mark.parametrize(
    "body", ["...", "x = ...\n    return x + p", "raise NotImplementedError('soon')", "return ..."]
)
def test_other_blanks_are_too(check: Check, body: str) -> None:
    assert check(kl(body), "kl").status == "not done yet"


def test_dots_in_an_index_are_no_blank(check: Check) -> None:
    assert check(RIGHT_KL.replace("p, q):\n", "p, q):\n    p = p[..., :]\n"), "kl").status == "passed"


def test_a_call_of_a_blank_names_it(check: Check) -> None:
    source = "def helper(p):\n    raise NotImplementedError\ndef kl(p, q):\n    return helper(p)\n"
    verdict = check(source, "kl")
    assert (verdict.status, verdict.why) == ("not done yet", "It calls `helper` (line 2), which is still a blank.")


def test_an_exception_comes_with_its_line(check: Check) -> None:
    verdict = check(kl("r = p / q\n    return r @ r"), "kl")
    assert verdict.status == "error" and verdict.what == "raised RuntimeError"
    assert "line 4: return r @ r" in verdict.why


def test_a_wrong_signature_is_an_exception_in_words(check: Check) -> None:
    assert "takes 1 positional argument" in check("def kl(p):\n    return p\n", "kl").why


def test_exit_is_no_exit(check: Check) -> None:
    assert check(kl("raise SystemExit(0)"), "kl").what == "raised SystemExit"


def test_an_endless_loop_is_stopped(check: Check) -> None:
    verdict = check(kl("while True:\n        pass"), "kl", 0.5)
    assert verdict.what == "no answer" and "endless loop" in verdict.why


def test_one_endless_loop_leaves_the_others_alone(tmp_path: Path) -> None:
    path = tmp_path / "ex1.py"
    path.write_text(RIGHT_KL + "def jensen_shannon(p, q):\n    while True:\n        p = p + q\n", encoding="utf-8")
    submission, (first, second, *_) = student.load(path, 60), SETS[0].problems
    assert student.check(submission, second, 0.5).what == "no answer"
    assert student.check(submission, first, 60).status == "passed"


@pytest.mark.parametrize(
    ("body", "what", "why"),
    [
        ("pass", "wrong result", "is a `return` missing?"),
        ("return 3.0", "wrong result", "must be a torch.Tensor, it is of type float"),
        ("return p, q", "wrong result", "returns 2 things instead of 1"),
        ("return p > q", "wrong result", "must hold real numbers"),
        ("p += 1\n    return p.sum(-1)", "wrong result", "changes its argument `p` in place"),
        ("return p", "wrong shape", "An axis is left"),
        ("return (p - q).sum()", "wrong shape", "say over which one to sum"),
        ("return torch.xlogy(p, p / q).sum(-1)[:, None]", "wrong shape", "reshape them"),
        ("return -3 * torch.xlogy(p, q / p.clamp(min=1e-99)).sum(-1)", "wrong value", "Every entry is 3 times"),
        ("return torch.xlogy(p, p / q).sum(-1) + 0.01", "wrong value", r"\[\d\] is .* it should be"),
        ("return torch.xlogy(p, p / q).sum(-1) / 0", "wrong value", "a NaN or an infinite number"),
        ("return torch.xlogy(p, p / q).sum(-1) + (p == 0).any() * 1.0", "wrong value", "wrong for p with zeros"),
    ],
)  # fmt: skip
def test_a_mistake_without_a_name_is_described(check: Check, body: str, what: str, why: str) -> None:
    verdict = check(kl(body), "kl")
    assert (verdict.status, verdict.what) == ("wrong", what)
    assert re.search(why if "\\" in why else re.escape(why), verdict.why)


def test_a_reversed_sign_without_a_name_is_seen(check: Check) -> None:
    verdict = check("def discriminator(a, b):\n    return -(a - b).sigmoid()\n", "discriminator")
    assert verdict.what == "wrong value" and "The sign is reversed everywhere" in verdict.why


def test_a_cut_graph_is_named(check: Check) -> None:
    verdict = check("import torch\ndef opacity(d, x):\n    return 1 - torch.exp(-d.detach() * x)\n", "opacity")
    assert verdict.what == "wrong gradient" and "`.detach()`" in verdict.why


def test_single_precision_is_precise_enough(check: Check) -> None:
    assert check(RIGHT_KL.replace(".sum(-1)", ".sum(-1).float()"), "kl").status == "passed"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "there is no file"),
        ("def kl(p, q)\n    return p\n", r"not valid Python, line 1: [\s\S]*def kl\(p, q\)"),
        ("x = 1\n", "has none of the functions"),
        (RIGHT_KL + "1 / 0\n", r"cannot be run: ZeroDivisionError[\s\S]*line 4: 1 / 0"),
        (RIGHT_KL + "import no_such_module\n", "cannot be run: ModuleNotFoundError"),
        (RIGHT_KL + "while True: pass\n", "did not finish within"),
    ],
)
def test_a_file_that_cannot_be_checked(tmp_path: Path, text: str | None, message: str) -> None:
    path = tmp_path / "ex1.py"
    if text is not None:
        path.write_text(text, encoding="utf-8")
    with pytest.raises(BadFile, match=message):
        check_file(path, seconds=1 if text and "while" in text else 60)


def test_a_file_in_another_encoding(tmp_path: Path) -> None:
    path = tmp_path / "ex1.py"
    path.write_bytes("# é\n".encode("latin-1"))
    with pytest.raises(BadFile, match="UTF-8"):
        check_file(path)


def test_a_notebook_is_told_how_to_become_a_file(tmp_path: Path) -> None:
    path = tmp_path / "ex1.ipynb"
    path.write_text('{"cells": [], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}', encoding="utf-8")
    with pytest.raises(BadFile, match="jupytext --to py:percent .*ex1.ipynb"):
        check_file(path)


def test_a_missing_function_is_said(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"  # any name will do
    path.write_text(RIGHT_KL + "weight = 3\n", encoding="utf-8")
    by_name = {p.name: v for p, v in check_file(path)}
    assert by_name["kl"].status == "passed"
    assert by_name["discriminator"].why == "There is no function `discriminator` in mine.py: keep the exercise's names."
    assert "no function any more" in by_name["weight"].why


@pytest.mark.parametrize("number", [1, 2, 3])
def test_exit_codes(number: int, exercises: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(exercises / f"ex{number}.py")]) == NOT_ALL_PASSED
    assert "score: 0 of 30 points (0 passed, 0 to mend" in capsys.readouterr().out
    assert main([str(exercises / "solutions" / f"ex{number}.py"), "--seconds", "120"]) == ALL_PASSED
    assert "score: 30 of 30 points" in capsys.readouterr().out
    assert main([str(exercises / "nothing.py")]) == BAD_INPUT
    assert "there is no file" in capsys.readouterr().err


def test_the_output_in_the_docs_is_real(exercises: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = (exercises.parents[1] / "docs" / "coursework.md").read_text(encoding="utf-8")
    assert main([str(Path(__file__).with_name("half_done_ex1.py")), "--seconds", "120"]) == NOT_ALL_PASSED
    assert f"```text\n{capsys.readouterr().out}```" in page


@pytest.mark.parametrize("number", [1, 2, 3])
def test_blanks_and_solutions_state_the_same(number: int, exercises: Path) -> None:
    def statements(path: Path) -> list[tuple[str, str, str | None]]:
        functions = [f for f in ast.parse(path.read_text(encoding="utf-8")).body if isinstance(f, ast.FunctionDef)]
        return [(f.name, ast.unparse(f.args), ast.get_docstring(f)) for f in functions]

    blank, solved = exercises / f"ex{number}.py", exercises / "solutions" / f"ex{number}.py"
    assert statements(blank) == statements(solved)
    names = [name for name, _, _ in statements(blank)]
    problems = which_set(blank).problems
    assert names[: len(problems)] == [p.name for p in problems]
    text = blank.read_text(encoding="utf-8")
    assert re.findall(r"# %% Problem \d \((\d) points\)", text) == [str(p.points) for p in problems]


@pytest.mark.parametrize("number", [1, 2, 3])
def test_the_questions_are_asked_in_full_and_answered(number: int, exercises: Path) -> None:
    def paragraphs(path: Path) -> list[str]:
        questions = path.read_text(encoding="utf-8").split("# %% Questions")[1].split("\n", 1)[1]
        lines = [line.removeprefix("#").strip() for line in questions.splitlines()]
        return [" ".join(part.split()) for part in "\n".join(lines).split("\n\n") if part.strip()]

    asked = paragraphs(exercises / f"ex{number}.py")
    assert len(asked) >= 2 and all(re.match(r"[a-c]\. .*\?$", question) for question in asked)
    answered = paragraphs(exercises / "solutions" / f"ex{number}.py")
    assert answered[::2] == asked and len(answered) == 2 * len(asked)


def test_what_shows_set_2_is_given_not_asked_for(exercises: Path) -> None:
    blank, solved = (exercises / "ex2.py", exercises / "solutions" / "ex2.py")
    assert student.function_names(blank)["see"].body and not student.has_blank(student.function_names(blank)["see"])
    assert ast.unparse(student.function_names(blank)["see"]) == ast.unparse(student.function_names(solved)["see"])


def test_the_particles_of_set_2_cover_all_modes(exercises: Path) -> None:
    """What `python ex2.py` prints when Problems 6 and 7 are right, at its own settings."""
    see = student.load(exercises / "solutions" / "ex2.py", 120).module.see
    text = see(JensenShannon())
    share = [float(x) for x in re.findall(r"[01]\.\d\d(?=[,;])", text)]
    assert len(share) == 4 and min(share) > 0.15


def test_the_checker_loads_neither_a_model_library_nor_plots(exercises: Path) -> None:
    code = (
        "import sys, tutorials.coursework.__main__ as m\n"
        f"for n in (1, 2, 3): m.main([r'{exercises}' + f'/ex{{n}}.py'])\n"
        "print('loaded:', *sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(run.stdout.split("loaded:")[1].split())
    assert "torch" in loaded
    assert not loaded & {"diffusers", "transformers", "matplotlib", "skimage", "trimesh"}


def test_code_that_will_not_stop_does_not_keep_the_program(tmp_path: Path) -> None:
    path = tmp_path / "ex1.py"
    stubborn = "while True:\n        try:\n            x = 1\n        except BaseException:\n            x = 2"
    path.write_text(kl(stubborn), encoding="utf-8")
    command = [sys.executable, "-m", "tutorials.coursework", str(path), "--seconds", "0.3"]
    run = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=Path(__file__).parents[2])
    assert run.returncode == NOT_ALL_PASSED
    assert "no answer" in run.stdout and "score: 0 of 30" in run.stdout
