"""One asset: random views of a voxel grid are pushed to where the objective says the diffusion model wants them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .checkpoint import Checkpoint
from .objectives.distillation import DistillRecord, Objective, Times, distill
from .penalties import as_share, present, solid, total_variation
from .scene.cameras import orbit
from .scene.renderer import Render, render_fields
from .scene.views import (
    ViewWords,
    camera_corner,
    random_background,
    random_views,
    view_prompts,
    word_indices,
)
from .scene.voxels import VoxelGrid, sum_levels
from .sdxl.guidance import Guidance
from .sdxl.latent import LatentGrid, fit_linear_colours, shrunk
from .sdxl.own_words import own_words
from .sdxl.perp_neg import PerpNegDenoiser
from .sdxl.recipe import Recipe, between
from .sdxl.view_denoiser import ViewDenoiser

OWN_WORDS = 2**32  # added to an asset's seed for the sample that its own words are learned from


@dataclass(frozen=True)
class Progress:
    """One step: what `distill` recorded, the step's renders, what is optimised, and what a checkpoint needs besides."""

    record: DistillRecord
    render: Render
    scene: VoxelGrid | LatentGrid
    optimiser: torch.optim.Optimizer
    generator: torch.Generator

    @property
    def grid(self) -> VoxelGrid:
        """The grid so far; in latent-space mode its linear preview in colours, as `render` has them then."""
        return self.scene.as_rgb() if isinstance(self.scene, LatentGrid) else self.scene


def start(resolution: int, generator: torch.Generator) -> VoxelGrid:
    """The blob that every run begins with: four levels, each half the next, the finest of `resolution` voxels."""
    return VoxelGrid.blob([max(2, resolution // k) for k in (8, 4, 2)] + [resolution], generator=generator)


def adam_for(
    grids: Sequence[VoxelGrid | LatentGrid], density_rate: float = 0.1, colour_rate: float = 0.03
) -> torch.optim.Adam:
    """One optimiser for the logits of all `grids`; rates in logits per step."""
    rates = [
        {"params": [level for grid in grids for level in grid.density_levels], "lr": density_rate},
        {"params": [level for grid in grids for level in grid.colour_levels], "lr": colour_rate},
    ]
    return torch.optim.Adam(rates, betas=(0.9, 0.99))


def optimise(
    guidance: Guidance,
    prompt: str,
    objective: Objective,
    *,
    seed: int,
    steps: int,
    views_per_step: int,
    resolution: int,
    sizes: Sequence[int],
    negative_prompt: str | None = None,
    guidance_scale: float | None = None,
    times: Times | None = None,
    recipe: Recipe | None = None,
    view_words: ViewWords | None = None,
    perp_neg: float = 0.0,
    latent: bool = False,
    resume: Checkpoint | None = None,
) -> Iterator[Progress]:
    """Yields after every step; the last one's grid is the result.  `generate` holds the defaults of the run's size.

    resolution: voxels per axis of the finest of four levels (each half the next).
    sizes: pixels of a render, the first for the first share of the steps, and so on in equal shares.
    times: the rule for the noise level, None = the recipe's; Anneal() falls over the run's real length, UniformTime()
    is random.  recipe: the loop's other numbers, None = the model's (`guidance.recipe`).
    view_words: None = the model's own.
    perp_neg: weight of the other views' words as negatives.  latent: a grid of latents, no VAE (latent.py).
    resume: goes on after that checkpoint's steps.
    Raises FloatingPointError when something is not finite, or the scene is empty or fills its box.
    """
    generator, r = torch.Generator().manual_seed(seed), recipe or guidance.recipe
    blob = start(resolution, generator)
    grid = (LatentGrid(blob, fit_linear_colours(guidance)) if latent else blob).to(guidance.device)
    words, view_word = guidance.all_views(view_words)
    embeddings = guidance.encode_prompts(view_prompts(prompt, words), negative_prompt)

    def learn() -> tuple[Tensor, int]:  # from random numbers of its own, so that a resumed run learns the same again
        first = embeddings[torch.tensor([0], device=guidance.device)]
        return own_words(guidance, first, guidance.count_tokens(prompt), seed + OWN_WORDS, denoiser.guidance_scale)

    denoiser = ViewDenoiser(guidance, embeddings, guidance_scale, learn, counted=resume is not None)
    if perp_neg:
        more = (words, view_word, perp_neg, learn, resume is not None)
        denoiser = PerpNegDenoiser(guidance, embeddings, guidance_scale, *more)
    adam = adam_for([grid])
    seen: list[Tensor] = []  # the step's rgb, depth, opacity and roughness
    done = resume.restore(grid, adam, generator) if resume else 0

    def produce(step: int) -> Tensor:
        for group, rates in zip(adam.param_groups, (r.density_rates, r.colour_rates), strict=True):
            group["lr"] = between(rates, step / steps)
        azimuth, elevation = random_views(views_per_step, generator, spread=True)
        corners = camera_corner(azimuth, elevation) if guidance.exact_cameras else None
        denoiser.look(word_indices(words, view_word, azimuth, elevation), corners)
        background = random_background(views_per_step, generator).to(guidance.device)
        if isinstance(grid, LatentGrid):
            background = grid.colours.latents(background)
        size = sizes[step * len(sizes) // steps]
        out = render_fields(*grid.fields(), orbit(azimuth, elevation), size, background)
        refuse_void(out.opacity.detach(), step, steps)
        rough = r.smooth * total_variation(sum_levels(grid.colour_levels, grid.resolution))
        if r.smooth_density:
            rough = rough + r.smooth_density * total_variation(sum_levels(grid.density_levels, grid.resolution))
        rgb, opacity, rough = as_share(out.rgb, out.opacity, rough)
        seen[:] = rgb, out.depth, opacity, rough
        return shrunk(rgb, guidance.latent_shape[-1]) if latent else guidance.encode_images(rgb)  # (B, 4, h, w)

    def penalty(step: int) -> Tensor:
        done = step / steps
        return done * (r.solid * solid(seen[2]) + seen[3]) + (1 - done) * r.empty * present(seen[2])

    for record in distill(produce, denoiser, objective, adam, steps, times or r.times, generator, penalty, done):
        rgb, depth, opacity, _ = seen
        if isinstance(grid, LatentGrid):
            rgb = grid.colours.rgb(rgb.detach())
        yield Progress(record, Render(rgb, depth, opacity), grid, adam, generator)


def refuse_void(opacity: Tensor, step: int, steps: int) -> None:
    """FloatingPointError for renders (B, H, W) of an empty scene, or, after a third of the run, of a full box."""
    if opacity.amax() < 0.01:
        raise FloatingPointError(f"the scene is empty at step {step}: lower guidance_scale, or try another seed")
    if 3 * step > steps and opacity.mean() > 0.9:
        raise FloatingPointError(
            f"the scene fills its box at step {step} (mean opacity {opacity.mean():.2f}), as if painted like its "
            "background: try another seed or more steps"
        )
