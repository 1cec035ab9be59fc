"""The forward process and what a denoiser is: the only two facts about diffusion the objectives need.

    x_t = alpha_t x0 + sigma_t eps,   alpha_t² + sigma_t² = 1,   eps ~ N(0, I)

`t` is diffusers' integer timestep, 0 (almost clean) ... T-1 (almost noise); alpha_t = sqrt(alphas_cumprod[t]).
Source: Ho et al. 2020 (arXiv 2006.11239), Eq. 4; Song et al. 2021 (arXiv 2010.02502). Not re-read.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

Time = int | Tensor  # one level for the whole batch, or a (B,) long tensor: one level per sample


@dataclass(frozen=True, eq=False)
class Schedule:
    """Noise levels, from the table `alphas_cumprod` (T,): each in (0, 1), never rising. Kept in float64 on the CPU.

    Every method that takes `t` raises TypeError if it is no integer and ValueError if it leaves 0 ... T-1.
    """

    alphas_cumprod: Tensor
    _floats: list[tuple[float, float]] = field(init=False, repr=False)  # (alpha, sigma) per level, for int t

    def __post_init__(self) -> None:
        table = torch.as_tensor(self.alphas_cumprod).detach().to("cpu", torch.float64)
        if table.ndim != 1 or len(table) < 2:
            raise ValueError(f"alphas_cumprod must have shape (T,) with T >= 2, got {tuple(table.shape)}")
        if not (table.isfinite().all() and (table > 0).all() and (table < 1).all()):
            raise ValueError(
                "alphas_cumprod must lie strictly between 0 and 1: a level with no noise or no signal has "
                "no eps <-> x0 conversion (cut a zero-terminal-SNR schedule before its last level)"
            )
        if (table.diff() > 0).any():
            raise ValueError("alphas_cumprod must fall with t (t = 0 is the cleanest level); is it reversed?")
        object.__setattr__(self, "alphas_cumprod", table)
        object.__setattr__(self, "_floats", list(zip(table.sqrt().tolist(), (1 - table).sqrt().tolist(), strict=True)))

    @classmethod
    def scaled_linear(cls, T: int = 1000, beta_start: float = 0.00085, beta_end: float = 0.012) -> Schedule:
        """Stable Diffusion's schedule (the defaults are SDXL's): sqrt(beta) linear in t, T levels."""
        if T < 2 or not 0 < beta_start <= beta_end < 1:
            raise ValueError(f"need T >= 2 and 0 < beta_start <= beta_end < 1, got {T}, {beta_start}, {beta_end}")
        betas = torch.linspace(beta_start**0.5, beta_end**0.5, T, dtype=torch.float64) ** 2
        return cls((1 - betas).cumprod(0))

    @classmethod
    def from_scheduler(cls, scheduler: object) -> Schedule:
        """From any diffusers scheduler (any object with an `alphas_cumprod` table). ValueError if it has none."""
        table = getattr(scheduler, "alphas_cumprod", None)
        if table is None:
            raise ValueError(f"{type(scheduler).__name__} has no alphas_cumprod: use a DDPM- or DDIM-like scheduler")
        return cls(table)

    def __len__(self) -> int:
        return len(self.alphas_cumprod)

    def __repr__(self) -> str:
        return f"Schedule({len(self)} levels, alpha {self._floats[0][0]:.4f} to {self._floats[-1][0]:.4f})"

    def check_t(self, t: Time) -> None:
        """Refuse, in words, a `t` that is not an integer level of this schedule."""
        if isinstance(t, bool) or not isinstance(t, int | Tensor):
            raise TypeError(f"t must be an int or a (B,) long tensor, got {type(t).__name__} {t!r}")
        if isinstance(t, Tensor) and (t.is_floating_point() or t.dtype == torch.bool or t.ndim > 1):
            raise TypeError(f"t must be a (B,) integer tensor, got shape {tuple(t.shape)} of {t.dtype}")
        low, high = (t, t) if isinstance(t, int) else (int(t.min()), int(t.max()))
        if low < 0 or high >= len(self):
            raise ValueError(f"t must lie in 0 ... {len(self) - 1}, got {low if low < 0 else high}")

    def alpha(self, t: Time) -> float | Tensor:
        """Signal level sqrt(alphas_cumprod[t]): a float for an int t, a (B,) float64 tensor for a (B,) t."""
        self.check_t(t)
        if isinstance(t, int):
            return self._floats[t][0]
        return self.alphas_cumprod[t.cpu()].sqrt()

    def sigma(self, t: Time) -> float | Tensor:
        """Noise level sqrt(1 - alphas_cumprod[t]), in the same form as `alpha`."""
        self.check_t(t)
        if isinstance(t, int):
            return self._floats[t][1]
        return (1 - self.alphas_cumprod[t.cpu()]).sqrt()

    def levels(self, t: Time, x: Tensor) -> tuple[float | Tensor, float | Tensor]:
        """(alpha_t, sigma_t), ready to multiply x (B, ...): floats, or (B, 1, ..., 1) of x's type and device."""
        return broadcast(self.alpha(t), x), broadcast(self.sigma(t), x)

    def add_noise(self, x0: Tensor, eps: Tensor, t: Time) -> Tensor:
        """x_t = alpha_t x0 + sigma_t eps. Shapes (B, ...)."""
        alpha, sigma = self.levels(t, x0)
        return alpha * x0 + sigma * eps

    def x0_from_eps(self, x_t: Tensor, eps: Tensor, t: Time) -> Tensor:
        """x0_hat = (x_t - sigma_t eps) / alpha_t: the clean point the prediction points at (Tweedie)."""
        alpha, sigma = self.levels(t, x_t)
        return (x_t - sigma * eps) / alpha

    def eps_from_x0(self, x_t: Tensor, x0: Tensor, t: Time) -> Tensor:
        """eps = (x_t - alpha_t x0) / sigma_t: the noise that leads from x0 to x_t."""
        alpha, sigma = self.levels(t, x_t)
        return (x_t - alpha * x0) / sigma

    def score_from_eps(self, eps: Tensor, t: Time) -> Tensor:
        """grad log p_t(x_t) = -eps / sigma_t."""
        return -eps / self.levels(t, eps)[1]

    def eps_from_score(self, score: Tensor, t: Time) -> Tensor:
        """eps = -sigma_t grad log p_t(x_t)."""
        return -self.levels(t, score)[1] * score

    def eps_from_v(self, x_t: Tensor, v: Tensor, t: Time) -> Tensor:
        """eps = sigma_t x_t + alpha_t v, for networks trained on v = alpha eps - sigma x0 (Salimans & Ho 2022, not
        re-read).
        """
        alpha, sigma = self.levels(t, x_t)
        return sigma * x_t + alpha * v


