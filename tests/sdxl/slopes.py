"""A slope by autograd and by central differences, along one random direction."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn


def slopes(module: nn.Module, loss: Callable[[], Tensor], generator: torch.Generator) -> tuple[float, float]:
    """Of loss() along a random direction of the module's float64 parameters: (autograd's, finite difference)."""
    loss().backward()
    parameters = list(module.parameters())
    along = [torch.randn(p.shape, generator=generator, dtype=torch.float64) for p in parameters]
    slope = sum(float((p.grad * d).sum()) for p, d in zip(parameters, along, strict=True) if p.grad is not None)
    values, h = [], 1e-5
    with torch.no_grad():
        for sign in (1, -2):
            for p, d in zip(parameters, along, strict=True):
                p += sign * h * d
            values.append(float(loss()))
    return slope, (values[0] - values[1]) / (2 * h)
