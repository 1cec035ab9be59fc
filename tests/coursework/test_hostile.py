"""No file gets marks that it has not earned, harms anybody, or costs another problem its marks."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from coursework import SETS
from coursework.handed_in import Submission
from coursework.marking import Marked, mark
from coursework.process import Worker

sys.path.insert(0, str(Path(__file__).parent))  # the files lie beside this one
from hostile import FILES, INSIDE

ROOT = Path(__file__).resolve().parents[2]


def marks(worker: Worker, content: bytes, name: str = "ex1.py", seconds: float = 2.0) -> Marked:
    return mark(Submission("somebody", name, content), worker, 7, seconds)


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's locks are Linux's")
@pytest.mark.parametrize(("what", "text", "begins", "points"), INSIDE, ids=[x[0] for x in INSIDE])
def test_what_a_file_does_changes_no_mark(
    what: str, text: str, begins: str, points: int, worker: Worker, tmp_path: Path
) -> None:
    victim = tmp_path / "neighbour.py"
    victim.write_text("def kl(p, q): ...", encoding="utf-8")
    for key, value in (("{ROOT}", ROOT), ("{VICTIM}", victim), ("{GRADER}", os.getpid()), ("{{}}", "{}")):
        text = text.replace(key, str(value))
    marked = marks(worker, text.encode())
    by_name = {r.problem.name: r for r in marked.results}
    assert by_name["kl"].points == points
    assert (by_name["kl"].verdict.what or by_name["kl"].verdict.status).startswith(begins), by_name["kl"]
    assert by_name["discriminator"].verdict.status == "passed", by_name["discriminator"]
    assert victim.read_text(encoding="utf-8") == "def kl(p, q): ..."
    assert "\033" not in by_name["kl"].printed and len(by_name["kl"].printed) < 3000


@pytest.mark.parametrize(("what", "content", "points", "told"), FILES, ids=[x[0] for x in FILES])
def test_a_file_of_another_kind(what: str, content: bytes, points: int, told: str, worker: Worker) -> None:
    if len(content) > 2**20:  # as it is read from a disk
        content = "ex1.py is larger than 1 MiB"  # type: ignore[assignment]
    marked = marks(worker, content)
    assert sum(r.points for r in marked.results) == points, marked
    assert told in marked.trouble + "".join(r.verdict.why for r in marked.results)


def test_there_are_35() -> None:
    assert len(INSIDE) >= 35 and len({x[0] for x in INSIDE + FILES}) == len(INSIDE) + len(FILES)
    assert SETS[0].problems[0].name == "kl"
