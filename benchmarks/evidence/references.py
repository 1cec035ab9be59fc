"""What the numbers can be: the prior's own pictures, without any 3D, and a grid that was fitted to the truth itself."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file, save
from torch import Tensor

from jsdsd.files import whole_file
from jsdsd.optimise import adam_for, start
from jsdsd.penalties import solid
from jsdsd.scene.cameras import orbit
from jsdsd.scene.renderer import render
from jsdsd.scene.views import random_background, random_views, view_prompts
from jsdsd.scene.voxels import VoxelGrid
from jsdsd.sdxl.guidance import Guidance
from jsdsd.toybox.kinds import ORIENTED
from jsdsd.toybox.scenes import true_grid

from .evaluate import sample
from .judge import HEADS, Judge
from .measures import LEAST_CHROMA, NAN, chroma, eight_views, eroded
from .prompts import Prompt

SAMPLES = 16  # of the prior's pictures per view word
ROWS = 32  # of them that become rows of the results: four of each of the eight views from around
DDIM_STEPS = 25


def pictures_of(prompt: str, guidance_scale: float, folder: Path) -> Path:
    """Where `prior_pictures` keeps them."""
    return folder / f"{slug(prompt)}_guidance{guidance_scale:g}.safetensors"


def prior_pictures(guidance: Guidance, prompt: Prompt, guidance_scale: float, folder: Path) -> Tensor:
    """(W, SAMPLES, 48, 48, 3) in [0, 1]: the prior's pictures for each of its view words, by 25 DDIM steps at the same
    guidance scale; kept in `folder`."""
    path = pictures_of(prompt.text, guidance_scale, folder)
    if not path.exists():
        prompts = [text for text in view_prompts(prompt.text, guidance.all_views()[0]) for _ in range(SAMPLES)]
        pictures = sample(guidance, prompts, steps=DDIM_STEPS, guidance_scale=guidance_scale)
        with whole_file(path) as file:
            file.write(save({"pictures": (pictures * 255).round().to(torch.uint8).unflatten(0, (-1, SAMPLES))}))
    return load_file(path)["pictures"].float() / 255


def prior_rows(judge: Judge, prompt: Prompt, pictures: Tensor) -> list[dict[str, float | str]]:
    """The measures of single pictures, ROWS of them, the view changing from one to the next.

    saturation: where the smallest true toy covers the picture, two pixels from its edge; a picture is of any azimuth in
    its word's 45 degrees and of any size, so this is only roughly the toy.  What needs a body is left out.
    """
    words = HEADS["view"][:8]
    shown = pictures[:8, : ROWS // 8].transpose(0, 1).flatten(0, 1)  # (ROWS, 48, 48, 3), views in turn
    found = judge.judge(shown)
    if not prompt.ambiguous:
        true_rgb, true_opacity = eight_views(true_grid(prompt.scene()), pictures.shape[2])
        mask = eroded(true_opacity > 0.5)
    rows = []
    for i in range(ROWS):
        row: dict[str, float | str] = {"kind_right": NAN, "colour_right": NAN, "view_right": NAN, "saturation": NAN}
        if len(prompt.toys) == 1:
            for head, name in zip(("kind", "colour"), prompt.toys[0], strict=True):
                p = found[head][i]
                row[f"{head}_p"] = " ".join(f"{x:.4f}" for x in p.tolist())
                if name is not None:
                    row[f"{head}_right"] = float(HEADS[head][int(p.argmax())] == name)
            if prompt.toys[0][0] in ORIENTED:
                row["view_right"] = float(HEADS["view"][int(found["view"][i].argmax())] == words[i % 8])
        if not prompt.ambiguous:
            inside = mask[i % 8]
            true = float(chroma(true_rgb[i % 8][inside]).mean())
            row["saturation"] = float(chroma(shown[i][inside]).mean()) / true if true > LEAST_CHROMA else NAN
        rows.append(row)
    return rows


def fit_to_truth(
    prompt: Prompt, *, seed: int, steps: int, views_per_step: int, resolution: int, size: int
) -> VoxelGrid:
    """The ceiling of the renderer: the same grid, cameras, rates and regularisation, but the loss is the squared
    difference to renders of the true scene (scale 1), summed over pixels."""
    generator = torch.Generator().manual_seed(seed)
    truth = true_grid(prompt.scene())
    grid = start(resolution, generator)
    adam = adam_for([grid])
    for step in range(steps):
        cameras = orbit(*random_views(views_per_step, generator, spread=True))
        background = random_background(views_per_step, generator)
        mine = render(grid, cameras, size, background)
        with torch.no_grad():
            target = render(truth, cameras, size, background).rgb
        loss = (mine.rgb - target).square().sum() + step / steps * solid(mine.opacity)
        adam.zero_grad()
        loss.backward()
        adam.step()
    return grid


def slug(text: str) -> str:
    """A prompt as a file's name."""
    return text.replace(" ", "_")
