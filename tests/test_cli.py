"""The command line: what it passes on, what it writes, and how it fails. `generate` is replaced by a stand-in."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import jsdsd
from jsdsd import Asset, VoxelGrid
from jsdsd.__main__ import BAD_INPUT, FAILED_RUN, FILES, INTERRUPTED, main
from jsdsd.scene.views import ViewWords
from jsdsd.sdxl.guidance import Guidance


def small_asset(prompt: str = "a grey ball", seed: int = 0) -> Asset:
    history = [{"step": 0, "t": 980, "grad_norm": float("nan"), "seconds": 0.1}]
    return Asset(VoxelGrid.blob((12,)), prompt, {"seed": seed, "dtype": torch.float32}, history)


class Stand:
    """In generate's place: remembers its arguments; returns assets or raises `error`."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.error, self.called = error, False

    def __call__(self, prompt: str, **arguments: Any) -> Asset:
        self.called, self.prompt, self.arguments = True, prompt, arguments
        if self.error is not None:
            raise self.error
        return small_asset(prompt, arguments["seed"])


@pytest.fixture
def stand(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Stand:
    monkeypatch.chdir(tmp_path)
    turntable = Asset.turntable  # small pictures: these tests ask which files there are, not how they look
    monkeypatch.setattr(Asset, "turntable", lambda self, frames=30, size=256, elevation=15: turntable(self, 2, 16))
    result = Stand()
    monkeypatch.setattr(jsdsd, "generate", result, raising=False)
    monkeypatch.setattr(Guidance, "load", lambda model, **rest: (model, rest))
    monkeypatch.setattr("jsdsd.generation.check_language", lambda model, runs: None)
    return result


def test_writes_every_file_and_says_where(stand: Stand, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["a grey ball"]) == 0
    printed = capsys.readouterr().out
    for name, use in FILES.items():
        assert (Path("out") / name).stat().st_size > 0
        assert f"{Path('out') / name} " in printed and use in printed
    assert {p.name for p in Path("out").iterdir()} == set(FILES)
    assert Asset.load("out/asset.safetensors").prompt == "a grey ball"


def test_run_json_is_valid_json_with_config_and_history(stand: Stand, tmp_path: Path) -> None:
    assert main(["a grey ball", "-o", "here"]) == 0

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    text = Path("here/run.json").read_text()
    run = json.loads(text, parse_constant=refuse)
    assert run["prompt"] == "a grey ball"
    assert run["config"] == {"seed": 0, "dtype": "torch.float32"}
    assert run["history"] == [{"step": 0, "t": 980, "grad_norm": None, "seconds": 0.1}]
    assert str(tmp_path) not in text


def test_passes_every_option_on(stand: Stand) -> None:
    options = {
        "--model": "sdxl", "--objective": "sds", "--seed": "7", "--steps": "3", "--num-assets": "2",
        "--negative-prompt": "fog", "--guidance-scale": "5.5", "--views-per-step": "6", "--resolution": "24",
        "--device": "cpu", "--dtype": "bfloat16", "--memory": "16",
        "--perp-neg": "0.5", "--view-words": "front:0, rear:180",
    }  # fmt: skip
    assert main(["a ball", "-o", "x", "--quiet", "--latent", *(word for pair in options.items() for word in pair)]) == 0
    assert stand.arguments == {
        "model": ("sdxl", {"device": "cpu", "dtype": torch.bfloat16, "preset": 16}),
        "objective": "sds", "seed": 8, "steps": 3, "latent": True,
        "negative_prompt": "fog", "guidance_scale": 5.5, "views_per_step": 6, "resolution": 24, "progress": False,
        "checkpoint": Path("x/seed-8/checkpoint.safetensors"), "resume": False, "perp_neg": 0.5, "render_sizes": None,
        "view_words": ViewWords((("front", 0.0), ("rear", 180.0))),
    }  # fmt: skip
    assert Asset.load("x/seed-7/asset.safetensors").config["seed"] == 7
    assert Asset.load("x/seed-8/asset.safetensors").config["seed"] == 8


def test_names_of_objectives_are_generates_own(
    stand: Stand, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from jsdsd.__main__ import OBJECTIVES
    from jsdsd.objectives.named import OBJECTIVES as known

    assert set(OBJECTIVES) == set(known)
    own = "from jsdsd.objectives import SDS\nclass Odd:\n    grad = SDS.gradient\n"
    Path("mine_on_the_line.py").write_text(own)
    assert main(["a ball", "--objective", "mine_on_the_line:SDS"]) == 0
    assert stand.arguments["objective"] == "mine_on_the_line:SDS"
    for name, words in (("mine_on_the_line:Odd", "has no gradient"), ("nowhere:X", 'no module "nowhere"')):
        assert main(["a ball", "--objective", name]) == BAD_INPUT
        assert words in capsys.readouterr().err


def test_defaults_are_generates_own(stand: Stand) -> None:
    import inspect

    from jsdsd.generation import generate

    assert main(["a ball"]) == 0
    defaults = {n: p.default for n, p in inspect.signature(generate).parameters.items()}
    own = {
        "model": ("toybox", {"device": "cpu", "dtype": None, "preset": None}),
        "checkpoint": Path("out/checkpoint.safetensors"),
    }
    assert stand.arguments == {name: own.get(name, defaults[name]) for name in stand.arguments}
    assert defaults["model"] == "toybox" and defaults["device"] is defaults["dtype"] is None


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ValueError('the toybox has no word "zebra"; try model="sdxl"'), BAD_INPUT),
        (FileNotFoundError('there is no model folder "x"'), BAD_INPUT),
        (FloatingPointError("the gradient is NaN at step 3"), FAILED_RUN),
    ],
)
def test_an_error_is_one_line_without_traceback(
    stand: Stand, capsys: pytest.CaptureFixture[str], error: Exception, code: int
) -> None:
    stand.error = error
    assert main(["a zebra"]) == code
    assert capsys.readouterr().err == f"jsdsd: {error}\n"


