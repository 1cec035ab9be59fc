"""How much memory a run will take, computed from the real configuration before it starts.

The networks are built and run on *fake* tensors, which have shapes and types but no content: all allocations of a
forward and a backward pass are seen, and nothing is computed.  What fake tensors cannot know is what a library takes
for itself (CUDA's context, cuDNN's work space, an allocator's leftovers).
"""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

from .device import memory_of
from .latent import FIT_SIZE
from .numerics import LARGE_PIXELS, Numerics, prepare_vae

if TYPE_CHECKING:
    from .guidance import Guidance

GB = 1e9  # bytes; what graphics cards are sold by


@dataclass(frozen=True)
class MemoryPlan:
    """Bytes.  Text encoders come before U-Net and VAE, a step's three phases follow each other: the largest counts."""

    networks: int  # weights of U-Net and VAE
    texts: int  # weights of the text encoders, while the prompts are encoded; U-Net and VAE wait in the CPU's memory
    scene: int  # grid, its gradient, Adam's two moments, and the summed fields with their gradient
    render: int  # what the renderer keeps for its backward pass
    encode: int  # phase 1, the VAE encodes: its graph and working memory (latent-space mode: the colours' fit, before)
    predict: int  # phase 2, the U-Net predicts while the VAE's graph waits
    backward: int  # phase 3, back through the VAE

    @property
    def total(self) -> int:
        """The most that is needed at once."""
        step = self.scene + self.render + max(self.encode, self.predict, self.backward)
        return max(self.texts, self.networks + step)

    def __str__(self) -> str:
        parts = {
            "text encoders, before the rest": self.texts, "U-Net and VAE": self.networks,
            "scene and optimiser": self.scene, "render": self.render,
            "VAE forward": self.encode, "U-Net, VAE's graph kept": self.predict, "VAE backward": self.backward,
        }  # fmt: skip
        rows = [f"  {name:30} {size / GB:6.2f} GB" for name, size in parts.items()]
        return "\n".join(["memory plan:", *rows, f"  {'at once':30} {self.total / GB:6.2f} GB"])


