"""The first half of problem set 2: noise levels, guidance, and the exact denoiser of a mixture."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from jsdsd.objectives.diffusion import Schedule, guide
from jsdsd.sandbox.distributions import GaussianMixture

from .problem import Case, Mistake, Problem

F64 = torch.float64


def randn(g: torch.Generator, *shape: int) -> Tensor:
    """Standard normal numbers in float64."""
    return torch.randn(shape, generator=g, dtype=F64)


# -------------------------------------------------------------------------------------------------------- 1: add noise
def clean_points(g: torch.Generator) -> list[Case]:
    table = Schedule.scaled_linear().alphas_cumprod
    cases = []
    for shape in ((5, 2), (3, 4, 8, 8), (2, 2)):
        t = torch.randint(100, 900, shape[:1], generator=g)
        arguments = {"x0": 1 + randn(g, *shape), "eps": randn(g, *shape), "alphas_cumprod": table, "t": t}
        cases.append(Case(f"x0 of shape {shape}", arguments))
    return cases


def _noised(x0: Tensor, eps: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    """alpha x0 + sigma eps with one level per row."""
    one = [1] * (x0.ndim - 1)
    return alpha.view(-1, *one) * x0 + sigma.view(-1, *one) * eps


ADD_NOISE = Problem(
    "add_noise", 3, lambda x0, eps, a, t: Schedule(a).add_noise(x0, eps, t), clean_points, outputs=("x_t (B, ...)",),
    mistakes=(
        Mistake("alpha squared for alpha, sigma squared for sigma", lambda x0, e, a, t: _noised(x0, e, a[t], 1 - a[t]),
                "alphas_cumprod is alpha². Both levels are square roots: alpha = sqrt(alphas_cumprod), "
                "sigma = sqrt(1 - alphas_cumprod)."),
        Mistake("alpha squared for alpha", lambda x0, e, a, t: _noised(x0, e, a[t], (1 - a[t]).sqrt()),
                "alphas_cumprod is alpha²; x0 is multiplied by its square root. Only then alpha² + sigma² = 1, and the "
                "variance of unit data is kept."),
        Mistake("sigma squared for sigma", lambda x0, e, a, t: _noised(x0, e, a[t].sqrt(), 1 - a[t]),
                "1 - alphas_cumprod is the noise's variance sigma²; eps is multiplied by its standard deviation, the "
                "square root."),
        Mistake("sigma as 1 - alpha", lambda x0, e, a, t: _noised(x0, e, a[t].sqrt(), 1 - a[t].sqrt()),
                "alpha + sigma = 1 does not hold here; alpha² + sigma² = 1 does: sigma = sqrt(1 - alpha²)."),
        Mistake("alpha squared for alpha, sigma from it",
                lambda x0, e, a, t: _noised(x0, e, a[t], (1 - a[t] ** 2).sqrt()),
                "alphas_cumprod was taken for alpha itself. It is alpha²: take the square root first."),
        Mistake("alpha and sigma swapped", lambda x0, e, a, t: _noised(x0, e, (1 - a[t]).sqrt(), a[t].sqrt()),
                "alpha belongs to x0, sigma to eps. At t = 0, where alpha is almost 1, x_t is almost x0."),
        Mistake("t as a fraction", lambda x0, e, a, t: _noised(x0, e, 1 - t / len(a), t / len(a)),
                "This is (1 - t/T) x0 + (t/T) eps, the straight path of flow matching. Here t is an integer that looks "
                "the level up in the table."),
        Mistake("t off by one", lambda x0, e, a, t: _noised(x0, e, a[t - 1].sqrt(), (1 - a[t - 1]).sqrt()),
                "The level of t is alphas_cumprod[t], counted from 0, not [t - 1]."),
        Mistake("alpha forgotten", lambda x0, e, a, t: _noised(x0, e, torch.ones_like(a[t]), (1 - a[t]).sqrt()),
                "x0 is not scaled down, so the variance grows with t. Multiply it by alpha."),
        Mistake("one t for the whole batch",
                lambda x0, e, a, t: _noised(x0, e, a[t[:1]].sqrt(), (1 - a[t[:1]]).sqrt()),
                "The first t was used for every row. Each row of the batch has a level of its own."),
        Mistake("cumulative product taken again",
                lambda x0, e, a, t: _noised(x0, e, a.cumprod(0)[t].sqrt(), (1 - a.cumprod(0)[t]).sqrt()),
                "alphas_cumprod is the product already: look it up, do not multiply once more."),
        Mistake("sigma from alpha without its square",
                lambda x0, e, a, t: _noised(x0, e, a[t].sqrt(), (1 - a[t].sqrt()).sqrt()),
                "This is sigma = sqrt(1 - alpha). It is sqrt(1 - alpha²), and alpha² is alphas_cumprod."),
        Mistake("sigma forgotten", lambda x0, e, a, t: _noised(x0, e, a[t].sqrt(), torch.ones_like(a[t])),
                "The noise has its full strength at every t. Multiply it by sigma."),
        Mistake("missing minus sign", lambda x0, e, a, t: _noised(x0, -e, a[t].sqrt(), (1 - a[t]).sqrt()),
                "The noise was subtracted: x_t = alpha x0 + sigma eps."),
        Mistake("levels counted from the end",
                lambda x0, e, a, t: _noised(x0, e, a.flip(0)[t].sqrt(), (1 - a.flip(0)[t]).sqrt()),
                "t counts from clean to noise: t = 0 is almost clean. Do not turn the table round."),
    ),
)  # fmt: skip


# ------------------------------------------------------------------------------------------- 2: guidance and x0_hat
def predictions(g: torch.Generator) -> list[Case]:
    schedule = Schedule.scaled_linear()
    return [
        Case(f"guidance_scale {s}, t = {t}",
             {"x_t": randn(g, *shape), "eps_0": randn(g, *shape), "eps_y": randn(g, *shape), "guidance_scale": s,
              "alpha": schedule.alpha(t), "sigma": schedule.sigma(t)})
        for s, t, shape in ((7.5, 400, (4, 2)), (1.0, 700, (3, 2)), (0.0, 250, (2, 4, 4, 4)), (3.0, 100, (5, 2)))
    ]  # fmt: skip


def _x0_hat(x_t: Tensor, eps: Tensor, alpha: float, sigma: float) -> Tensor:
    return (x_t - sigma * eps) / alpha


GUIDED_X0 = Problem(
    "guided_x0", 3, lambda x, e0, ey, s, a, b: _x0_hat(x, guide(e0, ey, s), a, b), predictions,
    outputs=("x0_hat (B, ...)",),
    mistakes=(
        Mistake("guidance scale off by one", lambda x, e0, ey, s, a, b: _x0_hat(x, guide(e0, ey, s + 1), a, b),
                "This is eps_y + s (eps_y - eps_0), where s = 0 means no guidance. In diffusers' convention the sum "
                "starts "
                "at eps_0, and s = 1 means none."),
        Mistake("guidance scale off by one, the other way",
                lambda x, e0, ey, s, a, b: _x0_hat(x, guide(e0, ey, s - 1), a, b),
                "This is eps_0 + (s - 1)(eps_y - eps_0). s is not shifted: at s = 1 the answer is that of eps_y "
                "alone."),
        Mistake("with and without the prompt swapped", lambda x, e0, ey, s, a, b: _x0_hat(x, guide(ey, e0, s), a, b),
                "This starts at eps_y and moves away from the prompt: eps_0 + s (eps_y - eps_0)."),
        Mistake("guidance left out", lambda x, e0, ey, s, a, b: _x0_hat(x, ey, a, b),
                "eps_y was used as it is, right for s = 1 only: mix it with eps_0 first."),
        Mistake("eps_0 not subtracted", lambda x, e0, ey, s, a, b: _x0_hat(x, e0 + s * ey, a, b),
                "This is eps_0 + s eps_y. The difference eps_y - eps_0 is what s multiplies."),
        Mistake("missing minus sign", lambda x, e0, ey, s, a, b: (x + b * guide(e0, ey, s)) / a,
                "The noise was added once more. x_t = alpha x0 + sigma eps, solved for x0, is (x_t - sigma eps) / "
                "alpha."),
        Mistake("not divided by alpha", lambda x, e0, ey, s, a, b: x - b * guide(e0, ey, s),
                "x_t - sigma eps is alpha x0: divide by alpha."),
        Mistake("alpha squared for alpha", lambda x, e0, ey, s, a, b: (x - b * guide(e0, ey, s)) / a**2,
                "Divide by alpha, not by alpha²: the argument alpha is already the square root of alphas_cumprod."),
        Mistake("sigma squared for sigma", lambda x, e0, ey, s, a, b: (x - b**2 * guide(e0, ey, s)) / a,
                "sigma² belongs to the score: x0_hat = (x_t + sigma² score) / alpha. eps takes sigma."),
        Mistake("alpha and sigma swapped", lambda x, e0, ey, s, a, b: _x0_hat(x, guide(e0, ey, s), b, a),
                "sigma multiplies the noise, and alpha divides: (x_t - sigma eps) / alpha."),
        Mistake("eps_0 alone", lambda x, e0, ey, s, a, b: _x0_hat(x, e0, a, b),
                "The prompt has no say: eps_hat = eps_0 + s (eps_y - eps_0)."),
        Mistake("only s eps_y", lambda x, e0, ey, s, a, b: _x0_hat(x, s * ey, a, b),
                "This scales eps_y alone. Guidance moves along the difference eps_y - eps_0, from eps_0."),
        Mistake("mean of both predictions", lambda x, e0, ey, s, a, b: _x0_hat(x, (e0 + s * ey) / (1 + s), a, b),
                "Guidance is no average: for s > 1 it goes beyond eps_y, away from eps_0."),
        Mistake("the guided noise", lambda x, e0, ey, s, a, b: guide(e0, ey, s),
                "This is eps_hat. x0_hat = (x_t - sigma eps_hat) / alpha is asked for."),
        Mistake("x_t alone divided by alpha", lambda x, e0, ey, s, a, b: x / a - b * guide(e0, ey, s),
                "Brackets: the whole of x_t - sigma eps_hat is divided by alpha."),
    ),
)  # fmt: skip


# --------------------------------------------------------------------------------------------- 3: the exact denoiser
def mixtures(g: torch.Generator) -> list[Case]:
    schedule = Schedule.scaled_linear()
    cases = []
    for label, k, t, far in (("3 components", 3, 500, 1.0), ("5 components", 5, 150, 1.0), ("far away", 4, 20, 40.0)):
        std, weights = (torch.rand(2, k, generator=g, dtype=F64) + 0.2).unbind()
        arguments: dict[str, Any] = {"x_t": far * randn(g, 6, 2), "t": t, "means": 2 * randn(g, k, 2), "std": std}
        cases.append(Case(f"{label}, t = {t}", {**arguments, "weights": weights / weights.sum(), "schedule": schedule}))
    return cases


def _mixture_eps(
    x: Tensor, t: int, means: Tensor, std: Tensor, weights: Tensor, schedule: Schedule,
    *, scale_means: bool = True, scale_std: bool = True, power: int = 2, use_weights: bool = True,
    normalised: float = 1.0, naive: bool = False, hard: bool = False, equal: bool = False, two: float = 2.0,
    divide: float = 1.0, noise: bool = True,
) -> Tensor:  # fmt: skip
    """-sigma score of the diffused mixture, written out; the keywords are the mistakes' switches."""
    alpha, sigma = float(schedule.alpha(t)), float(schedule.sigma(t))
    var = (alpha**2 if scale_std else 1.0) * std**power + noise * sigma**2  # (K,)
    pull = (alpha if scale_means else 1.0) * means - x[:, None]  # (B, K, d)
    logits = -(pull**2).sum(-1) / (two * var)  # (B, K)
    if use_weights:
        logits = logits + weights.log()
    logits = logits - normalised * x.shape[1] / 2 * (2 * math.pi * var).log()
    share = logits.exp() / logits.exp().sum(1, keepdim=True) if naive else logits.softmax(1)
    if equal:
        share = torch.full_like(share, 1 / len(means))
    if hard:
        share = torch.nn.functional.one_hot(logits.argmax(1), len(means)).to(x)
    return -sigma * (share[..., None] * pull / var[:, None] ** divide).sum(1)