def test_a_bug_is_not_hidden(stand: Stand) -> None:
    stand.error = TypeError("a bug")
    with pytest.raises(TypeError):
        main(["a ball"])


def test_ctrl_c_saves_what_there_is(stand: Stand, capsys: pytest.CaptureFixture[str]) -> None:
    stand.error = KeyboardInterrupt()
    stand.error.asset = small_asset("half a ball")  # type: ignore[attr-defined]
    assert main(["half a ball"]) == INTERRUPTED
    said = capsys.readouterr().err
    assert "Stopped after 1 steps" in said and "--resume" not in said  # there is no checkpoint yet
    assert Asset.load("out/asset.safetensors").prompt == "half a ball"
    Path("out/checkpoint.safetensors").touch()
    assert main(["half a ball"]) == INTERRUPTED
    assert "To go on: python -m jsdsd --resume out" in capsys.readouterr().err
    assert Path("out/views.png").exists()


def test_ctrl_c_with_an_object_that_has_no_surface_yet_saves_the_asset(
    stand: Stand, capsys: pytest.CaptureFixture[str]
) -> None:
    stand.error = KeyboardInterrupt()
    empty = VoxelGrid([torch.full((4, 8, 8, 8), -10.0)])
    stand.error.asset = Asset(empty, "a ball", {}, [])  # type: ignore[attr-defined]
    assert main(["a ball"]) == INTERRUPTED
    assert "is saved, but not all of the rest" in capsys.readouterr().err
    assert Asset.load("out/asset.safetensors").prompt == "a ball"
    assert Path("out/views.png").exists() and not Path("out/asset.glb").exists()


def test_ctrl_c_before_the_first_step(stand: Stand, capsys: pytest.CaptureFixture[str]) -> None:
    stand.error = KeyboardInterrupt()
    assert main(["a ball"]) == INTERRUPTED
    assert "before there was anything" in capsys.readouterr().err


def test_a_gpu_that_is_not_there_is_said_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("cuda:99", "tpu"):
        assert main(["a ball", "--device", name, "-o", str(tmp_path)]) == BAD_INPUT
        assert name in (said := capsys.readouterr().err) and said.count("\n") == 1


@pytest.mark.parametrize("arguments", [["  "], ["a ball", "--num-assets", "0"]])
def test_bad_values_stop_before_the_work(stand: Stand, arguments: list[str]) -> None:
    assert main(arguments) == BAD_INPUT
    assert not stand.called


@pytest.mark.parametrize(
    "arguments",
    [[], ["a ball", "--steps", "many"], ["a ball", "--sed", "3"], ["a", "ball"], ["a ball", "--objective", "kl"],
     ["a ball", "--prompts", "list.txt"], ["a ball", "--resume", "out"]],
)  # fmt: skip
def test_argparse_refuses_with_exit_code_2(stand: Stand, arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == BAD_INPUT
    assert not stand.called


def test_a_file_where_the_folder_should_be_stops_before_the_work(
    stand: Stand, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("out").write_text("a file")
    assert main(["a ball"]) == BAD_INPUT
    assert "is a file, not a folder" in capsys.readouterr().err
    assert not stand.called


def test_a_folder_where_a_file_should_be_stops_before_the_work(stand: Stand) -> None:
    Path("out/turntable.gif").mkdir(parents=True)
    assert main(["a ball"]) == BAD_INPUT
    assert not stand.called


def test_each_process_of_a_machine_takes_its_own_gpu(stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    Path("list.txt").write_text("\n".join(f"a ball of kind {i}" for i in range(8)))
    for name, value in (("RANK", "6"), ("WORLD_SIZE", "8"), ("LOCAL_RANK", "2")):
        monkeypatch.setenv(name, value)
    assert main(["--prompts", "list.txt", "--model", "sdxl"]) == 0
    assert stand.arguments["model"] == ("sdxl", {"device": "cuda:2", "dtype": None, "preset": None})
    assert stand.prompt == "a ball of kind 6" and stand.arguments["resume"] and not stand.arguments["progress"]
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)  # where there is none, `Guidance.load` says so
    assert main(["--prompts", "list.txt", "--model", "sdxl", "-o", "none", "--device", "cuda"]) == 0
    assert stand.arguments["model"][1]["device"] == "cuda"
    assert main(["--prompts", "list.txt", "--model", "toybox", "-o", "toys"]) == 0
    assert stand.arguments["model"][1]["device"] == "cpu"


def test_help_names_every_option_and_gives_examples(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--help"])
    assert caught.value.code == 0
    text = capsys.readouterr().out
    for word in (
        "PROMPT",
        "--output",
        "--num-assets",
        "--guidance-scale",
        "--prompts",
        "--resume",
        "a red mushroom",
        "exit codes",
    ):
        assert word in text
