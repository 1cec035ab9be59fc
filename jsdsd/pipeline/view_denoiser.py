"""The model as the objectives see it: one batch of views, each with its own sentence, and the asset's own noise."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..objectives.seeded import Sketch, ddim_sketch
from .guidance import Embeddings, Guidance


class ViewDenoiser:
    """The objectives' denoiser for one batch of views: `look` says which embedded prompt each picture answers to.

    noise (1, 4, h, w): the asset's own, the same for all views (objectives/seeded.py).  counted: True in a resumed run,
    whose first step, before the break, has counted the calls of the sketch.
    """

    def __init__(
        self,
        guidance: Guidance,
        embeddings: Embeddings,
        guidance_scale: float | None = None,
        noise: Tensor | None = None,
        counted: bool = False,
    ):
        self.guidance, self.embeddings, self.schedule = guidance, embeddings, guidance.schedule
        self.guidance_scale = guidance.guidance_scale if guidance_scale is None else guidance_scale
        self.noise, self.counted, self._sketches = noise, counted, {}  # type: Tensor | None, bool, dict[int, Sketch]
        self.look(range(len(embeddings.tokens)))

    def look(self, index: Sequence[int]) -> None:
        self.index = torch.as_tensor(index, device=self.guidance.device)
        self.selected = self.embeddings[self.index]

    def predict_eps(self, x_t: Tensor, t: int | Tensor, guidance_scale: float | None = None) -> Tensor:
        scale = self.guidance_scale if guidance_scale is None else guidance_scale
        return self.guidance.predict_eps(x_t, t, self.selected, scale)

    def sketch(self, t: int) -> tuple[Sketch, int]:
        """What the model makes of the asset's own noise, down to t, for the views looked at (objectives/seeded.py), and
        the U-Net calls it took: it is made once for all P prompts, in calls of as many pictures as are looked at.

        TypeError without a noise.
        """
        if self.noise is None:
            raise TypeError("this denoiser was given no noise: ViewDenoiser(..., noise=)")
        calls, parts = 0, torch.arange(len(self.embeddings.tokens), device=self.index.device).split(len(self.index))

        def predict(x_t: Tensor, level: int) -> Tensor:  # (P, 4, h, w)
            nonlocal calls
            calls += len(parts)
            some = [self.guidance.predict_eps(x_t[p], level, self.embeddings[p], self.guidance_scale) for p in parts]
            return torch.cat(some)

        if t not in self._sketches:
            noise = self.noise.to(self.guidance.device).expand(len(self.embeddings.tokens), -1, -1, -1)
            self._sketches[t] = ddim_sketch(predict, self.schedule, noise, t)
        level, x_t, eps_hat = self._sketches[t]
        return Sketch(level, x_t[self.index], eps_hat[self.index]), 0 if self.counted else calls
