"""SDXL as a denoiser of renders: one class for the embedded toybox, for the real thing, and for its elder sisters.

Everything foreign (diffusers, transformers) is adapted in this file to the library's conventions: prompts become
`Embeddings` once; renders (B, H, W, 3) in [0, 1] become scaled latents with a gradient; latents become noise
predictions without one.  The calling order is that of diffusers' StableDiffusionXLPipeline, equal to it by test.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ..objectives.diffusion import Schedule, guide
from ..scene.views import SECTORS, ViewWords, coarse_view, fine_view, view_prompts
from .device import usable_device
from .embeddings import Embeddings
from .facts import Facts, fingerprint
from .family import refuse_what_is_not_finite
from .loading import load_pipeline
from .numerics import (
    LARGE_PIXELS,
    PLAIN,
    PRESETS,
    Numerics,
    Preset,
    limit_pixel_gradient,
    prepare_vae,
    preset_for,
    rescaled,
)
from .recipe import LARGE, TOY, Recipe

if TYPE_CHECKING:
    from diffusers import StableDiffusionXLPipeline

    from .memory import MemoryPlan


class Guidance:
    """A text-to-image model that judges renders.

    pipe: a StableDiffusionXLPipeline; `Guidance.load` makes one.  guidance_scale: diffusers' convention, 1 = none.
    dtype: of the U-Net.  The VAE has its own, see `Numerics`, and no autocast around it can change that.
    """

    def __init__(
        self,
        pipe: StableDiffusionXLPipeline,
        *,
        guidance_scale: float = 7.5,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        numerics: Numerics = PLAIN,
        facts: Facts = Facts(),  # noqa: B008 - frozen
        name: str = "Guidance object",
    ):
        kind = pipe.scheduler.config.get("prediction_type", "epsilon")
        if kind not in ("epsilon", "v_prediction", "sample"):
            raise ValueError(f'unknown prediction_type "{kind}": known are epsilon, v_prediction and sample')
        self.pipe, self.guidance_scale, self.prediction_type, self.facts = pipe, guidance_scale, kind, facts
        self.name = name  # what `load` was asked for
        self.exact_cameras = facts.camera == "crop"  # told in the crop corner's place, see views.camera_corner
        self.plans: dict[tuple[int, int, int, int, bool], MemoryPlan] = {}  # made by memory.check_memory
        self.preset = PRESETS[24]  # the run's sizes; those of the toybox are `generate`'s own
        if hasattr(pipe.scheduler, "alphas_cumprod"):  # at zero terminal SNR, keep a trace of signal, as Euler's does
            pipe.scheduler.alphas_cumprod = pipe.scheduler.alphas_cumprod.clamp(min=2**-24)
        self.schedule = Schedule.from_scheduler(pipe.scheduler)
        self.unet = _placed(pipe.unet, device, dtype)
        self.vae = _placed(pipe.vae, device, numerics.vae_dtype)
        if numerics.gradient_checkpointing:
            self.unet.enable_gradient_checkpointing()  # for own_words.py; nothing else asks for its gradient
        self.device, self.dtype, self.numerics = torch.device(device), dtype, numerics
        self.own_size = int(self.unet.config.sample_size) * pipe.vae_scale_factor  # pixels; 48 toybox, 1024 SDXL
        self.image_size = numerics.image_size or self.own_size
        prepare_vae(self.vae, numerics, self.image_size)
        side = self.image_size // pipe.vae_scale_factor
        self.latent_shape = (int(self.unet.config.in_channels), side, side)
        if self.image_size < self.own_size / 2:
            raise ValueError(
                f"image_size {self.image_size} is less than half of the {self.own_size} pixels that this model was "
                "trained on: it knows no such pictures"
            )
        self.texts: list[tuple[Any, Any]] = [  # tokenizers and text encoders; one of them in Stable Diffusion 1 and 2
            (getattr(pipe, f"tokenizer{i}", None), getattr(pipe, f"text_encoder{i}", None)) for i in ("", "_2")
        ]
        self.tokenizers = [tokenizer for tokenizer, _ in self.texts if tokenizer is not None]
        refuse_what_is_not_finite(pipe)

    @classmethod
    def load(
        cls,
        model: str | Path = "toybox",
        *,
        guidance_scale: float | None = None,
        device: torch.device | str = "cpu",
        dtype: torch.dtype | None = None,
        preset: Preset | int | None = None,
        vae: str | None = None,
    ) -> Guidance:
        """From "toybox", "sdxl", a hub id, a folder in diffusers' layout or a single .safetensors file; vae: another
        VAE's folder or hub id.

        dtype of the U-Net: default float16 on a GPU, else float32.  preset: for a GPU of 8, 12, 16, 24, 40 or 80 GB;
        default as `device` has.  Raises what `loading.load_pipeline` does; ValueError for another preset or
        dtype, and for a device that is not there.
        """
        if preset is not None and not isinstance(preset, Preset):
            if preset not in PRESETS:
                raise ValueError(f"there is no preset for {preset!r} GB: there are {', '.join(map(str, PRESETS))}")
            preset = PRESETS[preset]
        if dtype not in (None, torch.float16, torch.bfloat16, torch.float32):
            raise ValueError(f"dtype is torch.float16, torch.bfloat16 or torch.float32, got {dtype!r}")
        device = usable_device(device)
        dtype = dtype or (torch.float32 if device.type == "cpu" else torch.float16)
        pipe, facts = load_pipeline(model, dtype, vae)
        usual = facts.guidance_scale or (3.0 if facts.words else 7.5)  # see docs/toybox.md
        scale = usual if guidance_scale is None else guidance_scale
        toy = pipe.unet.config.sample_size * pipe.vae_scale_factor < 256
        preset = None if toy else preset or preset_for(device)
        guidance = cls(
            pipe, guidance_scale=scale, device=device, dtype=dtype, facts=facts, name=str(model),
            numerics=preset.numerics if preset else PLAIN,
        )  # fmt: skip
        guidance.preset = preset or guidance.preset
        return guidance

    @cached_property
    def digest(self) -> str:
        """See facts.fingerprint."""
        return fingerprint(self.pipe)

    @property
    def recipe(self) -> Recipe:
        """The loop's numbers for models of this size."""
        return TOY if self.own_size < LARGE_PIXELS else LARGE

    @property
    def view_word(self) -> Callable[[float, float], str]:
        """(azimuth, elevation) in degrees -> the word this model was taught for that view."""
        known = self.facts.words
        return fine_view if known and set(" ".join(SECTORS).split()) <= set(known) else coarse_view

    def all_views(self, own: ViewWords | None = None) -> tuple[list[str], Callable[[float, float], str]]:
        """All words for views, each once, and what chooses one by the angles: `own`, or else the model's."""
        if own:
            return own.words, own
        around = ((45.0 * i, e) for e in (0.0, 90.0) for i in range(len(SECTORS)))
        return list(dict.fromkeys(self.view_word(*view) for view in around)), self.view_word

    def check_prompt(self, prompt: str, view_words: ViewWords | None = None) -> None:
        """ValueError for a prompt that is empty, or too long for the view words.

        The words stand at the end, and a tokenizer cuts what is too long there: all views would be given one text.
        """
        if not isinstance(prompt, str) or not prompt.strip():
            raise ValueError('the prompt is empty: say what to make, as "a red mushroom"')
        for tokenizer in self.tokenizers:
            for text in view_prompts(prompt, self.all_views(view_words)[0]):
                if (count := len(tokenizer(text).input_ids)) > tokenizer.model_max_length:
                    raise ValueError(
                        f'the prompt is too long: "{text}" has {count} tokens, the model reads '
                        f"{tokenizer.model_max_length}; shorten it"
                    )

    def count_tokens(self, prompt: str) -> int:
        """Of the prompt alone, without the tokens for its start and end."""
        return len(self.tokenizers[0](prompt).input_ids) - 2

    @torch.no_grad()
    def encode_prompts(self, prompts: Sequence[str], negative_prompt: str | None = None) -> Embeddings:
        """Embed P prompts at once.  negative_prompt None is SDXL's zero embedding, "" the empty *text*: not the same.
        Stable Diffusion 1 and 2 have no vectors (D = 0), and None is the empty text.

        Prompts longer than the model's window are cut by its tokenizer.  On a GPU the text encoders and the other
        networks take turns: the one waits in the CPU's memory while the other is there.
        """
        with self._text_encoders_in_place():
            found = self.pipe.encode_prompt(
                list(prompts),
                device=self.device,
                num_images_per_prompt=1,
                do_classifier_free_guidance=True,
                negative_prompt=None if negative_prompt is None else [negative_prompt] * len(prompts),
            )
        none = found[0].new_zeros(len(prompts), 0)
        tokens, negative, vectors, negative_vectors = found if len(found) == 4 else (*found, none, none)
        return Embeddings(*(x.to(self.dtype) for x in (tokens, vectors, negative, negative_vectors)))

    @contextmanager
    def _text_encoders_in_place(self) -> Iterator[None]:
        turns = self.device != torch.device("cpu")
        texts = [encoder for _, encoder in self.texts if encoder is not None] if turns else []
        others: tuple[Any, ...] = (self.unet, self.vae) if turns else ()
        for part in others:
            part.to("cpu")
        try:
            for part in texts:
                part.to(self.device)
            yield
        finally:
            for part in texts:
                part.to("cpu")
            for part in others:
                part.to(self.device)

    def encode_images(self, rgb: Tensor, size: int | None = None) -> Tensor:
        """Scaled latents (B, 4, h, w) of pictures (B, H, W, 3) in [0, 1], with the gradient to the pictures.

        Pictures are resized to `size` pixels first (None: the model's).  The mean of the VAE's posterior, no sample.
        """
        size = size or self.image_size
        if rgb.requires_grad:
            rgb, limit = rgb.view_as(rgb), self.numerics.pixel_gradient_limit
            if limit is not None:  # a pixel of a small render stands for several of the picture
                limit *= (size / rgb.shape[1]) ** 2
            rgb.register_hook(partial(limit_pixel_gradient, limit=limit))
        x = rgb.permute(0, 3, 1, 2).to(device=self.device, dtype=self.vae.dtype) * 2 - 1  # (B, 3, H, W)
        if x.shape[-1] != size:
            x = F.interpolate(x, (size, size), mode="bilinear", antialias=x.shape[-1] > size)
        with torch.autocast(self.device.type, enabled=False):
            latents = self.vae.encode(x).latent_dist.mean * self.vae.config.scaling_factor
        half = latents.dtype in (torch.float16, torch.bfloat16)
        if not latents.isfinite().all():
            if not rgb.isfinite().all():
                raise FloatingPointError("the render that the VAE is shown is not finite: lower the learning rates")
            cure = "it overflows in half precision: use vae_dtype=torch.float32" if half else "fetch its weights again"
            raise FloatingPointError(f"the VAE's latents are not finite: {cure}")
        return latents.float() if half else latents

    @torch.no_grad()
    def decode_latents(self, latents: Tensor) -> Tensor:
        """Pictures (B, H, W, 3) in [0, 1] of scaled latents (B, 4, h, w)."""
        x = self.vae.decode(latents.to(self.vae.dtype) / self.vae.config.scaling_factor).sample
        return (x.float() / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1)

    @torch.no_grad()
    def predict_eps(
        self, x_t: Tensor, t: int | Tensor, embeddings: Embeddings, guidance_scale: float | None = None
    ) -> Tensor:
        """The guided noise prediction eps_0 + s (eps_y - eps_0) for latents x_t (B, 4, h, w), embeddings of B prompts.

        At s = 1 the negative half is not computed.
        """
        return self.predict_eps_with_gradient(x_t, t, embeddings, guidance_scale)

    def predict_eps_with_gradient(
        self, x_t: Tensor, t: int | Tensor, embeddings: Embeddings, guidance_scale: float | None = None
    ) -> Tensor:
        """`predict_eps` through which gradients flow, to latents and embeddings: for own_words.py."""
        scale = self.guidance_scale if guidance_scale is None else guidance_scale
        e, batch = embeddings, len(x_t)
        if len(e.tokens) != batch:
            raise ValueError(f"{batch} pictures need {batch} embeddings, got {len(e.tokens)}")
        both = scale != 1
        x = torch.cat([x_t, x_t]) if both else x_t
        tokens = torch.cat([e.negative_tokens, e.tokens]) if both else e.tokens
        vectors = torch.cat([e.negative_vectors, e.vectors]) if both else e.vectors
        time = torch.as_tensor(t, device=self.device).expand(batch).repeat(2 if both else 1)
        size = float(self.own_size)  # also where image_size is less: small sizes ask SDXL for blur
        sizes = torch.full((batch, 2), size, device=self.device, dtype=self.dtype)
        corners = torch.zeros_like(sizes) if e.corners is None else e.corners.to(sizes)
        time_ids = torch.cat([sizes, corners, sizes], 1).repeat(2 if both else 1, 1)  # (B or 2B, 6)
        added = {"text_embeds": vectors, "time_ids": time_ids} if vectors.shape[1] else None
        out = self.unet(x.to(self.dtype), time, tokens, added_cond_kwargs=added, return_dict=False)[0].to(x_t.dtype)
        if both:  # in the network's own units, as diffusers: all conversions to noise below are affine
            out_0, out_y = out.chunk(2)
            out = guide(out_0, out_y, scale)
            if self.numerics.guidance_rescale > 0 and scale > 1:
                out = rescaled(out, out_y, self.numerics.guidance_rescale)
        return self.as_eps(x_t, out, time[:batch])

    def as_eps(self, x_t: Tensor, out: Tensor, t: int | Tensor) -> Tensor:
        """The noise that the network's own output means (v, x0 or noise itself)."""
        if self.prediction_type == "v_prediction":
            return self.schedule.eps_from_v(x_t, out, t)
        return self.schedule.eps_from_x0(x_t, out, t) if self.prediction_type == "sample" else out

    def from_eps(self, x_t: Tensor, eps: Tensor, t: int | Tensor) -> Tensor:
        """`as_eps` backwards."""
        if self.prediction_type == "v_prediction":
            alpha, sigma = self.schedule.levels(t, x_t)
            return (eps - sigma * x_t) / alpha
        return self.schedule.x0_from_eps(x_t, eps, t) if self.prediction_type == "sample" else eps


def _placed(part: Any, device: torch.device | str, dtype: torch.dtype) -> Any:
    """A frozen network on `device`; cast only where that changes something."""
    return (
        (part.to(device) if part.dtype == dtype else torch.nn.Module.to(part, device, dtype))
        .eval()
        .requires_grad_(False)
    )
