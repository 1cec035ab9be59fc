"""The scripts behind the tables of two_sided and neighbours, short; and what they count, on points that are known."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pytest
import torch

from jsdsd.sandbox import GaussianMixture

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def test_two_sided_goes_on_where_it_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    module = runpy.run_path(str(BENCHMARKS / "two_sided.py"))
    space = module["main"].__globals__
    space |= {"STEPS": 2, "TARGETS": space["TARGETS"][:1]}
    file = tmp_path / "runs.csv"
    monkeypatch.setattr(sys, "argv", ["two_sided.py", "--seeds", "0", "--file", str(file)])
    module["main"]()
    lines = file.read_text().splitlines()
    assert len(lines) == 1 + len(space["OBJECTIVES"]) and lines[1].startswith("uniform,ring,SDS,0,")
    first = capsys.readouterr().out
    space["run"] = None  # nothing is left to do
    module["main"]()
    assert file.read_text().splitlines() == lines and capsys.readouterr().out == first
    assert first.count("| Ensemble, JSD, share ") == 3 and " ... " in first


def test_neighbours_count_points_by_where_they_lie(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    module = runpy.run_path(str(BENCHMARKS / "neighbours.py"))
    classes = GaussianMixture(torch.tensor([[0.0, 0.0], [9.0, 0.0]]), 1.0, groups=torch.tensor([0, 1]))
    x = torch.tensor([[0.0, 2.9], [9.5, 0.0], [0.0, 40.0], [30.0, 0.0]])
    assert module["ends"](x, classes) == "25% / 25% / 50% (30)"
    assert module["ends"](x[:1], classes) == "100% / 0% / 0%"
    space = module["main"].__globals__
    space |= {"SEEDS": range(1), "PARTICLES": 4, "STEPS": 2}
    module["main"]()
    assert len(capsys.readouterr().out.splitlines()) == 2 + len(module["rows"](classes))
