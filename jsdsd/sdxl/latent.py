"""Latent-space mode: the grid holds latents instead of colours, so that no VAE stands between a step and the grid.

A latent of an SDXL-like model is close to a linear function of the mean colour under it (front ends draw their
previews so).  Both directions are fitted to the model's own VAE, by least squares on pictures of coloured squares:

    latent = (red, green, blue, 1) A        random plain backgrounds and the first grey become latents
    (red, green, blue) = (latent, 1) B      previews while the run goes on, and the finished asset

Volume rendering is linear in the colours, so a picture composited from latents is one composited from colours as far
as A is right: plain surfaces are, edges and fine texture are not.  Rendering into latents is Latent-NeRF's (Metzer et
al. 2022, arXiv 2211.07600, not re-read; it has fixed factors for Stable Diffusion 1).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..scene.voxels import VoxelGrid, sum_levels
from .guidance import Guidance

FIT_SIZE = 256  # largest picture of the fit in pixels: a VAE is a convolution, and memory is what this mode saves
SQUARES = (1, 2, 3, 4)  # coloured squares along a side of the fit's pictures
LEAST_EXPLAINED = 0.5  # share of the colours' variance below which the mode is refused; the toybox has 0.95


@dataclass(frozen=True)
class LinearColours:
    """A: to_latents (4, C) and B: to_rgb (C + 1, 3), see above; explained: R² of B on the pictures it was fitted to."""

    to_latents: Tensor
    to_rgb: Tensor
    explained: float

    def latents(self, rgb: Tensor) -> Tensor:
        """Latents (..., C) of colours (..., 3)."""
        return _with_one(rgb) @ self.to_latents.to(rgb)

    def rgb(self, latents: Tensor) -> Tensor:
        """Colours (..., 3) in [0, 1] of latents (..., C)."""
        return (_with_one(latents) @ self.to_rgb.to(latents)).clamp(0, 1)


def fit_linear_colours(guidance: Guidance, *, pictures: int = 16, seed: int = 0) -> LinearColours:
    """The best linear maps between colours and this model's latents, from `pictures` per entry of SQUARES.

    Raises ValueError for a VAE whose latents are no linear matter: the asset's colours would be lost.
    """
    generator, size = torch.Generator().manual_seed(seed), min(guidance.image_size, FIT_SIZE)
    colours, latents = [], []
    for count in SQUARES:
        for squares in torch.rand(pictures, 1, 3, count, count, generator=generator):
            picture = F.interpolate(squares, (size, size)).to(guidance.device)  # (1, 3, H, W)
            with torch.no_grad():
                latent = guidance.encode_images(picture.permute(0, 2, 3, 1), size)  # (1, C, h, w)
            small = F.adaptive_avg_pool2d(picture, latent.shape[-1])
            colours.append(small.permute(0, 2, 3, 1).flatten(0, 2).cpu().double())  # (h w, 3)
            latents.append(latent.permute(0, 2, 3, 1).flatten(0, 2).cpu().double())  # (h w, C)
    rgb, z = torch.cat(colours), torch.cat(latents)
    to_latents, to_rgb = (torch.linalg.lstsq(_with_one(x), y).solution for x, y in ((rgb, z), (z, rgb)))
    missed = (_with_one(z) @ to_rgb - rgb).square().sum() / (rgb - rgb.mean(0)).square().sum()
    explained = 1 - float(missed)
    if not explained >= LEAST_EXPLAINED:
        raise ValueError(
            f"a linear map explains only {explained:.0%} of the colours in this VAE's latents, so latent=True would "
            "lose the asset's colours: leave it out, or give a model with its trained VAE"
        )
    return LinearColours(to_latents.float(), to_rgb.float(), explained)


class LatentGrid(nn.Module):
    """Density as in a VoxelGrid; at each node C latents in the place of three colours, without a sigmoid.

    Begins as the blob `grid`, in mid-grey.  Its parameters have the names and the order of a VoxelGrid's.
    """

    def __init__(self, grid: VoxelGrid, colours: LinearColours):
        super().__init__()
        self.colours, self.resolution = colours, grid.resolution
        self.density_levels = grid.density_levels  # (1, r, r, r) each
        grey = colours.latents(torch.full((3,), 0.5))[:, None, None, None]  # (C, 1, 1, 1)
        sizes = [level.shape[1:] for level in grid.density_levels]
        self.colour_levels = nn.ParameterList(
            nn.Parameter(grey.expand(-1, *size) * (1.0 if i == 0 else 0.0)) for i, size in enumerate(sizes)
        )  # (C, r, r, r) each

    def fields(self) -> tuple[Tensor, Tensor]:
        """density (R, R, R) in 1 / scene unit, latents (C, R, R, R)."""
        density, latents = (sum_levels(x, self.resolution) for x in (self.density_levels, self.colour_levels))
        return F.softplus(density[0]), latents

    @torch.no_grad()
    def as_rgb(self) -> VoxelGrid:
        """The scene in colours, as far as the linear map knows them: an ordinary grid of one level."""
        density, latents = self.fields()
        return VoxelGrid.from_fields(density, self.colours.rgb(latents.movedim(0, -1)).movedim(-1, 0))


def shrunk(latents: Tensor, side: int) -> Tensor:
    """Rendered latents (B, H, W, C) as the U-Net wants them, (B, C, side, side): means over the pixels of each."""
    return F.adaptive_avg_pool2d(latents.permute(0, 3, 1, 2), side)


def _with_one(x: Tensor) -> Tensor:
    return torch.cat([x, torch.ones_like(x[..., :1])], -1)
