"""Lists of prompts: names, shares, layouts; and two real processes that share one list."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from jsdsd import Asset, jobs
from jsdsd import generation as generate
from jsdsd.__main__ import BAD_INPUT, FAILED_RUN, INTERRUPTED, OK, main
from jsdsd.sdxl.guidance import Guidance

pytestmark = pytest.mark.usefixtures("one_thread")  # in this process as in those it is compared with
QUICK = ("--layout", "t3bench", "--steps", "2", "--resolution", "12", "--views-per-step", "1", "--quiet")
PROMPTS = ("a red ball", "a green cube", "a blue mug", "a yellow cone")


@pytest.fixture
def listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("list.txt").write_text("\n".join(("# toys", "", *PROMPTS, PROMPTS[0])) + "\n", encoding="utf-8")
    return tmp_path


def spoil(output: str) -> None:
    """The green cube's checkpoint is damaged: its job will fail, in any process."""
    place = jobs.t3bench_folder(Path(output), "jsdsd", "single", PROMPTS[1], 0) / jobs.CHECKPOINT
    place.parent.mkdir(parents=True)
    place.write_bytes(b"damaged")


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
    with pytest.raises(FileNotFoundError, match=r"list of prompts .* cannot be read: No such file"):
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


def test_a_list_is_made_and_the_failing_prompt_reported(listed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spoil("out")
    assert run() == FAILED_RUN
    err = capsys.readouterr().err
    assert "a green cube, seed 0: " in err and "3 of 4 done, 1 failed" in err and "Traceback" not in err
    assert len(grids("out")) == 3
    files = {p: p.stat().st_mtime_ns for p in Path("out").rglob("*") if p.is_file()}
    assert run() == FAILED_RUN  # again: all that is done is left alone
    assert {p: p.stat().st_mtime_ns for p in files} == files


@pytest.mark.parametrize("wrong", ["a green corgi", "on", "red red red", "a red mushroom \U0001f344"])
def test_a_list_with_a_word_too_many_is_refused_before_its_first_job(
    listed: Path, capsys: pytest.CaptureFixture[str], wrong: str
) -> None:
    Path("list.txt").write_text(f"a red ball\n{wrong}\n", encoding="utf-8")
    assert run() == BAD_INPUT
    assert wrong.split()[-1] in (said := capsys.readouterr().err) and "Traceback" not in said
    assert not Path("out").exists()


def test_a_list_that_was_stopped_goes_on_and_can_be_extended(listed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("list.txt").write_text("a red ball\na blue mug\n")
    assert run(output="whole") == OK
    save = jobs.save_t3bench

    def stop(asset: Asset, folder: Path) -> None:
        if "mug" in folder.name:
            raise KeyboardInterrupt
        save(asset, folder)

    monkeypatch.setattr(jobs, "save_t3bench", stop)
    assert run() == INTERRUPTED
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


def test_ctrl_c_in_a_list_leaves_the_checkpoint_and_no_half_made_files(
    listed: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("list.txt").write_text("a red ball\n")
    monkeypatch.setattr("jsdsd.checkpoint.EVERY", 1)
    optimise = generate.optimise

    def stopped(*args: Any, **rest: Any) -> Iterator[Any]:
        for progress in optimise(*args, **rest):
            yield progress
            if progress.record.step == 0:
                raise KeyboardInterrupt

    monkeypatch.setattr(generate, "optimise", stopped)
    assert run() == INTERRUPTED
    assert "Stopped after 1 steps of " in (said := capsys.readouterr().err) and "The same command goes on" in said
    assert [p.name for p in Path("out").rglob("*") if p.is_file()] == [jobs.CHECKPOINT]


def test_a_record_that_was_half_written_is_written_again(listed: Path) -> None:
    Path("list.txt").write_text("a red ball\n")
    assert run() == OK
    record = next(Path("out").rglob("run.json"))
    whole = record.read_text()
    record.write_text(whole[:100])  # by a process that was killed
    assert run() == OK and record.read_text() == whole


def test_what_is_wrong_with_the_model_is_said_once(listed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--model", "nobody/nothing") == BAD_INPUT
    assert capsys.readouterr().err.count("hf download") == 1


def test_a_full_gpu_is_one_failed_prompt_in_words(
    listed: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    optimise = generate.optimise

    def full(guidance: Guidance, prompt: str, *args: Any, **rest: Any) -> Iterator[Any]:
        if "mug" in prompt:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.\nMore")
        return optimise(guidance, prompt, *args, **rest)

    monkeypatch.setattr(generate, "optimise", full)
    spoil("out")
    assert run() == FAILED_RUN
    said = capsys.readouterr().err
    assert "a blue mug, seed 0: the memory is full" in said and "--memory 8" in said and "allocate 2 GiB" in said
    assert "2 of 4 done, 2 failed" in said and "Traceback" not in said


def test_each_process_does_its_share_and_the_shares_make_the_whole(
    listed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for output in ("whole", "out"):
        spoil(output)
    assert run(output="whole") == FAILED_RUN
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank, made in (("1", 1), ("0", 3)):  # 1: cube (fails), cone; 0: ball, mug
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


@pytest.mark.usefixtures("full_words")
def test_two_launched_processes_make_the_same_bytes_as_one(listed: Path) -> None:
    for output in ("whole", "out"):
        spoil(output)
    assert run(output="whole") == FAILED_RUN
    done = subprocess.run(**launch(), capture_output=True, text=True, timeout=600)
    assert done.returncode == OK, done.stderr  # a failing prompt does not stop the other process
    assert "a green cube, seed 0: " in done.stderr and "1 of 2 done, 1 failed" in done.stderr
    assert equal(grids("out"), grids("whole"))


def test_resume_takes_a_folder_up_as_it_was_begun(listed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plain = ("--resolution", "12", "--views-per-step", "1", "--quiet")
    assert main(["a red ball", "-o", "here", "--seed", "4", "--objective", "sds", "--steps", "2", *plain]) == OK
    assert main(["a red ball", "-o", "once", "--seed", "4", "--objective", "sds", "--steps", "2", *plain]) == OK
    assert main(["--resume", "here", "--steps", "3", "--quiet"]) == OK
    longer = Asset.load("here/asset.safetensors")
    assert len(longer.history) == 3 and longer.config["seed"] == 4
    assert longer.config["objective"].startswith("jsdsd.objectives.SDS(")
    assert [h["grad_norm"] for h in longer.history[:2]] == [
        h["grad_norm"] for h in Asset.load("once/asset.safetensors").history
    ]
    capsys.readouterr()
    assert main(["--resume", "here", "--quiet"]) == OK
    assert capsys.readouterr().out == "here: finished, 3 steps; a larger --steps adds to them\n"
    assert main(["--resume", "here", "--steps", "2", "--quiet"]) == BAD_INPUT
    assert "has 3 steps already, more than the 2" in capsys.readouterr().err
    for wrong in (["--seed", "5"], ["--model", "sdxl", "--latent"], ["-o", "there"]):
        assert main(["--resume", "here", "--steps", "9", *wrong]) == BAD_INPUT
    assert "leave out --output" in capsys.readouterr().err
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
    assert len(grids("out")) == 8
