"""Lists of prompts: names, shares, layouts; and two real processes that share one list."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import trimesh
from hypothesis import given
from hypothesis import strategies as st

from jsdsd import Asset, VoxelGrid
from jsdsd.__main__ import BAD_INPUT, FAILED_RUN, OK, main
from jsdsd.pipeline import jobs
from jsdsd.pipeline.guidance import Guidance

pytestmark = pytest.mark.usefixtures("one_thread")  # in this process as in those it is compared with
QUICK = ("--layout", "t3bench", "--steps", "2", "--resolution", "12", "--views-per-step", "1", "--quiet")
PROMPTS = ("a red ball", "a green corgi", "a blue mug", "a yellow cone")  # the toybox knows no corgi


@pytest.fixture
def listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("list.txt").write_text("\n".join(("# toys", "", *PROMPTS, PROMPTS[0])) + "\n", encoding="utf-8")
    return tmp_path


def run(*more: str, output: str = "out") -> int:
    return main(["--prompts", "list.txt", "-o", output, *QUICK, *more])


def grids(output: str) -> dict[str, list[torch.Tensor]]:
    place = Path(output)
    return {str(p.relative_to(place).parent): Asset.load(p).grid.levels for p in place.rglob("asset.safetensors")}


def equal(one: dict[str, list[torch.Tensor]], other: dict[str, list[torch.Tensor]]) -> bool:
    return one.keys() == other.keys() and all(
        torch.equal(a, b) for name in one for a, b in zip(one[name], other[name], strict=True)
    )


def test_prompts_are_read_line_by_line(tmp_path: Path) -> None:
    file = tmp_path / "list.txt"
    file.write_bytes("\ufeffa mug\r\n\r\n# no\r\n  a caf\u00e9 \r\na mug\r\n".encode())
    assert jobs.read_prompts(file) == ["a mug", "a caf\u00e9"]
    for content, says in ((b"# only\n", "no prompt"), (b"\xff\xfe\xfa", "not UTF-8")):
        file.write_bytes(content)
        with pytest.raises(ValueError, match=says):
            jobs.read_prompts(file)
    with pytest.raises(OSError):
        jobs.read_prompts(tmp_path / "none")


@given(st.lists(st.text(min_size=1), min_size=2, max_size=2, unique=True))
def test_every_prompt_has_a_folder_name_of_its_own(prompts: list[str]) -> None:
    one, two = map(jobs.folder_name, prompts)
    assert one.casefold() != two.casefold()
    assert all(c.isascii() and (c.isalnum() or c == "_") for c in one) and 1 <= len(one) <= 70


def test_a_plain_prompt_names_its_folder_plainly() -> None:
    assert jobs.folder_name("a red ball") == "a_red_ball"
    assert jobs.folder_name("A red ball!").startswith("a_red_ball_")


@given(st.integers(0, 40), st.integers(1, 7))
def test_shares_are_disjoint_whole_and_even(count: int, processes: int) -> None:
    shares = [list(range(count))[rank::processes] for rank in range(processes)]
    assert sorted(x for share in shares for x in share) == list(range(count))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_the_launchers_variables_say_whose_share_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    assert jobs.process() == (0, 1, 0)
    for name, value in (("RANK", "5"), ("WORLD_SIZE", "8"), ("LOCAL_RANK", "1")):
        monkeypatch.setenv(name, value)
    assert jobs.process() == (5, 8, 1)


def test_t3bench_finds_the_meshes_where_it_looks(tmp_path: Path) -> None:
    """The glob is that of run_eval_quality.py and run_caption.py."""
    prompt = "A cactus, it's pink (small)"
    red = torch.zeros(3, 24, 24, 24)
    red[0] = 1
    x = torch.linspace(-1, 1, 24)
    density = 20.0 * ((x[:, None, None] ** 2 + x[:, None] ** 2 + x**2) < 0.3)
    folder = jobs.t3bench_folder(tmp_path, "mine", "single", prompt, 3)
    for steps in (2, 5):
        jobs.save_t3bench(Asset(VoxelGrid.from_fields(density, red), prompt, {}, [{}] * steps), folder)
    found = list(tmp_path.glob(f"outputs_mesh_t3/mine_single/{prompt.replace(' ', '_')}*/save/it*-export/model.obj"))
    assert found == [folder / "save/it5-export/model.obj"]  # the shorter run's is gone
    mesh = trimesh.load(found[0])
    colours = mesh.visual.to_color().vertex_colors if mesh.visual.kind == "texture" else mesh.visual.vertex_colors
    assert mesh.visual.kind == "vertex"  # what pyrender draws without a texture
    assert (colours[:, 0] > 240).all() and (colours[:, 1:3] < 15).all()
    with pytest.raises(ValueError, match='holds a "/"'):
        jobs.t3bench_folder(tmp_path, "mine", "single", "a/b", 0)


PYRENDER = """
import sys
try:
    import numpy, pyrender, trimesh
    scene, pose = pyrender.Scene(ambient_light=[1, 1, 1]), numpy.eye(4)
    pose[2, 3] = 3.0  # in front of the object, which faces +Z
    scene.add(pyrender.PerspectiveCamera(yfov=0.8), pose=pose)
    renderer = pyrender.OffscreenRenderer(64, 64)
