"""Captioned pictures of the toys and their cameras, traced through the distance functions; a scene has its own seed.

A picture is stored without its colours and its background, which are drawn whenever it is used: as the light on what
the first and the second toy's colour covers, what the fixed materials look like, and the opacity.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from ..files import whole_file
from ..scene.cameras import orbit
from ..scene.views import fine_view, random_views
from .captions import RELATIONS, SUPPORTS, Label, drop
from .kinds import COLOURS, FIXED, KINDS
from .scenes import Toy, next_to, on
from .trace import trace

IMAGE_SIZE = 96  # pixels
VIEWS_PER_SCENE = 8
PAIR_SHARE = 0.25  # of the scenes show two toys


@dataclass(eq=False)
class Pictures:
    """N pictures of scenes and all that is known of them."""

    layers: (
        Tensor  # uint8 (N, 6, 96, 96): light on toy 1's and on toy 2's colour, red, green, blue of the rest; opacity
    )
    cameras: Tensor  # (N, 2): azimuth and elevation in degrees
    labels: list[Label]  # without colours

    def __len__(self) -> int:
        return len(self.labels)

    def painted(self, index: Tensor, colours: Tensor, background: Tensor) -> Tensor:
        """Pictures `index` (B,) with colours (B, 2), numbers in COLOURS, on plain backgrounds (B, 3) in [0, 1]; as the
        VAE wants them: (B, 3, 96, 96) in [-1, 1]."""
        p = self.layers[index].float() / 255  # all times opacity
        paint = torch.tensor(list(COLOURS.values()), device=p.device)[colours]  # (B, 2, 3)
        rgb = torch.einsum("bthw,btc->bchw", p[:, :2], paint) + p[:, 2:5]
        return (rgb + (1 - p[:, 5:]) * background[:, :, None, None]) * 2 - 1

    def variants(self, each: int, seed: int) -> tuple[list[str], Tensor, Tensor]:
        """`each` random pairs of colours (N, each, 2) of every picture and a true caption of each: all different
        sentences, and their numbers (N, each)."""
        generator, numbers, rows = torch.Generator().manual_seed(seed), {"": 0}, []
        colours, names = torch.randint(len(COLOURS), (len(self), each, 2), generator=generator), list(COLOURS)
        for label, choices in zip(self.labels, colours.tolist(), strict=True):
            for choice in choices:
                toys = tuple((kind, names[c]) for (kind, _), c in zip(label.toys, choice, strict=False))
                rows.append(numbers.setdefault(drop(replace(label, toys=toys), generator), len(numbers)))
        return list(numbers), torch.tensor(rows).view(len(self), each), colours


def scene(index: int, seed: int) -> tuple[list[Toy], str | None, torch.Generator]:
    """Scene number `index` of a data set: its toys (red), their relation, the generator for the rest of its randomness.

    The first toy runs through all kinds in turn; whether it has a partner is drawn.
    """
    generator = torch.Generator().manual_seed(1_000_003 * seed + index)
    pick = lambda n: int(torch.randint(n, (1,), generator=generator))  # noqa: E731
    kinds = list(KINDS)
    toy = Toy(kinds[index % len(kinds)], "red")
    if float(torch.rand(1, generator=generator)) >= PAIR_SHARE:
        return [toy], None, generator
    relation = RELATIONS[pick(2)]
    other = Toy(SUPPORTS[pick(len(SUPPORTS))] if relation == "on" else kinds[pick(len(kinds))], "red")
    return (on if relation == "on" else next_to)(toy, other), relation, generator


def render_scene(index: int, seed: int, views: int = VIEWS_PER_SCENE, device: torch.device | str = "cpu") -> Pictures:
    """`views` pictures of one scene."""
    toys, relation, generator = scene(index, seed)
    azimuth, elevation = random_views(views, generator)
    parts = [(i, name) for i, toy in enumerate(toys) for _, name in toy.parts(torch.zeros(3, 1))]
    paint = torch.tensor([[i == 0, i == 1, 0, 0, 0] if m == "main" else [0, 0, *FIXED[m]] for i, m in parts])  # (K, 5)
    layers = trace(toys, orbit(azimuth, elevation, device=device), IMAGE_SIZE, paint=paint)
    cameras = torch.stack([azimuth, elevation], 1)
    names = tuple((toy.kind, None) for toy in toys)
    labels = [Label(names, relation, fine_view(a, e)) for a, e in cameras.tolist()]
    return Pictures((layers * 255).round().to(torch.uint8).permute(0, 3, 1, 2).contiguous(), cameras, labels)


def joined(parts: Sequence[Pictures]) -> Pictures:
    """The pictures of all parts, in order."""
    layers, cameras = (torch.cat([getattr(p, name) for p in parts]) for name in ("layers", "cameras"))
    return Pictures(layers, cameras, [label for p in parts for label in p.labels])


def dataset(
    folder: Path | None, scenes: int, seed: int, *, device: torch.device | str = "cpu", shard: int = 240
) -> Pictures:
    """All pictures of scenes 0 ... scenes - 1; shards of `shard` scenes that `folder` holds already are reused (None:
    nothing is kept)."""
    parts = []
    for start in range(0, scenes, shard):
        stop = min(start + shard, scenes)
        path = folder and folder / f"seed{seed}_{start:05d}_{stop:05d}.safetensors"
        if not (path and path.exists()):
            part = joined([render_scene(i, seed, device=device) for i in range(start, stop)])
            if path:
                _write(path, part)
        else:
            part = _read(path)
        parts.append(part)
    return joined(parts)


def _write(path: Path, pictures: Pictures) -> None:
    labels = json.dumps([asdict(label) for label in pictures.labels])
    tensors = {"layers": pictures.layers.cpu().contiguous(), "cameras": pictures.cameras}
    with whole_file(path) as file:
        file.write(save(tensors, metadata={"labels": labels}))


def _read(path: Path) -> Pictures:
    with safe_open(path, "pt") as file:
        rows = json.loads(file.metadata()["labels"])
        labels = [Label(tuple(map(tuple, x["toys"])), x["relation"], x["view"]) for x in rows]
        return Pictures(file.get_tensor("layers"), file.get_tensor("cameras"), labels)
