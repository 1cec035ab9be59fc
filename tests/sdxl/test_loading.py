"""Every way a model can reach the pipeline, and every model that is turned away, in words.  No network anywhere."""

from __future__ import annotations

import importlib.metadata
import json
import shutil
import socket
import sys
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest
import torch
from safetensors.torch import load_file, save_file

from jsdsd import toybox
from jsdsd.sdxl import loading
from jsdsd.sdxl.family import NEEDED, STABLE_DIFFUSION
from jsdsd.sdxl.guidance import Guidance
from jsdsd.sdxl.manifest import check_manifest, write_manifest

sys.path.insert(0, str(Path(__file__).parent))  # the miniature lies beside this file
import miniature


def weights(guidance: Guidance) -> dict[str, torch.Tensor]:
    parts = {name: getattr(guidance.pipe, name) for name in loading.NETWORKS}
    return {f"{p}.{k}": v for p, part in parts.items() for k, v in part.state_dict().items()}


def same(one: Guidance, other: Guidance) -> bool:
    a, b = weights(one), weights(other)
    return a.keys() == b.keys() and all(torch.equal(a[k].float(), b[k].float()) for k in a)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("mini") / "model"
    miniature.pipeline().save_pretrained(place)
    return place


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / "model"))


def edit(file: Path, **changes: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def as_fp16(folder: Path, keep_full: bool) -> None:
    for file in folder.rglob("*.safetensors"):
        half = {k: v.half() if v.is_floating_point() else v for k, v in load_file(file).items()}
        save_file(half, file.with_name(f"{file.stem}.fp16.safetensors"), metadata={"format": "pt"})
        if not keep_full:
            file.unlink()


def in_cache(folder: Path, cache: Path, name: str) -> None:
    """What the hub's client leaves on a disk after it fetched `name`."""
    place = cache / f"models--{name.replace('/', '--')}"
    shutil.copytree(folder, place / "snapshots" / "abc")
    (place / "refs").mkdir()
    (place / "refs" / "main").write_text("abc")


def test_a_folder_gives_the_same_weights_and_the_vae_stays_in_full_precision(folder: Path) -> None:
    loaded = Guidance.load(folder)
    assert same(loaded, Guidance(miniature.pipeline()))
    assert loaded.facts.words is None and loaded.image_size == 64 and loaded.latent_shape == (4, 8, 8)
    half = Guidance.load(str(folder), dtype=torch.float16)
    assert (half.unet.dtype, half.vae.dtype, half.pipe.text_encoder.dtype) == (
        torch.float16, torch.float32, torch.float16,
    )  # fmt: skip
    brain = Guidance.load(str(folder), dtype=torch.bfloat16)
    assert (brain.unet.dtype, brain.vae.dtype) == (torch.bfloat16, torch.float32)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("keep_full", [False, True])
def test_the_fp16_variant_is_read_where_it_is_all_there_is_or_precise_enough(
    copy: Path, dtype: torch.dtype, keep_full: bool
) -> None:
    as_fp16(copy, keep_full)
    loaded, pipe = Guidance.load(copy, dtype=dtype), miniature.pipeline()
    full = next(iter(pipe.text_encoder.state_dict().values()))
    used = next(iter(loaded.pipe.text_encoder.state_dict().values())).float()
    rounded = not (keep_full and dtype == torch.float32)
    assert torch.equal(used, full.half().float() if rounded else full)
    vae = next(iter(loaded.vae.state_dict().values()))  # computes in float32 in any case: the full one where there is
    exact = next(iter(pipe.vae.state_dict().values()))
    assert torch.equal(vae, exact if keep_full else exact.half().float())


@pytest.mark.parametrize("marks", [(), ("v_pred",), ("v_pred", "ztsnr")], ids=str)
def test_a_single_file_gives_the_same_weights(copy: Path, marks: tuple[str, ...]) -> None:
    file = copy / "one.safetensors"
    miniature.save_single_file(miniature.pipeline(), file)
    for part in loading.NETWORKS:  # only the configurations stay beside it
        for path in (copy / part).glob("*.safetensors"):
            path.unlink()
    save_file(load_file(file) | {mark: torch.zeros(0) for mark in marks}, file)
    loaded = Guidance.load(file)
    assert same(loaded, Guidance(miniature.pipeline()))
    assert loaded.prediction_type == ("v_prediction" if marks else "epsilon")
    assert (loaded.schedule.alpha(999) < 1e-3) == ("ztsnr" in marks)


def test_a_single_file_without_configurations_or_network_says_what_to_fetch(tmp_path: Path) -> None:
    miniature.save_single_file(miniature.pipeline(), tmp_path / "one.safetensors")
    with pytest.raises(OSError, match=r'\(3 MB\)(.|\n)*hf download \S+-1.0 --include "\*.json" --include "\*.txt"\n'):
        Guidance.load(tmp_path / "one.safetensors")


@pytest.mark.parametrize("prefix", ["model.diffusion_model.", "first_stage_model.", "conditioner.embedders.1."])
def test_a_file_with_a_part_missing_is_refused(tmp_path: Path, prefix: str) -> None:
    file = tmp_path / "part.safetensors"
    miniature.save_single_file(miniature.pipeline(), file)
    save_file({k: v for k, v in load_file(file).items() if not k.startswith(prefix)}, file)
    with pytest.raises(ValueError, match="holds no whole SDXL model"):
        Guidance.load(file)


def test_files_that_are_missing_damaged_or_pickles_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no model file"):
        Guidance.load(tmp_path / "none.safetensors")
    (tmp_path / "bad.safetensors").write_bytes(b"not this")
    with pytest.raises(OSError, match="cannot be read"):
        Guidance.load(tmp_path / "bad.safetensors")
    (tmp_path / "old.ckpt").write_bytes(b"x")
    with pytest.raises(ValueError, match="convert it to .safetensors"):
        Guidance.load(tmp_path / "old.ckpt")


@pytest.mark.parametrize("only_half", [False, True])
def test_a_hub_model_in_the_cache_needs_no_network(
    copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, only_half: bool
) -> None:
    if only_half:
        as_fp16(copy, keep_full=False)
    in_cache(copy, tmp_path / "hub", loading.SDXL)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    for dtype in (torch.float32, torch.float16):
        loaded, expected = (Guidance.load(m, dtype=dtype) for m in ("sdxl", copy))
        assert same(loaded, expected)


def test_a_cache_that_a_broken_download_left_says_what_to_fetch(
    copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for file in (copy / "unet").glob("*.safetensors"):
        file.unlink()
    in_cache(copy, tmp_path / "hub", loading.SDXL)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    with pytest.raises(FileNotFoundError, match=r"lacks unet's weights(.|\n)*hf download stabilityai/"):
        Guidance.load("sdxl")


@pytest.mark.parametrize("name", ["sdxl", "nobody/nothing"])
def test_no_weights_and_no_network_is_one_error_with_the_command(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(OSError) as caught:
        Guidance.load(name)
    message = str(caught.value)
    assert "cannot be reached" in message and loading.fetch(loading.SDXL if name == "sdxl" else name) in message


@pytest.mark.parametrize(
    "name",
    ["stabilityai/sdxl-turbo", "ByteDance/SDXL-Lightning", "/x/sdxl_lightning_4step.safetensors", "a/Hyper-SDXL",
     "SimianLuo/LCM_XL", "x/TurboVisionXL", "tianweiy/DMD2"],
)  # fmt: skip
def test_distilled_models_are_refused_by_name_before_anything_is_fetched(name: str) -> None:
    with pytest.raises(ValueError, match="distilled"):
        Guidance.load(name)


@pytest.mark.parametrize("name", ["stabilityai/stable-diffusion-xl-base-1.0", "a/HyperrealXL", "b/nocturbox"])
def test_other_names_are_not(name: str) -> None:
    loading.refuse_distilled_name(name)


@pytest.mark.parametrize(
    ("file", "changes", "says"),
    [
        ("model_index.json", {"_class_name": "StableDiffusion3Pipeline"}, "is a StableDiffusion3Pipeline"),
        ("model_index.json", {"_class_name": "StableDiffusionXLImg2ImgPipeline"}, "needs a text-to-image"),
        ("model_index.json", {"_class_name": "FluxPipeline"}, "is a FluxPipeline"),
        ("model_index.json", {"scheduler": ["diffusers", "LCMScheduler"]}, "distilled"),
        ("model_index.json", {"scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"]}, "alphas_cumprod"),
        ("scheduler/scheduler_config.json", {"prediction_type": "flow"}, 'unknown prediction_type "flow"'),
    ],
)  # fmt: skip
def test_other_pipelines_are_refused(copy: Path, file: str, changes: dict[str, Any], says: str) -> None:
    edit(copy / file, **changes)
    with pytest.raises(ValueError, match=says):
        Guidance.load(copy)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # in diffusers' scheduler
def test_turbos_sampler_is_refused_under_any_name(copy: Path) -> None:
    edit(copy / "model_index.json", scheduler=["diffusers", "EulerAncestralDiscreteScheduler"])
    edit(copy / "scheduler/scheduler_config.json", timestep_spacing="trailing")
    with pytest.raises(ValueError, match="SDXL-Turbo"):
        Guidance.load(copy)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"time_cond_proj_dim": 8}, "distilled"),
        ({"in_channels": 9}, "inpainting"),
        ({"projection_class_embeddings_input_dim": 48 + 5 * 8}, "six picture sizes"),
        ({"addition_embed_type": None}, "no picture sizes"),
        ({"cross_attention_dim": 24}, "text encoders give 80 numbers a token, its U-Net reads 24"),
    ],
)
def test_other_unets_are_refused(tmp_path: Path, changes: dict[str, Any], says: str) -> None:
    from diffusers import UNet2DConditionModel

    pipe = miniature.pipeline()
    config = {k: v for k, v in pipe.unet.config.items() if not k.startswith("_")}
    pipe.unet = UNet2DConditionModel(**config | changes)
    pipe.save_pretrained(tmp_path / "model")
    with pytest.raises(ValueError, match=says):
        Guidance.load(tmp_path / "model")


