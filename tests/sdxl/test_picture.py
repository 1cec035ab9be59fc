"""One picture, distilled: the trained prior must see in it what was asked for, and no prior what was not."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

from jsdsd.picture import SHOWN, distil_picture, main
from jsdsd.sdxl.guidance import Guidance


def test_a_red_ball_becomes_red_and_a_blue_one_blue() -> None:
    guidance = Guidance.load("toybox")
    for colour, channel in (("red", 0), ("blue", 2)):
        shown, records = distil_picture(guidance, f"a {colour} ball, front view", "sds", steps=40)
        middle = shown[-1][20:28, 20:28].mean((0, 1))
        assert int(middle.argmax()) == channel and len(shown) == SHOWN and len(records) == 40
        assert (shown[0] - 0.5).abs().mean() < 0.05


def test_the_command_writes_strip_and_curves_and_says_what_is_wrong(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["a mug", "--steps", "8", "--objective", "sds", "-o", str(tmp_path)]) == 0
    side = Guidance.load("toybox").image_size
    with Image.open(tmp_path / "strip.png") as strip:
        assert strip.size == (SHOWN * side, side)
    assert (tmp_path / "curves.png").stat().st_size > 1000
    for wrong in (["a zebra-toaster", "--model", "nobody/nothing/x"], ["a mug", "--objective", "no such"]):
        assert main([*wrong, "--steps", "1"]) == 2
    assert capsys.readouterr().err.count("jsdsd: ") == 2
    assert torch.is_grad_enabled()