def broadcast(value: float | Tensor, x: Tensor) -> float | Tensor:
    """A per-sample `value` (B,) as (B, 1, ..., 1) in x's type and device; a float (or 0-d tensor) passes as it is."""
    if isinstance(value, float) or value.ndim == 0:
        return value if isinstance(value, float) else float(value)
    if len(value) != len(x):
        raise ValueError(f"one t per sample needs {len(x)} of them for x of shape {tuple(x.shape)}, got {len(value)}")
    return value.to(x.dtype).to(x.device).view(-1, *[1] * (x.ndim - 1))


def guide(eps_0: Tensor, eps_y: Tensor, guidance_scale: float) -> Tensor:
    """Classifier-free guidance in diffusers' convention: eps_0 + s (eps_y - eps_0); s = 1: none, s = 0: no prompt.

    s > 1 changes the target itself, to p(x) p(y|x)^s at each noise level, up to a constant.
    Source: Ho & Salimans 2022 (arXiv 2207.12598), in diffusers' indexing; not re-read.
    """
    return eps_0 + guidance_scale * (eps_y - eps_0)


def randn_like(x: Tensor, generator: torch.Generator | None) -> Tensor:
    """Standard normal noise of x's shape, type and device, drawn on the generator's own device."""
    device = x.device if generator is None else generator.device
    dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
    return torch.randn(x.shape, generator=generator, device=device, dtype=dtype).to(x)


@runtime_checkable
class Denoiser(Protocol):
    """What an objective asks of the target: a mixture of Gaussians and SDXL answer alike.

    Some can do more, and some objectives ask for it: log_prob(x, t) -> (B,) nats, the density of p_t;
    sample(n, generator) -> (n, ...) clean samples of the target; predict_parts(x_t, t, guidance_scale) -> `Parts`.
    """

    @property
    def schedule(self) -> Schedule:
        """The noise levels its t refers to."""

    @property
    def guidance_scale(self) -> float:
        """Its own default, diffusers' convention (see `guide`): 1 = none."""

    def predict_eps(self, x_t: Tensor, t: Time, guidance_scale: float | None = None) -> Tensor:
        """The noise in x_t (B, ...), same shape; t an int or (B,) long; guidance_scale None = its own default.

        Without gradient: the objectives call it under no_grad and count each call.
        """


class Parts(NamedTuple):
    """A guided prediction and its two halves, of one call; each like x_t (B, ...)."""

    guided: Tensor  # what predict_eps returns, at the same guidance scale
    eps_0: Tensor  # without the prompt (or with the negative one)
    eps_y: Tensor  # with it


def predict_parts(denoiser: Denoiser, x_t: Tensor, t: Time, guidance_scale: float | None = None) -> Parts:
    """The denoiser's own `predict_parts`. TypeError, in words, if it has none."""
    own = getattr(denoiser, "predict_parts", None)
    if own is None:
        raise TypeError(
            f"{type(denoiser).__name__} does not hand out the two halves of its guidance (predict_parts): use a class "
            "mixture, ConditionalMixture(mixture, label), or one of generate's models"
        )
    parts: Parts = own(x_t, t, guidance_scale)
    return parts


def can_sample(denoiser: Denoiser, guidance_scale: float | None = None) -> bool:
    """Whether denoiser.sample(n, generator) gives exact samples of what it denoises at this guidance scale (None = its
    own): it has the method, does not deny it (`can_sample`), and the scale is its own.
    """
    own = guidance_scale is None or guidance_scale == denoiser.guidance_scale
    return own and hasattr(denoiser, "sample") and getattr(denoiser, "can_sample", True)


@torch.no_grad()
def ddim_sample(predict: Callable[[Tensor, int], Tensor], schedule: Schedule, noise: Tensor, steps: int = 25) -> Tensor:
    """The sample (B, ...) that deterministic DDIM (arXiv 2010.02502, Eq. 12 at eta 0; not re-read) makes of `noise`
    (B, ...) in `steps` calls of predict(x_t, t) -> eps_hat, t falling evenly from the schedule's last level.

    ValueError for steps < 1 or more than there are levels.
    """
    if not 1 <= steps <= len(schedule):
        raise ValueError(f"steps must be 1 to {len(schedule)}, got {steps}")
    levels = [round((len(schedule) - 1) * (1 - i / steps)) for i in range(steps)]
    x_t, x1 = noise, noise
    for t, below in zip(levels, [*levels[1:], None], strict=True):
        eps_hat = predict(x_t, t)
        x1 = schedule.x0_from_eps(x_t, eps_hat, t)
        x_t = x1 if below is None else schedule.add_noise(x1, eps_hat, below)
    return x1
