"""Runs that stop and go on: the same bytes as one that never stopped, whatever stopped it."""

from __future__ import annotations

import os
import signal
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

import jsdsd
from jsdsd import checkpoint
from jsdsd.objectives import DistillationStep
from jsdsd.optimise import Progress
from jsdsd.run import Run, identity
from jsdsd.scene.asset import Asset
from jsdsd.sdxl.guidance import Guidance

pytestmark = pytest.mark.usefixtures("one_thread")  # in this process as in those it is compared with
QUICK: dict[str, Any] = {"steps": 5, "resolution": 16, "views_per_step": 1, "progress": False}


@pytest.fixture(scope="module")
def guidance() -> Guidance:
    return Guidance.load("toybox")


@pytest.fixture(autouse=True)
def after_every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "EVERY", 1)


def made(guidance: Guidance, place: Path | None = None, **changes: Any) -> Asset:
    settings = {"prompt": "a red ball", "model": guidance, "checkpoint": place, **QUICK, **changes}
    asset = jsdsd.generate(**settings)
    assert isinstance(asset, Asset)
    return asset


def same(a: Asset, b: Asset) -> bool:
    timeless = [[{k: v for k, v in h.items() if k != "seconds"} for h in x.history] for x in (a, b)]
    grids = all(torch.equal(x, y) for x, y in zip(a.grid.levels, b.grid.levels, strict=True))
    return grids and timeless[0] == timeless[1] and a.prompt == b.prompt and a.config == b.config


def stop_after(steps: int) -> Any:
    def callback(progress: Progress) -> None:
        if progress.record.step == steps:  # before the checkpoint of this step is written
            raise KeyboardInterrupt

    return callback


@pytest.mark.parametrize("objective", ["sds", "sdi", "jsd", "seeded"])
def test_a_run_stopped_anywhere_ends_in_the_same_bytes(guidance: Guidance, tmp_path: Path, objective: str) -> None:
    whole = made(guidance, objective=objective)
    for steps in range(QUICK["steps"]):
        place = tmp_path / f"{steps}.safetensors"
        with pytest.raises(KeyboardInterrupt):
            made(guidance, place, objective=objective, callback=stop_after(steps))
        assert place.exists() == (steps > 0)
        assert same(made(guidance, place, objective=objective, resume=True), whole)
        assert same(made(guidance, place, objective=objective, resume=True), whole)  # nothing left to do
        assert same(Asset.load(place), whole)


def test_own_words_are_learned_again_and_counted_once(guidance: Guidance, tmp_path: Path) -> None:
    place, more = tmp_path / "run.safetensors", {"objective": "seeded", "steps": 4}
    whole = made(guidance, **more)
    with pytest.raises(KeyboardInterrupt):
        made(guidance, place, callback=stop_after(2), **more)
    assert same(made(guidance, place, resume=True, **more), whole)
    learning = 3 + 2 * 2  # few_words in tests/conftest.py: sample steps, and two calls a step
    assert [h["unet_calls"] for h in whole.history] == [2 + learning, 2, 2, 2]


@pytest.mark.parametrize("forgotten", ["generator", "adam", "grid"])
def test_a_resume_that_forgets_a_part_of_the_state_is_noticed(
    guidance: Guidance, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, forgotten: str
) -> None:
    """The wrong twins of the test above: each part of the state matters to the bytes."""
    whole, place = made(guidance), tmp_path / "run.safetensors"
    with pytest.raises(KeyboardInterrupt):
        made(guidance, place, callback=stop_after(3))
    restore = checkpoint.Checkpoint.restore

    def forgetful(self: Any, grid: Any, adam: Any, generator: torch.Generator) -> int:
        fresh = {"generator": generator.get_state(), "adam": adam.state_dict(), "grid": grid.state_dict()}
        kept = {k: v.clone() for k, v in fresh["grid"].items()}
        done = restore(self, grid, adam, generator)
        if forgotten == "generator":
            generator.set_state(fresh["generator"])
        elif forgotten == "adam":
            adam.load_state_dict(fresh["adam"])
        else:
            grid.load_state_dict(kept)
        return done

    monkeypatch.setattr(checkpoint.Checkpoint, "restore", forgetful)
    assert not same(made(guidance, place, resume=True), whole)


def test_a_finished_run_can_be_given_more_steps(guidance: Guidance, tmp_path: Path) -> None:
    place = tmp_path / "run.safetensors"
    short = made(guidance, place, steps=3)
    longer = made(guidance, place, steps=6, resume=True)
    t = [h["t"] for h in longer.history]
    assert [h["t"] for h in short.history] == t[:3]
    assert t[3:] == [h["t"] for h in made(guidance, steps=6).history][3:]  # the rest of the longer run's schedule
    assert longer.config["steps"] == 6 and not torch.equal(longer.grid.levels[-1], short.grid.levels[-1])


