"""What can happen to a student's file is told in words, with its line, and stops no other problem."""

from __future__ import annotations

import ast
import re
import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from coursework import SETS, Verdict
from coursework.handed_in import Submission
from coursework.inside.source import is_blank
from coursework.marking import Marked, mark
from coursework.process import Worker
from grade import ALL_PASSED, BAD_INPUT, NOT_ALL_PASSED, main

from jsdsd import JensenShannon

Check = Callable[..., Verdict]
RIGHT_KL = "import torch\ndef kl(p, q):\n    return (torch.xlogy(p, p) - torch.xlogy(p, q)).sum(-1)\n"


def kl(body: str) -> str:
    return f"import torch\ndef kl(p, q):\n    {body}\n"


def checked(worker: Worker, text: str | bytes, name: str = "ex1.py", seconds: float = 60) -> Marked:
    return mark(Submission("", name, text if isinstance(text, bytes) else text.encode()), worker, 0, seconds)


@pytest.mark.parametrize("number", [1, 2, 3])
def test_blanks_are_not_done_yet(number: int, exercises: Path, worker: Worker) -> None:
    marked = checked(worker, (exercises / f"ex{number}.py").read_bytes())
    assert [r.verdict.status for r in marked.results] == ["not done yet"] * len(SETS[number - 1].problems)


@pytest.mark.parametrize("body", ["...", '"""Words."""\n    ...', "raise NotImplementedError('soon')", '"""Words."""'])
def test_other_blanks_are_too(check: Check, body: str) -> None:
    assert check(kl(body), "kl").status == "not done yet"


@pytest.mark.parametrize(
    ("body", "what"),
    [
        ("x = 1\n    raise NotImplementedError", "raised NotImplementedError"),
        ("x = ...\n    return x + p", "raised TypeError"),
        ("return ...", "wrong result"),
        ("if p.ndim != 2:\n        raise NotImplementedError('tables')\n    "
         "return (torch.xlogy(p, p) - torch.xlogy(p, q)).sum(-1)", ""),
    ],
)  # fmt: skip
def test_what_was_begun_is_no_blank(check: Check, body: str, what: str) -> None:
    assert check(kl(body), "kl").what == what


def test_dots_in_an_index_are_no_blank(check: Check) -> None:
    assert check(RIGHT_KL.replace("p, q):\n", "p, q):\n    p = p[..., :]\n"), "kl").status == "passed"


def test_a_call_of_a_blank_names_it(check: Check) -> None:
    source = "def helper(p):\n    raise NotImplementedError\ndef kl(p, q):\n    return helper(p)\n"
    verdict = check(source, "kl")
    assert (verdict.what, verdict.why) == ("calls a blank", "It calls `helper` (line 2), which is still a blank.")


def test_an_exception_comes_with_its_line(check: Check) -> None:
    verdict = check(kl("r = p / q\n    return r @ r"), "kl")
    assert verdict.status == "error" and verdict.what == "raised RuntimeError"
    assert "line 4: return r @ r" in verdict.why


def test_a_wrong_signature_is_an_exception_in_words(check: Check) -> None:
    assert "takes 1 positional argument" in check("def kl(p):\n    return p\n", "kl").why


def test_exit_is_no_exit(check: Check) -> None:
    assert check(kl("raise SystemExit(0)"), "kl").what == "raised SystemExit"


def test_an_endless_loop_is_stopped(check: Check) -> None:
    verdict = check(kl("while True:\n        pass"), "kl", 1)
    assert verdict.what == "no answer" and "endless loop" in verdict.why


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
    assert verdict.what == "wrong value: sign reversed" and "The sign is reversed everywhere" in verdict.why


def test_a_cut_graph_is_named(check: Check) -> None:
    verdict = check("import torch\ndef opacity(d, x):\n    return 1 - torch.exp(-d.detach() * x)\n", "opacity")
    assert verdict.what == "wrong gradient" and "`.detach()`" in verdict.why


def test_single_precision_is_precise_enough(check: Check) -> None:
    assert check(RIGHT_KL.replace(".sum(-1)", ".sum(-1).float()"), "kl").status == "passed"


@pytest.mark.parametrize(
    ("factor", "name"), [("-1", "sign reversed"), ("2", "factor 2 too much"), ("1.442695040888963", "log base 2")]
)
def test_a_factor_has_a_name(check: Check, factor: str, name: str) -> None:
    text = f"import torch\ndef opacity(d, x):\n    return {factor} * (1 - torch.exp(-d * x))\n"
    assert check(text, "opacity").what.startswith(f"wrong value: {name}")


