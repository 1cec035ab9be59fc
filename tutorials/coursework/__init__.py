"""The checker of the coursework: `python tutorials/grade.py tutorials/exercises/ex1.py`.

Says per problem whether a student's function is right and, if not, what is wrong with its shape, value or gradient,
and which mistake it is, as far as the checker knows it by name.  One file or a class: the function runs in a process
of its own, under limits, without the reference; its numbers are compared here.
"""

from __future__ import annotations

from . import distillation, divergences, rendering
from .problem import Case, Mistake, Problem, ProblemSet
from .verdict import Verdict

SETS: tuple[ProblemSet, ...] = (divergences.SET, distillation.SET, rendering.SET)

__all__ = ["SETS", "Case", "Mistake", "Problem", "ProblemSet", "Verdict"]
