"""One asset against the truth, on 24 views, a quarter of them from each of four elevations.

The truth of a prompt is known: the toy in its one size and its one light, facing where the view words say it faces, and
its pictures are traced through the distance functions themselves.  No rotation is searched: a toy that faces elsewhere
is wrong.  The judge was trained on pictures of single toys only, so of a pair it can say nothing: NaN.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from scipy.ndimage import binary_fill_holes
from torch import Tensor
from torch.nn import functional as F

from jsdsd.scene.cameras import orbit
from jsdsd.scene.mesh import silhouette_threshold
from jsdsd.scene.renderer import render
from jsdsd.scene.views import fine_view
from jsdsd.scene.voxels import VoxelGrid, grid_points
from jsdsd.toybox.kinds import ORIENTED
from jsdsd.toybox.scenes import Toy, distance
from jsdsd.toybox.trace import trace

from .judge import HEADS, Judge
from .prompts import Prompt

NAN = float("nan")
# Azimuths at least 7.5 degrees from the border between two view words.
VIEWS = tuple((15.0 + 60.0 * i, elevation) for elevation in (0.0, 30.0, 60.0, 75.0) for i in range(6))
WORDS = tuple(fine_view(*view) for view in VIEWS)
SIZE, VOXELS = 128, 64  # pixels of a measured render; nodes per axis of a measured volume
FINER = 3  # times as many nodes per axis as the asset has, activated there: what its own pictures show
LEAST_CHROMA = 0.05  # below it the truth is grey and the saturation ratio would divide by almost nothing


@dataclass(frozen=True)
class Seen:
    """A scene as measured: rgb (24, S, S, 3) on light grey, opacity (24, S, S), volume (V, V, V) bool or None."""

    rgb: Tensor
    opacity: Tensor
    volume: Tensor | None

    @property
    def inside(self) -> Tensor:
        """The silhouettes, (24, S, S) bool."""
        return self.opacity > 0.5


@torch.no_grad()
def seen(grid: VoxelGrid, finer: int = FINER) -> Seen:
    """24 renders, and the body: denser than the outline of the renders asks for, hollows filled (what is inside
    an opaque body no render can tell)."""
    azimuth, elevation = zip(*VIEWS, strict=True)
    fine = grid.upsampled(finer * grid.resolution)
    parts = [render(fine, camera, SIZE, 0.8) for camera in orbit(azimuth, elevation)]
    density = grid.upsampled(VOXELS).fields()[0]
    try:
        volume = torch.from_numpy(binary_fill_holes((density > silhouette_threshold(density)).numpy()))
    except ValueError:  # nothing half opaque
        volume = torch.zeros_like(density, dtype=torch.bool)
    return Seen(torch.cat([x.rgb for x in parts]).clamp(0, 1), torch.cat([x.opacity for x in parts]), volume)


@lru_cache(maxsize=64)
def true_scene(toys: tuple[Toy, ...]) -> Seen:
    """The truth, traced; its volume is what lies inside a surface: a mug is open."""
    azimuth, elevation = zip(*VIEWS, strict=True)
    rgba = trace(toys, orbit(azimuth, elevation), SIZE)
    inside = distance(toys, grid_points(VOXELS).reshape(-1, 3).T.contiguous()) < 0
    return Seen(rgba[..., :3] + 0.8 * (1 - rgba[..., 3:]), rgba[..., 3], inside.view((VOXELS,) * 3))


def eight_views(grid: VoxelGrid, size: int = 64, elevation: float = 15.0) -> tuple[Tensor, Tensor]:
    """The eight view words' own views: rgb (8, H, W, 3) on light grey, opacity (8, H, W)."""
    with torch.no_grad():
        out = render(grid, orbit([45.0 * i for i in range(8)], elevation), size, 0.8)
    return out.rgb.clamp(0, 1), out.opacity


def overlap(a: Tensor, b: Tensor) -> Tensor:
    """Intersection over union of masks (B, ...): (B,), NaN where both are empty."""
    a, b = a.flatten(1), b.flatten(1)
    return (a & b).sum(1) / (a | b).sum(1)


def chroma(rgb: Tensor) -> Tensor:
    """Largest minus smallest channel: (...) in [0, 1] of rgb (..., 3).  Linear: half the way to grey halves it."""
    return rgb.amax(-1) - rgb.amin(-1)


def gradient_energy(rgb: Tensor, mask: Tensor) -> float:
    """Sum of squared differences between neighbouring pixels that both lie in `mask` (B, H, W), rgb (B, H, W, 3)."""
    down = (rgb[:, 1:] - rgb[:, :-1]).square().sum(-1) * (mask[:, 1:] & mask[:, :-1])
    right = (rgb[:, :, 1:] - rgb[:, :, :-1]).square().sum(-1) * (mask[:, :, 1:] & mask[:, :, :-1])
    return float(down.sum() + right.sum())


