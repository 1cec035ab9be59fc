"""Words of an asset's own: what to add to a prompt so that it means one sample of the model.

    x0 = the sample that DDIM makes of the seed's noise for the first view's words
    delta = argmin E |eps_hat(alpha x0 + sigma eps, t; e + delta) - eps|²,    t uniform in [0.6, 0.98]

(textual inversion, arXiv 2208.01618, not re-read: there a token is learned, here a change of the embedded prompt.)
Learned at high noise, delta says what the sample *is* - its colour, its kind - and little of its details or its view.
It moves only the places of the prompt's own tokens, so that the view words, which follow them, keep their meaning, and
is added to the prompt of every view.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..objectives.diffusion import ddim_sample
from .embeddings import Embeddings
from .guidance import Guidance


def own_words(
    guidance: Guidance,
    embeddings: Embeddings,
    places: int,
    seed: int,
    guidance_scale: float,
    *,
    steps: int = 30,
    batch: int = 8,
    rate: float = 0.2,
    low: float = 0.6,
    high: float = 0.98,
    sample_steps: int = 25,
) -> tuple[Tensor, int]:
    """delta (1, L, C), zero outside the tokens 1 ... places, and the U-Net's calls: `sample_steps` of one picture, and
    `steps` of `batch` pictures forward and as many backward (of large models picture by picture).

    embeddings: one prompt.  guidance_scale: of the sample; learning has none.  rate: Adam's, in units of the embedding,
    falling linearly to a tenth; with fewer steps or half the rate the words forget the sample.  low, high: noise
    levels, fractions of the schedule; lower ones teach the words the picture's view.
    """
    generator, schedule = torch.Generator().manual_seed(seed), guidance.schedule
    noise = torch.randn(1, *guidance.latent_shape, generator=generator).to(guidance.device)
    x0 = ddim_sample(
        lambda x_t, t: guidance.predict_eps(x_t, t, embeddings, guidance_scale), schedule, noise, sample_steps
    )
    delta = torch.zeros_like(embeddings.tokens[:, 1 : 1 + places], dtype=torch.float32, requires_grad=True)
    adam = torch.optim.Adam([delta], lr=rate, betas=(0.9, 0.99))
    at_once = batch if guidance.own_size < 256 else 1  # pictures a backward pass: SDXL's activations are large
    parts = torch.arange(batch).split(at_once)
    for step in range(steps):
        adam.param_groups[0]["lr"] = rate * (1 - 0.9 * step / steps)
        even = (torch.arange(batch) + torch.rand(batch, generator=generator)) / batch  # one in each of `batch` parts
        t = ((low + (high - low) * even) * len(schedule)).long().to(guidance.device)  # (batch,)
        eps = torch.randn(batch, *guidance.latent_shape, generator=generator).to(guidance.device)
        x_t = schedule.add_noise(x0.expand(batch, -1, -1, -1), eps, t)
        adam.zero_grad()
        for i in parts:
            with torch.enable_grad():
                asked = embeddings.shifted(padded(delta, embeddings))[torch.zeros_like(i, device=guidance.device)]
                eps_hat = guidance.predict_eps_with_gradient(x_t[i], t[i], asked, 1)
                # Between sum and mean: in half precision a large picture's sum overflows on the way back, and a mean
                # vanishes.  Adam does not see the factor.
                loss = (eps_hat - eps[i]).square().sum() * (256 / x0.numel())
            loss.backward()
        adam.step()
    found = padded(delta.detach(), embeddings)
    if not found.isfinite().all():
        raise FloatingPointError('the asset\'s own words are not finite: use dtype=torch.float32, or objective="jsd"')
    return found, sample_steps + 2 * steps * len(parts)


def padded(delta: Tensor, embeddings: Embeddings) -> Tensor:
    """delta (1, n, C) at the tokens 1 ... n of a prompt's L, (1, L, C)."""
    after = embeddings.tokens.shape[1] - 1 - delta.shape[1]
    return torch.nn.functional.pad(delta, (0, 0, 1, after))
