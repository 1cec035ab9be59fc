"""How large is the gradient on a pixel of a render under our sums?  `python benchmarks/pixel_gradients.py`.

Runs of the toybox, every pixel of every step: quantiles of the largest channel, and the share above PGC-3D's limit for
SDXL.  The toybox's VAE is not SDXL's; what carries over is the order of magnitude and how it grows when renders are
smaller than the pictures that the VAE sees.
"""

from __future__ import annotations

from typing import Any

import torch

import jsdsd
from jsdsd.sdxl import guidance as module
from jsdsd.sdxl.guidance import Guidance

SEEDS, STEPS, LIMIT = (0, 1, 2), 40, 0.1


def main() -> None:
    model = Guidance.load("toybox")
    seen: list[torch.Tensor] = []
    limit = module.limit_pixel_gradient

    def watched(grad: torch.Tensor, **rest: Any) -> torch.Tensor:
        seen.append(grad.abs().amax(-1).flatten())
        return limit(grad, **rest)

    module.limit_pixel_gradient = watched
    print(f"toybox, 'a red mushroom', seeds {SEEDS}, {STEPS} steps of 4 views; largest channel of a pixel's gradient")
    for objective in ("sds", "jsd"):
        for size in (model.image_size, model.image_size // 2):
            seen.clear()
            for seed in SEEDS:
                jsdsd.generate(
                    "a red mushroom", model=model, objective=objective, seed=seed, steps=STEPS, render_sizes=(size,),
                    progress=False,
                )  # fmt: skip
            values = torch.cat(seen).double().sort().values
            middle, high, top = (float(values[int(q * (len(values) - 1))]) for q in (0.5, 0.99, 1.0))
            above = float((values > LIMIT * (model.image_size / size) ** 2).double().mean())
            print(f"{objective}  render {size:3} px: median {middle:.3f}, 99 % {high:.3f}, largest {top:.3f}, "
                  f"above {LIMIT} a pixel of the picture: {above:.1%}", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
