"""Train the toybox from nothing: `python -m jsdsd.toybox.train`.  Resumes where it stopped; writes log and samples.

1. trace the captioned pictures;  2. a VAE on them, its latents moved to mean zero;  3. text encoders and U-Net together
on the latents of the pictures before random plain backgrounds, predicting v (Salimans & Ho 2022, not re-read) with
min-SNR weights (Hang et al. 2023, not re-read), raised where there is much noise, and a moving average of the weights;
4. the two gates (gates.py).  Everything random comes from generators seeded with the step: a resumed run repeats an
unbroken one up to rounding.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from diffusers import AutoencoderKL, StableDiffusionXLPipeline
from torch import Tensor, nn

from ..objectives.diffusion import Schedule
from ..scene.views import camera_corner, random_background
from . import checkpoint, gates, model
from .dataset import Pictures, dataset

VARIANTS = 8  # colours and sentences drawn for each picture
UNSAID_CAMERA = 0.2  # share of the pictures whose camera is not said
REPORT = 50  # steps between two lines of the log; a loss that is not finite is found there


def learning_rate(step: int, steps: int, peak: float, warmup: int = 200) -> float:
    """Linear warm-up, then a half cosine to zero at `steps`."""
    return peak * min(1.0, (step + 1) / warmup) * 0.5 * (1 + math.cos(math.pi * min(1.0, step / steps)))


class Training:
    """What both networks share: AdamW, the moving average, checkpoint and log."""

    def __init__(
        self, name: str, net: nn.Module, folder: Path, steps: int, peak: float, decay: float = 0.999, keep: int = 250
    ):
        folder.mkdir(parents=True, exist_ok=True)
        self.name, self.net, self.steps, self.peak, self.decay, self.keep = name, net, steps, peak, decay, keep
        self.path, self.log = folder / f"{name}.safetensors", folder / "log.csv"
        self.optimiser = torch.optim.AdamW(net.parameters(), peak, betas=(0.9, 0.99), weight_decay=0.01)
        self.ema = {k: v.detach().clone() for k, v in net.state_dict().items() if v.is_floating_point()}
        self.step = checkpoint.read(self.path, net, self.ema, self.optimiser)
        state = net.state_dict()
        self.live = [state[k] for k in self.ema]  # what the average follows
        self.since, self.sum = time.time(), torch.zeros((), device=next(net.parameters()).device)

    def generator(self, seed: int) -> torch.Generator:
        """The step's own, on the network's device."""
        return torch.Generator(self.sum.device).manual_seed(seed * 10_000_019 + self.step)

    def update(self, loss: Tensor) -> None:
        loss.backward()
        nn.utils.clip_grad_norm_(self.net.parameters(), 1.0)
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate(self.step, self.steps, self.peak)
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        keep = min(self.decay, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            torch._foreach_lerp_(list(self.ema.values()), self.live, 1 - keep)
        self.step += 1
        self.sum += loss.detach()
        if self.step % REPORT == 0 or self.step == self.steps:
            mean = self.sum.item() / REPORT
            if not math.isfinite(mean):
                raise FloatingPointError(
                    f"{self.name}: the loss is {mean} before step {self.step}; the last checkpoint is {self.path}"
                )
            line = f"{self.name},{self.step},{mean:.5f},{(time.time() - self.since) / REPORT:.4f}"
            print(line, flush=True)
            with self.log.open("a") as file:
                file.write(line + "\n")
            self.since = time.time()
            self.sum.zero_()
        if self.step % self.keep == 0 or self.step == self.steps:
            checkpoint.write(self.path, self.step, self.net, self.ema, self.optimiser)

    def averaged(self) -> nn.Module:
        """The network with the averaged weights in place (for use after training)."""
        self.net.load_state_dict(self.net.state_dict() | self.ema)
        return self.net.eval().requires_grad_(False)


def some(pictures: Pictures, batch: int, generator: torch.Generator, colours: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Random pictures (B,), which of their pairs of `colours` (N, each, 2) they have (B,), and what they look like so
    before random backgrounds, (B, 3, 96, 96) in [-1, 1]."""
    device = generator.device
    index = torch.randint(len(pictures), (batch,), generator=generator, device=device)
    which = torch.randint(colours.shape[1], (batch,), generator=generator, device=device)
    return index, which, pictures.painted(index, colours[index, which], random_background(batch, generator))


