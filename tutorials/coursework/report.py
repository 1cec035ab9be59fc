"""What was found, for a student, a teacher's table, and Gradescope."""

from __future__ import annotations

import csv
import json
import re
import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from .marking import Marked, Result
from .verdict import Verdict


def lines(number: int, result: Result) -> str:
    """What is said about one problem."""
    problem, verdict = result.problem, result.verdict
    text = f"{number}  {problem.name:<19}{result.points:>2} of {problem.points}   {verdict.what or verdict.status}"
    for part in verdict.why.splitlines():
        text += "\n" + textwrap.fill(part.strip(), 100, initial_indent=" " * 6, subsequent_indent=" " * 6)
    printed = result.printed.strip("\n").split("\n")
    if any(printed):
        text += "\n      printed:\n" + "\n".join(f"      | {line[:100]}" for line in printed[-10:])
    return text


def summary(results: Sequence[Result]) -> str:
    """The last line: points, and how many problems are where."""
    passed = sum(r.verdict.status == "passed" for r in results)
    blank = sum(r.verdict.status == "not done yet" for r in results)
    counts = f"{passed} passed, {len(results) - passed - blank} to mend, {blank} not done yet"
    points, most = sum(r.points for r in results), sum(r.problem.points for r in results)
    return f"score: {points} of {most} points ({counts})"


def whole(marked: Marked) -> str:
    """Everything about one file."""
    if marked.trouble:
        return f"{marked.name}\n\n{marked.trouble}\n"
    assert marked.set
    told = "\n".join(lines(n, r) for n, r in enumerate(marked.results, 1))
    return f"{marked.name}: {marked.set.title}\n\n{told}\n\n{summary(marked.results)}\n"


# ------------------------------------------------------------------------------------------------- a class's table
def alike(marked: Sequence[Marked], given: Iterable[int], least: float = 0.5) -> dict[int, tuple[float, str]]:
    """By position: the other student whose file shares most, and how much of both, as soon as it is `least`.

    Jaccard's index of the runs of 12 tokens that are not in the file with the blanks, names and comments left out.  A
    hint to look, no proof: right answers to small problems are alike.
    """
    prints = [set(m.fingerprint) - set(given) for m in marked]
    found: dict[int, tuple[float, str]] = {}
    for i, a in enumerate(prints):
        for j, b in enumerate(prints[:i]):
            share = len(a & b) / max(1, len(a | b))
            if share < least or marked[i].student == marked[j].student or min(len(a), len(b)) < 40:
                continue
            for mine, other in ((i, j), (j, i)):
                if share > found.get(mine, (0.0, ""))[0]:
                    found[mine] = (round(share, 2), marked[other].student)
    return found


def table(marked: Sequence[Marked], similar: dict[int, tuple[float, str]]) -> list[dict[str, Any]]:
    """One row per file: points per problem (empty where a set has no such problem), seconds, what was wrong."""
    rows = []
    for i, m in enumerate(marked):
        row: dict[str, Any] = {"student": m.student, "file": m.name, "set": m.set.title if m.set else ""}
        row |= {"points": sum(r.points for r in m.results), "of": sum(r.problem.points for r in m.results)}
        row |= {r.problem.name: r.points for r in m.results}
        row["seconds"] = round(sum(r.seconds for r in m.results), 1)
        told = [(r.problem.name, r.verdict.what) for r in m.results if r.verdict.status in ("wrong", "error")]
        row["mistakes"] = "; ".join(f"{name}: {what}" for name, what in told)
        row["uses of jsdsd"] = " ".join(m.uses)
        row["similar"], row["similar to"] = similar.get(i, ("", ""))
        row["trouble"] = m.trouble
        rows.append(row)
    return rows


def write_csv(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """The table; a text that a spreadsheet would take for a formula gets a quote in front."""
    first, last = ["student", "file", "set", "points", "of"], ["seconds", "mistakes", "uses of jsdsd", "similar"]
    last += ["similar to", "trouble"]
    problems = list(dict.fromkeys(k for row in rows for k in row if k not in first + last))
    with path.open("w", newline="", encoding="utf-8-sig") as file:  # with its mark, Excel reads UTF-8
        writer = csv.DictWriter(file, first + problems + last)
        writer.writeheader()
        for row in rows:
            writer.writerow({k: _no_formula(v) for k, v in row.items()})


def _no_formula(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value[:1] in tuple("=+-@\t") else value


def write_reports(folder: Path, marked: Sequence[Marked]) -> None:
    """A text file per student."""
    folder.mkdir(parents=True, exist_ok=True)
    texts: dict[str, list[str]] = {}
    for m in marked:
        texts.setdefault(m.student, []).append(whole(m))
    names: set[str] = set()
    for name, parts in texts.items():
        safe = (re.sub(r"[^\w. -]", "_", name).strip(". ") or "nobody")[:100]
        safe += f"-{sum(used.startswith(safe) for used in names)}" if safe in names else ""
        names.add(safe)
        (folder / f"{safe}.txt").write_text("\n".join(parts), encoding="utf-8")


def gradescope(marked: Sequence[Marked]) -> str:
    """Gradescope's results.json: https://gradescope-autograders.readthedocs.io/en/latest/specs/#output-format"""
    tests = [_test(n, r) for m in marked for n, r in enumerate(m.results, 1)]
    trouble = "\n".join(m.trouble for m in marked if m.trouble)
    seconds = sum(r.seconds for m in marked for r in m.results)
    result: dict[str, Any] = {"tests": tests, "execution_time": round(seconds)}
    if trouble or not tests:
        result["output"] = trouble or "There is no Python file or notebook in this submission."
    if not tests:
        result["score"] = 0
    return json.dumps(result, indent=1)


def _test(number: int, result: Result) -> dict[str, Any]:
    verdict: Verdict = result.verdict
    name = f"{number}  {result.problem.name}"
    passed = verdict.status == "passed"
    return {"name": name, "score": result.points, "max_score": result.problem.points, "output": lines(number, result),
            "status": "passed" if passed else "failed", "visibility": "visible"}  # fmt: skip
