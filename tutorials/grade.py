"""`python tutorials/grade.py SUBMISSIONS`: what is right, what is wrong, and why; for one file or a class.

One file is checked with the public inputs.  More than one is a class: a table of marks, with inputs from a seed that
nobody handed in with.
"""

from __future__ import annotations

import argparse
import secrets
import sys
from collections.abc import Sequence
from pathlib import Path

from coursework import SETS, report
from coursework.handed_in import BadFile, Submission, cells, collect
from coursework.marking import EXERCISES, SECONDS, Marked, look, mark, mark_all, which_set
from coursework.problem import PUBLIC_SEED, ProblemSet
from coursework.process import Worker
from coursework.variants import statement, varied

ALL_PASSED, NOT_ALL_PASSED, BAD_INPUT = 0, 1, 2


def parser() -> argparse.ArgumentParser:
    """The command line; its help is the reference."""
    p = argparse.ArgumentParser(
        prog="python tutorials/grade.py", description="Check or mark problem sets of the coursework.",
        allow_abbrev=False,
        epilog="exit codes: 0 every problem passed, 1 not every problem, 2 there is nothing that can be checked",
    )  # fmt: skip
    p.add_argument("submissions", metavar="SUBMISSIONS", type=Path, nargs="+",
                   help="a file (.py or .ipynb), or folders and zip archives of a class as Moodle, Canvas, GitHub "
                        "Classroom or Gradescope give them out")  # fmt: skip
    p.add_argument("--csv", type=Path, metavar="FILE", help="write the table of marks")
    p.add_argument("--reports", type=Path, metavar="FOLDER", help="write what each student is told, a file for each")
    p.add_argument("--gradescope", type=Path, metavar="FILE", help="write Gradescope's results.json")
    p.add_argument("--seed", type=int, metavar="N",
                   help=f"of the inputs (default: {PUBLIC_SEED} for one file, a fresh one for a class)")  # fmt: skip
    p.add_argument("--variant", type=int, metavar="N", default=0,
                   help="of the problem sets: what is asked differs a little (default: 0, as handed out)")  # fmt: skip
    p.add_argument("--write-variant", type=Path, metavar="FOLDER",
                   help="write the files SUBMISSIONS (ex1.py, ...) as that variant asks, and mark nothing")  # fmt: skip
    p.add_argument("--seconds", type=float, default=SECONDS, metavar="S",
                   help=f"of processor time for each problem (default: {SECONDS:g})")  # fmt: skip
    p.add_argument("--processes", type=int, default=2, metavar="N", help="at a time, for a class (default: 2)")
    return p


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    args = parser().parse_args(arguments)
    try:
        if args.write_variant:
            return write_variant(args.submissions, args.write_variant, args.variant)
        submissions = collect(args.submissions)
        if not submissions:
            raise BadFile("there is no Python file or notebook in what was handed in")
        sets = [varied(s, args.variant) for s in SETS]
        if [p.is_file() and p.suffix != ".zip" for p in args.submissions] == [True] and not args.csv:
            marked = [one(submissions[0], sets, args)]
        else:
            marked = class_of(submissions, sets, args)
    except BadFile as error:
        print(f"grade: {error}", file=sys.stderr)
        return BAD_INPUT
    if args.reports:
        report.write_reports(args.reports, marked)
    if args.gradescope:
        args.gradescope.write_text(report.gradescope(marked), encoding="utf-8")
    right = all(m.results and all(r.verdict.status == "passed" for r in m.results) for m in marked)
    return ALL_PASSED if right else NOT_ALL_PASSED


def one(submission: Submission, sets: Sequence[ProblemSet], args: argparse.Namespace) -> Marked:
    """Check one file and say everything as it comes."""
    seed = PUBLIC_SEED if args.seed is None else args.seed
    with Worker() as worker:
        parts = cells(submission.name, submission.content)
        found = which_set(submission.name, look(submission.name, parts, worker)["functions"], sets)
        print(f"{submission.name}: {found.title}\n", flush=True)
        marked = mark(submission, worker, seed, args.seconds, sets, lambda n, r: print(report.lines(n, r), flush=True))
    print(f"\n{report.summary(marked.results)}")
    return marked


def class_of(submissions: Sequence[Submission], sets: Sequence[ProblemSet], args: argparse.Namespace) -> list[Marked]:
    """Mark a class: a line per file, and the table."""
    seed = secrets.randbits(31) if args.seed is None else args.seed
    print(f"{len(submissions)} files; the same inputs again: --seed {seed}", flush=True)

    def line(m: Marked) -> None:
        points = sum(r.points for r in m.results)
        print(f"{m.student:<32.32} {m.name:<28.28} {points:>3}  {m.trouble.splitlines()[0] if m.trouble else ''}",
              flush=True)  # fmt: skip

    marked = mark_all(submissions, seed, args.seconds, sets, args.processes, line)
    with Worker() as worker:
        blanks = [Submission("", p.name, p.read_bytes()) for p in sorted(EXERCISES.glob("*.py"))]
        given = [x for b in blanks for x in look(b.name, cells(b.name, b.content), worker)["print"]]
    rows = report.table(marked, report.alike(marked, given))
    pairs = {tuple(sorted((row["student"], row["similar to"]))) for row in rows if row["similar to"]}
    for one_of_two, other in sorted(pairs):
        print(f"alike, look at both: {one_of_two} and {other}")
    if args.csv:
        report.write_csv(args.csv, rows)
    return marked


def write_variant(files: Sequence[Path], folder: Path, variant: int) -> int:
    """Write problem sets as a variant asks."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in files:
        (folder / path.name).write_text(statement(path.read_text(encoding="utf-8"), variant), encoding="utf-8")
        print(folder / path.name)
    return ALL_PASSED


if __name__ == "__main__":
    sys.exit(main())