def train_vae(
    pictures: Pictures, folder: Path, steps: int, batch: int, seed: int, start: Path | None = None, keep: int = 250
) -> AutoencoderKL:
    """Absolute and squared error of the picture and of its differences, and a light pull of the latents to N(0, I)."""
    torch.manual_seed(seed)
    device = pictures.layers.device
    net = (AutoencoderKL.from_pretrained(start, torch_dtype=torch.float32) if start else model.vae()).to(device)
    colours = torch.arange(64, device=device).view(1, 64, 1) // torch.tensor([1, 8], device=device) % 8  # all pairs
    colours = colours.expand(len(pictures), 64, 2)
    run = Training("vae", net, folder, steps, peak=5e-4 if start else 2e-3, keep=keep)
    while run.step < steps:
        generator = run.generator(seed)
        _, _, x = some(pictures, batch, generator, colours)
        if run.step < 0.7 * steps:  # cheap crops first: the network is convolutional, only its norms see the difference
            top, left = torch.randint(49, (2,), generator=generator, device=device).tolist()
            x = x[:, :, top : top + 48, left : left + 48]
        posterior = net.encode(x).latent_dist
        noise = torch.randn(posterior.mean.shape, generator=generator, device=device)
        error = net.decode(posterior.mean + posterior.std * noise).sample - x
        edges = error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()
        kl = 0.5 * (posterior.mean**2 + posterior.var - 1 - posterior.logvar).mean()
        run.update(error.abs().mean() + (error**2).mean() + edges + 1e-4 * kl)
    averaged = run.averaged()
    assert isinstance(averaged, AutoencoderKL)
    generator = torch.Generator(device).manual_seed(seed)
    latents = torch.cat([encode(averaged, some(pictures, 256, generator, colours)[2]) for _ in range(8)])
    centre(averaged, latents.mean(dim=(0, 2, 3)))
    averaged.register_to_config(sample_size=96, scaling_factor=round(1 / latents.std(dim=(0, 2, 3)).mean().item(), 5))
    return averaged


@torch.no_grad()
def encode(net: AutoencoderKL, x: Tensor) -> Tensor:
    """Mean latents (B, 4, 24, 24), unscaled, of pictures (B, 3, 96, 96) in [-1, 1]."""
    return net.encode(x).latent_dist.mean


@torch.no_grad()
def centre(net: AutoencoderKL, mean: Tensor) -> None:
    """Move the latents by -mean (4,), unscaled, in the biases around them; what is decoded stays the same.

    Sampling begins with noise of mean zero, while the noisiest pictures in training keep alpha = 0.07 of their mean:
    summed over 24 x 24 latents that is more than a standard deviation, and every free choice starts tilted.
    """
    net.quant_conv.bias[:4] -= mean  # the first half of the encoder's outputs is the posterior's mean
    net.post_quant_conv.bias += net.post_quant_conv.weight[:, :, 0, 0] @ mean


class Prior(nn.Module):
    """Both text encoders and the U-Net, called the way SDXL's pipeline calls them."""

    def __init__(self, seed: int):
        super().__init__()
        pipe = model.pipeline(seed)
        self.unet, self.first, self.second = pipe.unet, pipe.text_encoder, pipe.text_encoder_2
        self.tokenizer = pipe.tokenizer

    def tokens(self, captions: Sequence[str]) -> Tensor:
        """(B, 16) numbers of words."""
        return self.tokenizer(list(captions), padding="max_length", return_tensors="pt").input_ids

    def embed(self, tokens: Tensor, zero: Tensor) -> tuple[Tensor, Tensor]:
        """Token embeddings (B, 16, 128) and prompt vectors (B, 64) of tokens (B, 16); rows where `zero` (B,) holds
        become zeros, SDXL's embedding of no prompt."""
        second = self.second(tokens, output_hidden_states=True)
        hidden = [self.first(tokens, output_hidden_states=True).hidden_states[-2], second.hidden_states[-2]]
        keep = (~zero).float()
        return torch.cat(hidden, -1) * keep[:, None, None], second.text_embeds * keep[:, None]

    def forward(self, x_t: Tensor, t: Tensor, tokens: Tensor, zero: Tensor, corner: Tensor) -> Tensor:
        """corner (B, 2): the camera, see `camera_corner`; zeros where it is not said."""
        embedded, vector = self.embed(tokens, zero)
        size = corner.new_full((len(x_t), 2), 96.0)  # original size, crop corner, target size, in pixels
        extra = {"text_embeds": vector, "time_ids": torch.cat([size, corner, size], 1)}
        return self.unet(x_t, t, embedded, added_cond_kwargs=extra).sample


