"""Perp-Neg: push a view's picture away from the words of the *other* views, where that does not hurt its own.

    d_y = eps_y - eps_0,   d_j = eps_j - eps_0,   perp_j = d_j - (<d_j, d_y> / <d_y, d_y>) d_y
    eps = eps_0 + s (d_y - w sum_j perp_j)

eps_y: predicted with this view's prompt, eps_j with the others', eps_0 with the negative prompt.  Plain subtraction of
d_j would also remove what all views share, the object; its part at right angles to d_y does not.
Source: Armandpour et al. 2023 (arXiv 2304.04968, not re-read), there with weights that depend on the angle; here one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..objectives.diffusion import Parts
from .embeddings import Embeddings
from .guidance import Guidance
from .view_denoiser import Learn, ViewDenoiser


class PerpNegDenoiser(ViewDenoiser):
    """A ViewDenoiser whose guidance has the other views' words as negatives: one U-Net call on a larger batch.

    words: of all views, as embedded.  view_word: (azimuth, elevation) in degrees -> word.  weight: w > 0 above.
    The batch is 2 + K times the pictures, K the number of other words a quarter, a half and three quarters around:
    2 for front / side / back.
    """

    def __init__(
        self,
        guidance: Guidance,
        embeddings: Embeddings,
        guidance_scale: float | None,
        words: Sequence[str],
        view_word: Callable[[float, float], str],
        weight: float,
        learn: Learn | None = None,
        counted: bool = False,
    ):
        self.weight = weight
        found = other_words(words, view_word)
        self.count = max(map(len, found))
        # Words with fewer others, as "overhead" with none, name themselves: their part at right angles is zero.
        self.others = torch.tensor([(row + [i] * self.count)[: self.count] for i, row in enumerate(found)])  # (P, K)
        super().__init__(guidance, embeddings, guidance_scale, learn, counted)

    def look(self, index: Sequence[int], corners: Tensor | None = None) -> None:
        super().look(index, corners)
        rows = torch.cat([torch.as_tensor(index)[:, None], self.others[list(index)]], 1).T.flatten()  # own, then others
        own_and_others = self.embeddings[rows.to(self.guidance.device)]
        mine = self.selected
        self.batch = Embeddings(
            torch.cat([mine.negative_tokens, own_and_others.tokens]),
            torch.cat([mine.negative_vectors, own_and_others.vectors]),
            torch.cat([mine.negative_tokens, own_and_others.negative_tokens]),
            torch.cat([mine.negative_vectors, own_and_others.negative_vectors]),
            None if corners is None else torch.cat([corners.repeat(2, 1), 0 * corners.repeat(self.count, 1)]),
        )

    def predict_eps(self, x_t: Tensor, t: int | Tensor, guidance_scale: float | None = None) -> Tensor:
        return self.predict_parts(x_t, t, guidance_scale).guided

    def predict_parts(self, x_t: Tensor, t: int | Tensor, guidance_scale: float | None = None) -> Parts:
        scale = self.guidance_scale if guidance_scale is None else guidance_scale
        times = 2 + self.count
        each = t.repeat(times) if isinstance(t, Tensor) and t.ndim else t
        out = self.guidance.predict_eps(x_t.repeat(times, 1, 1, 1), each, self.batch, 1.0)
        eps_0, eps_y, *others = out.chunk(times)
        towards = eps_y - eps_0
        away = sum((perpendicular(eps_j - eps_0, towards) for eps_j in others), torch.zeros_like(towards))
        guided = eps_0 + scale * (towards - self.weight * away)
        return self._parts(x_t, t, guided, eps_0, eps_y, scale)


def other_words(words: Sequence[str], view_word: Callable[[float, float], str]) -> list[list[int]]:
    """For each word the indices of those a quarter, a half and three quarters around; none for a view from above."""
    found: list[list[int]] = []
    for word in words:
        at = next((a for a in range(360) if view_word(a, 0.0) == word), None)  # an azimuth of this word
        around = [] if at is None else [view_word(at + turn, 0.0) for turn in (90.0, 180.0, 270.0)]
        found.append([words.index(other) for other in dict.fromkeys(around) if other != word])
    return found


def unet_batch(words: Sequence[str], view_word: Callable[[float, float], str]) -> int:
    """Rows of the U-Net's batch for each picture, 2 + K."""
    return 2 + max(map(len, other_words(words, view_word)))


def perpendicular(x: Tensor, y: Tensor) -> Tensor:
    """The part of x (B, ...) at right angles to y, row by row; x itself where y is zero."""
    axes = tuple(range(1, x.ndim))
    along = (x * y).sum(axes, keepdim=True) / y.square().sum(axes, keepdim=True).clamp(min=1e-30)
    return x - along * y
