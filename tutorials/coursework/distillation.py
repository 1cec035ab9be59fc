"""Problem set 2: from noising a point to an ensemble of particles that distils a 2D target."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from jsdsd.objectives.distillation import SDS, surrogate_loss
from jsdsd.objectives.divergence import Divergence
from jsdsd.objectives.divergences import ForwardKL, JensenShannon, SkewJS
from jsdsd.objectives.ensemble import Ensemble
from jsdsd.objectives.log_odds import particle_mixture
from jsdsd.sandbox.distributions import GaussianMixture

from .denoising import ADD_NOISE, F64, GUIDED_X0, MIXTURE_EPS, randn
from .problem import Case, Mistake, Problem, ProblemSet


def _target(g: torch.Generator, modes: int = 3) -> GaussianMixture:
    weights = torch.rand(modes, generator=g, dtype=F64) + 0.2
    return GaussianMixture(2 * randn(g, modes, 2), 0.3 + 0.5 * torch.rand(modes, generator=g, dtype=F64), weights)


# --------------------------------------------------------------------------------------------------------- 4: SDS loss
def noised_points(g: torch.Generator) -> list[Case]:
    return [
        Case(f"t = {t}, {n} points", {"x0": randn(g, n, 2), "eps": randn(g, n, 2), "t": t, "denoiser": _target(g)})
        for t, n in ((700, 5), (300, 3), (50, 8))
    ]


def _sds(x0: Tensor, eps: Tensor, t: int, denoiser: GaussianMixture) -> Tensor:
    return surrogate_loss(x0, SDS().gradient(denoiser, x0, t, noise=eps).grad) / len(x0)


def _attached(x0: Tensor, eps: Tensor, t: int, denoiser: GaussianMixture) -> Tensor:
    """eps_hat - eps with the graph through the denoiser, as a student gets it who forgets to detach."""
    return denoiser.predict_eps(denoiser.schedule.add_noise(x0, eps, t), t) - eps


SDS_LOSS = Problem(
    "sds_loss", 5, _sds, noised_points, outputs=("loss ()",), differentiate=("x0",), values=False,
    mistakes=(
        Mistake("missing detach", lambda x0, *a: (x0 * _attached(x0, *a)).sum() / len(x0),
                "The gradient also flows through the denoiser, as in x0 * (eps_hat - eps) with eps_hat still on the "
                "graph. "
                "SDS leaves the U-Net's Jacobian out: detach eps_hat - eps, or predict under torch.no_grad()."),
        Mistake("missing detach: the training loss", lambda x0, *a: (_attached(x0, *a) ** 2).sum() / 2 / len(x0),
                "This is the denoiser's own training loss ½ |eps_hat - eps|², and its gradient runs through the "
                "denoiser. "
                "SDS takes eps_hat - eps, detached, as the gradient itself."),
        Mistake("missing minus sign", lambda x0, *a: -_sds(x0, *a),
                "The gradient is eps - eps_hat: it pushes x0 away from the target. SDS is predicted minus actual "
                "noise."),
        Mistake("eps dropped", lambda x0, eps, t, d: _sds(x0, eps, t, d) + (x0 * eps).sum() / len(x0),
                "The gradient is eps_hat alone. Right in expectation only (eps has mean 0), and far noisier: "
                "subtract the "
                "noise that was put in."),
        Mistake("sum instead of mean over the batch", lambda x0, *a: _sds(x0, *a) * len(x0),
                "The loss adds up the batch. Divide by the number of points B, so that the step does not depend on "
                "it."),
        Mistake("mean over coordinates too", lambda x0, *a: _sds(x0, *a) / x0.shape[1],
                "`.mean()` divides by B times d. The mean is over the batch only; the coordinates of a point add up."),
        Mistake("weighed by sigma squared", lambda x0, e, t, d: _sds(x0, e, t, d) * d.schedule.sigma(t) ** 2,
                "This carries DreamFusion's weight sigma². Here gradients are in eps-units, with weight 1."),
        Mistake("alpha in the gradient", lambda x0, e, t, d: _sds(x0, e, t, d) * d.schedule.alpha(t),
                "The factor alpha of dx_t/dx0 is part of the weight, which is 1 here: the gradient on x0 is eps_hat "
                "- eps "
                "itself. Did the surrogate multiply x_t instead of x0?"),
        Mistake("missing factor 1/2", lambda x0, *a: 2 * _sds(x0, *a),
                "The gradient of |x0 - target|² is twice the difference: halve the square."),
        Mistake("x0 not noised", lambda x0, e, t, d: (x0 * (d.predict_eps(x0.detach(), t) - e)).sum() / len(x0),
                "The denoiser was asked at x0. It wants the noised point x_t = alpha x0 + sigma eps."),
        Mistake("difference of points for that of noises",
                lambda x0, e, t, d: _sds(x0, e, t, d) * d.schedule.sigma(t) / d.schedule.alpha(t),
                "This is x0 - x0_hat = (sigma/alpha) (eps_hat - eps). The gradient is eps_hat - eps itself."),
        Mistake("score for eps",
                lambda x0, e, t, d: (x0 * (-d.predict_eps(d.schedule.add_noise(x0.detach(), e, t), t)
                                     / d.schedule.sigma(t) - e)).sum() / len(x0),
                "The score was taken for the noise: eps_hat = -sigma score."),
        Mistake("mean over coordinates alone", lambda x0, *a: _sds(x0, *a) * len(x0) / x0.shape[1],
                "The coordinates were averaged and the points summed; it is the other way round."),
    ),
)  # fmt: skip


# -------------------------------------------------------------------------------------------------- 5: the JSD recipe
def inverted_points(g: torch.Generator) -> list[Case]:
    return [
        Case(f"t = {t}, k = {k}", {"denoiser": _target(g), "x0": randn(g, 4, 2), "x_t": randn(g, 4, 2),
                                   "eps": randn(g, 4, 2), "t": t, "minority_weight": k})
        for t, k in ((700, 1.0), (400, 0.5), (150, 2.0))
    ]  # fmt: skip


def _jsd(
    denoiser: GaussianMixture, x0: Tensor, x_t: Tensor, eps: Tensor, t: int, k: float,
    *, weights: Callable[[float], tuple[float, float]] = lambda k: (1.0, k),
    factor: Callable[[float, float], float] = lambda alpha, sigma: alpha / sigma,
    renoise: str = "x1", predict_again: bool = True, from_x1: bool = False, old_point: bool = False,
    factor_first: bool = False,
) -> Tensor:  # fmt: skip
    """(alpha/sigma) [(x0 - x1) + k (x0 - x2)]; the keywords are the mistakes' switches."""
    schedule, first, second = denoiser.schedule, *weights(k)
    eps_hat = denoiser.predict_eps(x_t, t)
    x1 = schedule.x0_from_eps(x_t, eps_hat, t)
    start = {"x0": x0, "x1": x1, "x_t": x_t, "none": x1}[renoise]
    x_t2 = schedule.add_noise(start, 0 * eps if renoise == "none" else eps, t)
    eps_hat2 = denoiser.predict_eps(x_t2, t) if predict_again else eps_hat
    x2 = schedule.x0_from_eps(x_t if old_point else x_t2, eps_hat2, t)
    pulls = first * (x0 - x1), second * ((x1 if from_x1 else x0) - x2)
    scale = factor(float(schedule.alpha(t)), float(schedule.sigma(t)))
    return scale * pulls[0] + (1.0 if factor_first else scale) * pulls[1]


