"""Embedded prompts, as the U-Net is asked with them."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor


@dataclass(frozen=True)
class Embeddings:
    """P prompts: tokens (P, L, C), vectors (P, D); what guidance compares them with, of the same shapes; and the
    cameras, as crop corners (P, 2) for a model that knows exact ones (`views.camera_corner`), else None: (0, 0)."""

    tokens: Tensor
    vectors: Tensor
    negative_tokens: Tensor
    negative_vectors: Tensor
    corners: Tensor | None = None

    def __getitem__(self, index: Tensor) -> Embeddings:
        """The rows `index` (B,), one per picture of a batch."""
        parts = (self.tokens, self.vectors, self.negative_tokens, self.negative_vectors, self.corners)
        return Embeddings(*(None if x is None else x[index] for x in parts))  # type: ignore[arg-type]

    def shifted(self, delta: Tensor) -> Embeddings:
        """With tokens + delta (1 or P, L, C), in the tokens' type."""
        return replace(self, tokens=(self.tokens + delta).to(self.tokens.dtype))

    def seen_from(self, corners: Tensor) -> Embeddings:
        """With these cameras (P, 2)."""
        return replace(self, corners=corners.to(self.tokens.device))
