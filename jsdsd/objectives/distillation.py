"""Score distillation: a gradient on x0 that makes it look like the denoiser's data; its surrogate loss; the loop.

All gradients are in eps-units. With x1 = x0_hat(x_t) = (x_t - sigma eps_hat)/alpha, this is the one time weight:

    (alpha/sigma) (x0 - x1) = eps_hat - eps_ref,    eps_ref = (x_t - alpha x0)/sigma

so "predicted minus actual noise" and "pull x0 towards the target x1" are one gradient, and SDS, SDI and JSD share a
scale.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from .diffusion import Denoiser, Schedule, Time, randn_like


@dataclass(frozen=True, eq=False)
class Side:
    """One half of a two-sided gradient: points, what was predicted and how it counts; shapes like x0 (B, ...)."""

    x_t: Tensor  # of the target's side: x' ~ p_t
    eps_hat: Tensor  # the prediction there
    eps_ref: Tensor  # -sigma s_q there
    target: Tensor  # x0_hat there; of the target's side: x2
    log_ratio: Tensor | None  # (B,) log p_t/q_t there, nats, where it was asked for
    weight: Tensor | None  # (B,) weight, of the target's side real_weight; None where it is 1
    exact: bool  # of the target's side: True, noised samples of the target; False, the re-noised x1 (an approximation)


@dataclass(frozen=True, eq=False)
class DistillationStep:
    """What one gradient was made of; everything detached. Shapes like x0 (B, ...) unless said otherwise.

    Of two sides the fields speak of the generated one, and of the target's where nothing was drawn from q (share 0).
    """

    grad: Tensor  # the gradient on x0, eps-units
    t: Time
    x_t: Tensor  # the noised sample the denoiser saw
    eps_hat: Tensor  # its prediction there
    eps_ref: Tensor  # compared with it: eps (SDS), inverted noise (SDI, JSD), eps_q (Ensemble)
    targets: tuple[Tensor, ...]  # the points x0 is pulled to: (x1,), for JSD (x1, x2)
    log_ratio: Tensor | None  # (B,) log p_t/q_t at x_t in nats, where the objective knows it
    unet_calls: int  # calls of the denoiser, whatever they return
    weight: Tensor | None = None  # (B,), or a number per pixel: what eps_hat - eps_ref was multiplied by; None: 1
    real: Side | None = None  # the target's side
    mean_d: float | None = None  # mean of the discriminator D over the batch, 0 ... 1: is it alive?


class Objective(Protocol):
    """Anything with this one method can stand in `distill` and in the pipeline."""

    def gradient(
        self, denoiser: Denoiser, x0: Tensor, t: Time, generator: torch.Generator | None = None
    ) -> DistillationStep: ...


@dataclass(frozen=True)
class SDS:
    """Score distillation sampling (DreamFusion, arXiv 2209.14988, Eq. 3; not re-read): grad = eps_hat(x_t) - eps.

    Its mean is the gradient of KL(q_t‖p_t) for a lone particle, q_t = N(alpha x0, sigma² I): mode seeking.
    guidance_scale: None = the denoiser's own. One U-Net call.
    """

    guidance_scale: float | None = None

    @torch.no_grad()
    def gradient(
        self,
        denoiser: Denoiser,
        x0: Tensor,
        t: Time,
        generator: torch.Generator | None = None,
        noise: Tensor | None = None,
    ) -> DistillationStep:
        """x0 (B, ...), used detached; t in the schedule; noise like x0 replaces the draw.

        FloatingPointError if a result is not finite; ValueError or TypeError for an x0 that is no batch or a bad t.
        """
        _, eps, x_t = noised(denoiser.schedule, x0, t, generator, noise)
        eps_hat = denoiser.predict_eps(x_t, t, self.guidance_scale)
        x1 = denoiser.schedule.x0_from_eps(x_t, eps_hat, t)
        return finite_step(DistillationStep(eps_hat - eps, t, x_t, eps_hat, eps, (x1,), None, 1))


def surrogate_loss(x0: Tensor, grad: Tensor) -> Tensor:
    """A scalar whose gradient with respect to x0 (B, ...) is exactly `grad` (same shape): <x0, sg(grad)>.

    Its value means nothing. It sums over the batch: divide by len(x0) for a mean. ValueError if the shapes differ.
    """
    if x0.shape != grad.shape:
        raise ValueError(f"grad must have x0's shape {tuple(x0.shape)}, got {tuple(grad.shape)}")
    return (x0 * grad.detach()).sum()


def _check_fractions(low: float, high: float) -> None:
    if not 0 <= low <= high <= 1:
        raise ValueError(f"noise levels are fractions of the schedule, 0 <= low <= high <= 1; got {low} and {high}")


@dataclass(frozen=True)
class Anneal:
    """t falls over the run's real length, from `start` to `end` (fractions of the schedule, 0 ... 1).

        end + (start - end) (1 - s)^power,    s = 0 ... 1 the share of the run that is done

    0.98 -> 0.02 goes from layout to detail; the JSD paper's code ends at 0.25 (SDXL-sized models, no late details).
    power: 1 is linear; 2 spends half of the steps below 0.26, where details form.  ValueError for power <= 0.
    """

    start: float = 0.98
    end: float = 0.02
    power: float = 1.0

    def __post_init__(self) -> None:
        _check_fractions(self.end, self.start)
        if not 0 < self.power < float("inf"):
            raise ValueError(f"power must be positive and finite, got {self.power}")

    def __call__(self, step: int, steps: int, schedule: Schedule, generator: torch.Generator | None = None) -> int:
        """The level of step 0 ... steps-1; both ends are reached. The generator is not used."""
        if not 0 <= step < steps:
            raise ValueError(f"step must lie in 0 ... steps - 1 = {steps - 1}, got {step}")
        fraction = self.end + (self.start - self.end) * (1 - step / max(steps - 1, 1)) ** self.power
        return round(fraction * (len(schedule) - 1))


@dataclass(frozen=True)
class UniformTime:
    """t drawn anew each step, uniformly between the fractions `low` and `high` of the schedule, as in DreamFusion."""

    low: float = 0.02
    high: float = 0.98

    def __post_init__(self) -> None:
        _check_fractions(self.low, self.high)

    def __call__(self, step: int, steps: int, schedule: Schedule, generator: torch.Generator | None = None) -> int:
        """One level for the step, from `generator` (None: torch's global one)."""
        low, high = (round(f * (len(schedule) - 1)) for f in (self.low, self.high))
        device = "cpu" if generator is None else generator.device
        return int(torch.randint(low, high + 1, (), generator=generator, device=device))


@dataclass(frozen=True, eq=False)
class DistillRecord:
    """What `distill` yields after each optimiser step."""

    step: int
    t: Time
    x0: Tensor  # (B, ...) as it was before the step, detached
    distilled: DistillationStep
    grad_norm: float  # root mean square over all entries of the gradient on x0, eps-units
    unet_calls: int
    seconds: float  # wall time of the step


Times = Callable[[int, int, Schedule, "torch.Generator | None"], int]  # (step, steps, schedule, generator) -> t


def distill(
    produce: Callable[[int], Tensor],
    denoiser: Denoiser,
    objective: Objective,
    optimizer: torch.optim.Optimizer,
    steps: int,
    times: Times = Anneal(),
    generator: torch.Generator | None = None,
    penalty: Callable[[int], Tensor] | None = None,
    first: int = 0,
) -> Iterator[DistillRecord]:
    """The loop. produce(step) -> x0 (B, ...) with a graph back to the optimiser's parameters.

    times(step, steps, schedule, generator) -> t. penalty(step), a scalar, is added to the loss (regularisation).
    first: the step to begin with, in a run that goes on.
    Yields one record per step: stop by leaving the loop. ValueError if steps < 1; FloatingPointError where a gradient
    is not finite, before it reaches the parameters.
    """
    if steps < 1:
        raise ValueError(f"steps must be >= 1, got {steps}")
    for step in range(first, steps):
        started = time.perf_counter()
        t = times(step, steps, denoiser.schedule, generator)
        x0 = produce(step)
        x0_before = x0.detach().clone()  # x0 may be the parameter itself
        distilled = objective.gradient(denoiser, x0, t, generator)
        _refuse_non_finite("grad", distilled.grad, t, "the objective overflowed at this noise level")
        loss = surrogate_loss(x0, distilled.grad)
        if penalty is not None:
            loss = loss + penalty(step)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        norm = float(distilled.grad.float().square().mean().sqrt())
        seconds = time.perf_counter() - started
        yield DistillRecord(step, t, x0_before, distilled, norm, distilled.unet_calls, seconds)


def noised(
    schedule: Schedule, x0: Tensor, t: Time, generator: torch.Generator | None = None, noise: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """How a gradient begins: x0 (B, ...) checked and detached, the noise eps (drawn, or `noise`), and x_t.

    FloatingPointError for an x0 that is not finite; ValueError or TypeError for one that is no batch, for a noise of
    another shape or a bad t.
    """
    x0 = checked_x0(x0, t)
    eps = noise_like(x0, noise, generator)
    return x0, eps, schedule.add_noise(x0, eps, t)


def checked_x0(x0: Tensor, t: Time) -> Tensor:
    """x0 detached, after refusing what no objective can use."""
    if not isinstance(x0, Tensor) or x0.ndim < 2 or len(x0) == 0:
        shape = tuple(x0.shape) if isinstance(x0, Tensor) else type(x0).__name__
        raise ValueError(f"x0 must be a batch (B, ...) with B >= 1, got {shape}; add a batch axis with x0[None]")
    if not x0.is_floating_point():
        raise TypeError(f"x0 must be floating point, got {x0.dtype}")
    _refuse_non_finite("x0", x0, t, "the parameters diverged (learning rate too high?) or the renderer made a NaN")
    return x0.detach()


def noise_like(x0: Tensor, noise: Tensor | None, generator: torch.Generator | None) -> Tensor:
    """The noise given, if it has x0's shape (else ValueError), or a fresh draw."""
    if noise is None:
        return randn_like(x0, generator)
    if noise.shape != x0.shape:
        raise ValueError(f"noise must have x0's shape {tuple(x0.shape)}, got {tuple(noise.shape)}")
    return noise


def finite_step(record: DistillationStep) -> DistillationStep:
    """The record, unless a tensor in it is not finite: then FloatingPointError names it, t and the likely cause."""
    if record.eps_hat.shape != record.x_t.shape:
        shapes = f"{tuple(record.eps_hat.shape)} for x_t of shape {tuple(record.x_t.shape)}"
        raise ValueError(f"the denoiser must predict noise of x_t's shape, it returned {shapes}")
    for side in (record, record.real):
        if side is not None:
            cause = "the inversion blew up: guidance too strong or too few steps"
            _refuse_non_finite("x_t", side.x_t, record.t, cause)
            cause = "the denoiser overflowed: half precision, or guidance too strong"
            _refuse_non_finite("eps_hat", side.eps_hat, record.t, cause)
    _refuse_non_finite("grad", record.grad, record.t, "a weight overflowed at this noise level")
    return record


def _refuse_non_finite(name: str, x: Tensor, t: Time, cause: str) -> None:
    if not x.isfinite().all():
        bad = int((~x.isfinite()).sum())
        raise FloatingPointError(
            f"{name} is not finite at t = {t} ({bad} of {x.numel()} entries); likely cause: {cause}"
        )
