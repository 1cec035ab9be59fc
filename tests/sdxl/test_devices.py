"""Is everything on the run's device?  Whole runs on a device that only seems to be there, against those on the CPU."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import _disable_current_modes

import jsdsd
from jsdsd import Asset
from jsdsd.optimise import Progress
from jsdsd.sdxl.embeddings import Embeddings
from jsdsd.sdxl.guidance import Guidance
from jsdsd.sdxl.loading import load_pipeline

sys.path.insert(0, str(Path(__file__).parent))  # the device lies beside this file
from elsewhere import DEVICE, There, elsewhere

pytestmark = pytest.mark.usefixtures("one_thread")
QUICK: dict[str, Any] = {"steps": 1, "resolution": 12, "views_per_step": 2, "progress": False, "seed": 1}


def guidance(device: torch.device | str, dtype: torch.dtype = torch.float32) -> Guidance:
    with _disable_current_modes():  # loading has its own use for "meta"
        pipe = load_pipeline("toybox", torch.float32)[0]
    return Guidance(pipe, device=device, dtype=dtype)


def made(model: Guidance, **changes: Any) -> Asset:
    asset = jsdsd.generate("a red duck", model=model, **{**QUICK, **changes})
    assert isinstance(asset, Asset)
    return asset


def test_the_device_computes_and_refuses_as_a_gpu_does() -> None:
    with elsewhere():
        a, b = torch.arange(6.0, device=DEVICE).view(2, 3), torch.tensor([1.0, 2.0, 3.0])
        assert isinstance(a, There) and a.device.type == DEVICE.type
        assert (a * 2 + b.to(DEVICE)).cpu().tolist() == [[1, 4, 7], [7, 10, 13]]
        assert float((a * torch.tensor(2.0)).sum()) == 30  # a number without a shape may come along
        assert a[:, torch.tensor([2])].cpu().tolist() == [[2], [5]]
        a[0] += 1
        assert a.cpu().tolist() == [[1, 2, 3], [3, 4, 5]]
        for wrong in (lambda: a + b, lambda: b[a.long()[0]], lambda: torch.cat([b, a[0]]), lambda: a @ b):
            with pytest.raises(RuntimeError, match="two devices"):
                wrong()
        w = a.clone().requires_grad_()
        (w.square().sum()).backward()
        assert isinstance(w.grad, There) and torch.equal(w.grad.cpu(), 2 * a.cpu())


@pytest.mark.parametrize(
    "run",
    [
        {"objective": "jsd"},
        {"objective": "seeded"},
        {"objective": "sdi", "negative_prompt": "a blue mug"},
        {"objective": "sds", "guidance_scale": 1.0},
        {"perp_neg": 1.0},
        {"latent": True},
        {"dtype": torch.bfloat16},
        {"dtype": torch.float16},
    ],
    ids=str,
)
def test_a_run_elsewhere_never_mixes_devices_and_agrees_with_the_cpu(run: dict[str, Any]) -> None:
    """Not to the last bit: off the CPU, PyTorch composes some operations differently."""

    run = {**run}
    dtype = run.pop("dtype", torch.float32)

    def first_step(model: Guidance) -> list[torch.Tensor]:
        seen: list[Progress] = []
        asset = made(model, callback=seen.append, **run)
        where = {type(x) for x in (*asset.grid.parameters(), *model.unet.parameters(), seen[0].render.rgb)}
        assert (There in where) == (model.device == DEVICE) and len(where - {torch.nn.Parameter, torch.Tensor}) < 2
        return [x.cpu() for x in (seen[0].record.x0, seen[0].record.distilled.grad, seen[0].render.rgb.detach())]

    with elsewhere():
        there = first_step(guidance(DEVICE, dtype))
    here = first_step(guidance("cpu", dtype))
    allowed = {torch.float32: 1e-3, torch.bfloat16: 0.15, torch.float16: 0.02}[dtype]
    for a, b in zip(there, here, strict=True):
        assert (a - b).norm() < allowed * b.norm()


def test_a_tensor_that_was_left_behind_is_noticed() -> None:
    """Wrong twins: embeddings, or the VAE after its turn, that stay on the CPU."""
    with elsewhere():
        model = guidance(DEVICE)
        encode = model.encode_prompts
        model.encode_prompts = lambda *a: Embeddings(*(x if x is None else x.cpu() for x in vars(encode(*a)).values()))  # type: ignore[method-assign]
        with pytest.raises(RuntimeError, match="two devices"):
            made(model)
        model = guidance(DEVICE)
        again = model.encode_prompts
        model.encode_prompts = lambda *a: (again(*a), model.vae.to("cpu"))[0]  # type: ignore[method-assign]
        with pytest.raises(RuntimeError, match="two devices"):
            made(model)


def test_a_run_elsewhere_is_resumed_saved_and_shown(tmp_path: Path) -> None:
    place = tmp_path / "run.safetensors"
    with elsewhere():
        model = guidance(DEVICE)
        made(model, checkpoint=place)
        again = made(model, checkpoint=place, steps=2, resume=True)
        assert len(again.history) == 2
        assert again.render(10.0, size=16).shape == (16, 16, 3)
        for name in ("asset.safetensors", "asset.ply", "asset.png"):
            assert again.save(tmp_path / name).stat().st_size > 0
        levels = [level.cpu() for level in again.grid.levels]
    assert all(
        torch.equal(a, b) for a, b in zip(Asset.load(tmp_path / "asset.safetensors").grid.levels, levels, strict=True)
    )