JSD_GRADIENT = Problem(
    "jsd_gradient", 5, _jsd, inverted_points, outputs=("gradient (B, d)",),
    mistakes=(
        Mistake("minority target dropped", lambda *a: _jsd(*a, weights=lambda k: (1.0, 0.0)),
                "Only x1 pulls: this is SDI. The re-noised target x2 pulls too, with weight k."),
        Mistake("minority weight on the wrong target", lambda *a: _jsd(*a, weights=lambda k: (k, 1.0)),
                "k weighs the pull towards x2, not the one towards x1."),
        Mistake("minority weight left out", lambda *a: _jsd(*a, weights=lambda k: (1.0, 1.0)),
                "Right for k = 1 only: multiply the pull towards x2 by minority_weight."),
        Mistake("divided by 1 + k", lambda *a: _jsd(*a, weights=lambda k: (1 / (1 + k), k / (1 + k))),
                "The two pulls are added, not averaged: no division by 1 + k."),
        Mistake("x0 re-noised instead of x1", lambda *a: _jsd(*a, renoise="x0"),
                "The second target starts from the first: x_t' = alpha x1 + sigma eps, not alpha x0 + sigma eps."),
        Mistake("denoiser not asked again", lambda *a: _jsd(*a, predict_again=False),
                "x2 was computed with the eps_hat of x_t. It needs the prediction at the new point x_t'."),
        Mistake("x2 pulls x1 instead of x0", lambda *a: _jsd(*a, from_x1=True),
                "Both targets pull the same point: k (x0 - x2), not k (x1 - x2). (Weights 1 - k and k give the same.)"),
        Mistake("alpha and sigma swapped", lambda *a: _jsd(*a, factor=lambda alpha, sigma: sigma / alpha),
                "The factor that brings x0 - target to eps-units is alpha/sigma, not sigma/alpha."),
        Mistake("alpha / sigma dropped", lambda *a: _jsd(*a, factor=lambda alpha, sigma: 1.0),
                "The pull x0 - target is in units of the data; eps-units need the factor alpha/sigma."),
        Mistake("alpha squared for alpha", lambda *a: _jsd(*a, factor=lambda alpha, sigma: (alpha / sigma) ** 2),
                "The factor is alpha/sigma, not alpha²/sigma²: alpha is the square root of alphas_cumprod."),
        Mistake("missing minus sign", lambda *a: -_jsd(*a),
                "The gradient points from the target to x0, so that descent walks to the target: x0 - x1, not x1 - "
                "x0."),
        Mistake("x_t re-noised instead of x1", lambda *a: _jsd(*a, renoise="x_t"),
                "The second target starts from the clean x1: x_t' = alpha x1 + sigma eps. x_t is noisy already."),
        Mistake("new prediction at the old point", lambda *a: _jsd(*a, old_point=True),
                "x2 = x0_hat(x_t') needs x_t' and the prediction there; here x_t was kept."),
        Mistake("noise not added again", lambda *a: _jsd(*a, renoise="none"),
                "x_t' = alpha x1 + sigma eps: the term with eps is missing."),
        Mistake("k for both targets", lambda *a: _jsd(*a, weights=lambda k: (k, k)),
                "Right for k = 1 only: k weighs the second pull alone."),
        Mistake("majority target dropped", lambda *a: _jsd(*a, weights=lambda k: (0.0, k)),
                "Only x2 pulls. x1 pulls too, with weight 1."),
        Mistake("alpha / sigma before the first pull only", lambda *a: _jsd(*a, factor_first=True),
                "Brackets: alpha/sigma multiplies both pulls."),
    ),
)  # fmt: skip


