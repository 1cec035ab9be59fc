"""Is the prior sure?  Two gates before any distillation, on toys whose true pictures are known.

(A) x0_hat of true pictures at t = 0.4 of the schedule: does it keep the silhouette?        goal: IoU >= .95
(B) a voxel grid fitted to 24 independent samples of exact cameras: do they agree?          goal: IoU >= .92

If B fails, distillation must blur what the samples contradict each other in.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from diffusers import StableDiffusionXLPipeline
from PIL import Image
from torch import Tensor

from ..objectives.diffusion import ddim_sample
from ..scene.cameras import orbit
from ..scene.renderer import render
from ..scene.views import camera_corner, fine_view, view_prompts
from ..scene.voxels import VoxelGrid
from ..sdxl.embeddings import Embeddings
from ..sdxl.guidance import Guidance
from .captions import Label, caption
from .kinds import COLOURS, KINDS
from .scenes import Toy
from .trace import trace

BACKGROUND = (0.2, 0.7, 0.7)  # far from every material
DIFFERS = 0.2  # a pixel whose largest channel is farther than this from the background is the toy's
AZIMUTHS = [15 + 45.0 * i for i in range(8)] * 3
ELEVATIONS = [0.0] * 8 + [30.0] * 8 + [70.0] * 8  # with AZIMUTHS the 24 cameras of both gates
GATED = ("castle", "robot", "airplane", "donut", "mug", "duck")


def iou(a: Tensor, b: Tensor) -> float:
    """Mean over pictures of the intersection over union of silhouettes (B, H, W), boolean."""
    return ((a & b).sum((1, 2)) / (a | b).sum((1, 2)).clamp(min=1)).mean().item()


def silhouettes(pictures: Tensor, background: Tensor) -> Tensor:
    """(B, H, W) boolean of pictures (B, H, W, 3) on plain backgrounds (3,) or (B, 3)."""
    return (pictures - background.view(-1, 1, 1, 3)).abs().amax(-1) > DIFFERS


def asked(guidance: Guidance, toy: Toy) -> Embeddings:
    """The toy's prompt for each of the 24 cameras."""
    azimuth, elevation = torch.tensor(AZIMUTHS), torch.tensor(ELEVATIONS)
    text = caption(Label(((toy.kind, toy.colour),)))
    words = [fine_view(a, e) for a, e in zip(AZIMUTHS, ELEVATIONS, strict=True)]
    prompts = [view_prompts(text, [word])[0] for word in words]
    return guidance.encode_prompts(prompts).seen_from(camera_corner(azimuth, elevation))


@torch.no_grad()
def truth(guidance: Guidance, toy: Toy, size: int = 96) -> tuple[Tensor, Tensor]:
    """Pictures (24, size, size, 3) on BACKGROUND and silhouettes (24, size, size)."""
    rgba = trace(toy, orbit(AZIMUTHS, ELEVATIONS, device=guidance.device), size)
    return rgba[..., :3] + (1 - rgba[..., 3:]) * rgba.new_tensor(BACKGROUND), rgba[..., 3] > 0.5


@torch.no_grad()
def gate_a(guidance: Guidance, toy: Toy, fraction: float = 0.4, scale: float = 1.0) -> dict[str, float]:
    """Silhouette IoU with the truth of the truth's own round trip through the VAE, and of x0_hat at `fraction`."""
    pictures, true = truth(guidance, toy)
    background = pictures.new_tensor(BACKGROUND)
    x0 = guidance.encode_images(pictures)
    noise = torch.randn(x0.shape, generator=torch.Generator().manual_seed(0)).to(x0)
    t = round(fraction * (len(guidance.schedule) - 1))
    x_t = guidance.schedule.add_noise(x0, noise, t)
    x0_hat = guidance.schedule.x0_from_eps(x_t, guidance.predict_eps(x_t, t, asked(guidance, toy), scale), t)
    decoded, again = guidance.decode_latents(x0_hat), guidance.decode_latents(x0)
    edges = [torch.cat([p.diff(dim=1).abs().flatten(), p.diff(dim=2).abs().flatten()]).sum() for p in (again, pictures)]
    return {
        "truth itself": iou(silhouettes(pictures, background), true),
        "VAE": iou(silhouettes(again, background), true),
        "x0_hat": iou(silhouettes(decoded, background), true),
        "VAE PSNR, dB": -10 * (again - pictures).square().mean().log10().item(),
        "VAE edges": (edges[0] / edges[1]).item(),
    }


