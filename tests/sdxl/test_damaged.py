"""Models that are damaged: every one is refused with the part named, none goes on with what is left."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from jsdsd.sdxl import loading
from jsdsd.sdxl.guidance import Guidance

sys.path.insert(0, str(Path(__file__).parent))  # the miniature lies beside this file
import miniature


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("mini") / "model"
    miniature.pipeline().save_pretrained(place)
    return place


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / "model"))


def broken(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def without_its_first(file: Path) -> None:
    state = load_file(file)
    state.pop(next(iter(state)))
    save_file(state, file, metadata={"format": "pt"})


@pytest.mark.parametrize("part", loading.NETWORKS)
@pytest.mark.parametrize("damage", [broken, without_its_first])
def test_every_networks_damaged_weights_are_refused(copy: Path, part: str, damage: Any) -> None:
    """transformers would fill what is missing with random numbers, and go on."""
    damage(next((copy / part).glob("*.safetensors")))
    with pytest.raises(OSError, match=f"cannot be read(.|\\n)*{'' if damage is broken else 'lacks'}"):
        Guidance.load(copy)


STARTS = ["model.diffusion_model.out.", "first_stage_model.encoder.", "conditioner.embedders.1."]


@pytest.mark.parametrize("start", STARTS)
def test_a_single_file_that_lacks_one_weight_is_refused(copy: Path, start: str) -> None:
    file = copy / "one.safetensors"
    miniature.save_single_file(miniature.pipeline(), file)
    state = load_file(file)
    state.pop(next(name for name in state if name.startswith(start)))
    save_file(state, file)
    with pytest.raises(OSError, match="cannot be read"):
        Guidance.load(file)
    broken(file)
    with pytest.raises(OSError, match="cannot be read"):
        Guidance.load(file)


@pytest.mark.parametrize("part", loading.NETWORKS)
def test_nan_in_any_networks_weights_is_named(copy: Path, part: str) -> None:
    file = next((copy / part).glob("*.safetensors"))
    state = load_file(file)
    next(x for x in state.values() if x.is_floating_point()).view(-1)[0] = float("nan")
    save_file(state, file, metadata={"format": "pt"})
    with pytest.raises(ValueError, match=rf"weight {part}\.\S+ holds NaN or infinity in torch.float32"):
        Guidance.load(copy)


@pytest.mark.parametrize("file", ["tokenizer/tokenizer.json", "tokenizer_2/tokenizer_config.json"])
def test_a_tokenizer_with_a_file_missing_is_refused(copy: Path, file: str) -> None:
    """transformers would make one that takes every word to pieces."""
    (copy / file).unlink()
    with pytest.raises(FileNotFoundError, match=f"lacks {file.replace('tokenizer.json', 'vocab.json')}"):
        Guidance.load(copy)


@pytest.mark.parametrize("damage", ["{", "[]", "null", "[" * 100_000])
@pytest.mark.parametrize("file", ["model_index.json", "unet/config.json", "tokenizer/tokenizer.json"])
def test_a_broken_configuration_is_named(copy: Path, file: str, damage: str) -> None:
    (copy / file).write_text(damage)
    with pytest.raises(OSError, match="cannot be read") as caught:
        Guidance.load(copy)
    assert str(copy / file).removesuffix("/config.json") in str(caught.value)


def test_another_pipeline_is_refused_for_what_it_is_and_not_for_what_it_lacks(copy: Path) -> None:
    index = copy / "model_index.json"
    index.write_text(json.dumps(json.loads(index.read_text()) | {"_class_name": "StableDiffusion3Pipeline"}))
    shutil.rmtree(copy / "text_encoder_2")
    with pytest.raises(ValueError, match="is a StableDiffusion3Pipeline"):
        Guidance.load(copy)
