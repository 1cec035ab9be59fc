"""The measurements of the model card, on toys whose numbers are known beforehand."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import pytest
import torch
from PIL import Image

from benchmarks.evidence import evaluate
from benchmarks.evidence.evaluate import (
    Measured,
    against_truth,
    assets,
    colour_histograms,
    contact_sheet,
    judged,
    summary,
)
from benchmarks.evidence.judge import accuracy, load_judge
from jsdsd import Asset, VoxelGrid
from jsdsd.toybox import COLOURS, KINDS, Toy, true_grid
from jsdsd.toybox.captions import VIEWS, Label
from jsdsd.toybox.dataset import Pictures


@pytest.fixture(scope="module")
def duck() -> VoxelGrid:
    return true_grid(Toy("duck", "yellow"))


def turned(grid: VoxelGrid) -> VoxelGrid:
    """A quarter turn about the vertical axis."""
    density, colour = grid.fields()
    return VoxelGrid.from_fields(torch.rot90(density, 1, (1, 2)), torch.rot90(colour, 1, (2, 3)))


def test_a_turned_toy_or_another_colour_is_not_the_true_one(duck: VoxelGrid) -> None:
    right, blue = (against_truth(duck, "duck", colour) for colour in ("yellow", "blue"))
    assert right["iou"] > 0.93 and right["colour_error"] < 0.03  # cells of .03
    assert blue["iou"] == right["iou"] and blue["colour_error"] > 0.3  # inside the toy, where all differs
    assert against_truth(turned(duck), "duck", "yellow")["iou"] < 0.9


def test_the_judge_knows_true_toys_and_their_views(duck: VoxelGrid) -> None:
    judge = load_judge()
    right = judged(judge, duck, "duck", "yellow")
    assert right["kind_right"] == right["colour_right"] == 1 and right["view_share"] >= 6 / 8
    wrong = judged(judge, duck, "car", "blue")
    assert wrong["kind_right"] == wrong["colour_right"] == 0
    assert judged(judge, turned(duck), "duck", "yellow")["view_share"] <= 2 / 8  # every side is another one's
    assert math.isnan(judged(judge, true_grid(Toy("ball", "red", 0.9)), "ball", "red")["view_share"])
    assert VIEWS[:8] == tuple(evaluate.HEADS["view"][:8])


def test_a_summary_leaves_out_what_is_not_measured_and_names_the_worst_kind_first() -> None:
    rows = [
        Measured(kind, "red", seed, {"iou": iou, "view_share": share})
        for kind, seed, iou, share in (("ball", 0, 0.9, float("nan")), ("car", 0, 0.4, 0.5), ("car", 1, 0.6, 1.0))
    ]
    found = summary(rows)
    assert found["iou"] == pytest.approx(1.9 / 3) and found["view_share"] == pytest.approx(0.75)
    assert list(found)[-2:] == ["iou, car", "iou, ball"] and found["iou, car"] == pytest.approx(0.5)


def test_every_kind_and_seed_is_made_once_and_written_down(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prompts: list[tuple[str, int]] = []

    def make(prompt: str, *, seed: int, **_: object) -> Asset:
        prompts.append((prompt, seed))
        return Asset(VoxelGrid.blob((12,), density=60.0), prompt, {}, [{"seconds": 2.0}, {"seconds": 3.0}])

    monkeypatch.setattr(evaluate, "generate", make)
    monkeypatch.setattr(evaluate, "judged", lambda *_: {"kind_right": 1.0})
    monkeypatch.setattr(evaluate, "against_truth", lambda *_: {"iou": 0.5})
    for _ in range(2):  # the second time everything is there
        rows = assets(None, None, tmp_path, ["ball", "ice cream"], [0, 1])  # type: ignore[arg-type]
    assert prompts == [("a red ball", 0), ("a yellow ball", 1), ("a white ice cream", 0), ("a green ice cream", 1)]
    assert [row.numbers["seconds"] for row in rows] == [5.0] * 4
    with (tmp_path / "results.csv").open(newline="") as file:
        written = list(csv.DictReader(file))
    assert [(r["kind"], r["seed"], r["iou"]) for r in written][2:] == [
        ("ice cream", "0", "0.5000"), ("ice cream", "1", "0.5000"),
    ]  # fmt: skip
    contact_sheet(tmp_path, rows, tmp_path / "sheet.png", columns=3, size=16)
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.size == (3 * 2 * 16, 2 * 16)  # four assets in two lines, two views each
        dark = [
            sheet.crop((x, y, x + 16, y + 16)).convert("L").getextrema()[0] < 200 for y in (0, 16) for x in (0, 16, 32)
        ]
    assert dark == [True, True, True, True, True, False]


def test_colours_are_measured_against_uniform(monkeypatch: pytest.MonkeyPatch) -> None:
    class Stub:
        def judge(self, pictures: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"colour": pictures}

    even = torch.eye(8).repeat(32, 1)  # 256 verdicts, 32 of each colour
    one = torch.eye(8)[:1].repeat(256, 1)
    for pictures, expected in (
        (even, 0.0),
        (one, 0.5 * (math.log(2 / 9 * 8) + 7 / 8 * math.log(2) + math.log(2 / 9) / 8)),
    ):
        monkeypatch.setattr(evaluate, "sample", lambda *_, p=pictures, **__: p)
        found = colour_histograms(None, Stub())  # type: ignore[arg-type]
        assert len(found) == 6 and len(COLOURS) == 8
        assert list(found.values()) == pytest.approx([expected] * 6)


def test_the_prior_is_asked_for_every_kind_and_colour(monkeypatch: pytest.MonkeyPatch) -> None:
    prompts: list[str] = []

    class Stub:
        def judge(self, pictures: torch.Tensor) -> dict[str, torch.Tensor]:
            kind, colour = torch.eye(24).repeat_interleave(8, 0), torch.eye(8).repeat(24, 1)
            kind[8:16] = kind[:8]  # takes every cube for a ball
            return {"kind": kind, "colour": colour}

    monkeypatch.setattr(evaluate, "sample", lambda _, asked: prompts.extend(asked))
    monkeypatch.setattr(evaluate, "colour_histograms", lambda *_: {"colours": 0.5})
    found = evaluate.prior(None, Stub(), per_pair=1)  # type: ignore[arg-type]
    assert len(prompts) == 24 * 8 and prompts[0] == "a red ball" and prompts[9] == "a green cube"
    expected = {"kind": 23 / 24, "colour": 1.0, "both": 23 / 24, "colours": 0.5}
    assert found == pytest.approx(expected)


def test_the_judges_accuracy_counts_what_a_picture_can_tell() -> None:
    class Stub:  # says "a red duck, front view" of everything
        def judge(self, pictures: torch.Tensor) -> dict[str, torch.Tensor]:
            assert pictures.shape[1:] == (48, 48, 3) and pictures.max() <= 1
            where = {"kind": list(KINDS).index("duck"), "colour": 0, "view": 0}
            sizes = {"kind": 24, "colour": 8, "view": 9}
            return {head: torch.eye(sizes[head])[where[head]].repeat(len(pictures), 1) for head in where}

    labels = [
        Label((("duck", None),), None, "front"),
        Label((("ball", None),), None, "back"),
        Label((("duck", None),), None, "overhead"),
        Label((("duck", None), ("table", None)), "on", "front"),  # pairs are not judged
    ]
    known = Pictures(torch.randint(0, 40, (4, 6, 96, 96), dtype=torch.uint8), torch.zeros(4, 2), labels)
    generator = torch.Generator().manual_seed(0)
    red = (torch.randint(8, (3, 2), generator=generator)[:, 0] == 0).float().mean().item()  # the judge's own draw
    assert accuracy(Stub(), known) == pytest.approx(  # type: ignore[arg-type]
        {"kind": 2 / 3, "kind, around": 1 / 2, "kind, overhead": 1.0, "colour": red, "view": 1 / 2}
    )
