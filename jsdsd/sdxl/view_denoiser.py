"""The model as the objectives see it: one batch of views, each with its own sentence, and the asset's own words."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..objectives.diffusion import Parts, guide
from .embeddings import Embeddings
from .guidance import Guidance
from .numerics import rescaled

Learn = Callable[[], tuple[Tensor, int]]  # own_words.py: what to add to the embedded prompts (1, L, C), and its calls


class ViewDenoiser:
    """The objectives' denoiser for one batch of views: `look` says which embedded prompt each picture answers to.

    learn: finds the asset's own words when an objective first leans on them (objectives/seeded.py).  counted: True in a
    resumed run, whose first step, before the break, has counted their calls.
    """

    def __init__(
        self,
        guidance: Guidance,
        embeddings: Embeddings,
        guidance_scale: float | None = None,
        learn: Learn | None = None,
        counted: bool = False,
    ):
        self.guidance, self.embeddings, self.schedule = guidance, embeddings, guidance.schedule
        self.guidance_scale = guidance.guidance_scale if guidance_scale is None else guidance_scale
        self.plain, self.learn, self.counted = embeddings, learn, counted
        self.delta: Tensor | None = None
        self.look(range(len(embeddings.tokens)))

    def look(self, index: Sequence[int], corners: Tensor | None = None) -> None:
        """From now on picture i answers to prompt index[i], seen from the camera corners[i] (B, 2) if one is said."""
        self.index, self.corners = list(index), corners
        self.selected = self.embeddings[torch.as_tensor(self.index, device=self.guidance.device)]
        if corners is not None:
            self.selected = self.selected.seen_from(corners)

    def lean(self, weight: float) -> int:
        """From now on the prompts are those of the asset's own words, to a weight of 0 ... 1; returns the U-Net calls
        it took to learn them, which it does once.  TypeError without `learn`, ValueError for another weight."""
        if self.learn is None:
            raise TypeError("this denoiser has no words of its own: ViewDenoiser(..., learn=)")
        if not 0 <= weight <= 1:
            raise ValueError(f"weight must lie in 0 ... 1, got {weight}")
        calls = 0
        if self.delta is None:
            self.delta, calls = self.learn()
        self.embeddings = self.plain.shifted(weight * self.delta)
        self.look(self.index, self.corners)
        return 0 if self.counted else calls

    def predict_eps(self, x_t: Tensor, t: int | Tensor, guidance_scale: float | None = None) -> Tensor:
        scale = self.guidance_scale if guidance_scale is None else guidance_scale
        return self.guidance.predict_eps(x_t, t, self.selected, scale)

    def predict_parts(self, x_t: Tensor, t: int | Tensor, guidance_scale: float | None = None) -> Parts:
        """`predict_eps` with the two halves of its guidance, of one U-Net call on each picture twice."""
        scale = self.guidance_scale if guidance_scale is None else guidance_scale
        e, corners = self.selected, self.selected.corners
        both = Embeddings(
            torch.cat([e.negative_tokens, e.tokens]),
            torch.cat([e.negative_vectors, e.vectors]),
            e.negative_tokens.repeat(2, 1, 1),
            e.negative_vectors.repeat(2, 1),
            None if corners is None else corners.repeat(2, 1),
        )
        twice = t.repeat(2) if isinstance(t, Tensor) and t.ndim else t
        eps_0, eps_y = self.guidance.predict_eps(x_t.repeat(2, 1, 1, 1), twice, both, 1.0).chunk(2)
        return self._parts(x_t, t, guide(eps_0, eps_y, scale), eps_0, eps_y, scale)

    def _parts(
        self, x_t: Tensor, t: int | Tensor, eps: Tensor, eps_0: Tensor, eps_y: Tensor, scale: float
    ) -> Parts:
        share, g = self.guidance.numerics.guidance_rescale, self.guidance
        if share > 0 and scale > 1:  # in the network's own units, as `Guidance.predict_eps`
            eps = g.as_eps(x_t, rescaled(g.from_eps(x_t, eps, t), g.from_eps(x_t, eps_y, t), share), t)
        return Parts(eps, eps_0, eps_y)
