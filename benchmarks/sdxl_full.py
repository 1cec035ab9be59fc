"""`make sdxl-full`: one JSD step through SDXL base's true architecture with random weights, on the CPU in bfloat16.

On a GPU, in float16, without a download: `python benchmarks/sdxl_full.py --device cuda --pixels 1024 --render 256`.
Checks shapes, the U-Net calls, a finite gradient that reaches every level of the grid, and the peak of this process's
memory (on a GPU: of PyTorch's tensors there) against the plan made before, within 15 %; exit code 1 if one of them
fails.  Text encoders and tokenizers are left out: their place take random embeddings of SDXL's shapes.  Needs about
10 GB of memory and a few minutes.
"""

from __future__ import annotations

import argparse
import math
import resource
import sys
import time
from collections.abc import Sequence
from typing import Any

import torch
from diffusers import AutoencoderKL, EulerDiscreteScheduler, StableDiffusionXLPipeline, UNet2DConditionModel

import jsdsd
from jsdsd.sdxl import memory, sdxl_base
from jsdsd.sdxl.embeddings import Embeddings
from jsdsd.sdxl.guidance import Guidance
from jsdsd.sdxl.numerics import Numerics

RESOLUTION, ALLOWED = 128, 0.15


class RandomPrompts(Guidance):
    """SDXL without its text encoders."""

    def encode_prompts(self, prompts: Sequence[str], negative_prompt: str | None = None) -> Embeddings:
        generator = torch.Generator().manual_seed(0)
        tokens = torch.randn(len(prompts), 77, 2048, generator=generator).to(self.device, self.dtype)
        vectors = torch.randn(len(prompts), 1280, generator=generator).to(self.device, self.dtype)
        return Embeddings(tokens, vectors, 0 * tokens, 0 * vectors)


def random_weights(kind: Any, config: dict[str, Any], dtype: torch.dtype, seed: int) -> Any:
    """A network of this configuration whose layers keep the size of what passes through them."""
    with torch.device("meta"):
        net = kind(**config)
    net = net.to(dtype).to_empty(device="cpu")
    generator = torch.Generator().manual_seed(seed)
    for name, p in net.named_parameters():
        if p.ndim > 1:
            torch.nn.init.normal_(p, std=1 / math.sqrt(p[0].numel()), generator=generator)
        else:
            torch.nn.init.constant_(p, 1.0 if name.endswith("weight") else 0.0)
    return net


def peak(device: str) -> int:
    """The most memory this process ever held, in bytes; on a GPU that of PyTorch's tensors."""
    if device != "cpu":
        return torch.cuda.max_memory_allocated(device)
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else 1024 * most


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--pixels", type=int, default=512, help="of the picture that SDXL sees")
    parser.add_argument("--render", type=int, default=512, help="pixels of the render")
    args = parser.parse_args()
    side, dtype = args.pixels // 8, torch.bfloat16 if args.device == "cpu" else torch.float16
    before = peak(args.device)
    numerics = Numerics(args.pixels, 0.1, gradient_checkpointing=args.device != "cpu")  # as the presets for GPUs
    plan = memory.plan(
        sdxl_base.UNET, sdxl_base.VAE, numerics, dtype=dtype, views_per_step=1, resolution=RESOLUTION,
        render_size=args.render,
    )  # fmt: skip
    print(plan, flush=True)
    started = time.perf_counter()
    pipe = StableDiffusionXLPipeline(
        vae=random_weights(AutoencoderKL, sdxl_base.VAE, torch.float32, 1),
        unet=random_weights(UNet2DConditionModel, sdxl_base.UNET, dtype, 2),
        scheduler=EulerDiscreteScheduler(**sdxl_base.SCHEDULER),
        text_encoder=None, text_encoder_2=None, tokenizer=None, tokenizer_2=None, add_watermarker=False,
    )  # fmt: skip
    guidance = RandomPrompts(pipe, device=args.device, dtype=dtype, numerics=numerics)
    print(f"random weights after {time.perf_counter() - started:.0f} s", flush=True)
    shapes: list[tuple[int, ...]] = []
    forward = guidance.unet.forward

    def counted(x: torch.Tensor, *args: Any, **rest: Any) -> Any:
        shapes.append(tuple(x.shape))
        return forward(x, *args, **rest)

    guidance.unet.forward = counted
    seen: list[Any] = []
    asset = jsdsd.generate(
        "a corgi", model=guidance, steps=1, resolution=RESOLUTION, views_per_step=1, callback=seen.append,
        render_sizes=(args.render,), progress=False,
    )  # fmt: skip
    assert isinstance(asset, jsdsd.Asset)
    record = asset.history[0]
    gradients = [p.grad for p in seen[0].grid.parameters()]
    used = peak(args.device) - before
    print(f"step: {record['seconds']:.1f} s, {record['unet_calls']} U-Net calls, t = {record['t']}")
    print(f"peak memory: {used / memory.GB:.2f} GB measured, {plan.total / memory.GB:.2f} GB planned", end="")
    print(f" ({100 * (used / plan.total - 1):+.0f} %)")
    checks = {
        f"4 U-Net calls on 2 latents of {side} x {side}": shapes == [(2, 4, side, side)] * 4,
        "the history counts them": record["unet_calls"] == len(shapes),
        f"x0 is (1, 4, {side}, {side})": tuple(seen[0].record.x0.shape) == (1, 4, side, side),
        "a finite gradient on every level": all(g is not None and bool(g.isfinite().all()) for g in gradients),
        "it is not zero": all(g is not None and bool(g.any()) for g in gradients),
        f"memory within {ALLOWED:.0%} of the plan": abs(used / plan.total - 1) < ALLOWED,
    }
    for what, holds in checks.items():
        print(f"  {'ok  ' if holds else 'FAIL'} {what}")
    return 0 if all(checks.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