def test_fresh_noise_is_told(check: Check) -> None:
    text = "import torch\ndef add_noise(x0, eps, a, t):\n    return x0 + torch.randn_like(eps)\n"
    assert check(text, "add_noise").what == "wrong value: fresh random numbers"


def test_a_graph_that_nobody_asked_for_is_told(check: Check, exercises: Path) -> None:
    text = (exercises / "solutions" / "ex1.py").read_text(encoding="utf-8")
    verdict = check(text.replace("(r**2 * second).detach()", "r**2 * second"), "weight")
    assert (verdict.status, verdict.what) == ("wrong", "wrong result: keeps a gradient")
    text = (exercises / "solutions" / "ex2.py").read_text(encoding="utf-8")
    text = text.replace("return -sigma * score", "return -sigma * score.requires_grad_()")
    verdict = check(text, "mixture_eps")
    assert (verdict.status, verdict.what) == ("passed", "passed, but keeps a gradient")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def kl(p, q)\n    return p\n", r"not valid Python: expected ':'\s+line 1: def kl\(p, q\)"),
        ("x = 1\n", "has none of the functions"),
        (RIGHT_KL + "1 / 0\n", r"ZeroDivisionError[\s\S]*line 4: 1 / 0"),
        (RIGHT_KL + "import no_such_module\n", "ModuleNotFoundError"),
    ],
)
def test_a_file_that_cannot_be_run(worker: Worker, text: str, message: str) -> None:
    marked = checked(worker, text)
    assert re.search(message, marked.trouble + "".join(r.verdict.why for r in marked.results))


def test_a_missing_function_is_said(worker: Worker) -> None:
    marked = checked(worker, RIGHT_KL + "weight = 3\n", "mine.py")  # any name will do
    by_name = {r.problem.name: r.verdict for r in marked.results}
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
    problems = SETS[number - 1].problems
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
    def see(path: Path) -> ast.FunctionDef:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        return next(f for f in tree.body if isinstance(f, ast.FunctionDef) and f.name == "see")

    blank, solved = see(exercises / "ex2.py"), see(exercises / "solutions" / "ex2.py")
    assert not is_blank(blank) and ast.unparse(blank) == ast.unparse(solved)


def test_the_particles_of_set_2_cover_all_modes(exercises: Path) -> None:
    """What `python ex2.py` prints when Problems 6 and 7 are right, at its own settings."""
    text = runpy.run_path(str(exercises / "solutions" / "ex2.py"))["see"](JensenShannon())
    share = [float(x) for x in re.findall(r"[01]\.\d\d(?=[,;])", text)]
    assert len(share) == 4 and min(share) > 0.15


def test_the_checker_loads_neither_a_model_library_nor_plots(exercises: Path) -> None:
    code = (
        f"import sys; sys.path.insert(0, r'{exercises.parent}'); import grade as m\n"
        f"for n in (1, 2, 3): m.main([r'{exercises}' + f'/ex{{n}}.py'])\n"
        "print('loaded:', *sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(run.stdout.split("loaded:")[1].split())
    assert "torch" in loaded
    assert not loaded & {"diffusers", "transformers", "matplotlib", "skimage", "trimesh"}


def test_without_fork_the_answers_are_the_same(exercises: Path) -> None:
    text = RIGHT_KL + "def discriminator(a, b):\n    print('here')\n    return (b - a).sigmoid()\n"
    with Worker(fork=False) as worker:
        by_name = {r.problem.name: r for r in checked(worker, text).results}
    assert by_name["kl"].verdict.status == "passed" and by_name["discriminator"].printed.strip().startswith("here")
    assert by_name["discriminator"].verdict.what == "wrong value: D and 1 - D swapped"


def test_what_is_built_on_a_mistake_says_so(worker: Worker, exercises: Path) -> None:
    text = (exercises / "solutions" / "ex3.py").read_text(encoding="utf-8")
    marked = checked(worker, text.replace("(before * opacity)", "(before.sqrt() * opacity)"))
    by_name = {r.problem.name: r.verdict for r in marked.results}
    assert by_name["composite"].what == "wrong value" and by_name["march"].what == "wrong value: built on composite"
    assert marked.uses == []
