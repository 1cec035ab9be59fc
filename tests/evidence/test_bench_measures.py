"""The benchmark's measures on scenes whose answer is known."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.evidence.judge import Judge, load_judge
from benchmarks.evidence.measures import Seen, against, front_count, measure, seen, stability, true_scene
from benchmarks.evidence.prompts import PROMPTS, SETS, chosen
from jsdsd.scene.voxels import VoxelGrid
from jsdsd.toybox import true_grid

CAR = PROMPTS["a blue car"]


def as_is(grid: VoxelGrid) -> Seen:
    """Measured at the grid's own resolution: these grids are fine already."""
    return seen(grid, finer=1)


@pytest.fixture(scope="module")
def car() -> Seen:
    return as_is(true_grid(CAR.scene()))


@pytest.fixture(scope="module")
def judge() -> Judge:
    return load_judge()


def changed(change: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]], text: str = "a blue car") -> VoxelGrid:
    """The true toy with other fields."""
    with torch.no_grad():
        return VoxelGrid.from_fields(*change(*true_grid(PROMPTS[text].scene()).fields()))


def test_prompts_are_as_many_as_said_and_half_of_each_set_is_for_development() -> None:
    assert [len(texts) for texts in SETS.values()] == [8, 8, 8, 8] and len(PROMPTS) == 32
    assert sum(prompt.ambiguous for prompt in PROMPTS.values()) == 8
    for name in SETS:
        assert sum(p.set == name and p.split == "development" for p in PROMPTS.values()) == 4
    assert [p.set for p in chosen(None)[:4]] == list(SETS)
    assert {p.set for p in chosen(["several", "a mug"])} == {"several", "ambiguous"}
    with pytest.raises(ValueError, match="no prompt of the benchmark"):
        chosen(["a zebra"])
    with pytest.raises(ValueError, match="many true scenes"):
        PROMPTS["a mug"].scene()


@pytest.mark.parametrize("text", ["a blue car", "a red ball on a blue table", "a yellow duck next to a green tree"])
def test_the_truth_against_itself_is_right_in_everything(text: str) -> None:
    truth = true_scene(PROMPTS[text].scene())
    found = against(truth, truth)
    assert found["iou"] == found["volume_iou"] == found["saturation"] == found["detail"] == found["edges"] == 1
    assert found["colour_error"] == 0 and found["haze"] < 0.001
    voxels = against(as_is(true_grid(PROMPTS[text].scene(), resolution=96)), truth)  # a cell is .02
    assert voxels["iou"] > 0.93 and voxels["volume_iou"] > 0.8 and voxels["colour_error"] < 0.03


@pytest.mark.parametrize("share", [0.3, 0.8])
def test_saturation_is_the_share_of_the_colour_that_is_left(share: float, car: Seen) -> None:
    grey = changed(lambda d, c: (d, c.mean(0) + share * (c - c.mean(0))))
    found = against(as_is(grey), car)
    assert found["saturation"] == pytest.approx(share, rel=0.01)
    assert found["iou"] == 1 and found["detail"] < 1


def test_a_grey_truth_has_no_saturation_ratio() -> None:
    grey = as_is(changed(lambda d, c: (d, c.mean(0).expand(3, -1, -1, -1).contiguous())))
    assert torch.tensor(against(grey, grey)["saturation"]).isnan()


def test_speckle_is_too_much_detail_and_one_flat_colour_too_little(car: Seen) -> None:
    noise = torch.rand(3, 64, 64, 64, generator=torch.Generator().manual_seed(0))
    assert against(as_is(changed(lambda d, c: (d, 0.5 * c + 0.5 * noise))), car)["detail"] > 2
    flat = changed(lambda d, c: (d, torch.full_like(c, 0.5)))
    assert against(as_is(flat), car)["detail"] < 0.2


def test_a_hollow_body_counts_as_full_and_half_a_body_as_half(car: Seen) -> None:
    def hollow(density: Tensor, colour: Tensor) -> tuple[Tensor, Tensor]:
        shell = F.max_pool3d((density < 40).float()[None], 7, stride=1, padding=3)[0] > 0  # three cells deep
        assert ((density > 40) & ~shell).sum() > 0.1 * (density > 40).sum()
        return torch.where(shell, density, 0.0), colour

    assert against(as_is(changed(hollow)), car)["volume_iou"] > 0.98
    half = changed(lambda d, c: (d * (torch.arange(64) < 32), c))  # the half with x < 0
    assert against(as_is(half), car)["volume_iou"] == pytest.approx(0.5, abs=0.03)


def test_fog_is_haze(car: Seen) -> None:
    fog = changed(lambda d, c: (d + 0.05, c))
    assert against(as_is(fog), car)["haze"] > 0.04


def test_a_toy_that_faces_sideways_is_wrong(judge: Judge) -> None:
    right = measure(judge, CAR, true_grid(CAR.scene()))
    turned = measure(judge, CAR, changed(lambda d, c: (d.rot90(1, (1, 2)), c.rot90(1, (2, 3)))))
    assert right["kind_right"] == right["colour_right"] == 1 and right["view_right"] > 0.7
    assert turned["kind_right"] == 1 and turned["view_right"] < 0.2
    assert turned["iou"] < 0.9 < right["iou"]


def test_a_toy_with_two_fronts_has_two(judge: Judge) -> None:
    """The front half, and its mirror image in place of the back."""

    def janus(density: Tensor, colour: Tensor) -> tuple[Tensor, Tensor]:
        front = torch.arange(64)[:, None] < 32  # y < 0
        return torch.where(front, density, density.flip(1)), torch.where(front, colour, colour.flip(2))

    for text in ("a yellow duck", "a white snowman"):
        assert front_count(judge, true_grid(PROMPTS[text].scene())) == 1, text
        assert front_count(judge, changed(janus, text)) == 2, text


def test_what_cannot_be_measured_is_nan(judge: Judge) -> None:
    ball = true_grid(PROMPTS["a red ball on a blue table"].scene())
    pair = measure(judge, PROMPTS["a red ball on a blue table"], ball)
    assert pair["kind_p"] == "" and all(torch.tensor(pair[k]).isnan() for k in ("kind_right", "view_right", "fronts"))
    open_ended = measure(judge, PROMPTS["something red"], ball)
    assert torch.tensor(open_ended["iou"]).isnan() and open_ended["colour_right"] in (0, 1)
    assert torch.tensor(open_ended["kind_right"]).isnan() and len(str(open_ended["kind_p"]).split()) == 24
    empty = measure(judge, CAR, VoxelGrid.from_fields(torch.zeros(8, 8, 8), torch.zeros(3, 8, 8, 8)))
    assert empty["iou"] == empty["volume_iou"] == 0 and torch.tensor(empty["saturation"]).isnan()


def test_stability_of_a_steady_and_of_a_jumping_run() -> None:
    assert stability([2.0, 2.0, 2.0]) == {"grad_spread": 0, "grad_peak": 1}
    assert stability([1.0, 1.0, 4.0]) == {"grad_spread": pytest.approx(2**0.5 / 2), "grad_peak": 4}
