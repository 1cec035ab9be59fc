"""`generate` end to end on the toybox, few steps: same bytes, honest records, errors before work, nothing lost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import jsdsd
from jsdsd.objectives.distillation import DistillationStep
from jsdsd.optimise import Progress
from jsdsd.run import identity
from jsdsd.scene.asset import Asset
from jsdsd.sdxl.guidance import Guidance

QUICK: dict[str, Any] = {"steps": 3, "resolution": 16, "views_per_step": 2, "progress": False}


@pytest.fixture(scope="module")
def guidance() -> Guidance:
    return Guidance.load("toybox")


def one(prompt: str = "a red mushroom", **settings: Any) -> Asset:
    made = jsdsd.generate(prompt, **{**QUICK, **settings})
    assert isinstance(made, Asset)
    return made


@pytest.mark.parametrize("objective", ["sds", "sdi", "jsd", "seeded"])
def test_same_seed_same_bytes(guidance: Guidance, objective: str, tmp_path: Path) -> None:
    first, again, other = (one(model=guidance, objective=objective, seed=s) for s in (1, 1, 2))
    for a, b, c in zip(first.grid.levels, again.grid.levels, other.grid.levels, strict=True):
        assert torch.equal(a, b)
        assert not torch.equal(a, c)


def test_the_records_tell_the_run(guidance: Guidance) -> None:
    calls = {"sds": 1, "sdi": 3, "jsd": 4}
    for objective, expected in calls.items():
        asset = one(model=guidance, objective=objective)
        assert [h["unet_calls"] for h in asset.history] == [expected] * 3
        assert [h["step"] for h in asset.history] == [0, 1, 2]
        assert asset.history[0]["t"] > asset.history[1]["t"] > asset.history[2]["t"]
        assert all(h["seconds"] > 0 and h["grad_norm"] > 0 for h in asset.history)
    assert asset.config["steps"] == 3 and asset.config["seed"] == 0 and asset.config["prompt"] == "a red mushroom"
    assert asset.config["guidance_scale"] == guidance.guidance_scale and "torch" in asset.config["versions"]


def test_a_guidance_scale_of_zero_is_not_the_default(guidance: Guidance) -> None:
    zero = one(model=guidance, guidance_scale=0.0, objective="sds")
    assert zero.config["guidance_scale"] == 0
    assert not torch.equal(zero.grid.levels[0], one(model=guidance, objective="sds").grid.levels[0])


@pytest.mark.parametrize(("objective", "expected"), [("jsd", [4, 4, 4]), ("seeded", [2 + 3 + 2 * 2, 2, 2])])
def test_the_counted_unet_calls_are_the_real_ones(
    guidance: Guidance, monkeypatch: pytest.MonkeyPatch, objective: str, expected: list[int]
) -> None:
    """Seeded: three steps of DDIM, two of learning, forward and backward, then JSD without inversion."""
    count = 0
    real = guidance.unet.forward

    def counted(*args: Any, **rest: Any) -> Any:
        nonlocal count
        count += 1 + torch.is_grad_enabled()  # a call, and the one backward that follows
        return real(*args, **rest)

    monkeypatch.setattr(guidance.unet, "forward", counted)
    asset = one(model=guidance, objective=objective)
    assert [h["unet_calls"] for h in asset.history] == expected and count == sum(expected)


def test_the_default_is_seeded_on_the_toybox(guidance: Guidance) -> None:
    assert one(model=guidance, steps=1).config["objective"] == identity(jsdsd.Seeded())


def test_lists_and_several_assets(guidance: Guidance) -> None:
    made = jsdsd.generate(["a red ball", "a mug"], model=guidance, num_assets=2, seed=5, **{**QUICK, "steps": 1})
    assert [(a.prompt, a.config["seed"]) for a in made] == [
        ("a red ball", 5),
        ("a red ball", 6),
        ("a mug", 5),
        ("a mug", 6),
    ]
    alone = one("a mug", model=guidance, seed=6, steps=1)
    assert all(torch.equal(a, b) for a, b in zip(made[3].grid.levels, alone.grid.levels, strict=True))


@pytest.mark.parametrize(("objective", "calls"), [("two_sided", 2), ("local_jsd", 1), ("csd", 1)])
def test_the_discriminator_is_seen_in_the_history(guidance: Guidance, objective: str, calls: int) -> None:
    asset = one(model=guidance, objective=objective)
    seen = [h["discriminator"] for h in asset.history]
    assert all(h["unet_calls"] == calls for h in asset.history)
    assert seen == [None] * 3 if objective == "csd" else all(0 <= d <= 1 for d in seen) and len(set(seen)) == 3


def test_an_objective_of_ones_own(guidance: Guidance) -> None:
    class Nothing:
        def gradient(self, denoiser: Any, x0: torch.Tensor, t: Any, generator: Any = None) -> DistillationStep:
            return DistillationStep(torch.zeros_like(x0), t, x0, x0, x0, (x0,), None, 0)

    asset = one(model=guidance, objective=Nothing())
    assert [h["unet_calls"] for h in asset.history] == [0, 0, 0]


@pytest.mark.parametrize(
    ("changes", "error", "says"),
    [
        ({"prompt": ""}, ValueError, "the prompt is empty"),
        ({"prompt": []}, ValueError, "the prompt is empty"),
        ({"prompt": "a mushrom"}, ValueError, "did you mean mushroom"),
        ({"prompt": ["a mug", "a corgi"]}, ValueError, "corgi"),
        ({"objective": "kl"}, ValueError, "known are sds, sdi, jsd, seeded"),
        ({"objective": 3}, ValueError, "gradient method"),
        ({"objective": jsdsd.SDS}, ValueError, "an object with a gradient method"),
        ({"objective": jsdsd.Ensemble(jsdsd.JensenShannon())}, ValueError, "the views of one asset are none"),
        ({"objective": jsdsd.TwoSided(jsdsd.JensenShannon())}, ValueError, "needs the target's density"),
        ({"steps": 0}, ValueError, "steps must be"),
        ({"steps": 2.5}, ValueError, "steps must be"),
        ({"num_assets": 0}, ValueError, "num_assets must be"),
        ({"views_per_step": 0}, ValueError, "views_per_step must be"),
        ({"resolution": 4}, ValueError, "resolution must be"),
        ({"guidance_scale": float("nan")}, ValueError, "guidance_scale must be finite"),
        ({"checkpoint": "asset.glb"}, ValueError, "must be a .safetensors"),
        ({"model": "/nowhere/at/all"}, FileNotFoundError, "no model folder"),
    ],
)
def test_bad_arguments_are_refused_before_any_work(
    changes: dict[str, Any], error: type[Exception], says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*args: Any, **rest: Any) -> None:
        raise AssertionError("work was begun")

    monkeypatch.setattr("jsdsd.generation.optimise", never)
    with pytest.raises(error, match=says):
        jsdsd.generate(**{"prompt": "a red mushroom", **QUICK, **changes})


def test_an_unwritable_checkpoint_is_refused_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OSError, match="file"):
        one(checkpoint=tmp_path / "file" / "asset.safetensors")


def test_ctrl_c_hands_over_what_there_is(guidance: Guidance, tmp_path: Path) -> None:
    def stop(progress: Progress) -> None:
        if progress.record.step == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as stopped:
        one(model=guidance, callback=stop)
    asset = stopped.value.asset  # type: ignore[attr-defined]
    assert isinstance(asset, Asset) and len(asset.history) == 2
    assert Asset.load(asset.save(tmp_path / "partial.safetensors")).history == asset.history


def test_ctrl_c_keeps_the_assets_finished_before(guidance: Guidance) -> None:
    seen = 0

    def stop(progress: Progress) -> None:
        nonlocal seen
        seen += 1
        if seen == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as stopped:
        jsdsd.generate("a red ball", model=guidance, num_assets=3, callback=stop, **QUICK)
    assert [a.config["seed"] for a in stopped.value.finished] == [0]  # type: ignore[attr-defined]
    assert stopped.value.asset.config["seed"] == 1  # type: ignore[attr-defined]


def test_a_checkpoint_holds_the_running_asset(guidance: Guidance, tmp_path: Path) -> None:
    path, seen = tmp_path / "run.safetensors", []
    asset = one(model=guidance, checkpoint=path, steps=26, callback=lambda p: seen.append(path.exists()))
    assert not seen[23] and seen[25]
    assert len(Asset.load(path).history) == 26
    assert all(torch.equal(a, b) for a, b in zip(Asset.load(path).grid.levels, asset.grid.levels, strict=True))


class Broken:
    """An objective whose gradient goes wrong at step 1."""

    def __init__(self, value: float):
        self.value, self.step = value, 0

    def gradient(self, denoiser: Any, x0: torch.Tensor, t: Any, generator: Any = None) -> DistillationStep:
        self.step += 1
        grad = torch.full_like(x0, self.value if self.step > 1 else 0.0)
        return DistillationStep(grad, t, x0, x0, x0, (x0,), None, 0)


def test_nan_stops_the_run_in_words(guidance: Guidance) -> None:
    with pytest.raises(FloatingPointError, match="not finite"):
        one(model=guidance, objective=Broken(float("nan")))


def test_an_empty_scene_stops_the_run_in_words(guidance: Guidance, monkeypatch: pytest.MonkeyPatch) -> None:
    from jsdsd.scene.voxels import VoxelGrid

    empty = VoxelGrid([torch.full((4, 16, 16, 16), -30.0)])
    monkeypatch.setattr(VoxelGrid, "blob", lambda *args, **rest: empty)
    with pytest.raises(FloatingPointError, match="empty at step 0"):
        one(model=guidance)
