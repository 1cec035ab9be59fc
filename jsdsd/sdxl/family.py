"""The kinds of models that can guide a run, as data: what each is made of; and which models are refused, in words."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Family:
    """name: in messages.  pipeline: diffusers' class.  parts: of its folder.  unused: what is switched off when it is
    read.  mark, prefixes: names of weights in a single file in the original layout, the first of this family alone.
    addition: what the U-Net takes besides the tokens (`addition_embed_type`), None = nothing.
    """

    name: str
    pipeline: str
    parts: tuple[str, ...]
    unused: dict[str, Any]
    mark: str
    prefixes: dict[str, str]
    addition: str | None


NETWORKS = {"U-Net": "model.diffusion_model.", "VAE": "first_stage_model."}
SDXL = Family(
    "SDXL", "StableDiffusionXLPipeline",
    ("unet", "vae", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2", "scheduler"),
    {"add_watermarker": False}, "conditioner.embedders.",
    NETWORKS | {"text encoder": "conditioner.embedders.0.transformer.",
                "second text encoder": "conditioner.embedders.1.model."},
    "text_time",
)  # fmt: skip
STABLE_DIFFUSION = Family(  # 1.x and 2.x: one text encoder, its tokens alone
    "Stable Diffusion", "StableDiffusionPipeline", ("unet", "vae", "text_encoder", "tokenizer", "scheduler"),
    {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}, "cond_stage_model.",
    NETWORKS | {"text encoder": "cond_stage_model."}, None,
)  # fmt: skip
FAMILIES = SDXL, STABLE_DIFFUSION
# Names of models that were distilled to make a picture in a few steps: their output is no noise prediction at every t.
DISTILLED = re.compile(r"(?<![a-z])(turbo|lightning|(lcm|tcd|hyper|dmd2?|distilled)(?![a-z]))", re.IGNORECASE)


def family_of(pipe: Any) -> Family:
    """Of a pipeline object."""
    return next((family for family in FAMILIES if family.pipeline == type(pipe).__name__), SDXL)


MAKERS = [[None], ["diffusers"], ["transformers"], ["stable_diffusion"]]  # the last of safety checkers, not loaded
NEEDED = {"torch": (2, 6), "diffusers": (0, 41), "transformers": (5, 6)}  # pyproject.toml's bounds


def refuse_old_libraries() -> None:
    """OSError that names the installed and the needed version: older ones misread weights, or cannot be imported."""
    from importlib.metadata import version

    for library, least in NEEDED.items():
        if tuple(int(x) for x in re.findall(r"\d+", version(library))[:2]) < least:
            here, wanted = version(library), ".".join(map(str, least))
            raise OSError(
                f'{library} {here} is installed, {wanted} or newer is needed: pip install "{library}>={wanted}"'
            )


def refuse_distilled_name(name: str) -> None:
    """ValueError for a file, folder or hub name that says that the model was distilled."""
    if found := DISTILLED.search(name):
        raise ValueError(
            f'"{name}" is a distilled model ({found[0]}): it was trained to jump to a picture in a few steps, and its '
            'output is no noise prediction at other noise levels; use the model it was made from, as model="sdxl"'
        )


def refuse_other_pipelines(folder: Path, name: str) -> Family:
    """The family that a folder's model_index.json says it is of (SDXL where there is none); ValueError for others."""
    if not (index := folder / "model_index.json").exists():
        return FAMILIES[0]
    parts = json.loads(index.read_text(encoding="utf-8"))
    for part, made_by in parts.items():  # [library, class]: diffusers would import any module that stands there
        if isinstance(made_by, list) and made_by[:1] not in MAKERS:
            raise ValueError(f'"{name}" says that its {part} is made by {made_by}: only diffusers and transformers may')
    kind = parts.get("_class_name")
    for family in FAMILIES:
        if kind == family.pipeline:
            return family
    raise ValueError(
        f'"{name}" is a {kind or "model of unknown kind"}, but score distillation here needs a text-to-image model: a '
        f'{" or a ".join(f.pipeline for f in FAMILIES)}; use an SDXL base model, as model="sdxl"'
    )


def refuse_other_networks(pipe: Any, name: str) -> None:
    """ValueError for parts that do not fit together as in SDXL base, whatever their folder calls itself."""
    unet, scheduler = pipe.unet.config, pipe.scheduler
    if unet.time_cond_proj_dim is not None or type(scheduler).__name__ in ("LCMScheduler", "TCDScheduler"):
        raise ValueError(f'"{name}" is a distilled (consistency) model; use the model it was made from')
    if scheduler.config.get("timestep_spacing") == "trailing" and "Ancestral" in type(scheduler).__name__:
        raise ValueError(f'"{name}" samples as SDXL-Turbo does, a distilled model; use model="sdxl"')
    family = family_of(pipe)
    wrong = [reason for ok, reason in (
        (all(getattr(pipe, part, None) is not None for part in family.parts), "it lacks a text encoder (a refiner?)"),
        ((unet.in_channels, unet.out_channels) == (4, 4), f"its U-Net reads {unet.in_channels} channels (inpainting?)"),
        (pipe.vae.config.latent_channels == 4, f"its VAE has {pipe.vae.config.latent_channels} channels"),
        (unet.addition_embed_type == family.addition, "its U-Net takes no picture sizes, or takes more than a prompt"),
    ) if not ok]  # fmt: skip
    if not wrong:
        texts = [getattr(pipe, part).config for part in family.parts if part.startswith("text")]
        width, vector = sum(text.hidden_size for text in texts), texts[-1].projection_dim
        if unet.cross_attention_dim != width:
            wrong = [f"its text encoders give {width} numbers a token, its U-Net reads {unet.cross_attention_dim}"]
        elif (
            family.addition and unet.projection_class_embeddings_input_dim != vector + 6 * unet.addition_time_embed_dim
        ):
            wrong = ["its U-Net does not take a prompt vector and six picture sizes (an SDXL refiner?)"]
    if wrong:
        raise ValueError(f'"{name}" is not a {family.name} base model: {wrong[0]}; use one, as model="sdxl"')


def refuse_what_is_not_finite(pipe: Any) -> None:
    """ValueError that names a weight with a NaN or an infinity."""
    for part in SDXL.parts[:4]:
        for weight, x in getattr(pipe, part).named_parameters() if getattr(pipe, part, None) is not None else ():
            if not x.isfinite().all():
                raise ValueError(
                    f"the model's weight {part}.{weight} holds NaN or infinity in {x.dtype}: fetch or train the "
                    "model again; where its files are sound, use dtype=torch.bfloat16"
                )
