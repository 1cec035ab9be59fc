"""What a problem is: the right answer, random inputs, and the wrong answers that the checker knows by name.

An answer is judged by what can be seen of it: the tensors that it returns and, where a problem asks for them, the
gradients of a random linear functional of these tensors with respect to some arguments.  A diagnosis is the same
comparison with the wrong twins: an answer that agrees with a twin on every input has made the twin's mistake.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from .inside.observe import Seen, Wanted, observe

PUBLIC_SEED = 0  # of the inputs that a student sees; a class is marked with another


@dataclass(frozen=True)
class Case:
    """One input: what is special about it, and the arguments by name, in the order of the signature."""

    label: str
    arguments: dict[str, Any]


@dataclass(frozen=True)
class Mistake:
    """A wrong answer with a name, the implementation that makes it, and the sentence a student gets to read."""

    name: str
    answer: Callable[..., Any]
    why: str


@dataclass(frozen=True)
class Problem:
    """name: of the function in the student's file.  reference: the right answer.  cases: the same generator state
    gives the same inputs, fresh objects each time.  outputs: what is returned, with shapes, in order.  differentiate:
    arguments whose gradients are compared.  values: False where only the gradient means something (a surrogate loss).
    detached: the statement asks for a result without a graph.
    """

    name: str
    points: int
    reference: Callable[..., Any]
    cases: Callable[[torch.Generator], list[Case]]
    mistakes: tuple[Mistake, ...]
    outputs: tuple[str, ...]
    differentiate: tuple[str, ...] = ()
    values: bool = True
    detached: bool = False

    @property
    def wanted(self) -> Wanted:
        """What is looked at."""
        return Wanted(self.outputs, self.differentiate, self.values)

    @property
    def names(self) -> list[str]:
        """What is compared, by name."""
        return [*(self.outputs if self.values else ()), *(f"gradient with respect to {x}" for x in self.differentiate)]


@dataclass(frozen=True)
class ProblemSet:
    """The problems of one file."""

    title: str
    problems: tuple[Problem, ...]


def fresh_cases(problem: Problem, seed: int = PUBLIC_SEED) -> list[Case]:
    """The problem's inputs, the same ones for the same seed."""
    return problem.cases(torch.Generator().manual_seed(seed))


def observed(problem: Problem, answer: Callable[..., Any], seed: int = PUBLIC_SEED) -> list[Seen]:
    """What can be seen of `answer` on every case."""
    seen = []
    for number, case in enumerate(fresh_cases(problem, seed)):
        torch.manual_seed(number)  # for mistakes that draw noise: in a student's process it is seeded alike
        seen.append(observe(problem.wanted, answer, case.arguments)[0])
    return seen
