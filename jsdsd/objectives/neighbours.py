"""Neighbours of the family: other score distillations, each as the vector it takes for eps_hat - eps.

    CSD       eps_y - eps_0                    arXiv 2310.19415
    Bridge    eps_y - eps_source               SDS-Bridge, arXiv 2406.09417
    NFSD      delta + s (eps_y - eps_0)        arXiv 2310.17590
    ISM       eps_y(x_t) - eps_0(x_s)          LucidDreamer, arXiv 2311.11284
    Repulsive SDS + gamma grad log sum k       arXiv 2406.16683

All formulas are recalled, not re-read. VSD (2305.16213) with the exact eps of the particles is `Ensemble(ReverseKL())`.
docs/neighbours.md has them side by side, with where each ends.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from .diffusion import Denoiser, Time, predict_parts
from .distillation import DistillationStep, checked_x0, finite_step, noised
from .inversion import ddim_invert

Generator = torch.Generator | None


@dataclass(frozen=True)
class CSD:
    """Classifier score distillation: grad = eps_y - eps_0, the prompt's part alone, in SDS's place.

    Its mean is sigma grad log p_t(x_t)/p_t(x_t|y): it climbs the implicit classifier p(y|x), with no pull towards the
    data, and no noise to compare with. With a negative prompt it is SDS-Bridge. One U-Net call.
    """

    @torch.no_grad()
    def gradient(
        self, denoiser: Denoiser, x0: Tensor, t: Time, generator: Generator = None, noise: Tensor | None = None
    ) -> DistillationStep:
        """x0 (B, ...), used detached. Errors as SDS; TypeError from denoisers without `predict_parts`."""
        x0, _, x_t = noised(denoiser.schedule, x0, t, generator, noise)
        _, eps_0, eps_y = predict_parts(denoiser, x_t, t)
        return _step(denoiser, x_t, t, eps_y, eps_0, 1)


@dataclass(frozen=True)
class Bridge:
    """SDS-Bridge: grad = eps_y(x_t) - eps_source(x_t), from where the picture is (`source`) to the prompt.

    source: a denoiser of what the pictures are now (in the paper the prompt with words for its artefacts: in `generate`
    CSD with those words as negative_prompt). The unconditional one makes it CSD, the particles' own mixture VSD.
    Two calls.
    """

    source: Denoiser

    @torch.no_grad()
    def gradient(
        self, denoiser: Denoiser, x0: Tensor, t: Time, generator: Generator = None, noise: Tensor | None = None
    ) -> DistillationStep:
        """x0 (B, ...), used detached. Errors as SDS."""
        x0, _, x_t = noised(denoiser.schedule, x0, t, generator, noise)
        return _step(denoiser, x_t, t, denoiser.predict_eps(x_t, t, 1.0), self.source.predict_eps(x_t, t), 2)


@dataclass(frozen=True)
class NFSD:
    """Noise-free score distillation: grad = delta + s (eps_y - eps_0), delta = eps_0 below `switch`, else eps_0 -
    eps_neg.

    Below `switch` it is SDS without its noise term: SDS's mean, and less variance. negative: a denoiser of bad
    pictures; None = the unconditional one, so that above `switch` it is s times CSD. switch: of t, 200 of 1000 in the
    paper. s is the denoiser's guidance_scale. One call, or two above `switch` with a `negative`.
    """

    negative: Denoiser | None = None
    switch: int = 200

    @torch.no_grad()
    def gradient(
        self, denoiser: Denoiser, x0: Tensor, t: Time, generator: Generator = None, noise: Tensor | None = None
    ) -> DistillationStep:
        """x0 (B, ...), used detached; t an int. Errors as CSD; TypeError for a t per sample."""
        if not isinstance(t, int):
            raise TypeError("NFSD takes one t for the batch: its formula changes at a level")
        x0, _, x_t = noised(denoiser.schedule, x0, t, generator, noise)
        guided, eps_0, _ = predict_parts(denoiser, x_t, t)
        if t < self.switch:
            return _step(denoiser, x_t, t, guided, torch.zeros_like(guided), 1)
        if self.negative is None:
            return _step(denoiser, x_t, t, guided, eps_0, 1)
        return _step(denoiser, x_t, t, guided, self.negative.predict_eps(x_t, t), 2)


@dataclass(frozen=True)
class ISM:
    """Interval score matching: grad = eps_y(x_t) - eps_0(x_s), x_s and x_t = its next DDIM step both by inversion.

    Inverted without the prompt. interval: t - s, levels (50 of 1000 in the paper). steps: calls of the inversion up
    to s. At s = 0 it is SDI with one inversion step, no eta and guidance 0. Calls: `steps` + 2, or 2 where s = 0.
    """

    interval: int = 50
    steps: int = 2

    def __post_init__(self) -> None:
        if self.interval < 1 or self.steps < 1:
            raise ValueError(f"interval and steps must be >= 1, got {self.interval} and {self.steps}")

    @torch.no_grad()
    def gradient(
        self, denoiser: Denoiser, x0: Tensor, t: Time, generator: Generator = None, noise: Tensor | None = None
    ) -> DistillationStep:
        """x0 (B, ...), used detached; t an int; nothing is drawn. Errors as SDS; TypeError for a t per sample."""
        if not isinstance(t, int):
            raise TypeError("ISM takes one t for the batch")
        x0, schedule = checked_x0(x0, t), denoiser.schedule
        s = max(0, t - self.interval)
        x_s = ddim_invert(denoiser, x0, s, self.steps, 0.0) if s else x0
        eps_0 = denoiser.predict_eps(x_s, s, 0.0)
        clean = schedule.x0_from_eps(x_s, eps_0, s) if s else x0
        x_t = schedule.add_noise(clean, eps_0, t)
        return _step(denoiser, x_t, t, denoiser.predict_eps(x_t, t), eps_0, 2 + (self.steps if s else 0))


@dataclass(frozen=True)
class Repulsive:
    """Repulsive score distillation of the batch: grad_i = SDS + gamma grad_i log sum_j k(x_i, x_j), k a Gaussian
    kernel.

    gamma: >= 0, strength; 0 is SDS. width: of the kernel, in units of x0; None = the median distance over sqrt(2
    log(N + 1)), as in SVGD. With width and gamma = sigma/alpha and no noise it is `Ensemble(ReverseKL())`: the
    particles' own mixture is the kernel that the noise level asks for. One call; cost N².
    """

    gamma: float = 1.0
    width: float | None = None
    guidance_scale: float | None = None
    needs_particles: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not self.gamma >= 0 or not (self.width is None or self.width > 0):
            raise ValueError(f"gamma must be >= 0 and width > 0 (or None), got {self.gamma} and {self.width}")

    @torch.no_grad()
    def gradient(
        self, denoiser: Denoiser, x0: Tensor, t: Time, generator: Generator = None, noise: Tensor | None = None
    ) -> DistillationStep:
        """x0 (N, ...), used detached. Errors as SDS."""
        x0, eps, x_t = noised(denoiser.schedule, x0, t, generator, noise)
        eps_hat, x = denoiser.predict_eps(x_t, t, self.guidance_scale), x0.flatten(1)
        distance = torch.cdist(x, x, compute_mode="donot_use_mm_for_euclid_dist")  # (N, N)
        width = self.width
        if width is None:
            median = float(distance[distance > 0].median()) if (distance > 0).any() else 1.0
            width = median / math.sqrt(2 * math.log(len(x) + 1))
        share = torch.softmax(-((distance / width) ** 2) / 2, 1)
        away = (self.gamma / width**2 * (share @ x - x)).view_as(x0)  # gamma grad_i log sum_j k(x_i, x_j)
        return _step(denoiser, x_t, t, eps_hat, eps - away, 1)


def _step(denoiser: Denoiser, x_t: Tensor, t: Time, eps_hat: Tensor, eps_ref: Tensor, calls: int) -> DistillationStep:
    x1 = denoiser.schedule.x0_from_eps(x_t, eps_hat, t)
    return finite_step(DistillationStep(eps_hat - eps_ref, t, x_t, eps_hat, eps_ref, (x1,), None, calls))
