"""What a scene should be, whatever the model says: solid, smooth; each penalty as a share of the guidance's gradient.

    solid    sum over pixels of o (1 - o)                what is half transparent
    smooth   sum over nodes of |grad of logits|          total variation, speckle
    present  sum over pixels of sqrt(o² + 0.01)          fog that fills the box

Adam cancels a common factor of the guidance's gradient, but not its ratio to a penalty of fixed size: with that, the
VAE's slope, the guidance scale, an objective's k, the limit on pixels or the size of a render would decide the shape.
So both are multiplied, in the backward pass, by g = mean over pixels of max over channels |dL/d rgb|.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


class _AsShare(torch.autograd.Function):
    """(rgb, opacity, smooth) unchanged; backward scales what comes for the last two by g."""

    @staticmethod
    def forward(ctx: Any, rgb: Tensor, opacity: Tensor, smooth: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return rgb.view_as(rgb), opacity.view_as(opacity), smooth.view_as(smooth)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g_rgb: Tensor, g_opacity: Tensor, g_smooth: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        g = g_rgb.abs().amax(-1).mean()
        return g_rgb, g_opacity * g, g_smooth * g


def as_share(rgb: Tensor, opacity: Tensor, smooth: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The same renders (B, H, W, 3) and (B, H, W) and the same scalar; losses of the last two count g times."""
    return _AsShare.apply(rgb, opacity, smooth)


def solid(opacity: Tensor) -> Tensor:
    """opacity (1 - opacity), summed over pixels: what a solid thing has none of."""
    return (opacity * (1 - opacity)).sum()


def present(opacity: Tensor) -> Tensor:
    """sqrt(opacity² + 0.01), summed over pixels: what an empty picture has least of (threestudio's sparsity)."""
    return (opacity.square() + 0.01).sqrt().sum()


def total_variation(field: Tensor, soft: float = 1e-3) -> Tensor:
    """Sum over the nodes of a field (C, R, R, R) of sqrt(|forward differences|^2 + soft) - sqrt(soft), scalar."""
    inner = field[:, :-1, :-1, :-1]
    steps = torch.stack([field[:, 1:, :-1, :-1], field[:, :-1, 1:, :-1], field[:, :-1, :-1, 1:]]) - inner
    return (steps.square().sum(0) + soft).sqrt().sum() - soft**0.5 * inner.numel()