# ------------------------------------------------------------------------------------------------------ 6: an ensemble
def ensembles(g: torch.Generator) -> list[Case]:
    cases = []
    for d, t, n in ((JensenShannon(), 600, 7), (SkewJS(0.2), 300, 5), (ForwardKL(), 800, 9)):
        arguments = {"divergence": d, "target": _target(g), "x0": randn(g, n, 2), "eps": randn(g, n, 2), "t": t}
        cases.append(Case(f"{d}, t = {t}", arguments))
    return cases


def _ensemble(
    divergence: Divergence, target: GaussianMixture, x0: Tensor, eps: Tensor, t: int,
    *, eps_q_of: Callable[[Tensor, Tensor], Tensor] = lambda eps_q, eps: eps_q,
    weigh: Callable[[Divergence, Tensor], Tensor] = lambda d, u: d.weight(u),
    count: bool = True, clean: bool = False, noised: bool = False, ask_clean: bool = False,
) -> Tensor:  # fmt: skip
    """w_f(r) (eps_hat - eps_q); the keywords are the mistakes' switches."""
    x_t = target.schedule.add_noise(x0, eps, t)
    log_q, eps_q = particle_mixture(target.schedule, x_t if noised else x0, x_t, t)
    log_p = target.log_prob(x_t, None if clean else t)
    log_ratio = log_p - log_q - (0.0 if count else math.log(len(x0)))
    eps_hat = target.predict_eps(x0 if ask_clean else x_t, t)
    return weigh(divergence, log_ratio)[:, None] * (eps_hat - eps_q_of(eps_q, eps))


