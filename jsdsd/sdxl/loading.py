"""Where a model's weights come from - a folder, the hub, one file - and which models are refused, in words.

Whatever is asked for becomes a folder (or a file) on this machine first; only then is it read.  So a machine without a
network and a missing file fail in one place, with one message that says what to fetch.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from .facts import Facts
from .family import FAMILIES, refuse_distilled_name, refuse_old_libraries, refuse_other_networks, refuse_other_pipelines
from .manifest import check_manifest

SDXL = "stabilityai/stable-diffusion-xl-base-1.0"
SHORT = {"sdxl": SDXL, "toybox": str(Path(__file__).parents[1] / "toybox" / "weights")}  # names that stand for others
NETWORKS = ("unet", "vae", "text_encoder", "text_encoder_2")
HUB = "https://huggingface.co/"


def load_pipeline(model: str | Path, dtype: torch.dtype, vae: str | None = None) -> tuple[Any, Facts]:
    """diffusers' pipeline of a model, and what its folder says of itself.

    model: "toybox", "sdxl", a hub id (owner/name, owner/name@revision), a folder in diffusers' layout, or a single
    .safetensors file with all parts; of SDXL or Stable Diffusion 1.x, 2.x.  vae: another VAE's hub id or folder.
    dtype: of the U-Net; the text encoders follow it in float16, the VAE stays in float32.
    Raises FileNotFoundError for what is missing or incomplete, OSError where the weights are damaged, or not here and
    cannot be fetched, ValueError for a model of another kind.
    """
    name = SHORT.get(str(model), str(model))
    place = Path(name).expanduser()
    refuse_old_libraries()
    refuse_distilled_name(place.name)
    if place.suffix in (".safetensors", ".ckpt", ".pt", ".bin"):
        pipe = _from_file(place, dtype, vae)
    else:
        folder = place if place.is_dir() else _from_hub(name)
        pipe = _from_folder(folder, name, dtype, vae)
        place = folder
    refuse_other_networks(pipe, name)
    return pipe, Facts.read(place)


def _from_folder(folder: Path, name: str, dtype: torch.dtype, vae: str | None) -> Any:
    check_manifest(folder)
    _check_json(folder)
    family = refuse_other_pipelines(folder, name)
    missing = [part for part in ("model_index.json", *family.parts) if not (folder / part).exists()]
    networks = [part for part in NETWORKS if part in family.parts]
    missing += [f"{part}'s weights" for part in networks if not missing and not any((folder / part).glob("*.safe*"))]
    for part in family.parts:
        if not part.startswith("tokenizer"):  # of what is there transformers makes one that takes prompts to pieces
            continue
        words = ["tokenizer.json"] if (folder / part / "tokenizer.json").exists() else ["vocab.json", "merges.txt"]
        for file in ("tokenizer_config.json", *words):
            if part not in missing and not (folder / part / file).exists():
                missing.append(f"{part}/{file}")
    if missing:
        raise FileNotFoundError(
            f'the model folder "{folder}" is incomplete: it lacks {", ".join(missing)} (weights are *.safetensors '
            f"files; nothing is unpickled).  Fetch it again:\n    {fetch(name if name.count('/') == 1 else SDXL)}"
        )
    given = {part: _text_encoder(folder / part, dtype) for part in networks if part.startswith("text")}
    given["vae"] = _vae(folder / "vae") if vae is None else _other_vae(vae)
    with _reading(f'the model folder "{folder}"'):
        import diffusers

        return _whole(
            getattr(diffusers, family.pipeline).from_pretrained(
                folder, **given, **family.unused, variant=_variant(folder / "unet", dtype), use_safetensors=True,
                dtype={"unet": dtype, "default": torch.float32}, local_files_only=True,
            )
        )  # fmt: skip


def _vae(folder: Path) -> Any:
    """In float32, from whichever files there are."""
    with _reading(f'the VAE in "{folder}"'):
        from diffusers import AutoencoderKL

        return AutoencoderKL.from_pretrained(
            folder, variant=_variant(folder, torch.float32), use_safetensors=True, dtype=torch.float32,
            local_files_only=True,
        )  # fmt: skip


def _other_vae(name: str) -> Any:
    """From a folder with a VAE's config.json, or a hub id of one."""
    folder = Path(name).expanduser()
    if not folder.is_dir():
        folder = _fetched(name, ["*.json", "*.safetensors"])
    _check_json(folder)
    return _vae(folder)


