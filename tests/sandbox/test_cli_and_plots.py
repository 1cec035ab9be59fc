"""The command line and the pictures: they come out, show what they should, and refuse what they must."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image

from jsdsd.objectives import SDS, Anneal, Ensemble, JensenShannon, ReverseKL, UniformTime
from jsdsd.sandbox import (
    animate,
    fit_particles,
    mode_divergence,
    off_centre,
    plot_gradient_field,
    plot_loss_landscape,
    plot_one_gaussian,
    plot_particles,
    plot_trajectories,
    plot_weights,
    ring,
    spread_ratio,
    two_modes,
)
from jsdsd.sandbox.__main__ import (
    OBJECTIVES,
    OF_CLASSES,
    chosen_class,
    main,
    mode_shares,
    named_objectives,
    named_target,
    parser,
)


def frames_of(file: Path) -> int:
    with Image.open(file) as image:
        return getattr(image, "n_frames", 1)


def test_a_run_writes_figure_and_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--objectives", "sds,ensemble_jsd", "--steps", "8", "--particles", "16", "-o", str(tmp_path)]
    assert main([*arguments, "--gif"]) == 0
    printed, table = capsys.readouterr().out, (tmp_path / "off_centre.txt").read_text()
    assert table in printed and "ensemble_jsd" in table and len(table.splitlines()) == 3
    assert frames_of(tmp_path / "off_centre.png") == 1 and frames_of(tmp_path / "off_centre_sds.gif") == 9


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--target", "sqare"], "unknown target 'sqare'; choose one of ring"),
        (["--objectives", "jds"], 'unknown objective "jds": known are sds'),
        (["--objectives", ","], "no objective: choose from sds"),
        (["--objectives", "csd,sds"], "csd compares a class with all of the target: give --label 0 or 1"),
        (["--objectives", "nowhere:Mine"], 'there is no module "nowhere"'),
        (["--label", "2"], "--label is 0 (the target's even modes)"),
        (["--label", "0", "--guidance-scale", "nan"], "guidance_scale must be finite"),
        (["--steps", "0"], "steps must be >= 1"),
        (["--particles", "-3"], "particles"),
        (["--steps", "many"], "invalid int"),
        (["--times", "cosine"], "invalid choice: 'cosine' (choose from"),
    ],
)
def test_bad_arguments_end_in_words(arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main([*arguments, "-o", "/tmp"])
    assert stop.value.code == 2 and words in capsys.readouterr().err


def test_help_names_every_choice_and_default() -> None:
    text = " ".join(parser().format_help().split())
    for word in ("off_centre", "random:SEED", "ensemble_jsd_learned", "1500", "256"):
        assert word in text


def test_every_objective_has_a_gradient_and_every_call_makes_a_new_one() -> None:
    target = named_target("random:3")
    for known, denoiser in ((OBJECTIVES, target), (OF_CLASSES, chosen_class(target, 0, 3.0))):
        for name, make in known.items():
            assert make().gradient(denoiser, torch.zeros(2, 2), 500).grad.shape == (2, 2), name
    first, second = (named_objectives("ensemble_jsd_learned")["ensemble_jsd_learned"] for _ in range(2))
    assert first is not second


def test_a_class_is_half_of_the_modes_and_is_what_counts(tmp_path: Path) -> None:
    """SDS towards the even modes of the ring lands there; the score compares with these alone."""
    assert mode_shares(ring(), 1).tolist() == pytest.approx([0, 0.25] * 4)
    assert mode_shares(ring(), None).tolist() == pytest.approx([0.125] * 8)
    arguments = ["--target", "ring", "--label", "0", "--objectives", "sds,two_sided_guidance", "--particles", "64"]
    assert main([*arguments, "--steps", "150", "-o", str(tmp_path)]) == 0
    row = (tmp_path / "ring.txt").read_text().splitlines()[1].split()
    assert float(row[1]) < 0.1 and sum(map(float, row[6:14:2])) > 0.98


def test_an_objective_of_ones_own_from_a_file_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = "from jsdsd.objectives import SDS\nmake = SDS\nready = SDS(2.0)\nother = 3\n"
    (tmp_path / "mine_in_2d.py").write_text(own)
    monkeypatch.chdir(tmp_path)
    objectives = named_objectives("mine_in_2d:make, mine_in_2d:ready")
    assert list(objectives.values()) == [SDS(), SDS(2.0)]
    for name, words in (("mine_in_2d:gone", 'has no "gone"'), ("mine_in_2d:other", "3 has no gradient")):
        with pytest.raises(ValueError, match=words):
            named_objectives(name)
    assert str(tmp_path) not in sys.path


def test_pictures_show_their_data(tmp_path: Path) -> None:
    axes = Figure(figsize=(9, 6)).subplots(2, 3).flatten()
    x = torch.randn(20, 2)
    dots = plot_particles(axes[0], ring(), x, "title").collections[0]
    assert torch.allclose(torch.as_tensor(dots.get_offsets().data).float(), x)
    assert len(plot_trajectories(axes[1], ring(), torch.randn(5, 20, 2), shown=7).lines) == 7
    assert len(plot_weights(axes[2], [JensenShannon(), ReverseKL()]).lines) == 2
    assert len(plot_one_gaussian(axes[3], two_modes(3), [ReverseKL()]).lines) == 1
    star = plot_loss_landscape(axes[4], two_modes(3), JensenShannon(), points=20).lines[0].get_xydata()[0]
    assert star[0] == pytest.approx(0, abs=0.01) and star[1] == pytest.approx(3.12, abs=0.01)
    arrows = plot_gradient_field(axes[5], off_centre(), SDS(), 900, (-5, 5, -5, 5), points=3, draws=8).collections[0]
    assert arrows.U[0] > 0 and arrows.U[2] < 0  # from left and right, inwards
    axes[0].figure.savefig(tmp_path / "all.png")
    assert (tmp_path / "all.png").stat().st_size > 20_000


def test_an_animation_is_a_gif(tmp_path: Path) -> None:
    file = animate(ring(), torch.randn(4, 10, 2), tmp_path / "run.gif")
    assert frames_of(file) == 4
    with pytest.raises(ValueError, match=r"\.gif"):
        animate(ring(), torch.randn(4, 10, 2), tmp_path / "run.mp4")


def test_the_noise_levels_of_the_command_line_are_those_of_the_library(tmp_path: Path) -> None:
    """One row, twice: the histogram's divergence under --times is that of fit_particles with the same levels."""
    for name, times in (("anneal", Anneal()), ("uniform", UniformTime())):
        arguments = ["--objectives", "ensemble_jsd", "--steps", "30", "--particles", "32", "--times", name]
        assert main([*arguments, "-o", str(tmp_path)]) == 0
        row = (tmp_path / "off_centre.txt").read_text().splitlines()[1].split()
        x = fit_particles(off_centre(), Ensemble(JensenShannon()), 32, 30, times=times)
        assert row[1] == f"{mode_divergence(x, off_centre()):.4f}" and row[3] == f"{spread_ratio(x, off_centre()):.2f}"


def test_pictures_refuse_what_they_cannot_show() -> None:
    axes = Figure().subplots()
    with pytest.raises(ValueError, match="only a 2D target"):
        plot_particles(axes, two_modes(2.0), torch.zeros(3, 2))
    with pytest.raises(ValueError, match=r"shape \(N, 2\)"):
        plot_particles(axes, ring(), torch.zeros(3, 3))
    with pytest.raises(ValueError, match=r"\(frames, N, 2\)"):
        plot_trajectories(axes, ring(), torch.zeros(3, 2))
    with pytest.raises(ValueError, match="draws"):
        plot_gradient_field(axes, ring(), SDS(), 500, (-1, 1, -1, 1), draws=0)
    with pytest.raises(ValueError, match="points must be >= 2"):
        plot_gradient_field(axes, ring(), SDS(), 500, (-1, 1, -1, 1), points=1)
