"""From what was handed in to marks: each problem is answered in a process of its own and judged here."""

from __future__ import annotations

import ast
import pickle
import queue
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from . import SETS
from .handed_in import BadFile, Submission, cells, harmless
from .inside.observe import Seen
from .problem import PUBLIC_SEED, Problem, ProblemSet, fresh_cases
from .process import HINTS, Reply, Silence, Worker, tables
from .verdict import Verdict, agrees, diagnose

EXERCISES = Path(__file__).resolve().parents[1] / "exercises"
SECONDS = 20.0
Cells = list[tuple[str, str]]


@dataclass(frozen=True)
class Result:
    """One problem: the verdict, what the function printed, and its seconds of processor time."""

    problem: Problem
    verdict: Verdict
    printed: str = ""
    seconds: float = 0.0

    @property
    def points(self) -> int:
        return self.problem.points if self.verdict.status == "passed" else 0


@dataclass(frozen=True)
class Marked:
    """One file.  trouble: why nothing of it could be run.  uses: names of jsdsd that the exercise does not hand out."""

    student: str
    name: str
    set: ProblemSet | None = None
    results: Sequence[Result] = ()
    trouble: str = ""
    uses: Sequence[str] = ()
    fingerprint: Sequence[int] = field(default=(), repr=False)


def mark(
    submission: Submission, worker: Worker, seed: int = PUBLIC_SEED, seconds: float = SECONDS,
    sets: Sequence[ProblemSet] = SETS, told: Callable[[int, Result], None] = lambda n, result: None,
) -> Marked:  # fmt: skip
    """One file, problem by problem.  told: called with the number and the result of each as it comes."""
    try:
        parts = cells(submission.name, submission.content)
        facts = look(submission.name, parts, worker)
        found = which_set(submission.name, facts["functions"], sets)
    except BadFile as error:
        return Marked(submission.student, submission.name, trouble=str(error))
    results: list[Result] = []
    broken: Verdict | None = None  # a file that cannot be run is not run again for each problem
    for number, problem in enumerate(found.problems, 1):
        if facts["functions"].get(problem.name):
            results.append(Result(problem, Verdict("not done yet")))
        elif broken:
            results.append(Result(problem, broken))
        else:
            result = answer(submission.name, parts, problem, worker, seed, seconds)
            called = set(facts["calls"].get(problem.name, ()))
            wrong = [r.problem.name for r in results if r.verdict.status != "passed" and r.problem.name in called]
            results.append(built_on(result, wrong) if wrong else result)
            broken = runs_at_all(submission.name, parts, result.verdict, worker, seconds)
        told(number, results[-1])
    handed_out = given_names()
    uses = [name for name in facts["used"] if name not in handed_out]
    return Marked(submission.student, submission.name, found, results, "", uses, facts["print"])


def runs_at_all(name: str, parts: Cells, verdict: Verdict, worker: Worker, seconds: float) -> Verdict | None:
    """None where a file that gave no answer to one problem may answer another; otherwise the verdict on all of them."""
    if verdict.what != "no answer":
        return verdict if verdict.what == "the file cannot be run" else None
    job = {"name": name, "cells": parts, "problem": "", "wanted": None, "cases": b"", "count": 0}
    why = worker.ask(job, seconds).why
    return Verdict("error", "the file cannot be run", f"{name}, run by itself: {why}") if why else None


def built_on(result: Result, wrong: Sequence[str]) -> Result:
    """A wrong answer without a name that calls functions which are wrong themselves."""
    verdict = result.verdict
    if verdict.status != "wrong" or ":" in verdict.what:
        return result
    names = " and ".join(f"`{name}`" for name in wrong)
    why = f"It calls {names}, not right yet: mend that first. {verdict.why}"
    return replace(result, verdict=Verdict("wrong", f"{verdict.what}: built on {' and '.join(wrong)}", why))


def mark_all(
    submissions: Sequence[Submission], seed: int, seconds: float = SECONDS, sets: Sequence[ProblemSet] = SETS,
    processes: int = 2, told: Callable[[Marked], None] = lambda marked: None,
) -> list[Marked]:  # fmt: skip
    """Every file of a class, on `processes` workers; the result is in order."""
    with ExitStack() as stack, ThreadPoolExecutor(processes) as pool:
        free: queue.SimpleQueue[Worker] = queue.SimpleQueue()
        for _ in range(processes):
            free.put(stack.enter_context(Worker()))

        def one(submission: Submission) -> Marked:
            worker = free.get()
            try:
                marked = mark(submission, worker, seed, seconds, sets)
            finally:
                free.put(worker)
            told(marked)
            return marked

        return list(pool.map(one, submissions))


