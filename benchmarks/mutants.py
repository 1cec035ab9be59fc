"""Do the tests notice?  Eighty one-line mistakes, made one at a time: `python -m benchmarks.mutants [--only ROOM]`.

benchmarks/mutants.csv lists them: file, the line as it stands, the line with the mistake (drawn once, with a seed, from
all operators and comparisons).  Each is written into a copy of the tree, the tests of its room run there, and
out/mutants.csv gets "killed" or "survived"; the command goes on where it stopped.  A line that is no longer there is
told as "gone": mend the list.  Hours on two cores.
"""

from __future__ import annotations

import argparse
import csv
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
TESTS = {"objectives": ["objectives", "sandbox"], "sandbox": ["sandbox"], "scene": ["scene"], "sdxl": ["sdxl", "run"]}
TESTS |= {"toybox": ["toybox"]}  # all others: the run's own


def mutants() -> list[dict[str, str]]:
    with (ROOT / "benchmarks" / "mutants.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def room(mutant: dict[str, str]) -> str:
    return Path(mutant["file"]).parts[1] if len(Path(mutant["file"]).parts) > 2 else "run"


def tried(mutant: dict[str, str], tree: Path) -> str:
    """killed, survived or gone."""
    path = tree / mutant["file"]
    text = path.read_text(encoding="utf-8")
    if text.count(mutant["old"] + "\n") != 1:
        return "gone"
    tests = [f"tests/{name}" for name in TESTS.get(room(mutant), ["run", "test_cli.py"])]
    path.write_text(text.replace(mutant["old"] + "\n", mutant["new"] + "\n"), encoding="utf-8")
    try:
        command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *tests]
        done = subprocess.run(command, cwd=tree, env={**os.environ, "PYTHONPATH": str(tree)}, capture_output=True)
    finally:
        path.write_text(text, encoding="utf-8")
    return "survived" if done.returncode == 0 else "killed"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", help="a room: objectives, sandbox, scene, sdxl, toybox or run")
    parser.add_argument("--out", type=Path, default=Path("out/mutants.csv"))
    args = parser.parse_args()
    args.out.parent.mkdir(parents=True, exist_ok=True)
    known = set(args.out.read_text(encoding="utf-8").splitlines()) if args.out.exists() else set()
    done = {line.split(",")[0] for line in known}
    with tempfile.TemporaryDirectory() as folder, args.out.open("a", encoding="utf-8") as out:
        tree = Path(folder) / "tree"
        shutil.copytree(ROOT, tree, ignore=shutil.ignore_patterns(".*", "out", "build", "site", "runs"))
        for number, mutant in enumerate(mutants()):
            if str(number) not in done and args.only in (None, room(mutant)):
                out.write(f"{number},{mutant['file']},{tried(mutant, tree)}\n")
                out.flush()


if __name__ == "__main__":
    main()
