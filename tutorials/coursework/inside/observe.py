"""What can be seen of an answer: the tensors that it returns and, where a problem asks, their gradients.

The grader looks at references and known mistakes with `observe`; a student's process looks at the student's function
with the same lines and sends the numbers home as JSON, where they are compared.
"""

from __future__ import annotations

import json
import linecache
import pickle
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

Seen = dict[str, Tensor | None]  # by name: outputs, and "gradient with respect to x0"; None: no gradient reaches it
CELL = ", cell "  # in the name of a notebook's cell
LARGEST = 20_000  # numbers in one tensor; the largest right answer has 1,372


class Unreadable(Exception):
    """An answer that cannot be compared at all; the message is for the student."""


@dataclass(frozen=True)
class Wanted:
    """outputs: what is returned, with shapes, in order.  differentiate: arguments whose gradients are compared.
    values: False where only the gradient means something (a surrogate loss)."""

    outputs: tuple[str, ...]
    differentiate: tuple[str, ...] = ()
    values: bool = True


def observe(wanted: Wanted, answer: Callable[..., Any], given: dict[str, Any]) -> tuple[Seen, bool]:
    """What can be seen of answer(*given.values()), and whether a result keeps a graph that nobody asked for.

    Unreadable where it returns no tensors or changes its arguments.
    """
    arguments = {name: x.clone() if isinstance(x, Tensor) else x for name, x in given.items()}
    for name in wanted.differentiate:
        arguments[name].requires_grad_()
    results = _tensors(wanted, answer(*arguments.values()))
    for name, before in given.items():
        if isinstance(before, Tensor) and not torch.equal(arguments[name].detach(), before):
            raise Unreadable(f"it changes its argument `{name}` in place; avoid `+=` and `[...] =` on it")
    seen: Seen = dict(zip(wanted.outputs, (x.detach() for x in results), strict=True)) if wanted.values else {}
    leaves = [arguments[name] for name in wanted.differentiate]
    for name, gradient in zip(wanted.differentiate, _gradients(results, leaves), strict=True):
        seen[f"gradient with respect to {name}"] = gradient
    return seen, not leaves and any(x.requires_grad for x in results)


def _tensors(wanted: Wanted, result: Any) -> tuple[Tensor, ...]:
    names = " and ".join(wanted.outputs)
    if result is None:
        raise Unreadable(f"it returns None instead of {names}: is a `return` missing?")
    results = tuple(result) if isinstance(result, tuple | list) else (result,)
    if len(results) != len(wanted.outputs):
        raise Unreadable(f"it returns {len(results)} things instead of {len(wanted.outputs)}: {names}")
    for x, name in zip(results, wanted.outputs, strict=True):
        if not isinstance(x, Tensor):
            raise Unreadable(f"{name} must be a torch.Tensor, it is of type {type(x).__name__}")
        if x.is_complex() or x.dtype == torch.bool:
            raise Unreadable(f"{name} must hold real numbers, it is of type {x.dtype}")
        if x.numel() > LARGEST:
            raise Unreadable(f"{name} holds {x.numel():,} numbers, far more than asked for: its shape is {[*x.shape]}")
    return results


def _gradients(results: tuple[Tensor, ...], leaves: list[Tensor]) -> Sequence[Tensor | None]:
    """Of sum_i <c_i, result_i> with random c_i; scalars get c = 1, so that a loss has its own gradient."""
    if not leaves:
        return []
    g = torch.Generator().manual_seed(1)
    total = torch.zeros((), dtype=torch.float64)
    for x in results:
        c = torch.randn(x.shape, generator=g, dtype=torch.float64) if x.ndim else torch.ones((), dtype=torch.float64)
        total = total + (c * x).sum()
    if not total.requires_grad:
        return [None] * len(leaves)
    return torch.autograd.grad(total, leaves, allow_unused=True)


# ------------------------------------------------------------------------------------- inside a student's process
def report(job: dict[str, Any]) -> str:
    """What is sent home, JSON: what stands in the text, or what one function answers."""
    import source  # beside this file, in the child only

    try:
        job["cells"] = [(name, source.without_magics(t) if CELL in name else t) for name, t in job["cells"]]
        if "problem" not in job:
            return json.dumps(source.look(job["cells"]))
        return json.dumps(run(job))
    except BaseException as error:  # SystemExit and KeyboardInterrupt too
        return json.dumps(_accident(error, job))


def run(job: dict[str, Any]) -> dict[str, Any]:
    """{"seen": one table per case, "again": the first case once more, "keeps": a graph is left} or {"error": ...}."""
    module = ModuleType("exercise")
    module.__file__, sys.modules["exercise"] = job["name"], module  # dataclasses look their module up
    spoilt = []
    for name, text in job["cells"]:
        try:
            linecache.cache[name] = (len(text), None, text.splitlines(keepends=True), name)
            exec(compile(text, name, "exec", dont_inherit=True), module.__dict__)
        except BaseException as error:
            if CELL not in name:  # in a notebook, cells that fail stand beside those that work
                return {**_accident(error, job), "error": "file"}
            spoilt.append(_accident(error, job)["text"])
    answer = getattr(module, job["problem"], None)
    if answer is None:
        return {"error": "missing", "text": "\n".join(spoilt)}
    if not callable(answer):
        return {"error": "no function", "text": ""}
    seen: list[dict[str, Any]] = []
    keeps = False
    for case in [*range(job["count"]), 0]:  # the first case twice: the same numbers must come out
        torch.manual_seed(len(seen))
        table, kept = observe(job["wanted"], answer, pickle.loads(job["cases"])[case])
        seen.append({name: _numbers(x) for name, x in table.items()})
        keeps |= kept
    return {"seen": seen[:-1], "again": seen[-1], "keeps": keeps}


def _numbers(x: Tensor | None) -> dict[str, Any] | None:
    return None if x is None else {"shape": list(x.shape), "values": x.double().flatten().tolist()}


def _accident(error: BaseException, job: dict[str, Any]) -> dict[str, Any]:
    """The exception in words, with the last line of the student's file that it passed."""
    if isinstance(error, Unreadable):
        return {"error": "unreadable", "text": str(error)}
    names = {name for name, _ in job["cells"]}
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if f.filename in names]
    kind, last = "raised", own[-1] if own else None
    if isinstance(error, NotImplementedError) and last and frames[-1] is last and last.name != job.get("problem"):
        return {"error": "blank", "text": f"It calls `{last.name}` (line {last.lineno}), which is still a blank."}
    where = f"\n    line {last.lineno}: {last.line}" if last else ""
    if last and len(names) > 1:
        where = where.replace("line", f"{last.filename}, line", 1)
    if isinstance(error, SyntaxError):
        where = f"\n    line {error.lineno}: {(error.text or '').strip()[:100]}"
        error = SyntaxError(error.msg)
    text = f"{error}"[:500]
    return {"error": kind, "type": type(error).__name__, "text": f"{type(error).__name__}: {text}{where}"}
