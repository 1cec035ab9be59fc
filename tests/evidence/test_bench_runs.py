"""The plan is balanced, nothing is made twice, what was cut off is made again, and the whole runs end to end."""

from __future__ import annotations

import csv
import sys
from collections import Counter
from pathlib import Path

import pytest

from benchmarks.evidence import __main__ as command
from benchmarks.evidence import jobs, references, runs
from benchmarks.evidence.jobs import COLUMNS, Job, Row, planned
from benchmarks.evidence.prompts import chosen
from benchmarks.evidence.settings import COMPARED, REFERENCES, SETTINGS
from jsdsd.objectives import JSD


def test_the_plan_has_every_row_once_and_a_stopped_run_is_balanced() -> None:
    jobs = planned(chosen(None), [*COMPARED, *REFERENCES], [3.0], [0, 1])
    counts = Counter(runs.key(row) for job in jobs for row in job.rows())
    assert max(counts.values()) == 1
    single = [job for job in jobs if job.setting in ("sds_400", "jsd_k1")]
    assert [(job.seeds, job.setting) for job in single[:4]] == [((0,), "sds_400"), ((0,), "jsd_k1")] * 2
    assert {job.seeds for job in single[:64]} == {(0,)} and {job.seeds for job in single[64:]} == {(1,)}
    joint = [job for job in jobs if job.setting == "ensemble_jsd_400"]
    assert len(joint) == 32 and all(job.seeds == (0, 1) for job in joint)
    assert not planned(chosen(None), ["ensemble_jsd_400"], [3.0], [0])  # one of one is SDS
    assert len([job for job in jobs if job.setting == "fitted"]) == 24  # where there is one truth
    assert len([job for job in jobs if job.setting == "prior"]) == 32


def test_what_is_compared_at_equal_calls_has_equal_calls() -> None:
    """Mean calls per step of the objectives, by their own count, times steps."""
    per_step = {"SDS": 1, "SDI": 3, "JSD": 2, "Ensemble": 1}  # of JSD the two targets
    for setting in SETTINGS.values():
        objective = setting.objective()
        calls = per_step[type(objective).__name__] * setting.steps if setting.compared else 0
        calls += objective.inversion_steps * setting.steps if isinstance(objective, JSD) and setting.compared else 0
        assert ("calls" in setting.compared) == (398 < calls < 402), setting.name
        assert ("steps" in setting.compared) == (bool(setting.compared) and setting.steps == 100), setting.name


def made_up(made: list[Job]) -> object:
    def perform(job: Job, folder: Path, model: str) -> list[Row]:
        if len(made) == 7:
            raise KeyboardInterrupt
        made.append(job)
        return [row | {"error": "", "iou": 0.5, "model": "made-up"} for row in job.rows()]

    return perform


def test_a_row_that_is_there_is_not_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Job] = []
    plan = planned(chosen(["single"]), ["sds_100", "jsd_k1", "ensemble_kl_100"], [3.0], [0, 1])
    monkeypatch.setattr(runs, "tools", lambda model: (None, None, "made-up"))
    monkeypatch.setattr(runs, "perform", made_up(made))
    with pytest.raises(KeyboardInterrupt):
        runs.run(plan, tmp_path)
    file = tmp_path / "rows.csv"
    assert len(file.read_text(encoding="utf-8").splitlines()) == 1 + 7
    with file.open("a", encoding="utf-8") as lines:
        lines.write("single,development,a red mush")  # killed while it wrote
    again: list[Job] = []
    monkeypatch.setattr(runs, "perform", made_up(again))
    for _ in range(10):
        try:
            rows = runs.run(plan, tmp_path)
            break
        except KeyboardInterrupt:
            made += again
            again.clear()
    made += again
    assert made == plan  # none twice, in order
    assert len(rows) == sum(len(job.rows()) for job in plan) == 8 * 2 * 3
    with file.open(encoding="utf-8") as lines:
        assert {len(row) for row in csv.reader(lines)} == {len(COLUMNS)}
    assert runs.run(plan, tmp_path / "no time", seconds=0) == []


