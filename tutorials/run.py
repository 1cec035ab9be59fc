"""`python tutorials/run.py`: every tutorial as a notebook, outputs kept, seconds printed; stops at a false claim.

The notebooks go to build/tutorials, where the site takes them from. JSDSD_FAST=1 makes short runs of them.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient

HERE = Path(__file__).parent
OUT = HERE.parent / "build" / "tutorials"


def execute(source: Path, out: Path) -> float:
    """Run one tutorial (.py, percent format) and write it with its outputs as .ipynb; returns seconds.

    CellExecutionError, with the cell and its traceback, where a cell fails; then nothing is written.
    """
    notebook = jupytext.read(source)
    started = time.perf_counter()
    where = {"metadata": {"path": HERE.parent}}
    NotebookClient(
        notebook, timeout=900, kernel_name="python3", resources=where, extra_arguments=["--log-level=ERROR"],
        coalesce_streams=True,  # prints of one cell stay one block, however slowly they come
    ).execute()  # fmt: skip
    seconds = time.perf_counter() - started
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if worth_showing(output)]
    out.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, out / f"{source.stem}.ipynb")
    return seconds


def worth_showing(output: nbformat.NotebookNode) -> bool:
    """Prints and pictures; not the value of a plotting call, nor what libraries say on stderr about themselves (the
    test suite runs every tutorial with warnings as errors).
    """
    return output.output_type == "display_data" or (output.output_type == "stream" and output.name == "stdout")


def main(arguments: Sequence[str] | None = None) -> None:
    p = argparse.ArgumentParser(prog="python tutorials/run.py", description=__doc__)
    p.add_argument("numbers", nargs="*", type=int, help="which tutorials, as 1 2 3 (default: all)")
    p.add_argument("--missing", action="store_true", help="only those that have no notebook newer than the source")
    p.add_argument("-o", "--out", type=Path, default=OUT, help="folder of the notebooks (default: build/tutorials)")
    args = p.parse_args(arguments)
    for source in sorted(HERE.glob("[0-9]*.py")):
        made = args.out / f"{source.stem}.ipynb"
        if args.numbers and int(source.stem[:2]) not in args.numbers:
            continue
        if args.missing and made.exists() and made.stat().st_mtime > source.stat().st_mtime:
            continue
        print(f"{source.stem:40} {execute(source, args.out):6.1f} s", flush=True)


if __name__ == "__main__":
    main()
