"""Files of students, made and checked."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tutorials.coursework import SETS, Problem, Verdict, student

EXERCISES = Path(__file__).resolve().parents[2] / "tutorials" / "exercises"
Check = Callable[..., Verdict]


def problem_named(name: str) -> Problem:
    return next(p for s in SETS for p in s.problems if p.name == name)


@pytest.fixture
def check(tmp_path: Path) -> Check:
    """check(source, problem, seconds) -> the verdict on one problem of a file with this text."""

    def run(source: str, name: str, seconds: float = 60.0) -> Verdict:
        path = tmp_path / "answer.py"
        path.write_text(source, encoding="utf-8")
        return student.check(student.load(path, seconds), problem_named(name), seconds)

    return run


@pytest.fixture(scope="session")
def exercises() -> Path:
    return EXERCISES