def train_prior(
    prior: Prior, pictures: Pictures, net: AutoencoderKL, folder: Path, steps: int, batch: int, seed: int,
    peak: float = 1e-3, keep: int = 250, half: bool = False,
) -> Prior:  # fmt: skip
    """v-prediction on scaled latents (B, 4, 24, 24); half of the empty captions become zeros, half empty text.

    The weight of v's error at noise level t is min(SNR, 5)/(SNR + 1) sqrt(1 + 1/SNR), SNR = alpha^2/sigma^2.  The first
    factor is min-SNR-5; the second raises what is nearly all noise: there a picture's layout is decided, and an error
    hardly shows.  half: in bfloat16 where that is safe (autocast), for GPUs.
    """
    device = pictures.layers.device
    prior = prior.to(device).train().requires_grad_(True)
    alphas = Schedule.from_scheduler(model.scheduler()).alphas_cumprod.float().to(device)
    snr = alphas / (1 - alphas)
    weight = snr.clamp(max=5) / (snr + 1) * (1 + 1 / snr).sqrt()  # (1000,)
    sentences, numbers, colours = pictures.variants(VARIANTS, seed)
    tokens, numbers, colours = prior.tokens(sentences).to(device), numbers.to(device), colours.to(device)
    corners = camera_corner(*pictures.cameras.T).to(device)  # (N, 2)
    run = Training("prior", prior, folder, steps, peak, keep=keep)
    while run.step < steps:
        generator = run.generator(seed)
        index, which, x = some(pictures, batch, generator, colours)
        x0 = encode(net, x) * net.config.scaling_factor
        empty, camera = torch.rand(2, batch, generator=generator, device=device)
        said = numbers[index, which]  # (B,)
        corner = corners[index] * (camera >= UNSAID_CAMERA)[:, None]
        eps = torch.randn(x0.shape, generator=generator, device=device)
        t = torch.randint(len(alphas), (batch,), generator=generator, device=device)
        alpha, sigma = (x.sqrt()[:, None, None, None] for x in (alphas[t], 1 - alphas[t]))
        with torch.autocast(device.type, torch.bfloat16, enabled=half):
            v = prior(alpha * x0 + sigma * eps, t, tokens[said], (said == 0) & (empty < 0.5), corner)
        error = (v.float() - (alpha * eps - sigma * x0)).square().mean(dim=(1, 2, 3))
        run.update((weight[t] * error).mean())
    run.averaged()
    return prior


def assemble(prior: Prior, net: AutoencoderKL) -> StableDiffusionXLPipeline:
    """The trained parts as a StableDiffusionXLPipeline."""
    pipe = model.pipeline()
    pipe.register_modules(vae=net, text_encoder=prior.first, text_encoder_2=prior.second, unet=prior.unet)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m jsdsd.toybox.train",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--folder", type=Path, default=Path("build/toybox"), help="data, checkpoints, log, results (build/toybox)")
    add("--scenes", type=int, default=6000, help="scenes of 8 pictures (default 6000)")
    add("--vae", type=Path, metavar="FOLDER", help="begin with this VAE (default: from nothing)")
    add("--vae-steps", type=int, default=3000, help="of 32 pictures (default 3000)")
    add("--steps", type=int, default=60000, help="of the U-Net, 32 pictures each (default 60000)")
    add("--batch", type=int, default=32)
    add("--device", default="cpu")
    add("--seed", type=int, default=1)
    o = parser.parse_args()
    pictures = dataset(o.folder / "data", o.scenes, o.seed, device=o.device)
    print(f"{len(pictures)} pictures of {o.scenes} scenes", flush=True)
    pictures.layers = pictures.layers.to(o.device)
    net = train_vae(pictures, o.folder, o.vae_steps, 32, o.seed, o.vae)
    half = torch.device(o.device).type == "cuda"
    prior = train_prior(Prior(o.seed), pictures, net, o.folder, o.steps, o.batch, o.seed, half=half)
    pipe = assemble(prior, net)
    model.save(pipe, o.folder / "weights")
    gates.report(pipe, o.folder)


if __name__ == "__main__":
    main()
