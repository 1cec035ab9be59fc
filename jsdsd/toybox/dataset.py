"""Captioned pictures of the toys, rendered by the library's own renderer; every scene has its own seed."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

from ..scene.cameras import orbit
from ..scene.renderer import render_fields
from ..scene.views import fine_view, random_background, random_views
from .captions import RELATIONS, SUPPORTS, Label
from .kinds import COLOURS, KINDS
from .scenes import SIZES, Toy, build, next_to, on, random_light

IMAGE_SIZE = 64  # pixels
VIEWS_PER_SCENE = 6
PAIR_SHARE = 0.25  # of the scenes show two toys


def scene(index: int, seed: int) -> tuple[list[Toy], str | None, torch.Generator]:
    """Scene number `index` of a data set: its toys, their relation, and the generator for the rest of its randomness.

    The first toy runs through all kinds x colours in turn; whether it has a partner is drawn.
    """
    generator = torch.Generator().manual_seed(1_000_003 * seed + index)
    pick = lambda n: int(torch.randint(n, (1,), generator=generator))  # noqa: E731
    kinds, colours = list(KINDS), list(COLOURS)
    size = SIZES[0] + (SIZES[1] - SIZES[0]) * float(torch.rand(1, generator=generator))
    size = round(size * 40) / 40  # seven sizes: shapes can be cached
    toy = Toy(kinds[index % len(kinds)], colours[index // len(kinds) % len(colours)], size)
    if float(torch.rand(1, generator=generator)) >= PAIR_SHARE:
        return [toy], None, generator
    relation = RELATIONS[pick(2)]
    other = SUPPORTS[pick(len(SUPPORTS))] if relation == "on" else kinds[pick(len(kinds))]
    second = Toy(other, colours[pick(len(colours))])
    return (on if relation == "on" else next_to)(toy, second), relation, generator


def render_scene(index: int, seed: int, resolution: int = 64) -> tuple[Tensor, list[Label]]:
    """uint8 pictures (VIEWS_PER_SCENE, 3, 64, 64) and their full labels."""
    toys, relation, generator = scene(index, seed)
    density, colour = build(toys, resolution=resolution, light=random_light(generator))
    azimuth, elevation = random_views(VIEWS_PER_SCENE, generator)
    radius = 3.9 + 0.2 * torch.rand(VIEWS_PER_SCENE, generator=generator)  # scene units
    background = random_background(VIEWS_PER_SCENE, generator)
    with torch.no_grad():
        rgb = render_fields(density, colour, orbit(azimuth, elevation, radius), IMAGE_SIZE, background).rgb
    names = tuple((t.kind, t.colour) for t in toys)
    labels = [
        Label(names, relation, fine_view(a, e)) for a, e in zip(azimuth.tolist(), elevation.tolist(), strict=True)
    ]
    return (rgb.clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 3, 1, 2), labels


def shrink(images: Tensor, size: int = 48) -> Tensor:
    """The rendered pictures (N, 3, 64, 64) uint8 at the networks' size, without aliasing."""
    small = [F.interpolate(part.float(), (size, size), mode="bilinear", antialias=True) for part in images.split(1024)]
    return torch.cat([part.round().clamp(0, 255).to(torch.uint8) for part in small])


def render_shard(path: Path, start: int, stop: int, seed: int) -> None:
    """Scenes start to stop of a data set into one safetensors file: "images", and the labels as JSON in its header."""
    images, labels = [], []
    for index in range(start, stop):
        pictures, texts = render_scene(index, seed)
        images.append(pictures)
        labels += [asdict(label) for label in texts]
    temporary = path.with_suffix(".part")
    save_file({"images": torch.cat(images)}, temporary, metadata={"labels": json.dumps(labels)})
    temporary.replace(path)


def load_shard(path: Path) -> tuple[Tensor, list[Label]]:
    with safe_open(path, "pt") as file:
        labels = json.loads(file.metadata()["labels"])
        return file.get_tensor("images"), [
            Label(tuple(map(tuple, x["toys"])), x["relation"], x["view"]) for x in labels
        ]


def dataset(folder: Path, scenes: int, seed: int, shard: int = 240) -> tuple[Tensor, list[Label]]:
    """All pictures (N, 3, 64, 64) uint8 and labels of a data set; shards that `folder` holds already are reused."""
    folder.mkdir(parents=True, exist_ok=True)
    images, labels = [], []
    for start in range(0, scenes, shard):
        path = folder / f"seed{seed}_{start:05d}_{min(start + shard, scenes):05d}.safetensors"
        if not path.exists():
            render_shard(path, start, min(start + shard, scenes), seed)
        part = load_shard(path)
        images.append(part[0])
        labels += part[1]
    return torch.cat(images), labels
