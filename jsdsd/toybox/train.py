"""Train the toybox from nothing: `python -m jsdsd.toybox.train`.  Resumes where it stopped; writes log and samples.

1. render the captioned pictures;  2. a VAE on them;  3. text encoders and U-Net together on the VAE's latents,
predicting the noise (Ho et al. 2020) with min-SNR weights (Hang et al. 2023, not re-read), raised where there is much
noise, and a moving average of the weights;  4. the same again, shorter, on latents moved to mean zero, mostly where
there is much noise and with half of the colours unsaid: there the free choices of a caption are made, and they must
come out even.  Everything random comes from generators seeded with the step: a resumed run repeats an unbroken one up
to rounding.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from diffusers import AutoencoderKL, StableDiffusionXLPipeline
from PIL import Image
from torch import Tensor, nn

from ..objectives.diffusion import Schedule
from . import checkpoint, model
from .captions import Label, drop
from .dataset import dataset, shrink
from .kinds import COLOURS, KINDS

TIME_IDS = torch.tensor([48.0, 48, 0, 0, 48, 48])  # original size, crop corner, target size, in pixels


SAVE_EVERY = 250  # steps between checkpoints


def learning_rate(step: int, steps: int, peak: float, warmup: int = 200) -> float:
    """Linear warm-up, then a half cosine to zero at `steps`."""
    return peak * min(1.0, (step + 1) / warmup) * 0.5 * (1 + math.cos(math.pi * min(1.0, step / steps)))


class Training:
    """What both networks share: AdamW, the moving average, checkpoint and log."""

    def __init__(self, name: str, net: nn.Module, folder: Path, steps: int, peak: float, decay: float = 0.999):
        self.name, self.net, self.steps, self.peak, self.decay = name, net, steps, peak, decay
        self.path, self.log = folder / f"{name}.safetensors", folder / "log.csv"
        self.optimiser = torch.optim.AdamW(net.parameters(), peak, betas=(0.9, 0.99), weight_decay=0.01)
        self.ema = {k: v.detach().clone() for k, v in net.state_dict().items() if v.is_floating_point()}
        self.step = checkpoint.read(self.path, net, self.ema, self.optimiser)
        self.since, self.sum = time.time(), 0.0

    def update(self, loss: Tensor, every: int = 50) -> None:
        if not torch.isfinite(loss):
            raise FloatingPointError(
                f"{self.name}: the loss is {loss.item()} at step {self.step}; the last checkpoint is {self.path}"
            )
        loss.backward()
        nn.utils.clip_grad_norm_(self.net.parameters(), 1.0)
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate(self.step, self.steps, self.peak)
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        keep = min(self.decay, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            names = [k for k in self.ema]
            state = self.net.state_dict()
            torch._foreach_lerp_([self.ema[k] for k in names], [state[k] for k in names], 1 - keep)
        self.step += 1
        self.sum += loss.item()
        if self.step % every == 0:
            line = f"{self.name},{self.step},{self.sum / every:.5f},{(time.time() - self.since) / every:.3f}"
            print(line, flush=True)
            with self.log.open("a") as file:
                file.write(line + "\n")
            self.since, self.sum = time.time(), 0.0
        if self.step % SAVE_EVERY == 0 or self.step == self.steps:
            checkpoint.write(self.path, self.step, self.net, self.ema, self.optimiser)

    def averaged(self) -> nn.Module:
        """The network with the averaged weights in place (for use after training)."""
        self.net.load_state_dict(self.net.state_dict() | self.ema)
        return self.net.eval().requires_grad_(False)


def batch_of(images: Tensor, size: int, seed: int, step: int) -> tuple[Tensor, torch.Generator]:
    """Random indices of one step, and the step's generator."""
    generator = torch.Generator().manual_seed(seed * 10_000_019 + step)
    return torch.randint(len(images), (size,), generator=generator), generator


def to_float(images: Tensor) -> Tensor:
    """uint8 (N, 3, H, W) to floats in [-1, 1], the VAE's range."""
    return images.float() / 127.5 - 1