def test_each_of_several_assets_has_its_own_checkpoint(guidance: Guidance, tmp_path: Path) -> None:
    place, seen = tmp_path / "run.safetensors", 0
    both: dict[str, Any] = {"prompt": ["a red ball", "a mug"], "num_assets": 2, "model": guidance, **QUICK, "steps": 3}
    whole = jsdsd.generate(**both)

    def stop(progress: Progress) -> None:
        nonlocal seen
        seen += 1
        if seen == 8:  # in the third asset
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        jsdsd.generate(**both, checkpoint=place, callback=stop)
    assert sorted(p.name for p in tmp_path.iterdir()) == [f"run-{i}.safetensors" for i in range(3)]
    seen = 9
    again = jsdsd.generate(**both, checkpoint=place, resume=True, callback=stop)
    assert seen == 9 + 2 + 3  # only what was missing
    assert all(same(a, b) for a, b in zip(again, whole, strict=True))


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
def test_a_kill_in_the_middle_of_a_write_leaves_the_checkpoint_before(
    guidance: Guidance, tmp_path: Path, share: float
) -> None:
    """SIGKILL, in a process of its own, when `share` of the third checkpoint's bytes are on the disk."""
    place, count = tmp_path / "run.safetensors", 0
    content = Asset.safetensors

    def killed(self: Asset, more: Any) -> bytes:
        nonlocal count
        count += 1
        data = content(self, more)
        if count == 3:
            part = next(place.parent.glob(f".{place.name}.*.part"))
            part.write_bytes(data[: int(share * len(data))])
            os.kill(os.getpid(), signal.SIGKILL)
        return data

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python: fork in a process with threads
        child = os.fork()
    if child == 0:
        torch.set_num_threads(1)
        Asset.safetensors = killed  # type: ignore[method-assign]
        try:
            made(guidance, place)
        finally:
            os._exit(0)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    assert checkpoint.read(place).steps == 2
    assert len(list(tmp_path.glob(".*.part"))) == 1
    assert same(made(guidance, place, resume=True), made(guidance))
    assert [p.name for p in tmp_path.iterdir()] == [place.name]  # what the killed process left is gone too


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"seed": 1}, "its seed is 0, not 1"),
        ({"prompt": "a mug"}, "its prompt is 'a red ball', not 'a mug'"),
        ({"objective": "sds"}, "its objective is"),
        ({"guidance_scale": 2.0}, "its guidance_scale is"),
        ({"negative_prompt": ""}, "its negative_prompt is None, not ''"),
        ({"resolution": 17}, "its resolution is 16, not 17"),
        ({"steps": 2}, "has 5 steps already, more than the 2"),
    ],
)
def test_a_checkpoint_of_another_run_is_refused(
    guidance: Guidance, tmp_path: Path, changes: dict[str, Any], says: str
) -> None:
    place = tmp_path / "run.safetensors"
    made(guidance, place)
    before = place.read_bytes()
    with pytest.raises(ValueError, match=says):
        made(guidance, place, resume=True, **changes)
    assert place.read_bytes() == before


def test_what_cannot_be_resumed_is_said(guidance: Guidance, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="needs checkpoint="):
        made(guidance, resume=True)
    plain = made(guidance).save(tmp_path / "asset.safetensors")
    with pytest.raises(ValueError, match="without the state of its run"):
        made(guidance, plain, resume=True)
    plain.write_bytes(plain.read_bytes()[:100])
    with pytest.raises(ValueError, match="damaged"):
        made(guidance, plain, resume=True)


class Restless:
    """An objective of one's own, no dataclass, that learns: its gradient grows with the steps it has seen."""

    def __init__(self) -> None:
        self.seen = torch.zeros(())

    def gradient(self, denoiser: Any, x0: torch.Tensor, t: Any, generator: Any = None) -> DistillationStep:
        self.seen = self.seen + 1
        return DistillationStep(0.1 * self.seen * x0.detach().sign(), t, x0, x0, x0, (x0,), None, 0)

    def state(self) -> dict[str, torch.Tensor]:
        return {"seen": self.seen}

    def restore(self, state: Mapping[str, torch.Tensor]) -> None:
        self.seen = state["seen"]


def test_what_an_objective_learned_goes_on_with_its_run_and_with_no_other(guidance: Guidance, tmp_path: Path) -> None:
    objective, place = Restless(), tmp_path / "run.safetensors"
    first, second = jsdsd.generate("a red ball", model=guidance, objective=objective, num_assets=2, **QUICK)  # type: ignore[misc]
    assert objective.seen == 0  # each asset has its own copy
    alone = jsdsd.generate("a red ball", model=guidance, objective=objective, seed=1, **QUICK)
    assert same(second, alone) and not same(first, second)  # type: ignore[arg-type]
    with pytest.raises(KeyboardInterrupt):
        made(guidance, place, callback=stop_after(2), objective=objective)
    assert same(made(guidance, place, resume=True, objective=Restless()), first)
    with pytest.raises(ValueError, match="another run: its objective"):
        made(guidance, place, resume=True, objective=jsdsd.SDS(), steps=6)


def test_identity_is_the_class_and_its_fields_and_no_repr() -> None:
    assert identity(jsdsd.SDS()) == "jsdsd.objectives.SDS(guidance_scale=None)"
    assert identity(jsdsd.SDS(2.0)) != identity(jsdsd.SDS(3.0))
    assert identity(Restless()) == identity(Restless()) and identity(Restless()).endswith(".Restless()")
    assert identity(torch.ones(2)) == identity(torch.ones(2)) != identity(torch.zeros(2))


def test_a_file_of_version_0_1_goes_on() -> None:
    """It has the objective's repr, and no digest of the model."""
    old = Run.from_json({"prompt": "a mug", "objective": "SDS(guidance_scale=None)", "unknown": 3})
    assert old.differences(Run("a mug", objective=identity(jsdsd.SDS()), weights="x", recipe="y", steps=9)) == []
    assert old.differences(Run("a mug", objective=identity(jsdsd.JSD()))) == ["objective"]