class Hub:
    """In snapshot_download's place: copies what fits the patterns, and remembers them."""

    def __init__(self, source: Path, cache: Path):
        self.source, self.cache, self.asked = source, cache, []

    def __call__(self, name: str, allow_patterns: list[str], ignore_patterns: str = "") -> str:
        files = [str(p.relative_to(self.source)) for p in self.source.rglob("*") if p.is_file()]
        fits = [f for f in files if any(fnmatch(f, a) for a in allow_patterns) and not fnmatch(f, ignore_patterns)]
        self.asked.append(sorted(f for f in fits if f.endswith(".safetensors")))
        for file in fits:
            (self.cache / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(self.source / file, self.cache / file)
        return str(self.cache)


@pytest.mark.parametrize("file", ["scheduler/scheduler_config.json", "vae/config.json", "model_index.json"])
def test_a_local_folder_never_asks_the_network(copy: Path, file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A past failure: diffusers takes a configuration that is a JSON string for a model on the hub."""
    asked: list[Any] = []
    monkeypatch.setattr(socket, "getaddrinfo", lambda *a, **_: asked.append(a) or [])
    monkeypatch.setattr(socket.socket, "connect", lambda *a: asked.append(a))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    (copy / file).write_text('"someone/repo"')
    with pytest.raises(OSError, match="is no JSON object"):
        Guidance.load(copy)
    assert not asked and not huggingface_hub.constants.HF_HUB_OFFLINE


def test_half_shards_and_a_vae_without_the_unets_variant_are_found(copy: Path) -> None:
    from diffusers import UNet2DConditionModel

    unet, vae = copy / "unet", copy / "vae"
    UNet2DConditionModel.from_pretrained(unet).half().save_pretrained(unet, variant="fp16", max_shard_size="200KB")
    (unet / "diffusion_pytorch_model.safetensors").unlink()
    assert len(list(unet.glob("*.fp16-0000*-of-*.safetensors"))) > 1
    half = Guidance.load(copy, dtype=torch.float16)  # the U-Net in half shards, a full VAE
    expected = miniature.pipeline().unet.state_dict()
    assert all(torch.equal(x, expected[name].half()) for name, x in half.unet.state_dict().items())
    full = load_file(vae / "diffusion_pytorch_model.safetensors")
    save_file(full, vae / "diffusion_pytorch_model.fp16.safetensors", metadata={"format": "pt"})
    (vae / "diffusion_pytorch_model.safetensors").unlink()
    assert Guidance.load(copy, dtype=torch.float32).vae.dtype == torch.float32


def test_a_library_that_is_too_old_is_named_with_the_version_that_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.metadata, "version", lambda name: {"transformers": "5.5.4"}.get(name, "10.1"))
    with pytest.raises(
        OSError, match=r'transformers 5.5.4 is installed, 5.6 or newer .* pip install "transformers>=5.6"'
    ):
        Guidance.load("toybox")
    project = (Path(__file__).parents[2] / "pyproject.toml").read_text()
    for name, least in NEEDED.items():
        assert f'"{name}>={".".join(map(str, least))}' in project


def test_a_module_named_in_model_index_is_not_imported(copy: Path) -> None:
    edit(copy / "model_index.json", scheduler=["antigravity", "Anything"])
    with pytest.raises(ValueError, match="only diffusers and transformers may"):
        Guidance.load(copy)


def test_another_vae(copy: Path) -> None:
    other = miniature.pipeline(seed=1)
    other.vae.save_pretrained(copy.parent / "vae")
    found = Guidance.load(copy, vae=str(copy.parent / "vae")).vae.state_dict()
    assert all(torch.equal(x, other.vae.state_dict()[name]) for name, x in found.items())
    with pytest.raises(FileNotFoundError, match="no model folder"):
        Guidance.load(copy, vae=str(copy / "nothing" / "here"))


@pytest.mark.parametrize("name", ["a/b@abc", "https://huggingface.co/a/b@abc"])
def test_a_revision_is_asked_for(name: str, copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub, asked = Hub(copy, tmp_path / "cache"), []

    def download(name: str, *, revision: str, **rest: Any) -> str:
        asked.append((name, revision))
        return hub(name, **rest)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    Guidance.load(name)
    assert set(asked) == {("a/b", "abc")}
    assert "hf download a/b --revision abc --include" in loading.fetch("a/b", revision="abc")


def test_a_file_that_is_not_the_one_that_was_shipped_is_named(tmp_path: Path) -> None:
    model = Path(shutil.copytree(toybox.path(), tmp_path / "model"))
    check_manifest(model)
    listed = {line.split("  ")[1] for line in (model / "sha256.txt").read_text().splitlines()}
    assert {str(p.relative_to(model)) for p in model.rglob("*.*") if p.is_file()} == listed | {"sha256.txt"}
    file = model / "unet" / "diffusion_pytorch_model.safetensors"
    bits = bytearray(file.read_bytes())
    bits[-1000] ^= 4
    file.write_bytes(bits)
    with pytest.raises(OSError, match=r"diffusion_pytorch_model.safetensors\" is damaged: its SHA-256"):
        Guidance.load(model)
    bits[-1000] ^= 4
    file.write_bytes(bits)
    (model / "vae" / "config.json").unlink()
    with pytest.raises(FileNotFoundError, match="lacks vae/config.json"):
        check_manifest(model)
    write_manifest(model)
    check_manifest(model)


def test_stable_diffusion_is_read_from_a_folder_a_file_and_the_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe = miniature.stable_diffusion()
    pipe.save_pretrained(tmp_path / "model")
    loaded = Guidance.load(tmp_path / "model")
    for part in ("unet", "vae", "text_encoder"):
        theirs = getattr(loaded.pipe, part).state_dict()
        assert all(torch.equal(x, theirs[name]) for name, x in getattr(pipe, part).state_dict().items())
    hub = Hub(tmp_path / "model", tmp_path / "cache")
    monkeypatch.setattr(huggingface_hub, "snapshot_download", hub)
    assert Guidance.load("some/sd").dtype == torch.float32
    assert [len(files) for files in hub.asked] == [0, 0, 3]  # no half files: a full one of each network
    file = tmp_path / "alone" / "v2.safetensors"
    file.parent.mkdir()
    save_file({f"{p}x": torch.zeros(1) for p in STABLE_DIFFUSION.prefixes.values()}, file)
    with pytest.raises(ValueError, match="does not say whether it predicts noise or v"):
        Guidance.load(file)
    shutil.rmtree(tmp_path / "model" / "tokenizer")
    with pytest.raises(FileNotFoundError, match="lacks tokenizer "):
        Guidance.load(tmp_path / "model")


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_what_is_fetched_from_the_hub(
    copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype
) -> None:
    """Half files where there are any, a part's full ones where there are not, and nothing of another pipeline."""
    as_fp16(copy, keep_full=True)
    (copy / "vae" / "diffusion_pytorch_model.fp16.safetensors").unlink()
    monkeypatch.setattr(huggingface_hub, "snapshot_download", hub := Hub(copy, tmp_path / "cache"))
    assert Guidance.load("some/model", dtype=dtype).unet.dtype == dtype
    names = {part: "model" if part.startswith("text") else "diffusion_pytorch_model" for part in loading.NETWORKS}
    half = [f"{part}/{name}.fp16.safetensors" for part, name in sorted(names.items()) if part != "vae"]
    assert hub.asked == [[], half, ["vae/diffusion_pytorch_model.safetensors"]]
    edit(copy / "model_index.json", _class_name="FluxPipeline")
    monkeypatch.setattr(huggingface_hub, "snapshot_download", hub := Hub(copy, tmp_path / "other"))
    with pytest.raises(ValueError, match="is a FluxPipeline"):
        Guidance.load("some/flux", dtype=torch.float16)
    assert hub.asked == [[]]


@pytest.mark.parametrize(
    ("wrong", "says"),
    [({"dtype": "float16"}, "dtype is torch.float16, torch.bfloat16 or torch.float32, got 'float16'"),
     ({"dtype": torch.int8}, "dtype is"), ({"preset": "12"}, "no preset for '12' GB"),
     ({"device": "gpu"}, 'no device "gpu"'), ({"device": "cuda:99"}, 'no GPU "cuda:99" here')],
)  # fmt: skip
def test_wrong_devices_types_and_presets_are_refused_before_anything_is_loaded(wrong: Any, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Guidance.load("nobody/nothing", **wrong)


def test_the_toybox_brings_its_words() -> None:
    assert "mushroom" in (Guidance.load("toybox").facts.words or ())
    assert same(Guidance.load("toybox"), Guidance.load(toybox.path()))
