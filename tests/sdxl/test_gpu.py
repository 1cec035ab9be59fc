"""On a real GPU: `pytest -m gpu`.  JSDSD_GPU names another device than "cuda": "cuda:1", "mps", or "cpu" to try these.

What is compared with the CPU is compared within the precision of the type, not to the last bit.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import jsdsd
from jsdsd import Asset
from jsdsd.__main__ import FILES, OK, main
from jsdsd.optimise import Progress
from jsdsd.sdxl.device import usable_device
from jsdsd.sdxl.guidance import Guidance
from jsdsd.sdxl.numerics import Numerics

sys.path.insert(0, str(Path(__file__).parent))  # the miniature lies beside this file
import miniature

DEVICE = os.environ.get("JSDSD_GPU", "cuda")
QUICK: dict[str, Any] = {"steps": 2, "resolution": 12, "views_per_step": 2, "progress": False}
ALLOWED = {torch.float32: 1e-3, torch.float16: 0.02, torch.bfloat16: 0.15}  # of a tensor's norm
pytestmark = pytest.mark.gpu


@pytest.fixture(autouse=True)
def full_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    try:
        usable_device(DEVICE)
    except ValueError as error:
        pytest.skip(str(error))
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)  # by default convolutions have 10 bits there


def close(there: torch.Tensor, here: torch.Tensor, dtype: torch.dtype) -> bool:
    return bool((there.float().cpu() - here.float()).norm() < ALLOWED[dtype] * here.float().norm())


def made(**settings: Any) -> Asset:
    asset = jsdsd.generate("a red duck", **{**QUICK, **settings})
    assert isinstance(asset, Asset)
    return asset


@pytest.mark.parametrize("dtype", ALLOWED, ids=str)
def test_latents_and_predictions_are_those_of_the_cpu(dtype: torch.dtype) -> None:
    """The miniature's random text encoders multiply errors, so half precision is asked of the toybox alone."""
    rgb, results = torch.rand(1, 64, 64, 3), []
    for device, kind in (("cpu", torch.float32), (DEVICE, dtype)):
        pipe = miniature.pipeline() if dtype == torch.float32 else Guidance.load("toybox").pipe
        guidance = Guidance(pipe, device=device, dtype=kind)
        picture = rgb.clone().to(device).requires_grad_()
        latents = guidance.encode_images(picture)
        latents.square().sum().backward()
        eps = guidance.predict_eps(latents.detach(), 500, guidance.encode_prompts(["a red mug"]), 4.0)
        results.append((latents.detach(), picture.grad, eps))
    for name, here, there in zip(("latents", "gradient", "eps"), *results, strict=True):
        assert close(there, here, dtype if name == "eps" else torch.float32), name


RUNS = [{"objective": "jsd"}, {"objective": "sdi"}, {"objective": "sds"}, {"perp_neg": 1.0}, {"latent": True}]


@pytest.mark.parametrize("dtype", ALLOWED, ids=str)
@pytest.mark.parametrize("run", RUNS, ids=str)
def test_the_first_step_of_a_run_is_that_of_the_cpu(run: dict[str, Any], dtype: torch.dtype) -> None:
    found = []
    for device, kind in ((DEVICE, dtype), ("cpu", torch.float32)):
        seen: list[Progress] = []
        made(model=Guidance.load("toybox", device=device, dtype=kind), callback=seen.append, **run)
        found.append((seen[0].record.x0, seen[0].render.rgb.detach(), seen[0].record.distilled.grad))
    for name, there, here in zip(("x0", "render", "gradient"), *found, strict=True):
        assert close(there, here, dtype if name == "gradient" else torch.float32), name


def test_text_encoders_and_the_other_networks_take_turns() -> None:
    guidance = Guidance(miniature.pipeline(), device=DEVICE)
    encode, seen = guidance.pipe.encode_prompt, []

    def where() -> list[str]:
        parts = (guidance.unet, guidance.vae, guidance.pipe.text_encoder, guidance.pipe.text_encoder_2)
        return [next(part.parameters()).device.type for part in parts]

    def watched(*args: Any, **rest: Any) -> Any:
        seen.append(where())
        return encode(*args, **rest)

    guidance.pipe.encode_prompt = watched
    guidance.encode_prompts(["a mug"])
    gpu = torch.device(DEVICE).type
    assert seen == [["cpu", "cpu", gpu, gpu]] and where() == [gpu, gpu, "cpu", "cpu"]


@pytest.mark.parametrize("size", [512, 768, 1024])
def test_sdxls_picture_sizes_in_half_precision(size: int) -> None:
    numerics = Numerics(size, 0.1, gradient_checkpointing=True)
    guidance = Guidance(miniature.pipeline(), device=DEVICE, dtype=torch.float16, numerics=numerics)
    asset = made(model=guidance, render_sizes=(32, 64))
    assert [h["unet_calls"] for h in asset.history] == [4, 4]
    assert all(level.isfinite().all() for level in asset.grid.levels)


def test_a_checkpoint_goes_on_there_and_on_the_cpu(tmp_path: Path) -> None:
    place = tmp_path / "run.safetensors"
    there = Guidance.load("toybox", device=DEVICE, dtype=torch.float32)
    made(model=there, checkpoint=place)
    assert len(made(model=there, checkpoint=place, resume=True, steps=3).history) == 3
    assert len(made(model=Guidance.load("toybox"), checkpoint=place, resume=True, steps=4).history) == 4


def test_the_command_line_makes_every_file_there(tmp_path: Path) -> None:
    few = ["--steps", "30", "--objective", "sds", "--resolution", "16", "--views-per-step", "2", "--quiet"]
    assert main(["a red ball", "--device", DEVICE, "-o", str(tmp_path), *few]) == OK
    assert {*FILES} <= {path.name for path in tmp_path.iterdir()}