def eroded(mask: Tensor, pixels: int = 2) -> Tensor:
    """`mask` (B, H, W) without what lies within `pixels` of its edge, where renders mix with the background."""
    size = 2 * pixels + 1
    return F.max_pool2d((~mask).float()[:, None], size, stride=1, padding=pixels)[:, 0] < 0.5


def _ratio(mine: float, true: float, least: float = 0.0) -> float:
    return mine / true if true > least else NAN


def softness(opacity: Tensor) -> float:
    """Sum of o (1 - o): how wide edges are, and how foggy the body."""
    return float((opacity * (1 - opacity)).sum())


def against(mine: Seen, true: Seen) -> dict[str, float]:
    """`mine` against the truth.

    iou, volume_iou: 0 ... 1.  colour_error: mean absolute, of 1.  saturation, detail, edges: mine / true of mean
    chroma, of gradient energy and of `softness`, 1 is right; the first two and the error inside the common silhouette,
    detail two pixels from its edge.  haze: mean opacity two pixels and more outside the silhouette.
    """
    both = mine.inside & true.inside
    haze = mine.opacity[eroded(~mine.inside)].mean()
    result = {"iou": float(overlap(mine.inside, true.inside).mean()), "haze": float(haze), "volume_iou": NAN}
    if mine.volume is not None and true.volume is not None:
        result["volume_iou"] = float(overlap(mine.volume[None], true.volume[None]))
    result["edges"] = _ratio(softness(mine.opacity), softness(true.opacity))
    if not both.any():
        return result | {"colour_error": NAN, "saturation": NAN, "detail": NAN}
    deep = eroded(both)
    return result | {
        "colour_error": float((mine.rgb - true.rgb)[both].abs().mean()),
        "saturation": _ratio(float(chroma(mine.rgb[both]).mean()), float(chroma(true.rgb[both]).mean()), LEAST_CHROMA),
        "detail": _ratio(gradient_energy(mine.rgb, deep), gradient_energy(true.rgb, deep)),
    }


def verdicts(judge: Judge, prompt: Prompt, mine: Seen) -> dict[str, float | str]:
    """The judge's mean probabilities over the views, and whether it agrees with what the prompt says.

    kind_right, colour_right: 1 or 0, NaN where the prompt does not say; view_right: share of the views named rightly,
    NaN unless the toy looks different from all sides.  kind_p, colour_p: the probabilities, in the order of HEADS, as
    text.  All NaN or empty for pairs.
    """
    result: dict[str, float | str] = {"kind_right": NAN, "colour_right": NAN, "view_right": NAN}
    toys = prompt.toys
    if len(toys) > 1:
        return result | {"kind_p": "", "colour_p": ""}
    found = judge.judge(mine.rgb)
    mean = {head: found[head].mean(0) for head in ("kind", "colour")}
    for head, name in zip(("kind", "colour"), toys[0], strict=True):
        if name is not None:
            result[f"{head}_right"] = float(HEADS[head][int(mean[head].argmax())] == name)
        result[f"{head}_p"] = " ".join(f"{p:.4f}" for p in mean[head].tolist())
    if toys[0][0] in ORIENTED:
        words = torch.tensor([HEADS["view"].index(word) for word in WORDS])
        around = words != HEADS["view"].index("overhead")  # from above, that is all there is to say
        result["view_right"] = float((found["view"].argmax(1) == words)[around].float().mean())
    return result


def front_count(judge: Judge, grid: VoxelGrid) -> float:
    """At how many of eight azimuths the judge sees a front: 1 is right, more is a Janus face."""
    view = judge.judge(eight_views(grid)[0])["view"]
    return float((view.argmax(1) == HEADS["view"].index("front")).sum())


def measure(judge: Judge, prompt: Prompt, grid: VoxelGrid) -> dict[str, float | str]:
    """Everything about one asset.  `against` is NaN for an ambiguous prompt: it has no one truth."""
    mine = seen(grid)
    result = verdicts(judge, prompt, mine)
    oriented = len(prompt.toys) == 1 and prompt.toys[0][0] in ORIENTED
    result["size"] = NAN  # a column of the first edition's rows, when toys had several sizes
    result["fronts"] = front_count(judge, grid) if oriented else NAN
    if prompt.ambiguous:
        none = against(mine, mine)
        return result | dict.fromkeys(none, NAN) | {"haze": none["haze"]}
    return result | against(mine, true_scene(prompt.scene()))


def stability(norms: list[float]) -> dict[str, float]:
    """Of a run's gradient norms: standard deviation / mean, and largest / median.  NaN without a run."""
    if not norms:
        return {"grad_spread": NAN, "grad_peak": NAN}
    x = np.asarray(norms)
    return {"grad_spread": float(x.std() / x.mean()), "grad_peak": float(x.max() / np.median(x))}