def _sigma(a: tuple[Any, ...]) -> float:
    return float(a[5].sigma(a[1]))


MIXTURE_EPS = Problem(
    "mixture_eps", 5, lambda x, t, m, s, w, schedule: GaussianMixture(m, s, w, schedule=schedule).predict_eps(x, t),
    mixtures, outputs=("eps_hat (B, d)",),
    mistakes=(
        Mistake("missing minus sign", lambda *a: -_mixture_eps(*a),
                "The score points to the data, the noise away from it: eps_hat = -sigma score."),
        Mistake("score instead of eps", lambda *a: -_mixture_eps(*a) / _sigma(a),
                "This is the score of p_t. The noise prediction is -sigma times it."),
        Mistake("sigma missing", lambda *a: _mixture_eps(*a) / _sigma(a),
                "This is minus the score. The noise prediction is -sigma score."),
        Mistake("sigma squared for sigma", lambda *a: _mixture_eps(*a) * _sigma(a),
                "This is -sigma² score. The score of p_t is -eps_hat / sigma, so one sigma is enough."),
        Mistake("means not scaled by alpha", lambda *a: _mixture_eps(*a, scale_means=False),
                "Noising shrinks the data: component k of p_t is centred at alpha m_k."),
        Mistake("std not scaled by alpha", lambda *a: _mixture_eps(*a, scale_std=False),
                "Noising shrinks the spread too: the variance is alpha² std² + sigma²."),
        Mistake("sigma for sigma squared in the variance", lambda *a: _mixture_eps(*a, power=1),
                "std is a standard deviation; variances add: alpha² std² + sigma²."),
        Mistake("weights ignored", lambda *a: _mixture_eps(*a, use_weights=False),
                "All components were given the same weight: the responsibility of k is proportional to w_k N(...)."),
        Mistake("normalisation of the Gaussians dropped", lambda *a: _mixture_eps(*a, normalised=0.0),
                "The factor (2 pi var)^(-d/2) differs from component to component and does not cancel in the "
                "responsibilities."),
        Mistake("densities underflow", lambda *a: _mixture_eps(*a, naive=True),
                "Right near the modes. Far away every density underflows to 0, and 0/0 is NaN: take the softmax of the "
                "log densities."),
        Mistake("nearest component only", lambda *a: _mixture_eps(*a, hard=True),
                "Only the likeliest component pulls. All pull, each with its posterior probability."),
        Mistake("log normalisation of one dimension", lambda *a: _mixture_eps(*a, normalised=0.5),
                "In d dimensions a Gaussian carries (2 pi var)^(-d/2): d/2 log var, not ½ log var."),
        Mistake("2 missing in the exponent", lambda *a: _mixture_eps(*a, two=1.0),
                "The exponent of a Gaussian is -|x - m|² / (2 var)."),
        Mistake("divided by the standard deviation", lambda *a: _mixture_eps(*a, divide=0.5),
                "The pull of a component is (alpha m_k - x) / var_k, its variance below."),
        Mistake("alpha for sigma", lambda *a: _mixture_eps(*a) / _sigma(a) * float(a[5].alpha(a[1])),
                "This is -alpha score. The noise prediction is -sigma score."),
        Mistake("sigma not added to the variance", lambda *a: _mixture_eps(*a, noise=False),
                "The noise widens every component: the variance is alpha² std² + sigma²."),
        Mistake("equal shares", lambda *a: _mixture_eps(*a, equal=True),
                "Every component pulls alike, wherever x is. Weigh each by its posterior probability at x."),
    ),
)  # fmt: skip
