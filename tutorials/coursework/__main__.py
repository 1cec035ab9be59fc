"""`python -m tutorials.coursework FILE`: what is right, what is wrong, and why."""

from __future__ import annotations

import argparse
import os
import sys
import textwrap
import threading
from collections.abc import Sequence
from pathlib import Path

from . import BadFile, Problem, Verdict, student, which_set

ALL_PASSED, NOT_ALL_PASSED, BAD_INPUT = 0, 1, 2


def parser() -> argparse.ArgumentParser:
    """The command line; its help is the reference."""
    p = argparse.ArgumentParser(
        prog="python -m tutorials.coursework", description="Check a problem set of the coursework.", allow_abbrev=False,
        epilog="exit codes: 0 every problem passed, 1 not every problem, 2 the file cannot be checked",
    )  # fmt: skip
    p.add_argument("file", metavar="FILE", type=Path, help="your copy of tutorials/exercises/ex1.py, ex2.py or ex3.py")
    p.add_argument(
        "--seconds",
        type=float,
        default=20.0,
        metavar="S",
        help="seconds of processor time for each problem (default: 20)",
    )
    return p


def lines(number: int, problem: Problem, verdict: Verdict) -> str:
    """What is printed about one problem."""
    score = problem.points if verdict.status == "passed" else 0
    status = verdict.what if verdict.what else verdict.status
    text = f"{number}  {problem.name:<19}{score:>2} of {problem.points}   {status}"
    for part in verdict.why.splitlines():
        text += "\n" + textwrap.fill(part.strip(), 100, initial_indent=" " * 6, subsequent_indent=" " * 6)
    return text


def summary(results: Sequence[tuple[Problem, Verdict]]) -> str:
    """The last line: points, and how many problems are where."""
    passed = [p for p, v in results if v.status == "passed"]
    blank = sum(v.status == "not done yet" for _, v in results)
    counts = f"{len(passed)} passed, {len(results) - len(passed) - blank} to mend, {blank} not done yet"
    return f"score: {sum(p.points for p in passed)} of {sum(p.points for p, _ in results)} points ({counts})"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    args = parser().parse_args(arguments)
    try:
        problem_set = which_set(args.file)
        print(f"{args.file.name}: {problem_set.title}\n", flush=True)
        submission = student.load(args.file, args.seconds)
        results = []
        for number, problem in enumerate(problem_set.problems, 1):
            results.append((problem, student.check(submission, problem, args.seconds)))
            print(lines(number, *results[-1]), flush=True)
    except BadFile as error:
        print(f"tutorials.coursework: {error}", file=sys.stderr)
        return BAD_INPUT
    print(f"\n{summary(results)}")
    return ALL_PASSED if all(v.status == "passed" for _, v in results) else NOT_ALL_PASSED


if __name__ == "__main__":
    code = main()
    if threading.active_count() > 1:  # code that does not stop when it is asked to
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)