def train_vae(images: Tensor, folder: Path, steps: int, batch: int, seed: int) -> AutoencoderKL:
    """Absolute and squared error of the picture and of its differences, and a light pull of the latents to N(0, I)."""
    torch.manual_seed(seed)
    net = model.vae()
    run = Training("vae", net, folder, steps, peak=2e-3)
    while run.step < steps:
        index, generator = batch_of(images, batch, seed, run.step)
        x = to_float(images[index])
        if run.step < 0.7 * steps:  # cheap crops first: the network is convolutional, only its norms see the difference
            top, left = torch.randint(25, (2,), generator=generator).tolist()
            x = x[:, :, top : top + 24, left : left + 24]
        posterior = net.encode(x).latent_dist
        z = posterior.mean + posterior.std * torch.randn(posterior.mean.shape, generator=generator)
        error = net.decode(z).sample - x
        edges = error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()
        kl = 0.5 * (posterior.mean**2 + posterior.var - 1 - posterior.logvar).mean()
        run.update(error.abs().mean() + (error**2).mean() + edges + 1e-4 * kl)
    averaged = run.averaged()
    assert isinstance(averaged, AutoencoderKL)
    with torch.no_grad():
        index, _ = batch_of(images, 512, seed + 1, 0)
        scale = 1 / encode(averaged, images[index]).std().item()
    averaged.register_to_config(scaling_factor=round(scale, 5))
    return averaged


@torch.no_grad()
def encode(net: AutoencoderKL, images: Tensor, chunk: int = 256) -> Tensor:
    """Mean latents (N, 4, 12, 12), unscaled."""
    return torch.cat([net.encode(to_float(part)).latent_dist.mean for part in images.split(chunk)])


@torch.no_grad()
def centre(net: AutoencoderKL, mean: Tensor) -> None:
    """Move the latents by -mean (4,), unscaled, in the biases around them; what is decoded stays the same.

    Sampling begins with noise of mean zero, while the noisiest pictures in training keep alpha = 0.07 of their mean:
    summed over 12 x 12 latents that is most of a standard deviation, and every free choice (of a colour) starts tilted.
    """
    net.quant_conv.bias[:4] -= mean  # the first half of the encoder's outputs is the posterior's mean
    net.post_quant_conv.bias += net.post_quant_conv.weight[:, :, 0, 0] @ mean


class Prior(nn.Module):
    """Both text encoders and the U-Net, called the way SDXL's pipeline calls them."""

    def __init__(self, seed: int):
        super().__init__()
        pipe = model.pipeline(seed)
        self.unet, self.first, self.second, self.tokenizer = (
            pipe.unet,
            pipe.text_encoder,
            pipe.text_encoder_2,
            pipe.tokenizer,
        )

    def embed(self, captions: Sequence[str], zero: Tensor) -> tuple[Tensor, Tensor]:
        """Token embeddings (B, 16, 128) and prompt vectors (B, 64); rows where `zero` (B,) holds become zeros, SDXL's
        embedding of no prompt."""
        tokens = self.tokenizer(list(captions), padding="max_length", return_tensors="pt").input_ids
        second = self.second(tokens, output_hidden_states=True)
        hidden = [self.first(tokens, output_hidden_states=True).hidden_states[-2], second.hidden_states[-2]]
        keep = (~zero).float()
        return torch.cat(hidden, -1) * keep[:, None, None], second.text_embeds * keep[:, None]

    def forward(self, x_t: Tensor, t: Tensor, captions: Sequence[str], zero: Tensor) -> Tensor:
        tokens, vector = self.embed(captions, zero)
        extra = {"text_embeds": vector, "time_ids": TIME_IDS.expand(len(x_t), 6)}
        return self.unet(x_t, t, tokens, added_cond_kwargs=extra).sample


@dataclass(frozen=True)
class Phase:
    """One of the prior's two trainings, each with its own checkpoint, optimiser and cosine of the learning rate."""

    name: str
    steps: int
    peak: float  # learning rate
    unsaid_colours: float  # share of labels whose colours are left out before `drop`
    draws: int  # t is the largest of so many uniform draws: its density is proportional to t^(draws - 1)


