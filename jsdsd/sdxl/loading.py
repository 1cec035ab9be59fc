"""Where SDXL's weights come from - a folder, the hub, one file - and which models are refused, in words.

Whatever is asked for becomes a folder (or a file) on this machine first; only then is it read.  So a machine without a
network and a missing file fail in one place, with one message that says what to fetch.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

SDXL = "stabilityai/stable-diffusion-xl-base-1.0"
PARTS = ("unet", "vae", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2", "scheduler")
NETWORKS = PARTS[:4]
# Names of models that were distilled to make a picture in a few steps: their output is no noise prediction at every t.
DISTILLED = re.compile(r"(?<![a-z])(turbo|lightning|(lcm|tcd|hyper|dmd2?|distilled)(?![a-z]))", re.IGNORECASE)


def load_pipeline(model: str | Path, dtype: torch.dtype) -> tuple[Any, dict[str, Any]]:
    """The StableDiffusionXLPipeline of a model, and what its folder says of itself in toybox.json where it is a toybox.

    model: "toybox", "sdxl", a hub id (owner/name), a folder in diffusers' layout, or a single .safetensors file with
    all of SDXL's parts.  dtype: of the U-Net; the text encoders follow it in float16, the VAE stays in float32.
    Raises FileNotFoundError for what is missing or incomplete, OSError where the weights are not here and cannot be
    fetched, ValueError for a model that is not an SDXL base model.
    """
    if str(model) == "toybox":
        from ..toybox import path

        model = path()
    name = SDXL if str(model) == "sdxl" else str(model)
    place = Path(name).expanduser()
    refuse_distilled_name(place.name)
    if place.suffix in (".safetensors", ".ckpt", ".pt", ".bin"):
        pipe = _from_file(place, dtype)
    else:
        folder = place if place.is_dir() else _from_hub(name)
        pipe = _from_folder(folder, name, dtype)
        place = folder
    refuse_other_networks(pipe, name)
    facts = place / "toybox.json"
    return pipe, json.loads(facts.read_text()) if facts.exists() else {}


def _from_folder(folder: Path, name: str, dtype: torch.dtype) -> Any:
    refuse_other_pipelines(folder, name)
    missing = [part for part in ("model_index.json", *PARTS) if not (folder / part).exists()]
    missing += [f"{part}'s weights" for part in NETWORKS if not missing and not any((folder / part).glob("*.safe*"))]
    for part in ("tokenizer", "tokenizer_2"):  # transformers makes one of what is there, and takes prompts to pieces
        words = ["tokenizer.json"] if (folder / part / "tokenizer.json").exists() else ["vocab.json", "merges.txt"]
        for file in ("tokenizer_config.json", *words):
            if part not in missing and not (folder / part / file).exists():
                missing.append(f"{part}/{file}")
    if missing:
        raise FileNotFoundError(
            f'the model folder "{folder}" is incomplete: it lacks {", ".join(missing)} (weights are *.safetensors '
            f"files; nothing is unpickled).  Fetch it again:\n    {fetch(name if name.count('/') == 1 else SDXL)}"
        )
    texts = {part: _text_encoder(folder / part, dtype) for part in ("text_encoder", "text_encoder_2")}
    with _quiet(), _unreadable(f'the model folder "{folder}"'):
        from diffusers import StableDiffusionXLPipeline

        return _whole(
            StableDiffusionXLPipeline.from_pretrained(
                folder, **texts, variant=_variant(folder / "unet", dtype), use_safetensors=True, add_watermarker=False,
                dtype={"vae": torch.float32, "unet": dtype, "default": torch.float32}, local_files_only=True,
            )
        )  # fmt: skip


def _text_encoder(folder: Path, dtype: torch.dtype) -> Any:
    with _quiet(), _unreadable(f'the model folder "{folder}"'):
        import transformers

        kind = transformers.CLIPTextModelWithProjection if folder.name.endswith("2") else transformers.CLIPTextModel
        encoder, info = kind.from_pretrained(
            folder, variant=_variant(folder, dtype), use_safetensors=True, local_files_only=True,
            dtype=torch.float16 if dtype == torch.float16 else torch.float32, output_loading_info=True,
        )  # fmt: skip
        if info["missing_keys"]:  # transformers would go on with random numbers
            raise OSError(f"it lacks {sorted(info['missing_keys'])[0]}")
        return encoder


def _variant(folder: Path, dtype: torch.dtype) -> str | None:
    """Of the weights to take: "fp16" where that is all there is, or precise enough; else the full ones."""
    full = any(".fp16." not in path.name for path in folder.glob("*.safetensors"))
    some = any(folder.glob("*.fp16.safetensors"))
    return "fp16" if some and (dtype in (torch.float16, torch.bfloat16) or not full) else None


def _whole(pipe: Any) -> Any:
    """The pipeline, unless a network lacks weights: diffusers leaves those without content."""
    for part in NETWORKS:
        for name, x in getattr(pipe, part).named_parameters():
            if x.is_meta:
                raise OSError(f"{part} lacks {name}")
    return pipe


@contextmanager
def _unreadable(what: str) -> Iterator[None]:
    """Whatever libraries say about files that are broken becomes one OSError."""
    from safetensors import SafetensorError

    try:
        yield
    except (OSError, SafetensorError, RuntimeError, ValueError, KeyError, TypeError) as error:
        why = "a weight is missing" if isinstance(error, NotImplementedError) else error  # says PyTorch of empty ones
        raise OSError(f"{what} cannot be read ({why}); fetch or train it again") from error


def _from_file(file: Path, dtype: torch.dtype) -> Any:
    """One file in the original layout.  The configurations stand beside it (as in diffusers' folders) or are SDXL's."""
    if file.suffix != ".safetensors":
        raise ValueError(f'"{file}" is a pickle, which can run code: convert it to .safetensors')
    if not file.is_file():
        raise FileNotFoundError(f'there is no model file "{file}"')
    from safetensors import safe_open

    with _unreadable(f'the model file "{file}"'), safe_open(file, "pt") as content:
        keys = set(content.keys())
    prefixes = {
        "U-Net": "model.diffusion_model.", "VAE": "first_stage_model.",
        "text encoder": "conditioner.embedders.0.transformer.", "second text encoder": "conditioner.embedders.1.model.",
    }  # fmt: skip
    lacks = [part for part, prefix in prefixes.items() if not any(key.startswith(prefix) for key in keys)]
    if lacks:
        raise ValueError(
            f'"{file}" holds no whole SDXL model: it lacks {", ".join(lacks)} (a LoRA, a U-Net or VAE alone, an '
            "SDXL refiner, or another model); give a file with all parts, as sd_xl_base_1.0.safetensors"
        )
    beside = (file.parent / "model_index.json").exists()
    folder = file.parent if beside else _from_hub(SDXL, weights=False)
    refuse_other_pipelines(folder, str(folder))
    with _quiet(), _unreadable(f'the model file "{file}"'):
        from diffusers import StableDiffusionXLPipeline

        pipe = _whole(
            StableDiffusionXLPipeline.from_single_file(
                str(file), config=str(folder), dtype=torch.float16 if dtype == torch.float16 else torch.float32,
                local_files_only=True, add_watermarker=False,
            )
        )  # fmt: skip
    if "v_pred" in keys:  # how such files say that they predict v
        pipe.scheduler.register_to_config(prediction_type="v_prediction")
    return pipe


def _from_hub(name: str, weights: bool = True) -> Path:
    """The folder of a hub model in this machine's cache, fetched if need be: fp16 files where there are any, half the
    download of the full ones; loading casts them."""
    if name.count("/") != 1 or name.startswith((".", "~", "/")):
        raise FileNotFoundError(
            f'there is no model folder "{name}"; give "toybox", "sdxl", a hub id (owner/name), an existing folder in '
            "diffusers' layout or a .safetensors file"
        )
    from huggingface_hub import errors, snapshot_download

    small = ["*.json", "*.txt"]
    try:
        folder = Path(snapshot_download(name, allow_patterns=small))
        refuse_other_pipelines(folder, name)  # before gigabytes come
        if weights:
            folder = Path(snapshot_download(name, allow_patterns=[*small, "*/*.fp16.safetensors"]))
        rest = [f"{part}/*.safetensors" for part in NETWORKS if not any((folder / part).glob("*.safetensors"))]
        if weights and rest:
            folder = Path(snapshot_download(name, allow_patterns=[*small, *rest], ignore_patterns="*.fp16.*"))
    except errors.GatedRepoError as error:
        raise OSError(
            f'"{name}" wants its licence accepted first, at https://huggingface.co/{name}; then: hf auth login'
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise FileNotFoundError(f'the hub has no model "{name}" (or it is private: hf auth login)') from error
    except (OSError, errors.HfHubHTTPError) as error:  # LocalEntryNotFoundError, and whatever a network can do
        raise OSError(
            f'the weights of "{name}" are not on this machine and the hub cannot be reached.  With a network, run '
            f"once (7 GB for SDXL):\n    {fetch(name)}\nand copy the cache folder (HF_HOME), or give the folder of a "
            f"copy as model=.  ({error})"
        ) from error
    return folder


def fetch(name: str) -> str:
    """The shell command that fetches what is needed of a hub model."""
    return f'hf download {name} --include "*.json" --include "*.txt" --include "*/*.fp16.safetensors"'


def refuse_distilled_name(name: str) -> None:
    """ValueError for a file, folder or hub name that says that the model was distilled."""
    if found := DISTILLED.search(name):
        raise ValueError(
            f'"{name}" is a distilled model ({found[0]}): it was trained to jump to a picture in a few steps, and its '
            'output is no noise prediction at other noise levels; use the model it was made from, as model="sdxl"'
        )


def refuse_other_pipelines(folder: Path, name: str) -> None:
    """ValueError for a model that its model_index.json, where there is one, says is of another kind."""
    if not (index := folder / "model_index.json").exists():
        return
    with _unreadable(f'"{index}"'):
        kind = json.loads(index.read_text(encoding="utf-8")).get("_class_name")
    if kind != "StableDiffusionXLPipeline":
        raise ValueError(
            f'"{name}" is a {kind or "model of unknown kind"}, but score distillation here needs a text-to-image '
            'StableDiffusionXLPipeline; use an SDXL base model, as model="sdxl"'
        )


def refuse_other_networks(pipe: Any, name: str) -> None:
    """ValueError for parts that do not fit together as in SDXL base, whatever their folder calls itself."""
    unet, scheduler = pipe.unet.config, pipe.scheduler
    if unet.time_cond_proj_dim is not None or type(scheduler).__name__ in ("LCMScheduler", "TCDScheduler"):
        raise ValueError(f'"{name}" is a distilled (consistency) model; use the model it was made from')
    if scheduler.config.get("timestep_spacing") == "trailing" and "Ancestral" in type(scheduler).__name__:
        raise ValueError(f'"{name}" samples as SDXL-Turbo does, a distilled model; use model="sdxl"')
    vector = pipe.text_encoder_2.config.projection_dim if pipe.text_encoder_2 is not None else 0
    for wrong, reason in (
        (pipe.text_encoder is None or pipe.text_encoder_2 is None, "it lacks a text encoder (an SDXL refiner?)"),
        (unet.addition_embed_type != "text_time", "its U-Net takes no picture sizes"),
        ((unet.in_channels, unet.out_channels) != (4, 4), f"its U-Net reads {unet.in_channels} channels (inpainting?)"),
        (
            unet.projection_class_embeddings_input_dim != vector + 6 * (unet.addition_time_embed_dim or 0),
            "its U-Net does not take a prompt vector and six picture sizes (an SDXL refiner?)",
        ),
        (pipe.vae.config.latent_channels != 4, f"its VAE has {pipe.vae.config.latent_channels} channels"),
    ):
        if wrong:
            raise ValueError(f'"{name}" is not an SDXL base model: {reason}; use one, as model="sdxl"')


@contextmanager
def _quiet() -> Iterator[None]:
    """No progress bars and no warnings of what nothing here needs (torchvision) while a model is read."""
    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()  # before diffusers, whose import makes transformers warn
    transformers_logging.disable_progress_bar()
    from diffusers.utils import logging

    level = logging.get_verbosity()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