@torch.no_grad()
def samples(guidance: Guidance, toy: Toy, seed: int = 0, steps: int = 50, scale: float = 3.0) -> Tensor:
    """24 independent pictures (24, 96, 96, 3) of the prior, one for each camera."""
    noise = torch.randn(len(AZIMUTHS), *guidance.latent_shape, generator=torch.Generator().manual_seed(seed))
    embeddings = asked(guidance, toy)
    predict = lambda x_t, t: guidance.predict_eps(x_t, t, embeddings, scale)  # noqa: E731
    return guidance.decode_latents(ddim_sample(predict, guidance.schedule, noise.to(guidance.device), steps))


def fit(pictures: Tensor, resolution: int = 48, steps: int = 150, views: int = 4) -> VoxelGrid:
    """A grid fitted to the 24 pictures, each before the plain colour that its corners show."""
    corners = torch.stack([pictures[:, i, j] for i in (1, -2) for j in (1, -2)], 1)  # (24, 4, 3)
    background, device = corners.median(1).values, pictures.device
    grid = VoxelGrid.blob([resolution // k for k in (8, 4, 2, 1)]).to(device)
    adam = torch.optim.Adam(
        [{"params": list(grid.density_levels), "lr": 0.3}, {"params": list(grid.colour_levels), "lr": 0.1}],
        betas=(0.9, 0.99),
    )
    generator = torch.Generator().manual_seed(0)
    cameras = orbit(AZIMUTHS, ELEVATIONS, device=device)
    for _ in range(steps):
        index = torch.randperm(len(pictures), generator=generator)[:views]
        seen = type(cameras)(cameras.position[index], cameras.rotation[index], cameras.fov[index])
        error = render(grid, seen, pictures.shape[1], background[index]).rgb - pictures[index]
        adam.zero_grad()
        error.square().sum().backward()
        adam.step()
    return grid


def gate_b(guidance: Guidance, toy: Toy, scale: float = 3.0, size: int = 128) -> tuple[dict[str, float], Tensor]:
    """Silhouette IoU with the truth of grids fitted to the prior's samples and to true pictures; the samples."""
    true = truth(guidance, toy, size)[1]
    drawn = samples(guidance, toy, scale=scale)
    found = {}
    for name, pictures in (("samples", drawn), ("truth", truth(guidance, toy)[0])):
        with torch.enable_grad():
            grid = fit(pictures)
        with torch.no_grad():
            opacity = render(grid, orbit(AZIMUTHS, ELEVATIONS, device=guidance.device), size).opacity
        found[f"fit to {name}"] = iou(opacity > 0.5, true)
    return found, drawn


def report(
    pipe: StableDiffusionXLPipeline, folder: Path, kinds: Sequence[str] = GATED, device: torch.device | str = "cpu"
) -> dict[str, float]:
    """Print both gates for `kinds` (colours rotate) and write their samples as a picture; returns the means."""
    guidance = Guidance(pipe, device=device, guidance_scale=3.0)
    rows, pictures = [], []
    for kind in kinds:
        toy = Toy(kind, list(COLOURS)[list(KINDS).index(kind) % len(COLOURS)])
        b, drawn = gate_b(guidance, toy)
        rows.append(gate_a(guidance, toy) | b)
        pictures.append(torch.cat(list(drawn[::3]), 1))
        print(f"{toy.colour} {kind}: " + ", ".join(f"{k} {v:.3f}" for k, v in rows[-1].items()), flush=True)
    means = {name: sum(row[name] for row in rows) / len(rows) for name in rows[0]}
    print("mean: " + ", ".join(f"{k} {v:.3f}" for k, v in means.items()))
    for gate, name, goal in (("A", "x0_hat", 0.95), ("B", "fit to samples", 0.92)):
        print(f"gate {gate} {'holds' if means[name] >= goal else 'FAILS'}: {means[name]:.3f}, goal {goal}")
    sheet = (torch.cat(pictures) * 255).round().byte().cpu().numpy()
    Image.fromarray(sheet).save(folder / "samples.png")
    return means
