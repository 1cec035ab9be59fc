"""What a notebook shows of an asset, a grid, a schedule and a mixture."""

from __future__ import annotations

import io
import re

import torch
from PIL import Image

from jsdsd import JSD, Asset, Ensemble, JensenShannon, Schedule, VoxelGrid
from jsdsd.sandbox import off_centre, two_modes
from jsdsd.scene.display import run_table

CONFIG = {"prompt": "a <b>duck</b>", "seed": 3, "steps": 4, "objective": "JSD()", "negative_prompt": None}
HISTORY = [{"step": i, "unet_calls": 4, "seconds": 0.5} for i in range(2)]


def rows(table: str) -> dict[str, str]:
    return dict(re.findall(r"<tr><th[^>]*>(.*?)</th><td[^>]*>(.*?)</td></tr>", table))


def test_the_table_says_what_was_asked_and_what_it_took() -> None:
    assert rows(run_table(CONFIG["prompt"], CONFIG, HISTORY)) == {
        "prompt": "a &lt;b&gt;duck&lt;/b&gt;", "seed": "3", "objective": "JSD()", "steps": "2 of 4",
        "U-Net calls": "8, 4 a step", "time": "1.0 s, 0.5 s a step",
    }  # fmt: skip


def test_records_of_other_kinds_are_left_out() -> None:
    assert "time" not in rows(run_table("x", {}, [{"seconds": "a", "unet_calls": None}, {"unet_calls": 3}]))


def test_an_asset_without_a_record_still_has_a_table() -> None:
    assert rows(run_table("a cube", {}, [])) == {"prompt": "a cube"}
    assert rows(run_table("a cube", {}, [{"step": 0}])) == {"prompt": "a cube", "steps": "1"}


def test_an_asset_shows_itself_and_its_run() -> None:
    shown = Asset(VoxelGrid.blob((12,), density=60.0), "a ball", {"seed": 7}, HISTORY)._repr_html_()
    assert shown.startswith("<iframe srcdoc=") and rows(shown)["seed"] == "7"


def test_an_asset_without_a_surface_shows_pictures_and_its_run() -> None:
    empty = VoxelGrid.from_fields(torch.zeros(8, 8, 8), torch.zeros(3, 8, 8, 8))
    shown = Asset(empty, "nothing", {"seed": 7})._repr_html_()
    assert shown.startswith("<img ") and rows(shown) == {"prompt": "nothing", "seed": "7"}


def test_representations_fit_on_a_line_and_name_what_matters() -> None:
    assert repr(VoxelGrid.blob((5, 10))) == "VoxelGrid(10 x 10 x 10 nodes, levels 5, 10)"
    assert repr(Schedule.scaled_linear()) == "Schedule(1000 levels, alpha 0.9996 to 0.0683)"
    assert "JensenShannon()" in repr(Ensemble(JensenShannon())) and "minority_weight=1.0" in repr(JSD())
    assert repr(off_centre()) == "GaussianMixture(4 components in 4 modes, dim 2)"


def test_a_mixture_in_the_plane_shows_its_density() -> None:
    png = off_centre()._repr_png_()
    assert png is not None
    picture = Image.open(io.BytesIO(png)).convert("RGB")
    assert len(picture.getcolors(10_000) or []) > 50  # shades, not a blank
    assert two_modes(3.0)._repr_png_() is None
