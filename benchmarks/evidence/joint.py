"""The joint ensemble: N assets of one prompt that know of each other.

All N grids are seen by the same random cameras.  What one camera sees is an ensemble of its own: its N latents are the
particles, q_t their mixture, and the denoiser answers for that view's words.  The log-odds, where the divergence needs
them, are learned: for each view's words a small network tells the prior's pictures from the renders.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from jsdsd.objectives import Ensemble, LearnedLogOdds
from jsdsd.objectives.diffusion import Time
from jsdsd.objectives.distillation import DistillationStep, DistillRecord, Times, distill
from jsdsd.optimise import adam_for, start
from jsdsd.penalties import solid
from jsdsd.scene.cameras import orbit
from jsdsd.scene.renderer import Render, render
from jsdsd.scene.views import random_background, random_views, view_prompts, word_indices
from jsdsd.scene.voxels import VoxelGrid
from jsdsd.sdxl.guidance import Guidance
from jsdsd.sdxl.view_denoiser import ViewDenoiser


class PerView:
    """An objective for N assets x B views: one ensemble per view.

    ensembles: one per view word; an ensemble that learns its log-odds keeps what it learned about that word's
    pictures.  `look` says which word each of the B views has.
    """

    def __init__(self, ensembles: Sequence[Ensemble]):
        self.ensembles, self.index = ensembles, [0]

    def look(self, index: Sequence[int]) -> None:
        self.index = list(index)

    def gradient(
        self, denoiser: ViewDenoiser, x0: Tensor, t: Time, generator: torch.Generator | None = None
    ) -> DistillationStep:
        """x0 (N * B, ...), the views of the first asset first.  One U-Net call per asset, N * B pictures in B parts."""
        views = x0.unflatten(0, (-1, len(self.index)))  # (N, B, ...)
        parts = []
        for b, word in enumerate(self.index):
            denoiser.look([word] * len(views))
            parts.append(self.ensembles[word].gradient(denoiser, views[:, b].contiguous(), t, generator))

        def merged(name: str) -> Tensor:
            return torch.stack([getattr(part, name) for part in parts], 1).flatten(0, 1)  # (N * B, ...)

        log_ratio = None if parts[0].log_ratio is None else merged("log_ratio")
        x1 = torch.stack([part.targets[0] for part in parts], 1).flatten(0, 1)
        return DistillationStep(
            merged("grad"), t, merged("x_t"), merged("eps_hat"), merged("eps_ref"), (x1,), log_ratio, 1
        )


def discriminators(ensemble: Ensemble, latents: Tensor, seed: int) -> list[Ensemble]:
    """`ensemble` once per view word, each with learned log-odds of its own.

    latents (W, M, ...): M of the prior's pictures for each word, encoded as the renders are.  The whole ratio is
    learned, since q_t of a few particles in hundreds of dimensions is no smooth density, and held within ±10 nats, as
    in f-distill's code (arXiv 2502.15681); where that bites it changes the divergence.
    """

    def sampler(real: Tensor) -> Callable[[int, torch.Generator | None], Tensor]:
        return lambda n, generator: real[torch.randint(len(real), (n,), generator=generator)]

    return [
        replace(
            ensemble, log_odds=LearnedLogOdds(sampler(real), known_q=False, updates=8, batch=64, bound=10.0, seed=seed)
        )
        for real in latents
    ]


def optimise_jointly(
    guidance: Guidance,
    prompt: str,
    ensembles: Sequence[Ensemble],
    *,
    seeds: Sequence[int],
    steps: int,
    times: Times,
    guidance_scale: float,
    views_per_step: int,
    resolution: int,
    size: int,
    solid_weight: float = 1.0,
) -> Iterator[tuple[list[VoxelGrid], DistillRecord]]:
    """Yields the N = len(seeds) grids and the record after every step.  As `optimise` but for the shared cameras: same
    start, cameras' distribution, rates and regularisation.

    ensembles: one per view word of the model.  Raises FloatingPointError when something is not finite or all is empty.
    """
    generator = torch.Generator().manual_seed(seeds[0])
    grids = [start(resolution, generator if i == 0 else torch.Generator().manual_seed(s)) for i, s in enumerate(seeds)]
    words, view_word = guidance.all_views()
    denoiser = ViewDenoiser(guidance, guidance.encode_prompts(view_prompts(prompt, words)), guidance_scale)
    objective = PerView(ensembles)
    picture: list[Render] = []

    def produce(step: int) -> Tensor:
        azimuth, elevation = random_views(views_per_step, generator, spread=True)
        objective.look(word_indices(words, view_word, azimuth, elevation))
        background = random_background(views_per_step, generator)
        picture[:] = [render(grid, orbit(azimuth, elevation), size, background) for grid in grids]
        if min(float(one.opacity.detach().amax()) for one in picture) < 0.01:
            raise FloatingPointError(f"a scene of the ensemble is empty at step {step}")
        return guidance.encode_images(torch.cat([one.rgb for one in picture]))  # (N * B, 4, h, w)

    def penalty(step: int) -> Tensor:
        return solid_weight * step / steps * solid(torch.stack([one.opacity for one in picture]))

    for record in distill(produce, denoiser, objective, adam_for(grids), steps, times, generator, penalty):  # type: ignore[arg-type]
        yield grids, record