ENSEMBLE_GRADIENT = Problem(
    "ensemble_gradient", 6, lambda d, target, x0, eps, t: Ensemble(d).gradient(target, x0, t, noise=eps).grad,
    ensembles, outputs=("gradient (N, d)",),
    mistakes=(
        Mistake("eps in place of eps_q", lambda *a: _ensemble(*a, eps_q_of=lambda eps_q, eps: eps),
                "Each particle subtracts its own noise, as if it were alone: this is SDS with a weight. eps_q is "
                "what the "
                "exact denoiser of all particles together predicts, -sigma s_q."),
        Mistake("eps_q dropped", lambda *a: _ensemble(*a, eps_q_of=lambda eps_q, eps: 0 * eps),
                "Only w eps_hat is left. Without eps_q nothing keeps the particles apart: the gradient is w (eps_hat "
                "- eps_q)."),
        Mistake("weight dropped", lambda *a: _ensemble(*a, weigh=lambda d, u: torch.ones_like(u)),
                "Without w_f(r) every divergence is reverse KL."),
        Mistake("log ratio upside down", lambda *a: _ensemble(*a, weigh=lambda d, u: d.weight(-u)),
                "log_ratio is log p_t - log q_t, the target on top. Upside down, D and 1 - D are swapped."),
        Mistake("r taken for log r", lambda *a: _ensemble(*a, weigh=lambda d, u: d.weight(u.exp())),
                "`divergence.weight` wants log r, not r: no exp before it."),
        Mistake("weights divided by their mean",
                lambda *a: _ensemble(*a, weigh=lambda d, u: d.weight(u) / d.weight(u).mean()),
                "The weights are normalised over the batch, as in f-distill. That changes the divergence; here they "
                "stay."),
        Mistake("q_t is a sum, not a mean", lambda *a: _ensemble(*a, count=False),
                "log q_t lacks the 1/N of the mixture: subtract log N after logsumexp."),
        Mistake("density of the clean target", lambda *a: _ensemble(*a, clean=True),
                "log p was taken without noise. Both densities belong to level t: target.log_prob(x_t, t)."),
        Mistake("missing minus sign", lambda *a: -_ensemble(*a),
                "The gradient is w (eps_hat - eps_q) = w sigma (s_q - s_p); the other way round particles flee the "
                "target."),
        Mistake("mean of the weights for each", lambda *a: _ensemble(
                *a, weigh=lambda d, u: d.weight(u).mean().expand_as(u)),
                "All particles got the mean weight. Each has its own, w_f at its own ratio."),
        Mistake("weights that sum to 1", lambda *a: _ensemble(*a, weigh=lambda d, u: d.weight(u) / d.weight(u).sum()),
                "The weights were divided by their sum. Here they stay as they are."),
        Mistake("divided by N", lambda *a: _ensemble(*a) / len(a[2]),
                "Each particle has a gradient of its own: no mean over them."),
        Mistake("scores for predictions", lambda *a: _ensemble(*a) / float(a[1].schedule.sigma(a[4])),
                "This is w (s_q - s_p). In eps-units it is multiplied by sigma: eps_hat = -sigma s_p."),
        Mistake("mixture of the noised particles", lambda *a: _ensemble(*a, noised=True),
                "q_t is centred at alpha x0_i. Handed x_t for x0, the particles are noised twice."),
        Mistake("denoiser asked at the clean points", lambda *a: _ensemble(*a, ask_clean=True),
                "Predictions belong to x_t, not to x0."),
    ),
)  # fmt: skip


