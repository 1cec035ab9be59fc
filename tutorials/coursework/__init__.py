"""The checker of the coursework: `python -m tutorials.coursework tutorials/exercises/ex1.py`.

Says per problem whether a student's function is right and, if not, what is wrong with its shape, value or gradient,
and which mistake it is, as far as the checker knows it by name.
"""

from __future__ import annotations

from pathlib import Path

from . import distillation, divergences, rendering
from .grade import Verdict
from .problem import Case, Mistake, Problem, ProblemSet
from .student import BadFile, check, function_names, load

SETS: tuple[ProblemSet, ...] = (divergences.SET, distillation.SET, rendering.SET)

__all__ = ["SETS", "BadFile", "Case", "Mistake", "Problem", "ProblemSet", "Verdict", "check_file"]


def which_set(path: Path) -> ProblemSet:
    """The problem set whose functions the file defines.  BadFile if it defines none of any."""
    names = set(function_names(path))
    found = [len(names & {p.name for p in s.problems}) for s in SETS]
    if not any(found):
        raise BadFile(
            f"{path} has none of the functions of a problem set: start from a copy of ex1.py, ex2.py or ex3.py "
            "in tutorials/exercises and keep their names"
        )
    return SETS[found.index(max(found))]


def check_file(path: str | Path, seconds: float = 20.0) -> list[tuple[Problem, Verdict]]:
    """The verdict on every problem of the file's set, in order.

    seconds: processor time that the file, and then each problem, may take.  BadFile where the file cannot be run.
    """
    path = Path(path)
    problems = which_set(path).problems
    submission = load(path, seconds)
    return [(problem, check(submission, problem, seconds)) for problem in problems]
