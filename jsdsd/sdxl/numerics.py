"""How a model computes and how large a run is: careful arithmetic for SDXL, and presets for the memory of a card."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Numerics:
    """How a model computes, where SDXL needs more care than the toybox.

    image_size: pixels of the pictures that the VAE sees; None is the model's own (SDXL 1024).  Less saves memory; SDXL
        makes poor pictures below 512.
    pixel_gradient_limit: largest gradient on a pixel of the picture, see `limit_pixel_gradient`; None = no limit.
    guidance_rescale: 0 ... 1, how far the guided prediction is brought back to the deviation of the unguided one,
        against over-saturation (Lin et al. 2023, arXiv 2305.08891, section 3.4; not re-read).  0 = not.
    gradient_checkpointing: the VAE's graph is computed twice instead of kept: less memory, more time.
    vae_dtype: SDXL's own VAE overflows in float16, so float32; half precision is for a repaired VAE or bfloat16, and
        what is not finite stops the run.
    """

    image_size: int | None = None
    pixel_gradient_limit: float | None = None
    guidance_rescale: float = 0.0
    gradient_checkpointing: bool = False
    vae_dtype: torch.dtype = torch.float32

    def __post_init__(self) -> None:
        if self.image_size is not None and (self.image_size < 32 or self.image_size % 32):
            raise ValueError(f"image_size must be a multiple of 32 pixels, got {self.image_size}")
        if self.pixel_gradient_limit is not None and not self.pixel_gradient_limit > 0:
            raise ValueError(f"pixel_gradient_limit must be positive or None, got {self.pixel_gradient_limit}")
        if not 0 <= self.guidance_rescale <= 1:
            raise ValueError(f"guidance_rescale must lie in 0 ... 1, got {self.guidance_rescale}")


PLAIN = Numerics()
LARGE_PIXELS = 256  # pixels: from here on a model is no toy


def prepare_vae(vae: Any, numerics: Numerics, pixels: int) -> None:
    """How the VAE keeps its graph.  Large pictures go through it one by one, so that views share the memory of one
    picture's layers; latents and gradients stay the same up to rounding (tested)."""
    (vae.enable_gradient_checkpointing if numerics.gradient_checkpointing else vae.disable_gradient_checkpointing)()
    (vae.enable_slicing if pixels >= LARGE_PIXELS else vae.disable_slicing)()


@dataclass(frozen=True)
class Preset:
    """A run's sizes: what fits into `gigabytes` of a GPU with SDXL base in half precision, as `memory.plan` computes.

    views_per_step: renders per step.  resolution: voxels per axis.  render_sizes: pixels of a render, in equal shares
    of the run: small ones are enough while the shape forms.  numerics: the picture's size, how the VAE's graph is kept.
    latent: the grid holds latents and the VAE is left out (`latent.py`); then no render is smaller than the latents.
    """

    gigabytes: int | None
    views_per_step: int
    resolution: int
    render_sizes: tuple[int, ...]
    numerics: Numerics
    latent: bool = False


PRESETS = {
    8: Preset(8, 1, 96, (128, 256), Numerics(1024), latent=True),
    12: Preset(12, 2, 88, (128, 256), Numerics(512, 0.1, gradient_checkpointing=True)),
    16: Preset(16, 1, 112, (128, 256, 384), Numerics(768, 0.1, gradient_checkpointing=True)),
    24: Preset(24, 2, 128, (128, 256, 384), Numerics(1024, 0.1, gradient_checkpointing=True)),
    40: Preset(40, 4, 160, (128, 256, 512), Numerics(1024, 0.1, gradient_checkpointing=True)),
    80: Preset(80, 4, 160, (128, 256, 512), Numerics(1024, 0.1)),  # the same, without computing the VAE's graph twice
}


def preset_for(device: torch.device | str) -> Preset:
    """The largest preset for the memory of a CUDA device; for other devices, which are slow, the smallest with a VAE.

    A card may be a sixth smaller than the preset's: from 12 to 40 GB, a preset plans at most 0.7 of its card (tested).
    """
    if torch.device(device).type != "cuda":
        return PRESETS[12]
    there = torch.cuda.get_device_properties(device).total_memory / 1e9
    return PRESETS[max((x for x in PRESETS if x <= there * (1.2 if x <= 40 else 1)), default=8)]


def limit_pixel_gradient(grad: Tensor, limit: float | None) -> Tensor:
    """Gradients on pictures (B, H, W, 3), each pixel shortened so that its largest channel is at most `limit`.

    For a VAE, like SDXL's, that sends a few pixels gradients far above all others: Adam would carry them on for many
    steps.  The direction at a pixel stays.  Source: Pan et al., PGC-3D (arXiv 2310.12474, not re-read), whose public
    answer for SDXL is 0.1.  `surrogate_loss` is a sum over the batch, so views_per_step does not change what the limit
    means; `Guidance.encode_images` multiplies it by the picture's pixels per render's pixel (docs/gpu.md).
    Raises FloatingPointError for a gradient that is not finite.
    """
    if not grad.isfinite().all():
        raise FloatingPointError(
            "the gradient that the VAE hands to the render is not finite: use vae_dtype=torch.float32 or other weights"
        )
    if limit is None:
        return grad
    largest = grad.abs().amax(-1, keepdim=True)
    return torch.where(largest > limit, grad * (limit / largest), grad)


def rescaled(guided: Tensor, conditional: Tensor, share: float) -> Tensor:
    """`guided` (B, ...) with its standard deviation moved towards that of `conditional`, by `share` of the way.

    Lin et al. 2023 (arXiv 2305.08891, section 3.4; not re-read), equal to diffusers' rescale_noise_cfg by test.
    """
    axes = tuple(range(1, guided.ndim))
    same_spread = guided * (conditional.std(axes, keepdim=True) / guided.std(axes, keepdim=True))
    return share * same_spread + (1 - share) * guided