def _text_encoder(folder: Path, dtype: torch.dtype) -> Any:
    with _reading(f'the model folder "{folder}"'):
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
    half = [".fp16." in path.name or ".fp16-" in path.name for path in folder.glob("*.safetensors")]  # - in shards
    return "fp16" if any(half) and (dtype in (torch.float16, torch.bfloat16) or all(half)) else None


def _whole(pipe: Any) -> Any:
    """The pipeline, unless a network lacks weights: diffusers leaves those without content."""
    for part in NETWORKS:
        for name, x in getattr(pipe, part).named_parameters() if hasattr(pipe, part) else ():
            if x.is_meta:
                raise OSError(f"{part} lacks {name}")
    return pipe


BROKEN = (OSError, RuntimeError, ValueError, LookupError, TypeError, AttributeError)  # RecursionError is a RuntimeError


@contextmanager
def _reading(what: str) -> Iterator[None]:
    """No network, no progress bars, no warnings of what nothing here needs (torchvision); and whatever libraries say
    about files that are broken becomes one OSError."""
    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()  # before diffusers, whose import makes transformers warn
    transformers_logging.disable_progress_bar()
    from diffusers.utils import logging
    from huggingface_hub import constants
    from safetensors import SafetensorError

    level, offline = logging.get_verbosity(), constants.HF_HUB_OFFLINE
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    constants.HF_HUB_OFFLINE = True
    try:
        yield
    except (*BROKEN, SafetensorError) as error:
        why = "a weight is missing" if isinstance(error, NotImplementedError) else error  # says PyTorch of empty ones
        raise OSError(f"{what} cannot be read ({why}); fetch or train it again") from error
    finally:
        logging.set_verbosity(level)
        constants.HF_HUB_OFFLINE = offline


def _check_json(folder: Path) -> None:
    """OSError for a configuration that is no JSON object: libraries take a JSON *string* for a model on the hub."""
    for path in sorted([*folder.glob("*.json"), *folder.glob("*/*.json")]):
        with _reading(f'"{path}"'):
            if not isinstance(json.loads(path.read_text(encoding="utf-8")), dict):
                raise ValueError("it is no JSON object")


def _from_file(file: Path, dtype: torch.dtype, vae: str | None) -> Any:
    """One file in the original layout.  The configurations stand beside it (as in diffusers' folders) or are SDXL's."""
    if file.suffix != ".safetensors":
        raise ValueError(f'"{file}" is a pickle, which can run code: convert it to .safetensors')
    if not file.is_file():
        raise FileNotFoundError(f'there is no model file "{file}"')
    from safetensors import safe_open

    with _reading(f'the model file "{file}"'), safe_open(file, "pt") as content:
        keys = set(content.keys())
    family = next((f for f in FAMILIES if any(key.startswith(f.mark) for key in keys)), FAMILIES[0])
    lacks = [part for part, prefix in family.prefixes.items() if not any(key.startswith(prefix) for key in keys)]
    if lacks:
        raise ValueError(
            f'"{file}" holds no whole {family.name} model: it lacks {", ".join(lacks)} (a LoRA, a U-Net or VAE alone, '
            "an SDXL refiner, or another model); give a file with all parts, as sd_xl_base_1.0.safetensors"
        )
    beside = (file.parent / "model_index.json").exists()
    if not beside and family is not FAMILIES[0]:
        raise ValueError(
            f'"{file}" is a {family.name} model, which does not say whether it predicts noise or v: put it into a '
            "folder with its configurations (model_index.json, unet/config.json, ...), or give a folder or hub id"
        )
    folder = file.parent if beside else _from_hub(SDXL, weights=False)
    _check_json(folder)
    refuse_other_pipelines(folder, str(folder))
    given = {} if vae is None else {"vae": _other_vae(vae)}
    with _reading(f'the model file "{file}"'):
        import diffusers

        pipe = _whole(
            getattr(diffusers, family.pipeline).from_single_file(
                str(file), config=str(folder), dtype=torch.float16 if dtype == torch.float16 else torch.float32,
                local_files_only=True, **given, **family.unused,
            )
        )  # fmt: skip
        if "v_pred" in keys:  # how such files say that they predict v, and (next) that their last level is pure noise
            pipe.scheduler.register_to_config(prediction_type="v_prediction")
        if "ztsnr" in keys:
            kind = type(pipe.scheduler)
            kind = kind if "rescale_betas_zero_snr" in pipe.scheduler.config else diffusers.DDIMScheduler
            pipe.scheduler = kind.from_config(pipe.scheduler.config, rescale_betas_zero_snr=True)
    return pipe