class AllocationCounter(TorchDispatchMode):
    """Bytes of all tensors made inside that are still alive (`now`), and the most there ever were (`peak`)."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._known: set[int] = set()

    def _not_mine(self, x: Tensor) -> None:
        storage = x.untyped_storage()  # made before, as weights, whose views count for nothing
        if storage._cdata not in self._known:
            self._known.add(storage._cdata)
            weakref.finalize(storage, self._known.discard, storage._cdata)  # its address may come again

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        tree_map_only(Tensor, self._not_mine, (args, kwargs))
        out = func(*args, **(kwargs or {}))
        tree_map_only(Tensor, self._count, out)
        return out

    def _count(self, x: Tensor) -> None:
        storage = x.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key not in self._known:
            self._known.add(key)
            self.now += size
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self._free, key, size)

    def _free(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.now -= size


def plan(
    unet: Mapping[str, Any],
    vae: Mapping[str, Any],
    numerics: Numerics,
    *,
    dtype: torch.dtype,
    views_per_step: int,
    resolution: int,
    render_size: int,
    batch: int = 2,
    latent: bool = False,
    texts: int = 0,
) -> MemoryPlan:
    """The plan of a run with networks of these configurations (`guidance.unet.config`, `guidance.vae.config`).

    dtype: of the U-Net.  views_per_step, resolution, render_size: as in `optimise`, of the largest renders.
    batch: rows of the U-Net's batch for each view, 2 with guidance, 2 + K with Perp-Neg (`perp_neg.unet_batch`).
    latent: latent-space mode, in which no graph goes through the VAE.  texts: bytes of the text encoders.
    """
    from diffusers import AutoencoderKL, UNet2DConditionModel

    with FakeTensorMode():
        coder = _cast(AutoencoderKL.from_config(dict(vae)), numerics.vae_dtype)
        net = _cast(UNet2DConditionModel.from_config(dict(unet)), dtype)
        factor = 2 ** (len(coder.config.block_out_channels) - 1)
        size = numerics.image_size or net.config.sample_size * factor
        prepare_vae(coder, numerics, size)
        with AllocationCounter() as inside:
            if latent:  # the VAE sees the pictures of the fit alone, before the run
                with torch.no_grad():
                    _encode(coder, 1, min(size, FIT_SIZE))
                latents = torch.zeros(views_per_step, net.config.in_channels, size // factor, size // factor)
            else:
                latents = _encode(coder, views_per_step, size)
            encode, graph = inside.peak, inside.now
            inside.peak = inside.now
            with torch.no_grad():
                _predict(net, latents.detach(), batch, dtype)
            predict = inside.peak
            inside.peak = inside.now
            if not latent:
                latents.sum().backward()
            backward = max(inside.peak, graph)
        networks = _weights(net, coder)
    channels = 1 + (net.config.in_channels if latent else 3)  # of the grid
    return MemoryPlan(
        networks, texts, _scene(resolution, channels), _render(views_per_step, resolution, render_size, channels),
        encode, predict, backward,
    )  # fmt: skip


def _encode(coder: Any, views: int, size: int) -> Tensor:
    picture = torch.zeros(views, 3, size, size, dtype=coder.dtype, requires_grad=True)
    return coder.encode(picture * 2 - 1).latent_dist.mean


def _weights(*parts: nn.Module | None) -> int:
    return sum(p.numel() * p.element_size() for part in parts if part is not None for p in part.parameters())


def _cast(part: nn.Module, dtype: torch.dtype) -> Any:
    """A frozen network of fake weights in another type; `Module.to` cannot exchange those."""
    for module in part.modules():
        for name, p in module.named_parameters(recurse=False):
            setattr(module, name, nn.Parameter(p.detach().to(dtype), requires_grad=False))
    return part.eval()


def check_memory(
    guidance: Guidance, views_per_step: int, resolution: int, render_size: int, batch: int = 2, latent: bool = False
) -> MemoryPlan:
    """The plan of a run, made once for each size.  ValueError where it is more than the GPU, or this machine, has.

    Of a toy only scene and render are planned, without running its networks on fake tensors: a second saved, and what
    becomes large is these.
    """
    key = views_per_step, resolution, render_size, batch, latent
    if key not in guidance.plans:
        texts = _weights(*(encoder for _, encoder in guidance.texts))
        if guidance.image_size < LARGE_PIXELS:
            sizes = _scene(resolution, 5 if latent else 4), _render(views_per_step, resolution, render_size, 4)
            guidance.plans[key] = MemoryPlan(_weights(guidance.unet, guidance.vae), texts, *sizes, 0, 0, 0)
        else:
            guidance.plans[key] = plan(
                guidance.unet.config, guidance.vae.config, guidance.numerics, dtype=guidance.dtype,
                views_per_step=views_per_step, resolution=resolution, render_size=render_size, batch=batch,
                latent=latent, texts=texts,
            )  # fmt: skip
    need, there = guidance.plans[key], memory_of(guidance.device)
    if there is not None and need.total > there:
        where = "the GPU" if guidance.device.type == "cuda" else "this machine"
        raise ValueError(
            f"this run needs {need.total / GB:.1f} GB, {where} has {there / GB:.1f} GB: give smaller views_per_step, "
            f"resolution or render_sizes, or, for a large model, preset=8\n{need}"
        )
    return need


def _predict(net: Any, latents: Tensor, batch: int, dtype: torch.dtype) -> Tensor:
    """One guided prediction, with `batch` rows for each view."""
    rows, config = batch * len(latents), net.config
    added = None
    if config.addition_embed_type:
        vector = config.projection_class_embeddings_input_dim - 6 * config.addition_time_embed_dim
        added = {"text_embeds": torch.zeros(rows, vector, dtype=dtype), "time_ids": torch.zeros(rows, 6, dtype=dtype)}
    return net(
        torch.cat([latents] * batch).to(dtype), torch.zeros(rows, dtype=torch.long),
        torch.zeros(rows, 77, config.cross_attention_dim, dtype=dtype),
        added_cond_kwargs=added,
    ).sample  # fmt: skip


def _scene(resolution: int, channels: int) -> int:
    """float32: levels R ... R/8 with gradient and two moments; their sum, the fields, the total variation, and the
    gradients of all these (counted: 10 numbers a node and channel)."""
    levels = sum(channels * max(2, resolution // k) ** 3 for k in (1, 2, 4, 8))
    return 4 * (4 * levels + 10 * channels * resolution**3)


def _render(views: int, resolution: int, size: int, channels: int) -> int:
    """What `renderer._Gather` saves for each ray on each plane: 5 float32 numbers and one for each channel."""
    return 4 * (5 + channels) * views * size**2 * resolution
