"""Every wrong answer is rejected, and told which mistake it makes; every right one passes, in whatever words."""

from __future__ import annotations

import ast
import math
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from coursework import SETS, Mistake, Problem, Verdict
from coursework.handed_in import Submission
from coursework.marking import mark
from coursework.problem import fresh_cases, observed
from coursework.process import Worker
from coursework.verdict import agrees, diagnose, twin

sys.path.insert(0, str(Path(__file__).parent))  # the slips lie beside this file
from slips import SLIPS

PROBLEMS = [p for s in SETS for p in s.problems]
TWINS = [(p, m) for p in PROBLEMS for m in p.mistakes]
SEEDS = (0, 1, 20261127)  # the public one and two that a teacher might take


def test_there_are_more_than_enough_of_them() -> None:
    assert len(TWINS) >= 25
    assert all(len({m.name for m in p.mistakes}) == len(p.mistakes) >= 5 for p in PROBLEMS)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("problem", "mistake"), TWINS, ids=[f"{p.name}: {m.name}" for p, m in TWINS])
def test_every_wrong_answer_is_rejected_by_its_name(problem: Problem, mistake: Mistake, seed: int) -> None:
    verdict = diagnose(problem, twin(problem, mistake.answer, seed), seed)
    assert verdict.status == "wrong"
    assert verdict.what.endswith(f": {mistake.name}") and verdict.why == mistake.why


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("problem", PROBLEMS, ids=lambda p: p.name)
def test_no_two_wrong_answers_look_alike(problem: Problem, seed: int) -> None:
    everything = [twin(problem, m.answer, seed) for m in problem.mistakes]
    assert not any(agrees(a, b) for i, a in enumerate(everything) for b in everything[:i])


@pytest.mark.parametrize("slip", SLIPS, ids=lambda s: f"{s[1]}: {s[3]}")
def test_one_slip_of_the_pen_is_recognised(
    slip: tuple[int, str, str, str, str | None], exercises: Path, check: Callable[..., Verdict]
) -> None:
    number, name, old, new, mistake = slip
    source = (exercises / "solutions" / f"ex{number}.py").read_text(encoding="utf-8")
    function = next(f for f in ast.parse(source).body if isinstance(f, ast.FunctionDef) and f.name == name)
    lines = source.splitlines(keepends=True)
    before, after = "".join(lines[: function.body[0].end_lineno]), "".join(lines[function.end_lineno :])
    body = "".join(lines[function.body[0].end_lineno : function.end_lineno])
    assert old in body
    verdict = check(before + body.replace(old, new) + after, name)
    assert verdict.status == "wrong"
    if mistake is None:  # a mistake without a name: rejected all the same, with what was seen
        assert ":" not in verdict.what and "should be" in verdict.why
    else:
        assert verdict.what.split(": ", 1)[1] == mistake


@pytest.mark.parametrize("seed", [0, 5])
@pytest.mark.parametrize("number", [1, 2, 3])
@pytest.mark.parametrize("kind", ["solution", "other words"])
def test_right_answers_pass(kind: str, number: int, seed: int, exercises: Path, worker: Worker) -> None:
    solution, other = exercises / "solutions" / f"ex{number}.py", Path(__file__).with_name(f"other_ex{number}.py")
    path = solution if kind == "solution" else other
    marked = mark(Submission("", path.name, path.read_bytes()), worker, seed, 120)
    assert [(r.problem.name, r.verdict.status, r.verdict.why) for r in marked.results] == [
        (p.name, "passed", "") for p in SETS[number - 1].problems
    ]


@pytest.mark.parametrize("problem", PROBLEMS, ids=lambda p: p.name)
def test_a_seed_says_what_the_inputs_are(problem: Problem) -> None:
    first, second = fresh_cases(problem), fresh_cases(problem)
    assert [c.label for c in first] == [c.label for c in second]
    right = twin(problem, problem.reference, 0)
    assert agrees(observed(problem, problem.reference), right)
    assert not agrees(observed(problem, problem.reference, 1), right)


def test_points() -> None:
    assert [math.fsum(p.points for p in s.problems) for s in SETS] == [30, 30, 30]