def look(name: str, parts: Cells, worker: Worker) -> dict[str, Any]:
    """What stands in the text, found in a process of its own.  BadFile: it is no Python."""
    reply = worker.ask({"name": name, "cells": parts}, SECONDS)
    facts = reply.answer or {}
    if "error" in facts:
        raise BadFile(f"{name} is not valid Python: {harmless(str(facts.get('text'))).removeprefix('SyntaxError: ')}")
    functions, used, fingerprint = facts.get("functions"), facts.get("used"), facts.get("print")
    if not (isinstance(functions, dict) and isinstance(used, list) and isinstance(fingerprint, list)):
        raise BadFile(f"{name} cannot be read. {reply.why}")
    return facts


def which_set(name: str, functions: dict[str, bool], sets: Sequence[ProblemSet] = SETS) -> ProblemSet:
    """The problem set whose functions the file defines.  BadFile if it defines none of any."""
    counts = [sum(p.name in functions for p in s.problems) for s in sets]
    if not any(counts):
        raise BadFile(
            f"{name} has none of the functions of a problem set: start from a copy of ex1.py, ex2.py or ex3.py "
            "in tutorials/exercises and keep their names"
        )
    return sets[counts.index(max(counts))]


def given_names() -> set[str]:
    """The names of jsdsd in the files that are handed out."""
    found = set()
    for path in EXERCISES.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom):
                found |= {x.name for x in node.names}
    return found | {"render"}  # set 3's statement names it


def answer(name: str, parts: Cells, problem: Problem, worker: Worker, seed: int, seconds: float) -> Result:
    """Have the function answer the inputs of `seed`, and judge what comes back."""
    given = [case.arguments for case in fresh_cases(problem, seed)]
    job = {"name": name, "cells": parts, "problem": problem.name, "wanted": problem.wanted}
    reply = worker.ask({**job, "cases": pickle.dumps(given), "count": len(given)}, seconds)
    try:
        verdict = judge(name, problem, reply, len(given), seed)
    except Silence as silence:
        verdict = Verdict("error", "no answer", str(silence))
    return Result(problem, verdict, reply.printed, reply.seconds)


def judge(name: str, problem: Problem, reply: Reply, count: int, seed: int) -> Verdict:
    """The verdict on what a process sent, of which nothing but numbers is believed."""
    if reply.answer is None:
        raise Silence(reply.why)
    if "error" in reply.answer:
        return _accident(name, problem, reply.answer)
    seen, again, keeps = tables(reply.answer, problem.names, count)
    verdict = diagnose(problem, seen, seed)
    if verdict.status == "passed" and keeps:
        return _keeps_a_graph(problem)
    return _fresh_noise(verdict, seen[0], again)


def _fresh_noise(verdict: Verdict, first: Seen, again: Seen) -> Verdict:
    if verdict.status != "passed" and ":" not in verdict.what and not agrees([again], [first]):
        return Verdict("wrong", "wrong value: fresh random numbers",
                       "The same inputs give other numbers each time: it draws noise itself. Whatever is random is "
                       "given, as an argument.")  # fmt: skip
    return verdict


def _keeps_a_graph(problem: Problem) -> Verdict:
    why = ("The numbers are right, but the result still hangs on autograd's graph (`requires_grad`), which then grows "
           "from step to step: end with `.detach()`.")  # fmt: skip
    if problem.detached:
        return Verdict("wrong", "wrong result: keeps a gradient", why)
    return Verdict("passed", "passed, but keeps a gradient", why)


def _accident(name: str, problem: Problem, answer: dict[str, Any]) -> Verdict:
    kind, text = answer["error"], harmless(str(answer.get("text", "")))[:2000]
    hint = HINTS.get(str(answer.get("type")), "")
    text += f"\n({hint})" if hint else ""
    if kind == "missing":
        more = f" It may stand in a cell that fails: {text}" if text else ""
        why = f"There is no function `{problem.name}` in {name}: keep the exercise's names.{more}"
        return Verdict("error", "missing", why)
    if kind == "no function":
        return Verdict("error", "no function", f"`{problem.name}` in {name} is no function any more.")
    if kind == "unreadable":
        return Verdict("wrong", "wrong result", f"As it stands, {text}.")
    if kind == "blank":
        return Verdict("error", "calls a blank", text)
    if kind == "file":
        return Verdict("error", "the file cannot be run", f"{name} stops with {text}")
    return Verdict("error", f"raised {harmless(str(answer.get('type')))[:50]}", f"It stopped with {text}")
