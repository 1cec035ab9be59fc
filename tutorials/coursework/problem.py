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
from torch import Tensor

Seen = dict[str, Tensor | None]  # by name: outputs, and "gradient with respect to x0"; None: no gradient reaches it


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
    """

    name: str
    points: int
    reference: Callable[..., Any]
    cases: Callable[[torch.Generator], list[Case]]
    mistakes: tuple[Mistake, ...]
    outputs: tuple[str, ...]
    differentiate: tuple[str, ...] = ()
    values: bool = True


@dataclass(frozen=True)
class ProblemSet:
    """The problems of one file."""

    title: str
    problems: tuple[Problem, ...]


class Unreadable(Exception):
    """An answer that cannot be compared at all; the message is for the student."""


def fresh_cases(problem: Problem) -> list[Case]:
    """The problem's inputs, always the same ones."""
    return problem.cases(torch.Generator().manual_seed(0))


def observe(problem: Problem, answer: Callable[..., Any]) -> list[Seen]:
    """What can be seen of `answer` on every case.  Unreadable where it returns no tensors or changes its arguments."""
    return [_observe(problem, answer, case) for case in fresh_cases(problem)]


def _observe(problem: Problem, answer: Callable[..., Any], case: Case) -> Seen:
    arguments = {name: x.clone() if isinstance(x, Tensor) else x for name, x in case.arguments.items()}
    for name in problem.differentiate:
        arguments[name].requires_grad_()
    results = _tensors(problem, answer(*arguments.values()))
    for name, before in case.arguments.items():
        if isinstance(before, Tensor) and not torch.equal(arguments[name].detach(), before):
            raise Unreadable(f"it changes its argument `{name}` in place; avoid `+=` and `[...] =` on it")
    seen: Seen = dict(zip(problem.outputs, (x.detach() for x in results), strict=True)) if problem.values else {}
    if problem.differentiate:
        leaves = [arguments[name] for name in problem.differentiate]
        for name, gradient in zip(problem.differentiate, _gradients(results, leaves), strict=True):
            seen[f"gradient with respect to {name}"] = gradient
    return seen


def _tensors(problem: Problem, result: Any) -> tuple[Tensor, ...]:
    wanted = " and ".join(problem.outputs)
    if result is None:
        raise Unreadable(f"it returns None instead of {wanted}: is a `return` missing?")
    results = tuple(result) if isinstance(result, tuple | list) else (result,)
    if len(results) != len(problem.outputs):
        raise Unreadable(f"it returns {len(results)} things instead of {len(problem.outputs)}: {wanted}")
    for x, name in zip(results, problem.outputs, strict=True):
        if not isinstance(x, Tensor):
            raise Unreadable(f"{name} must be a torch.Tensor, it is of type {type(x).__name__}")
        if x.is_complex() or x.dtype == torch.bool:
            raise Unreadable(f"{name} must hold real numbers, it is of type {x.dtype}")
    return results


def _gradients(results: tuple[Tensor, ...], leaves: list[Tensor]) -> list[Tensor | None]:
    """Of sum_i <c_i, result_i> with random c_i; scalars get c = 1, so that a loss has its own gradient."""
    g = torch.Generator().manual_seed(1)
    total = torch.zeros((), dtype=torch.float64)
    for x in results:
        c = torch.randn(x.shape, generator=g, dtype=torch.float64) if x.ndim else torch.ones((), dtype=torch.float64)
        total = total + (c * x).sum()
    if not total.requires_grad:
        return [None] * len(leaves)
    return list(torch.autograd.grad(total, leaves, allow_unused=True))
