"""The run: jobs in order, on one or more processes, every row in the CSV file as soon as it is known.

A row that is there is not made again; an asset that is there is measured, not made.  Only this process writes the file,
so any number of workers, and a kill at any time, leave it whole but for at most a last line, which is dropped.
"""

from __future__ import annotations

import csv
import io
import math
import multiprocessing
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from pathlib import Path

import torch

from .jobs import COLUMNS, KEY, Job, Row, perform, tools


def read_rows(file: Path) -> list[Row]:
    """The rows of a results file, values as text; a last line that was cut off is dropped.  [] without a file."""
    if not file.exists():
        return []
    text = file.read_text(encoding="utf-8")
    return list(csv.DictReader(io.StringIO(text[: text.rfind("\n") + 1])))


def key(row: Row) -> tuple[str, ...]:
    """What makes a row another row."""
    return tuple(row[name] for name in KEY)


def as_text(row: Row) -> dict[str, str]:
    """A row as it stands in the file: numbers with five digits, "" for what is not known."""
    texts = {}
    for name in COLUMNS:
        value = row.get(name, "")
        if isinstance(value, float):
            value = "" if math.isnan(value) else f"{value:.5g}"
        texts[name] = str(value)
    return texts


def run(
    jobs: Sequence[Job],
    folder: Path,
    *,
    processes: int = 1,
    seconds: float = math.inf,
    model: str = "toybox",
    remeasure: bool = False,
) -> list[Row]:
    """The rows of `jobs` that are known in the end.  No job is begun after `seconds`.  remeasure: measure the assets
    again, all of them; runs that failed stay failed.  ValueError where the file's rows are of another model."""
    file = folder / "rows.csv"
    folder.mkdir(parents=True, exist_ok=True)
    rows = {key(row): row for row in read_rows(file)}
    others = {row["model"] for row in rows.values()} - {tools(model)[2]}
    if others:
        raise ValueError(f'"{file}" holds rows of another model ({", ".join(others)}): choose another --out')
    if remeasure:
        rows = {k: row for k, row in rows.items() if row["error"]}
    left = [job for job in jobs if any(key(row) not in rows for row in job.rows())]
    part = file.with_suffix(".part")
    with part.open("w", newline="", encoding="utf-8") as lines:
        writer = csv.DictWriter(lines, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows.values())
        lines.flush()
        part.replace(file)
        began = time.perf_counter()
        for number, (job, found) in enumerate(_performed(left, folder, processes, began + seconds, model)):
            new = [as_text(row) for row in found]
            writer.writerows(new)
            lines.flush()
            rows |= {key(row): row for row in new}
            said = new[0]["error"] or f"iou {new[0]['iou'] or '-'}"
            minutes = (time.perf_counter() - began) / 60
            print(
                f"{number + 1}/{len(left)} {minutes:.1f} min: {job.prompt}, {job.setting}, {job.seeds}: {said}",
                flush=True,
            )
    wanted = [key(row) for job in jobs for row in job.rows()]
    return [rows[k] for k in wanted if k in rows]


def _performed(
    jobs: Sequence[Job], folder: Path, processes: int, end: float, model: str
) -> Iterator[tuple[Job, list[Row]]]:
    """(job, its rows) as they are done; the workers never hold more than they work on, so that `end` is kept."""
    if processes == 1:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            for job in jobs:
                if time.perf_counter() < end:
                    yield job, perform(job, folder, model)
        finally:
            torch.set_num_threads(threads)
        return
    spawn = multiprocessing.get_context("spawn")
    waiting = deque(jobs)
    running: dict[Future[list[Row]], Job] = {}
    with ProcessPoolExecutor(processes, mp_context=spawn, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        while True:
            while len(running) < processes and time.perf_counter() < end and waiting:
                job = waiting.popleft()
                running[pool.submit(perform, job, folder, model)] = job
            if not running:
                return
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                yield running.pop(future), future.result()