# ------------------------------------------------------------------------------------------------------- 7: the project
def runs(g: torch.Generator) -> list[Case]:
    cases = []
    for divergence, times in ((JensenShannon(), [800, 500, 300, 200]), (ForwardKL(), [600, 500, 400])):
        arguments: dict[str, Any] = {"divergence": divergence, "target": _target(g, 4), "x0": 0.5 * randn(g, 12, 2)}
        noises = randn(g, len(times), 12, 2)
        arguments |= {"noises": noises, "times": times, "rate": 0.3}
        cases.append(Case(f"{divergence}, {len(times)} steps", arguments))
    return cases


def _distil(
    divergence: Divergence, target: GaussianMixture, x0: Tensor, noises: Tensor, times: list[int], rate: float,
    *, step: Callable[..., Tensor] = _ensemble, stale: bool = False, **switches: Any,
) -> Tensor:  # fmt: skip
    x = x0
    for noise, t in zip(noises, times, strict=True):
        x = x - rate * step(divergence, target, x0 if stale else x, noise, t, **switches)
    return x


def _alone(divergence: Divergence, target: GaussianMixture, x0: Tensor, eps: Tensor, t: int) -> Tensor:
    return SDS().gradient(target, x0, t, noise=eps).grad


DISTILL_PARTICLES = Problem(
    "distill_particles", 3, _distil, runs, outputs=("x (N, d)",),
    mistakes=(
        Mistake("missing minus sign", lambda d, p, x, n, t, r: _distil(d, p, x, n, t, -r),
                "The particles climb. Descent goes against the gradient: x - rate * gradient."),
        Mistake("particles do not know of each other", lambda *a: _distil(*a, step=_alone),
                "This is SDS, each particle for itself. Use the ensemble's gradient, with eps_q and the weight."),
        Mistake("eps in place of eps_q", lambda *a: _distil(*a, eps_q_of=lambda eps_q, eps: eps),
                "Each particle subtracts its own noise, as if it were alone. eps_q is predicted from all particles."),
        Mistake("gradient always at the start", lambda *a: _distil(*a, stale=True),
                "The gradient was taken at x0 in every step. Take it where the particles are now."),
        Mistake("the same noise in every step", lambda d, p, x, n, t, r: _distil(d, p, x, n[:1].expand_as(n), t, r),
                "noises[0] was used throughout. Step i has its own noise, noises[i]."),
        Mistake("noise levels not annealed", lambda d, p, x, n, t, r: _distil(d, p, x, n, [t[0]] * len(t), r),
                "times[0] was used throughout. Step i works at level times[i]."),
        Mistake("noise levels reversed", lambda d, p, x, n, t, r: _distil(d, p, x, n, t[::-1], r),
                "The run went from little noise to much. times is already in order: layout first, details last."),
        Mistake("mean over the ensemble", lambda d, p, x, n, t, r: _distil(d, p, x, n, t, r / len(x)),
                "The gradient was divided by N. Each particle moves by its own gradient; N does not shorten the step."),
        Mistake("rate dropped", lambda d, p, x, n, t, r: _distil(d, p, x, n, t, 1.0),
                "The step is the whole gradient. Multiply it by `rate`."),
        Mistake("only the last step counts", lambda d, p, x, n, t, r: _distil(d, p, x, n[-1:], t[-1:], r),
                "Each step started from x0 again. Go on from where the last one ended."),
        Mistake("only the first step", lambda d, p, x, n, t, r: _distil(d, p, x, n[:1], t[:1], r),
                "It returned after one step: the `return` stands inside the loop."),
        Mistake("weight dropped", lambda *a: _distil(*a, weigh=lambda d, u: torch.ones_like(u)),
                "Without w_f(r) every divergence is reverse KL."),
    ),
)  # fmt: skip

SET = ProblemSet(
    "problem set 2, distillation in 2D",
    (ADD_NOISE, GUIDED_X0, MIXTURE_EPS, SDS_LOSS, JSD_GRADIENT, ENSEMBLE_GRADIENT, DISTILL_PARTICLES),
)