def _from_hub(name: str, weights: bool = True) -> Path:
    """The folder of a hub model in this machine's cache, fetched if need be: fp16 files where there are any, half the
    download of the full ones; loading casts them.  name: owner/name or owner/name@revision."""
    small = ["*.json", "*.txt"]
    folder = _fetched(name, small, weights)
    _check_json(folder)
    family = refuse_other_pipelines(folder, name)  # before gigabytes come
    if weights:
        folder = _fetched(name, [*small, "*/*.fp16.safetensors", "*/*.fp16-*.safetensors"])
        networks = (part for part in NETWORKS if part in family.parts)
        if rest := [f"{part}/*.safetensors" for part in networks if not any((folder / part).glob("*.safetensors"))]:
            folder = _fetched(name, [*small, *rest], ignore_patterns="*.fp16*")
    return folder


def _fetched(name: str, patterns: list[str], weights: bool = True, **more: Any) -> Path:
    name, _, revision = name.removeprefix(HUB).strip("/").partition("@")
    if name.count("/") != 1 or name.startswith((".", "~")):
        raise FileNotFoundError(
            f'there is no model folder "{name}"; give "toybox", "sdxl", a hub id (owner/name or owner/name@revision), '
            "an existing folder in diffusers' layout or a .safetensors file"
        )
    from huggingface_hub import errors, snapshot_download

    if revision:
        more["revision"] = revision
    try:
        return Path(snapshot_download(name, allow_patterns=patterns, **more))
    except errors.GatedRepoError as error:
        raise OSError(f'"{name}" wants its licence accepted first, at {HUB}{name}; then: hf auth login') from error
    except errors.RevisionNotFoundError as error:
        raise FileNotFoundError(f'"{name}" has no revision "{revision}" on the hub') from error
    except errors.RepositoryNotFoundError as error:
        raise FileNotFoundError(f'the hub has no model "{name}" (or it is private: hf auth login)') from error
    except (OSError, errors.HfHubHTTPError) as error:  # LocalEntryNotFoundError, and whatever a network can do
        what, size = ("weights", "7 GB for SDXL") if weights else ("configurations and tokenizers", "3 MB")
        raise OSError(
            f'the {what} of "{name}" are not on this machine and the hub cannot be reached.  With a network, run '
            f"once ({size}):\n    {fetch(name, weights, revision)}\nand copy the cache folder (HF_HOME), or give the "
            f"folder of a copy as model=.  ({error})"
        ) from error


def fetch(name: str, weights: bool = True, revision: str = "") -> str:
    """The shell command that fetches what is needed of a hub model."""
    more = ' --include "*/*.fp16*.safetensors"' if weights else ""
    at = f" --revision {revision}" if revision else ""
    return f'hf download {name}{at} --include "*.json" --include "*.txt"{more}'
