"""The page of results: every planned run is made once, kept, and told as it is."""

from __future__ import annotations

import statistics
from collections import Counter
from pathlib import Path

import pytest

from benchmarks.evidence import sandbox as results
from benchmarks.evidence.sandbox import CORE_TARGETS, EXACT, LEARNED, MAIN, SETTINGS, Run, all_runs, planned, report


def made_up(run: Run) -> Run:
    """A run nobody made: its divergence tells which one it is."""
    value = 0.001 * (1 + run.seed) * (3 if run.objective == "ensemble_reverse_kl" else 1)
    return Run(*run.key, value, 1.0, 0.5, 0.1)  # type: ignore[arg-type]


def test_the_plan_holds_every_seed_of_every_target_once() -> None:
    plan = list(planned(10, 10, 1500))
    assert max(Counter(run.key for run in plan).values()) == 1
    for setting in MAIN:
        for objective in (*EXACT, *LEARNED):
            some = [r for r in plan if r.setting == setting and r.objective == objective]
            for target in CORE_TARGETS:
                assert sorted(r.seed for r in some if r.target == target) == list(range(10))
            assert sorted(r.target for r in some if "random" in r.target) == [f"random:{1000 + i}" for i in range(10)]
    assert {run.setting for run in plan} == set(SETTINGS)


def test_runs_are_kept_line_by_line_and_resumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan, file, made = list(planned(1, 1, 1500)), tmp_path / "runs.csv", []

    def stops_after_ten(run: Run) -> Run:
        if len(made) == 10:
            raise KeyboardInterrupt
        made.append(run.key)
        return made_up(run)

    monkeypatch.setattr(results, "perform", stops_after_ten)
    with pytest.raises(KeyboardInterrupt):
        all_runs(file, plan, resume=False)
    assert len(file.read_text(encoding="utf-8").splitlines()) == 1 + 10
    monkeypatch.setattr(results, "perform", lambda run: made.append(run.key) or made_up(run))
    assert all_runs(file, plan, resume=True) == [made_up(run) for run in plan]
    assert made == [run.key for run in plan]  # none twice
    assert all_runs(tmp_path / "none.csv", plan, resume=True, seconds=0) == []  # no time, no run


def test_the_report_says_median_and_extremes_of_all_seeds_and_the_ratio() -> None:
    runs = [made_up(run) for run in planned(10, 10, 1500)]
    page = report(runs, "speed")
    values = [0.001 * (1 + seed) for seed in range(10)]
    cell = f"{statistics.median(values):.5f} ({min(values):.5f} ... {max(values):.5f}; 10)"
    assert f"| JSD, ensemble | {cell} | {cell} | {cell} | {cell} |" in page
    rows = [line for line in page.splitlines() if line.startswith("| uniform, rate 0.01 |")]
    assert len(rows) == 1 and rows[0].endswith("| 0.33 |")  # JSD a third of reverse KL, as made up
    assert "| covers: mean 0.00, std 3.12" in page and page.endswith("speed")


def test_one_run_is_fit_particles_with_that_setting() -> None:
    run = results.perform(Run("ring", "sds", "uniform, 100 steps", 3, 1500))
    assert run.key == ("ring", "sds", "uniform, 100 steps", 3, 1500)
    assert 0 <= run.mode_jsd < 0.7 and 0 <= run.on_mode <= 1 and run.seconds > 0


def test_figures_and_speed_come_out(tmp_path: Path) -> None:
    results.figures(tmp_path, steps=3)
    assert sorted(f.name for f in tmp_path.iterdir()) == [
        "landscape.png",
        "one_gaussian.png",
        "particles.png",
        "weights.png",
    ]
    assert results.speed_table(((8, 2),)).splitlines()[-1].startswith("| 8 | ")