def test_rows_of_another_model_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "perform", made_up([]))
    monkeypatch.setattr(runs, "tools", lambda model: (None, None, "made-up"))
    plan = planned(chosen(["a mug"]), ["sds_100"], [3.0], [0])
    runs.run(plan, tmp_path)
    monkeypatch.setattr(runs, "tools", lambda model: (None, None, "other"))
    with pytest.raises(ValueError, match="another model"):
        runs.run(plan, tmp_path)


def test_a_run_that_breaks_is_a_row_that_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def breaks(*_: object, **__: object) -> None:
        raise FloatingPointError("grad is not finite")

    monkeypatch.setattr(jobs, "optimise", breaks)
    rows = runs.run([Job("a blue car", "sds_100", 3.0, (0,), 0.02)], tmp_path)
    assert [row["error"] for row in rows] == ["grad is not finite"] and not list(tmp_path.rglob("*.safetensors"))


def test_the_whole_from_command_to_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two steps an asset, a full and an ambiguous prompt, single and joint settings, references, report; then the same
    command makes nothing more and measures the same."""
    monkeypatch.setattr(references, "DDIM_STEPS", 2)
    monkeypatch.setattr(references, "SAMPLES", 4)
    words = ["bench", "--quick", "--out", str(tmp_path), "--prompts", "a red mushroom", "a duck"]
    monkeypatch.setattr(sys, "argv", [*words, "--settings", "sds_100", "jsd_k1", "ensemble_jsd_100", *REFERENCES])
    command.main()
    first = runs.read_rows(tmp_path / "rows.csv")
    assert len(first) == 2 * (3 * 2 + 32) + 1 and not any(row["error"] for row in first)
    page = (tmp_path / "evidence.md").read_text(encoding="utf-8")
    for words_ in ("#### JSD, k = 1, against SDS", "a grid fitted to true renders", "| a duck |", "diversity.png"):
        assert words_ in page
    assert (tmp_path / "evidence" / "diversity.png").exists()
    told = runs.read_rows(tmp_path / "evidence" / "rows.csv")
    assert sorted(map(runs.key, told)) == sorted(map(runs.key, first))
    assert [row["seed"] for row in told if row["setting"] == "prior"] == [str(i) for i in range(32)] * 2
    assets = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.safetensors")}
    monkeypatch.setattr(sys, "argv", [*sys.argv, "--remeasure"])
    command.main()
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.safetensors")} == assets
    again = {runs.key(row): row for row in runs.read_rows(tmp_path / "rows.csv")}
    assert again == {runs.key(row): row for row in first}
    assert page == (tmp_path / "evidence.md").read_text(encoding="utf-8")
    assert "13/13 " in capsys.readouterr().out
    # the rows without their assets, as in a clone: figures of before stay, and the page with them
    kept = (tmp_path / "evidence" / "saturation.png", tmp_path / "evidence" / "diversity.png")
    before = [path.read_bytes() for path in kept if path.exists()]
    for path in assets:
        path.unlink()
    monkeypatch.setattr(sys, "argv", ["bench", "report", "--quick", "--out", str(tmp_path)])
    command.main()
    assert [path.read_bytes() for path in kept if path.exists()] == before and before
    assert page == (tmp_path / "evidence.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_quick_mode_and_two_processes_make_the_rows_of_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for processes in ("1", "2"):
        out = tmp_path / processes
        monkeypatch.setattr(sys, "argv", ["bench", "--quick", "--processes", processes, "--out", str(out)])
        command.main()
        assert (out / "evidence.md").exists()
    one, two = ({runs.key(row): row for row in runs.read_rows(tmp_path / n / "rows.csv")} for n in ("1", "2"))
    assert len(one) == 4 * (3 * 2 + 32) + 3
    drop = {"seconds": ""}
    assert {k: row | drop for k, row in one.items()} == {k: row | drop for k, row in two.items()}
