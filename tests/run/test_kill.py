"""Processes that are shot, one again and again, or one of two that share a list: the bytes of those that never were."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch

import jsdsd
from jsdsd import Asset, checkpoint, jobs
from jsdsd.__main__ import OK, main

sys.path.insert(0, str(Path(__file__).parent))  # test_jobs lies beside this file
from test_jobs import QUICK, equal, grids, launch

# A checkpoint after every step, and each stands unnamed for a while, so that many kills fall into a write.
DRIVER = """
import os, sys, time
from jsdsd import checkpoint
checkpoint.EVERY = 1
os.fsync = lambda file: time.sleep(0.05)
import jsdsd
jsdsd.generate("a red ball", steps=400, resolution=12, views_per_step=1, progress=False, checkpoint=sys.argv[1],
               resume=True)
"""


@pytest.mark.slow
def test_twenty_random_kills_change_nothing(tmp_path: Path, one_thread: None, full_words: None) -> None:
    place, rng = tmp_path / "run.safetensors", random.Random(0)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", DRIVER, str(place)]
    done, in_a_write = 0, 0
    for _ in range(20):
        child = subprocess.Popen(command, env=environment)
        before = place.stat().st_mtime_ns if place.exists() else 0
        while child.poll() is None and (not place.exists() or place.stat().st_mtime_ns == before):
            time.sleep(0.01)  # until it has begun to go on
        time.sleep(rng.uniform(0, 1))
        assert child.poll() is None, "the run ended before it could be killed: make it longer"
        child.kill()
        child.wait()
        in_a_write += any(tmp_path.glob(".*.part"))
        now = checkpoint.read(place).steps  # whole, and never behind
        assert now > done
        done = now
    assert in_a_write >= 3
    environment.pop("PYTEST_CURRENT_TEST", None)
    subprocess.run(command, env=environment, check=True)
    whole = jsdsd.generate("a red ball", steps=400, resolution=12, views_per_step=1, progress=False)
    assert isinstance(whole, Asset)
    again = Asset.load(place)
    assert len(again.history) == 400
    assert all(torch.equal(a, b) for a, b in zip(again.grid.levels, whole.grid.levels, strict=True))


def seconds(asset: Asset) -> list[float]:
    """Of each step: a fingerprint, since no step takes the same time twice."""
    return [record["seconds"] for record in asset.history]


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread", "full_words")
def test_a_launched_process_that_is_killed_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SIGKILL in the middle of a job; the launcher ends the other process too; the command is repeated."""
    monkeypatch.chdir(tmp_path)
    Path("list.txt").write_text("a red ball\na blue mug\na yellow cone\na green duck\n")
    more = ("--steps", "160", "--objective", "sds")  # a checkpoint every 25
    first = subprocess.Popen(**launch(*more), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def folders(name: str) -> set[Path]:
        return {p.parent for p in Path("out").rglob(name)}

    def half_done() -> list[Path]:
        """Folders of runs that are in their first 100 steps; none before another run is finished."""
        begun = sorted(folders(jobs.CHECKPOINT) - folders("run.json")) if folders("run.json") else []
        return [folder for folder in begun if checkpoint.read(folder / jobs.CHECKPOINT).steps < 100]

    while not (found := half_done()):
        assert first.poll() is None, "the runs ended before one could be killed: make them longer"
        time.sleep(0.005)
    prompts = Path("list.txt").read_text().splitlines()
    owner = prompts.index(found[0].name.split("@")[0].replace("_", " ")) % 2
    workers = [p for p in psutil.Process(first.pid).children(recursive=True) if p.environ().get("RANK") == str(owner)]
    workers[0].kill()
    assert first.wait(timeout=600) != OK
    done = {p: p.stat().st_mtime_ns for folder in folders("run.json") for p in folder.rglob("*") if p.is_file()}
    places = folders(jobs.CHECKPOINT) - folders("run.json")
    begun = {folder: seconds(checkpoint.read(folder / jobs.CHECKPOINT).asset) for folder in places}
    assert len(folders("run.json")) < 4 and begun

    subprocess.run(**launch(*more), check=True, capture_output=True, timeout=600)
    assert {p: p.stat().st_mtime_ns for p in done} == done  # what was finished is left alone
    for folder, steps in begun.items():  # what was begun went on from its checkpoint
        assert seconds(Asset.load(folder / "asset.safetensors"))[: len(steps)] == steps
    assert main(["--prompts", "list.txt", "-o", "whole", *QUICK, *more]) == OK
    assert equal(grids("out"), grids("whole"))
