"""`python -m jsdsd.picture "PROMPT" --model sdxl`: distil one *picture*, in minutes, before a 3D run takes hours.

Pixels (their logits) stand where scene and renderer stand; model, VAE, objective and noise levels are those of a run.
A picture that stays noise, or bright mush, tells that the settings would spoil a scene as well.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from .generation import check_language
from .objectives.distillation import DistillRecord, distill
from .objectives.named import OBJECTIVES, named_objective
from .run import Run
from .sdxl.device import default_device, device_errors_in_words
from .sdxl.guidance import Guidance
from .sdxl.numerics import Numerics
from .sdxl.view_denoiser import ViewDenoiser

SHOWN = 8  # pictures of the strip


def distil_picture(
    guidance: Guidance, prompt: str, objective: str, *, steps: int = 300, seed: int = 0, rate: float = 0.05
) -> tuple[list[Tensor], list[DistillRecord]]:
    """SHOWN pictures (H, W, 3) in [0, 1] on the way, and a record of every step; the first is grey with a little noise.

    rate: Adam's, logits per step.  Raises what `generate` does for a prompt, and FloatingPointError where a run breaks.
    """
    check_language(guidance, [Run(prompt, seed)])
    generator = torch.Generator().manual_seed(seed)
    size = guidance.image_size
    logits = (0.1 * torch.randn(1, size, size, 3, generator=generator)).to(guidance.device).requires_grad_()
    denoiser = ViewDenoiser(guidance, guidance.encode_prompts([prompt]))
    adam = torch.optim.Adam([logits], lr=rate, betas=(0.9, 0.99))
    keep = {round(i * (steps - 1) / (SHOWN - 1)) for i in range(SHOWN)}
    shown, records = [], []
    for record in distill(
        lambda step: guidance.encode_images(logits.sigmoid()), denoiser, named_objective(objective, OBJECTIVES), adam,
        steps, guidance.recipe.times, generator,
    ):  # fmt: skip
        records.append(record)
        if record.step in keep:
            shown.append(logits.detach().sigmoid()[0].cpu())
    return shown, records


def save(shown: Sequence[Tensor], records: Sequence[DistillRecord], folder: Path) -> None:
    """strip.png, the pictures side by side, and curves.png, t and the gradient's size over the steps."""
    from matplotlib.figure import Figure
    from PIL import Image

    folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray((torch.cat(list(shown), 1) * 255).round().byte().numpy()).save(folder / "strip.png")
    figure = Figure(figsize=(7, 3), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.plot([int(r.t) for r in records])
    left.set(xlabel="step", ylabel="t")
    right.semilogy([r.grad_norm for r in records])
    right.set(xlabel="step", ylabel="rms of the gradient on the latents")
    figure.savefig(folder / "curves.png")


@device_errors_in_words()
def run(args: argparse.Namespace) -> None:
    device = args.device or default_device(args.model)
    guidance = Guidance.load(args.model, device=device, guidance_scale=args.guidance_scale)
    if args.size is not None:
        guidance = Guidance(
            guidance.pipe, guidance_scale=guidance.guidance_scale, device=device, dtype=guidance.dtype,
            numerics=Numerics(args.size, guidance.numerics.pixel_gradient_limit, gradient_checkpointing=True),
        )  # fmt: skip
    shown, records = distil_picture(guidance, args.prompt, args.objective, steps=args.steps, seed=args.seed)
    save(shown, records, args.output)
    last = records[-1]
    print(f"{args.output / 'strip.png'}, curves.png: {args.objective}, guidance {guidance.guidance_scale:g}, ", end="")
    print(f"{len(records)} steps, {last.unet_calls} U-Net calls and {last.seconds:.2f} s a step")


def main(arguments: Sequence[str] | None = None) -> int:
    """0 done, 2 something about the input or the machine is wrong, 1 the run broke."""
    p = argparse.ArgumentParser(prog="python -m jsdsd.picture", description="Distil one picture from a sentence.")
    p.add_argument("prompt", metavar="PROMPT")
    p.add_argument("--model", default="toybox", help='as of python -m jsdsd (default: "toybox")')
    p.add_argument("--objective", default="jsd", help="sds, sdi, jsd, ... (default: jsd)")
    p.add_argument("--guidance-scale", type=float, metavar="S", help="default: the model's")
    p.add_argument("--size", type=int, metavar="PIXELS", help="of the picture; default: the model's, or its preset's")
    p.add_argument("--steps", type=int, default=300)
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--device")
    p.add_argument("-o", "--output", type=Path, default=Path("out/picture"), metavar="DIR")
    try:
        run(p.parse_args(arguments))
    except (ValueError, OSError, MemoryError) as error:
        print(f"jsdsd: {error}", file=sys.stderr)
        return 2
    except FloatingPointError as error:
        print(f"jsdsd: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