except Exception as reason:
    sys.exit(f"no pyrender: {reason}")
scene.add(pyrender.Mesh.from_trimesh(trimesh.load(sys.argv[1])))
picture = renderer.render(scene, flags=pyrender.RenderFlags.FLAT)[0]
print(*picture[32, 24], *picture[32, 40], *picture[0, 0])
"""


def test_pyrender_shows_the_colours_of_the_exported_mesh(tmp_path: Path) -> None:
    """As T3Bench does: OBJ -> trimesh -> pyrender, offscreen.  A ball, half red, half green in front."""
    x = torch.linspace(-1, 1, 24)
    colour = torch.zeros(3, 24, 24, 24)
    colour[0, :, :, :12], colour[1, :, :, 12:] = 1, 1
    density = 30.0 * ((x[:, None, None] ** 2 + x[:, None] ** 2 + x**2) < 0.4)
    jobs.save_t3bench(Asset(VoxelGrid.from_fields(density, colour), "a ball", {}, [{}]), tmp_path)
    command = [sys.executable, "-c", PYRENDER, str(tmp_path / "save/it1-export/model.obj")]
    environment = {"PYOPENGL_PLATFORM": "egl", **os.environ, "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    if "no pyrender" in done.stderr:
        pytest.skip(done.stderr.strip().splitlines()[-1])
    assert done.returncode == OK, done.stderr
    seen = torch.tensor([int(v) for v in done.stdout.split()]).view(3, 3)
    assert (seen - torch.tensor([[255, 0, 0], [0, 255, 0], [255, 255, 255]])).abs().max() < 30


def test_a_list_is_made_and_the_failing_prompt_reported(listed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run() == FAILED_RUN
    err = capsys.readouterr().err
    assert "a green corgi, seed 0: " in err and "3 of 4 done, 1 failed" in err and "Traceback" not in err
    assert len(grids("out")) == 3
    files = {p: p.stat().st_mtime_ns for p in Path("out").rglob("*") if p.is_file()}
    assert run() == FAILED_RUN  # again: all that is done is left alone
    assert {p: p.stat().st_mtime_ns for p in files} == files


def test_a_list_that_was_stopped_goes_on_and_can_be_extended(listed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("list.txt").write_text("a red ball\na blue mug\n")
    assert run(output="whole") == OK
    save = jobs.save_t3bench

    def stop(asset: Asset, folder: Path) -> None:
        if "mug" in folder.name:
            raise KeyboardInterrupt
        save(asset, folder)

    monkeypatch.setattr(jobs, "save_t3bench", stop)
    assert run() == 130
    monkeypatch.setattr(jobs, "save_t3bench", save)
    assert run() == OK
    assert equal(grids("out"), grids("whole"))
    assert run("--steps", "3") == OK
    assert {len(Asset.load(p).history) for p in Path("out").rglob("asset.safetensors")} == {3}
    assert run("--steps", "3", "--objective", "sds") == FAILED_RUN  # another run's folder


def test_done_folders_without_their_checkpoints_are_left_alone(listed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("list.txt").write_text("a red ball\n")
    assert run() == OK
    for place in Path("out").rglob(jobs.CHECKPOINT):
        place.unlink()  # to save room

    def never(*args: Any, **rest: Any) -> None:
        raise AssertionError("work was begun")

    monkeypatch.setattr("jsdsd.generate", never, raising=False)
    assert run() == OK


def test_each_process_does_its_share_and_the_shares_make_the_whole(
    listed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(output="whole") == FAILED_RUN
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank, made in (("1", 1), ("0", 3)):  # 1: corgi (fails), cone; 0: ball, mug
        monkeypatch.setenv("RANK", rank)
        assert run() == OK  # another code would make a launcher end the other process
        assert len(grids("out")) == made
    assert equal(grids("out"), grids("whole"))


def launch(*more: str) -> dict[str, Any]:
    """Two processes on list.txt, as arguments of a subprocess."""
    # --multi_gpu is accelerate's word for "several processes on one machine"; none of them needs a GPU
    command = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]
    command += ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no", "-m", "jsdsd"]
    command += ["--prompts", "list.txt", "-o", "out", *QUICK, "--device", "cpu", *more]
    there = {"PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    return {"args": command, "env": {**os.environ, **there}}


def test_two_launched_processes_make_the_same_bytes_as_one(listed: Path) -> None:
    assert run(output="whole") == FAILED_RUN
    done = subprocess.run(**launch(), capture_output=True, text=True, timeout=600)
    assert done.returncode == OK, done.stderr  # a failing prompt does not stop the other process
    assert "a green corgi, seed 0: " in done.stderr and "1 of 2 done, 1 failed" in done.stderr
    assert equal(grids("out"), grids("whole"))


def test_resume_takes_a_folder_up_as_it_was_begun(listed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plain = ("--resolution", "12", "--views-per-step", "1", "--quiet")
    assert main(["a red ball", "-o", "here", "--seed", "4", "--objective", "sds", "--steps", "2", *plain]) == OK
    assert main(["a red ball", "-o", "once", "--seed", "4", "--objective", "sds", "--steps", "2", *plain]) == OK
    assert main(["--resume", "here", "--steps", "3", "--quiet"]) == OK
    longer = Asset.load("here/asset.safetensors")
    assert len(longer.history) == 3 and longer.config["seed"] == 4 and longer.config["objective"].startswith("SDS")
    assert [h["grad_norm"] for h in longer.history[:2]] == [
        h["grad_norm"] for h in Asset.load("once/asset.safetensors").history
    ]
    capsys.readouterr()
    assert main(["--resume", "nowhere"]) == BAD_INPUT
    assert "nothing to resume" in capsys.readouterr().err


def test_a_run_that_python_objects_shaped_is_resumed_in_python_alone(
    listed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import jsdsd

    small: dict[str, Any] = {"steps": 1, "resolution": 12, "views_per_step": 1, "progress": False}
    jsdsd.generate("a ball", objective=jsdsd.JSD(minority_weight=2.0), checkpoint=Path("x") / jobs.CHECKPOINT, **small)
    assert main(["--resume", "x"]) == BAD_INPUT
    assert "go on in Python" in capsys.readouterr().err


def test_the_model_is_loaded_once(listed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load, count = Guidance.load, 0

    def counted(*args: Any, **rest: Any) -> Guidance:
        nonlocal count
        count += 1
        return load(*args, **rest)

    monkeypatch.setattr(Guidance, "load", counted)
    run("--num-assets", "2")
    assert count == 1
    assert len(grids("out")) == 6
