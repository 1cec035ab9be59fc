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
from jsdsd.optimise import adam_for, refuse_void, start
from jsdsd.penalties import as_share, solid, total_variation
from jsdsd.scene.cameras import orbit
from jsdsd.scene.renderer import render
from jsdsd.scene.views import camera_corner, random_background, random_views, view_prompts, word_indices
from jsdsd.scene.voxels import VoxelGrid, sum_levels
from jsdsd.sdxl.guidance import Guidance
from jsdsd.sdxl.recipe import between
from jsdsd.sdxl.view_denoiser import ViewDenoiser


class PerView:
    """An objective for N assets x B views: one ensemble per view.

    ensembles: one per view word; an ensemble that learns its log-odds keeps what it learned about that word's
    pictures.  `look` says which word each of the B views has.
    """

    def __init__(self, ensembles: Sequence[Ensemble]):
        self.ensembles, self.index = ensembles, [0]
        self.corners: Tensor | None = None

    def look(self, index: Sequence[int], corners: Tensor | None = None) -> None:
        """The B views' words, and their cameras (B, 2) for a model that knows exact ones."""
        self.index, self.corners = list(index), corners

    def gradient(
        self, denoiser: ViewDenoiser, x0: Tensor, t: Time, generator: torch.Generator | None = None
    ) -> DistillationStep:
        """x0 (N * B, ...), the views of the first asset first.  One U-Net call per asset, N * B pictures in B parts."""
        views = x0.unflatten(0, (-1, len(self.index)))  # (N, B, ...)
        parts = []
        for b, word in enumerate(self.index):
            same = () if self.corners is None else (self.corners[b].expand(len(views), 2),)
            denoiser.look([word] * len(views), *same)
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
    r, adam = guidance.recipe, adam_for(grids)
    seen: list[Tensor] = []  # rgb, opacity and roughness of all grids

    def produce(step: int) -> Tensor:
        for group, rates in zip(adam.param_groups, (r.density_rates, r.colour_rates), strict=True):
            group["lr"] = between(rates, step / steps)
        azimuth, elevation = random_views(views_per_step, generator, spread=True)
        corners = camera_corner(azimuth, elevation) if guidance.exact_cameras else None
        objective.look(word_indices(words, view_word, azimuth, elevation), corners)
        background = random_background(views_per_step, generator)
        pictures = [render(grid, orbit(azimuth, elevation), size, background) for grid in grids]
        for one in pictures:
            refuse_void(one.opacity.detach(), step, steps)
        rough = sum(r.smooth * total_variation(sum_levels(grid.colour_levels, grid.resolution)) for grid in grids)
        rgb, opacity = torch.cat([one.rgb for one in pictures]), torch.cat([one.opacity for one in pictures])
        seen[:] = as_share(rgb, opacity, torch.as_tensor(rough))
        return guidance.encode_images(seen[0])  # (N * B, 4, h, w)

    def penalty(step: int) -> Tensor:
        return step / steps * (r.solid * solid(seen[1]) + seen[2])

    for record in distill(produce, denoiser, objective, adam, steps, times, generator, penalty):  # type: ignore[arg-type]
        yield grids, record
