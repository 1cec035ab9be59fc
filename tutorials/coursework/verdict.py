"""From what was seen of an answer to a verdict: passed, or what is wrong with it, and why."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import torch
from torch import Tensor

from .inside.observe import Seen
from .problem import PUBLIC_SEED, Mistake, Problem, fresh_cases, observed

TOLERANCE = 1e-5  # of the largest entry: far above rounding in float64, far below every mistake
Status = Literal["passed", "wrong", "not done yet", "error"]


@dataclass(frozen=True)
class Verdict:
    """status; what: a few words ("wrong value: KL's arguments swapped"); why: the sentences below them."""

    status: Status
    what: str = ""
    why: str = ""


def same(a: Tensor | None, b: Tensor | None) -> bool:
    """One shape, and equal within TOLERANCE of b's largest finite entry; NaN equals NaN."""
    if a is None or b is None:
        return a is b
    if a.shape != b.shape:
        return False
    a, b = a.double(), b.double()
    finite = b[b.isfinite()].abs()
    scale = max(float(finite.max()), 1e-8) if finite.numel() else 1.0  # below that, rounding has the say
    return torch.allclose(a, b, rtol=TOLERANCE, atol=TOLERANCE * scale, equal_nan=True)


def agrees(left: list[Seen], right: list[Seen]) -> bool:
    """The same on every case."""
    return all(same(a[name], b[name]) for a, b in zip(left, right, strict=True) for name in b)


@cache
def twin(problem: Problem, answer: Callable[..., Any], seed: int) -> list[Seen]:
    """What can be seen of the reference or of a known mistake; computed once."""
    return observed(problem, answer, seed)


def diagnose(problem: Problem, got: list[Seen], seed: int = PUBLIC_SEED) -> Verdict:
    """The verdict on what was seen of an answer to the inputs of `seed`."""
    right = twin(problem, problem.reference, seed)
    if agrees(got, right):
        return Verdict("passed")
    kind = _kind(got, right)
    mistake = recognise(problem, got, seed)
    if mistake is not None:
        return Verdict("wrong", f"wrong {kind}: {mistake.name}", mistake.why)
    name, sentence = _factor(got, right)
    return Verdict("wrong", f"wrong {kind}" + (f": {name}" if name else ""),
                   _describe(problem, got, right, seed) + sentence)  # fmt: skip


def recognise(problem: Problem, got: list[Seen], seed: int = PUBLIC_SEED) -> Mistake | None:
    """The first known mistake that gives the same answers, or None."""
    return next((m for m in problem.mistakes if agrees(got, twin(problem, m.answer, seed))), None)


def _kind(got: list[Seen], right: list[Seen]) -> str:
    """ "shape", "value" or "gradient": the first that is wrong."""
    pairs = [(name, a[name], b[name]) for a, b in zip(got, right, strict=True) for name in b]
    if any(a is not None and b is not None and a.shape != b.shape for _, a, b in pairs):
        return "shape"
    wrong = {name for name, a, b in pairs if not same(a, b)}
    return "gradient" if all(name.startswith("gradient with") for name in wrong) else "value"


def _describe(problem: Problem, got: list[Seen], right: list[Seen], seed: int) -> str:
    """What is wrong with an answer whose mistake has no name."""
    labels = [case.label for case in fresh_cases(problem, seed)]
    for label, a, b in zip(labels, got, right, strict=True):
        for name in b:
            if not same(a[name], b[name]):
                wrong = [x for x, c, d in zip(labels, got, right, strict=True) if not agrees([c], [d])]
                fine = [x for x in labels if x not in wrong]
                where = f"Right for {'; '.join(fine)}; wrong for {'; '.join(wrong)}. " if fine else ""
                return where + _difference(name, label, a[name], b[name])
    raise AssertionError("called for a right answer")


def _difference(name: str, label: str, a: Tensor | None, b: Tensor | None) -> str:
    if b is None:
        return f"The {name} should not exist."
    if a is None:
        return (
            f"There is no {name}: nothing that is returned depends on it through autograd. "
            "`.detach()`, `.item()`, `.numpy()`, `torch.tensor(...)` and `no_grad` cut the graph."
        )
    if a.shape != b.shape:
        hint = ""
        if a.numel() == b.numel():
            hint = " As many numbers, so reshape them: an axis too many or too few, or in another order."
        elif a.ndim < b.ndim:
            hint = " An axis is gone: say over which one to sum or average, as in `.sum(-1)`."
        elif a.ndim > b.ndim:
            hint = " An axis is left that should have been summed over, or broadcasting has made one."
        return f"{name} has shape {tuple(a.shape)}, it should be {tuple(b.shape)} (case: {label}).{hint}"
    if not a.isfinite().all() and b.isfinite().all():
        return f"{name} holds a NaN or an infinite number (case: {label}): 0/0, log(0), or exp of a large number."
    gap = torch.where(a.double() == b.double(), 0.0, (a.double() - b.double()).abs()).nan_to_num(torch.inf)
    index = tuple(int(i) for i in torch.unravel_index(gap.argmax(), gap.shape))
    at = f" at {list(index)}" if index else ""
    return f"{name}{at} is {float(a[index]):.6g}, it should be {float(b[index]):.6g} (case: {label})."


FACTORS = {
    "sign reversed": -1.0, "factor 2 too much": 2.0, "half of it": 0.5, "minus twice": -2.0, "minus half": -0.5,
    "log base 2 instead of nats": 1 / math.log(2), "log base 10 instead of nats": 1 / math.log(10),
}  # fmt: skip


def _factor(got: list[Seen], right: list[Seen]) -> tuple[str, str]:
    """A name, if there is one, and a sentence where everything is a constant times the right answer."""
    pairs = [(a[name], b[name]) for a, b in zip(got, right, strict=True) for name in b]
    if any(a is None or b is None or a.shape != b.shape or not a.isfinite().all() for a, b in pairs):
        return "", ""
    mine, good = (torch.cat([p[i].double().flatten() for p in pairs]) for i in (0, 1))  # type: ignore[union-attr]
    factor = float(mine @ good / (good @ good))
    if abs(factor) < 1e-3 or not same(mine, factor * good):
        return "", ""
    name = next((name for name, x in FACTORS.items() if abs(factor - x) < 1e-4), "")
    if factor < 0 and name == "sign reversed":
        return name, " The sign is reversed everywhere."
    return name, f" Every entry is {factor:.6g} times the right one."
