"""Variants of the problem sets, for another year or another group: what is asked differs by a convention.

A variant asks for what the checker otherwise knows as a mistake with a name: KL in bits, the transmittance for the
opacity, the other convention of guidance.  So every variant has a tested reference, and last year's solution is
recognised: the answer to the question as handed out becomes a mistake.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

from .problem import Mistake, Problem, ProblemSet


@dataclass(frozen=True)
class Variant:
    """problem: whose; mistake: its twin that is now right; edits: of the statement, old and new text in turn."""

    problem: str
    mistake: str
    edits: tuple[tuple[str, str], ...]


VARIANTS: tuple[Variant, ...] = ()

UNCHANGED = "the question as it was"


def chosen(variant: int) -> set[str]:
    """The problems that are changed in a variant: none in variant 0, about half of them in every other."""
    if variant == 0:
        return set()
    rng = random.Random(variant)
    picked = {v.problem for v in VARIANTS if rng.random() < 0.5}
    return picked or {rng.choice(VARIANTS).problem}


def varied(problem_set: ProblemSet, variant: int) -> ProblemSet:
    """The set with the references that the variant asks for."""
    return replace(problem_set, problems=tuple(_varied(p, variant) for p in problem_set.problems))


def _varied(problem: Problem, variant: int) -> Problem:
    if problem.name not in chosen(variant):
        return problem
    name = next(v.mistake for v in VARIANTS if v.problem == problem.name)
    twin = next(m for m in problem.mistakes if m.name == name)
    usual = Mistake(UNCHANGED, problem.reference, "Right for another variant of this problem: read what yours asks.")
    others = tuple(usual if m is twin else m for m in problem.mistakes)
    return replace(problem, reference=twin.answer, mistakes=others)


def statement(text: str, variant: int) -> str:
    """A file of exercises with the statements that the variant asks for.  ValueError: a text to change is not there."""
    for v in VARIANTS:
        if v.problem in chosen(variant) and f"\ndef {v.problem}(" in text:
            head, tail = text.split(f"\ndef {v.problem}(", 1)
            body, *rest = tail.split("\n# %%", 1)
            for old, new in v.edits:
                if body.count(old) != 1:
                    raise ValueError(f"{v.problem}: {old!r} does not stand in the statement once")
                body = body.replace(old, new)
            text = "\n# %%".join([f"{head}\ndef {v.problem}({body}", *rest])
    return text