def train_prior(
    prior: Prior,
    phase: Phase,
    latents: Tensor,
    labels: Sequence[Label],
    net: AutoencoderKL,
    folder: Path,
    batch: int,
    seed: int,
) -> Prior:
    """Noise prediction on scaled latents (N, 4, 12, 12); half of the empty captions become zeros, half empty text.

    The weight of noise level t is min(1, 5/SNR) sqrt(1 + 1/SNR), SNR = alpha²/sigma².  The first factor is min-SNR-5.
    The second is the geometric mean of weighing errors of the noise (1) and of the picture (about 1/SNR): where the
    picture is nearly all noise its layout is decided, and there an error of the noise hardly shows.
    """
    prior.train().requires_grad_(True)
    schedule = Schedule.from_scheduler(model.scheduler())
    alphas = schedule.alphas_cumprod.float()
    snr = alphas / (1 - alphas)
    weight = (5 / snr).clamp(max=1) * (1 + 1 / snr).sqrt()  # (1000,): 0.1 at t = 20, 1.9 at 500, 15 at 999
    run = Training(phase.name, prior, folder, phase.steps, phase.peak)
    while run.step < phase.steps:
        index, generator = batch_of(latents, batch, seed, run.step)
        said = [labels[i] for i in index.tolist()]
        if phase.unsaid_colours:
            unsaid = torch.rand(batch, generator=generator) < phase.unsaid_colours
            said = [without_colours(x) if u else x for x, u in zip(said, unsaid.tolist(), strict=True)]
        captions = [drop(label, generator) for label in said]
        half = torch.rand(batch, generator=generator) < 0.5
        zero = torch.tensor([c == "" for c in captions]) & half
        eps = torch.randn(latents[index].shape, generator=generator)
        t = torch.randint(len(alphas), (phase.draws, batch), generator=generator).amax(0)
        x_t = schedule.add_noise(latents[index], eps, t).float()
        error = ((prior(x_t, t, captions, zero) - eps) ** 2).mean(dim=(1, 2, 3))
        run.update((weight[t] * error).mean())
        if run.step % 1000 == 0:  # a look at the averaged weights
            raw = {k: v.clone() for k, v in prior.state_dict().items()}
            prior.load_state_dict(raw | run.ema)
            sheet(assemble(prior, net), folder / f"samples_{phase.name}_{run.step:05d}.png")
            prior.load_state_dict(raw)
            prior.train()
            run.since = time.time()
    run.averaged()
    return prior


def without_colours(label: Label) -> Label:
    return replace(label, toys=tuple((kind, None) for kind, _ in label.toys))


def assemble(prior: Prior, net: AutoencoderKL) -> StableDiffusionXLPipeline:
    """The trained parts as a StableDiffusionXLPipeline."""
    pipe = model.pipeline()
    pipe.register_modules(vae=net, text_encoder=prior.first, text_encoder_2=prior.second, unet=prior.unet)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def sheet(pipe: StableDiffusionXLPipeline, path: Path, steps: int = 25, guidance_scale: float = 3.0) -> None:
    """Every kind once, its colour rotating through the eight, front, three-quarter and side view; seed 0."""
    colours, rows = list(COLOURS), []
    for view in ("front", "front right", "right side"):
        prompts = [
            f"a {colours[i % 8]} {kind}, {view} view".replace("a orange", "an orange") for i, kind in enumerate(KINDS)
        ]
        pictures = pipe(
            prompts,
            num_inference_steps=steps,
            guidance_scale=guidance_scale,
            output_type="np",
            generator=torch.Generator().manual_seed(0),
        ).images
        rows.append(torch.from_numpy(pictures))
    both = torch.cat(
        [
            torch.cat([torch.cat(list(r[:12]), 1) for r in rows]),
            torch.cat([torch.cat(list(r[12:]), 1) for r in rows]),
        ]
    )
    Image.fromarray((both * 255).round().byte().numpy()).save(path)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m jsdsd.toybox.train",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--folder",
        type=Path,
        default=Path("build/toybox"),
        help="data, checkpoints, log and results (default build/toybox)",
    )
    parser.add_argument("--scenes", type=int, default=7680, help="scenes of 6 pictures (default 7680)")
    parser.add_argument("--vae-steps", type=int, default=2000, help="of 32 pictures (default 2000)")
    parser.add_argument("--steps", type=int, default=12000, help="of the U-Net, 64 latents each (default 12000)")
    parser.add_argument("--even-steps", type=int, default=4000, help="of the last phase (default 4000)")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    images, labels = dataset(options.folder / "data", options.scenes, options.seed)
    print(f"{len(images)} pictures of {options.scenes} scenes", flush=True)
    images = shrink(images)
    net = train_vae(images, options.folder, options.vae_steps, batch=32, seed=options.seed)
    latents = encode(net, images) * net.config.scaling_factor
    prior = Prior(options.seed)
    first = Phase("prior", options.steps, peak=1e-3, unsaid_colours=0, draws=1)
    prior = train_prior(prior, first, latents, labels, net, options.folder, batch=64, seed=options.seed)
    mean = latents.mean(dim=(0, 2, 3), keepdim=True)  # (1, 4, 1, 1)
    centre(net, mean.flatten() / net.config.scaling_factor)
    even = Phase("even", options.even_steps, peak=5e-4, unsaid_colours=0.5, draws=2)
    prior = train_prior(prior, even, latents - mean, labels, net, options.folder, batch=64, seed=options.seed)
    model.save(assemble(prior, net), options.folder / "weights")
    sheet(assemble(prior, net), options.folder / "samples.png")


if __name__ == "__main__":
    main()
