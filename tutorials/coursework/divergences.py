"""Problem set 1: f-divergences, the discriminator, and one Gaussian that is pushed towards a target."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from jsdsd.objectives.divergence import Divergence
from jsdsd.objectives.divergences import ForwardKL, Jeffreys, JensenShannon, ReverseKL, SquaredHellinger
from jsdsd.sandbox.distributions import GaussianMixture

from .discriminators import DISCRIMINATOR, F64, JSD_BOUND, LOG2, LOG10
from .problem import Case, Mistake, Problem, ProblemSet


# ------------------------------------------------------------------------------------------------ 1 and 2: two tables
def distributions(g: torch.Generator) -> list[Case]:
    def table(rows: int, outcomes: int) -> Tensor:
        return torch.rand(rows, outcomes, generator=g, dtype=F64).add(0.05)

    def case(label: str, p: Tensor, q: Tensor) -> Case:
        return Case(label, {"p": p / p.sum(-1, keepdim=True), "q": q / q.sum(-1, keepdim=True)})

    gap = torch.ones(4, 6, dtype=F64)
    gap[:2, 0] = gap[2:, 3] = 0
    return [
        case("p and q of shape (5, 3)", table(5, 3), table(5, 3)),
        case("p and q of shape (2, 40)", table(2, 40), table(2, 40)),
        case("p with zeros", table(4, 6) * gap, table(4, 6)),
    ]


def tables_with_common_zeros(g: torch.Generator) -> list[Case]:
    first, second, third = distributions(g)
    p, q = third.arguments["p"], third.arguments["q"] * (third.arguments["p"] > 0)
    return [first, second, third, Case("p and q zero together", {"p": p, "q": q / q.sum(-1, keepdim=True)})]


def _kl(p: Tensor, q: Tensor) -> Tensor:
    return ForwardKL().discrete(p, q)


KL = Problem(
    "kl", 3, _kl, distributions, outputs=("KL (B,)",),
    mistakes=(
        Mistake("KL's arguments swapped", lambda p, q: _kl(q, p),
                "This is KL(q‖p). KL(p‖q) weighs by its first argument p, and the first argument stands on top of the "
                "fraction: KL is not symmetric."),
        Mistake("missing minus sign", lambda p, q: -_kl(p, q),
                "This is sum p log(q/p), which is never positive. A divergence is >= 0: it is sum p log(p/q)."),
        Mistake("weighed by q", lambda p, q: (q * (p / q).log()).sum(-1),
                "The logarithm is right, but its mean must be taken under p, not under q: this is -KL(q‖p)."),
        Mistake("log base 2 instead of nats", lambda p, q: _kl(p, q) / LOG2,
                "The answer is in bits, 1 / log 2 = 1.44 times too large. Every divergence here is in nats: "
                "use the natural logarithm."),
        Mistake("mean instead of sum", lambda p, q: _kl(p, q) / p.shape[-1],
                "p already holds the weights of the mean, so the K terms are added up, not averaged."),
        Mistake("summed over the batch", lambda p, q: _kl(p, q).sum(),
                "Every row is a pair of distributions of its own: sum over the last axis only, `.sum(-1)`."),
        Mistake("averaged over the batch", lambda p, q: _kl(p, q).mean(),
                "Every row is a pair of distributions of its own and keeps its own value: `.sum(-1)`, and no mean."),
        Mistake("0 log 0 is NaN", lambda p, q: (p * (p / q).log()).sum(-1),
                "Right where p > 0. Where p = 0 the computer finds 0 * (-inf) = NaN, while the limit of p log p is 0: "
                "`torch.xlogy` knows it."),
        Mistake("cross-entropy", lambda p, q: -(p * q.log()).sum(-1),
                "This is -sum p log q. KL is the cross-entropy minus the entropy of p: sum p (log p - log q)."),
        Mistake("log base 10 instead of nats", lambda p, q: _kl(p, q) / LOG10,
                "`torch.log10` was used. Every divergence here is in nats: use the natural logarithm."),
        Mistake("logarithm dropped", lambda p, q: (p * p / q).sum(-1),
                "This is sum p (p/q). KL is the mean of the *logarithm* of p/q under p."),
        Mistake("difference of the entropies", lambda p, q: (torch.xlogy(p, p) - torch.xlogy(q, q)).sum(-1),
                "This is sum p log p - sum q log q. Both logarithms are weighed by p: sum p (log p - log q)."),
        Mistake("absolute values summed", lambda p, q: (torch.xlogy(p, p) - torch.xlogy(p, q)).abs().sum(-1),
                "Single terms of KL may be negative, where q > p; only their sum is >= 0. No `abs`."),
    ),
)  # fmt: skip


def _js(p: Tensor, q: Tensor) -> Tensor:
    return JensenShannon().discrete(p, q)


def _kl_to(p: Tensor, m: Tensor) -> Tensor:
    """sum p log(p/m) for any m >= 0, with 0 log 0 = 0."""
    return (torch.xlogy(p, p) - torch.xlogy(p, m)).sum(-1)


JENSEN_SHANNON = Problem(
    "jensen_shannon", 4, _js, tables_with_common_zeros, outputs=("JS (B,)",),
    mistakes=(
        Mistake("missing factor 1/2", lambda p, q: 2 * _js(p, q),
                "Both KLs to the mixture count with weight 1/2; without it the bound is 2 log 2 instead of log 2."),
        Mistake("square root taken", lambda p, q: _js(p, q).sqrt(),
                "This is the Jensen-Shannon distance (a metric, and what scipy's `jensenshannon` returns). The "
                "divergence "
                "is its square."),
        Mistake("log base 2 instead of nats", lambda p, q: _js(p, q) / LOG2,
                "The answer is in bits, with bound 1. In nats the bound is log 2: use the natural logarithm."),
        Mistake("mixture not halved", lambda p, q: (_kl_to(p, p + q) + _kl_to(q, p + q)) / 2,
                "p + q sums to 2 and is no distribution: m = (p + q) / 2."),
        Mistake("KL's arguments swapped", lambda p, q: ((_kl_to((p + q) / 2, p) + _kl_to((p + q) / 2, q)) / 2),
                "This is ½ KL(m‖p) + ½ KL(m‖q), infinite where one of them is zero. The mixture is the second "
                "argument: ½ KL(p‖m) + ½ KL(q‖m)."),
        Mistake("no mixture: half of Jeffreys", lambda p, q: (_kl_to(p, q) + _kl_to(q, p)) / 2,
                "This is ½ KL(p‖q) + ½ KL(q‖p). Jensen-Shannon compares both with the mixture m = (p + q) / 2."),
        Mistake("one half dropped", lambda p, q: _kl_to(p, (p + q) / 2),
                "This is KL(p‖m) alone, which is not symmetric: the mean with KL(q‖m) is wanted."),
        Mistake("0 log 0 is NaN",
                lambda p, q: (p * (2 * p / (p + q)).log() + q * (2 * q / (p + q)).log()).sum(-1) / 2,
                "Right without zeros. Where p = 0 the computer finds 0 * (-inf) = NaN, while the limit of p log p is "
                "0: "
                "`torch.xlogy` knows it."),
        Mistake("averaged over the batch", lambda p, q: _js(p, q).mean(),
                "Every row is a pair of distributions of its own and keeps its own value: `.sum(-1)`, and no mean."),
        Mistake("log base 10 instead of nats", lambda p, q: _js(p, q) / LOG10,
                "`torch.log10` was used. In nats the bound is log 2: use the natural logarithm."),
        Mistake("missing minus sign", lambda p, q: -_js(p, q),
                "A divergence is >= 0: the entropy of the mixture minus the mean entropy, or sum p log(p/m)."),
        Mistake("geometric mean for the mixture",
                lambda p, q: (_kl_to(p, (p * q).sqrt()) + _kl_to(q, (p * q).sqrt())) / 2,
                "m is the arithmetic mean (p + q) / 2; sqrt(p q) is no distribution and gives half of Jeffreys."
                " Infinite where one of them is zero."),
        Mistake("second KL turned round",
                lambda p, q: (_kl_to(p, (p + q) / 2) + _kl_to((p + q) / 2, q)) / 2,
                "This is ½ KL(p‖m) + ½ KL(m‖q). The mixture is the second argument of both."),
    ),
)  # fmt: skip


# ------------------------------------------------------------------------------------------------ 3: w_f from f alone
class _Given(Divergence):
    """A divergence of which only f is known; its weight is the library's r² f''(r) by autograd."""

    def __init__(self, f: Callable[[Tensor], Tensor]) -> None:
        self._f = f

    def f(self, r: Tensor) -> Tensor:
        return self._f(r)


def functions(g: torch.Generator) -> list[Case]:
    family = (JensenShannon(), SquaredHellinger(), Jeffreys(), ReverseKL())
    return [
        Case(f"f of {d}", {"f": d.f, "log_ratio": 3 * torch.randn(7, generator=g, dtype=F64).tanh()}) for d in family
    ]


def _slopes(f: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
    """f'(x) and f''(x), any shape."""
    x = x.clone().requires_grad_()
    (first,) = torch.autograd.grad(f(x).sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), x, allow_unused=True)
    return first.detach(), second.detach()


WEIGHT = Problem(
    "weight", 5, lambda f, u: _Given(f).weight(u), functions, outputs=("weight (N,)",), detached=True,
    mistakes=(
        Mistake("r for r squared", lambda f, u: u.exp() * _slopes(f, u.exp())[1],
                "This is r f''(r). The weight is r² f''(r): reverse KL must get 1 everywhere."),
        Mistake("r squared forgotten", lambda f, u: _slopes(f, u.exp())[1],
                "This is f''(r) alone. The weight is r² f''(r): reverse KL must get 1 everywhere."),
        Mistake("first derivative", lambda f, u: u.exp() ** 2 * _slopes(f, u.exp())[0],
                "This is r² f'(r). The derivative is taken twice: differentiate with `create_graph=True`, then again."),
        Mistake("derivative with respect to log r", lambda f, u: _slopes(lambda v: f(v.exp()), u)[1],
                "f was differentiated twice with respect to log r; that gives r² f'' + r f'. Let autograd see r "
                "itself: "
                "make r = exp(log_ratio) the leaf."),
        Mistake("log r taken for r", lambda f, u: u**2 * _slopes(f, u)[1],
                "f was called with log_ratio. Its argument is the ratio r = p/q = exp(log_ratio)."),
        Mistake("ratio upside down", lambda f, u: (-u).exp() ** 2 * _slopes(f, (-u).exp())[1],
                "This is the weight at q/p. r = p/q is the target over the generated: exp(log_ratio), with no minus."),
        Mistake("log r squared for r squared", lambda f, u: u**2 * _slopes(f, u.exp())[1],
                "The factor is r², with r = exp(log_ratio); this is (log r)²."),
        Mistake("missing minus sign", lambda f, u: -u.exp() ** 2 * _slopes(f, u.exp())[1],
                "f is convex, so f'' and the weight are >= 0: no minus."),
        Mistake("f itself", lambda f, u: u.exp() ** 2 * f(u.exp()),
                "This is r² f(r): f must be differentiated twice first."),
    ),
)  # fmt: skip


# --------------------------------------------------------------------------------------- 6: a Gaussian on its way to p
def gaussians(g: torch.Generator) -> list[Case]:
    means = torch.tensor([[-1.0, 0.3], [1.2, 0.0], [0.2, 1.1]], dtype=F64)
    target = GaussianMixture(means, 0.9, torch.tensor([0.5, 0.3, 0.2]))
    cases = []
    for divergence, std in ((JensenShannon(), 0.8), (ForwardKL(), 1.1), (ReverseKL(), 0.6)):
        mean, z = torch.randn(2, generator=g, dtype=F64) / 2, torch.randn(16, 2, generator=g, dtype=F64)
        arguments = {"divergence": divergence, "target": target, "mean": mean, "std": std, "z": z}
        cases.append(Case(f"{divergence}", {**arguments, "rate": 0.3, "steps": 5}))
    return cases


def _path(
    divergence: Divergence, target: GaussianMixture, mean: Tensor, std: float, z: Tensor, rate: float, steps: int,
    *, sign: float = 1.0, moving: bool = True, reduce: Callable[..., Tensor] = torch.mean, own_score: bool = True,
    target_score: bool = True, own_density: bool = True, fresh: bool = False, power: int = 2, constant: float = 1.0,
    weigh: Callable[[Divergence, Tensor], Tensor] = lambda d, u: d.weight(u),
) -> Tensor:  # fmt: skip
    """(steps + 1, 2): gradient descent on the mean of q = N(mean, std² I); the keywords are the mistakes' switches."""
    path = [mean]
    for _ in range(steps):
        z = torch.randn_like(z) if fresh else z
        x = (path[-1] if moving else mean) + std * z  # (N, 2)
        log_q = -((x - path[-1]) ** 2).sum(1) / (2 * std**2) - constant * math.log(2 * math.pi * std**2)
        log_ratio = target.log_prob(x) - own_density * log_q  # (N,)
        s_q = -(x - path[-1]) / std**power if own_score else torch.zeros_like(x)
        grad = reduce(weigh(divergence, log_ratio)[:, None] * (s_q - target_score * target.score(x)), dim=0)  # (2,)
        path.append(path[-1] - sign * rate * grad)
    return torch.stack(path)


FIT_MEAN = Problem(
    "fit_mean", 9, _path, gaussians, outputs=("path (steps + 1, 2)",),
    mistakes=(
        Mistake("missing minus sign", lambda *a: _path(*a, sign=-1.0),
                "The mean climbs: either the step is mean + rate * gradient, or the scores are s_p - s_q. The gradient "
                "is w (s_q - s_p), and descent subtracts it."),
        Mistake("weight dropped", lambda *a: _path(*a, weigh=lambda d, u: torch.ones_like(u)),
                "Without w_f every divergence is reverse KL. Multiply each sample by divergence.weight(log_ratio)."),
        Mistake("log ratio upside down", lambda *a: _path(*a, weigh=lambda d, u: d.weight(-u)),
                "log_ratio is log p - log q: the target, the first argument, on top."),
        Mistake("r taken for log r", lambda *a: _path(*a, weigh=lambda d, u: d.weight(u.exp())),
                "`divergence.weight` wants log r, not r: no exp before it."),
        Mistake("sum instead of mean", lambda *a: _path(*a, reduce=torch.sum),
                "An expectation is a mean over the N samples; a sum makes the step N times too long."),
        Mistake("s_q dropped", lambda *a: _path(*a, own_score=False),
                "Only -w s_p is left. E_q[s_q] is 0, but E_q[w s_q] is not, since w depends on x; and with few samples "
                "neither mean is 0."),
        Mistake("sigma for sigma squared", lambda *a: _path(*a, power=1),
                "The score of N(mean, std² I) is -(x - mean) / std²: the standard deviation is squared."),
        Mistake("normalisation of q dropped", lambda *a: _path(*a, constant=0.0),
                "A score does not feel the constant of a density, a ratio does: in two dimensions log q ends in "
                "- log(2 pi std²)."),
        Mistake("samples stay behind", lambda *a: _path(*a, moving=False),
                "The samples were drawn once, around the first mean. They are x = mean + std z with the present mean, "
                "anew in every step."),
        Mistake("start left out", lambda *a: _path(*a)[1:],
                "The path begins with the given mean: steps + 1 rows."),
        Mistake("normalised weights", lambda *a: _path(*a, weigh=lambda d, u: d.weight(u) / d.weight(u).mean()),
                "The weights were divided by their mean. That is another method; here they stay as they are."),
        Mistake("normalised weights, and a mean", lambda *a: _path(
                *a, weigh=lambda d, u: d.weight(u) / d.weight(u).sum()),
                "The weights were divided by their sum, and the mean divides by N once more. They stay as they are."),
        Mistake("mean(w) times mean(s)", lambda *a: _path(*a, weigh=lambda d, u: d.weight(u).mean().expand_as(u)),
                "The mean of a product is not the product of the means: w and s_q - s_p both depend on x. Multiply "
                "sample by sample, then average."),
        Mistake("fresh z in each step", lambda *a: _path(*a, fresh=True),
                "New noise was drawn in every step. z is given and the same in all of them, so that only the mean "
                "moves."),
        Mistake("rate dropped", lambda d, p, m, s, z, r, n: _path(d, p, m, s, z, 1.0, n),
                "The step is the whole gradient. Multiply it by `rate`."),
        Mistake("log q of one dimension", lambda *a: _path(*a, constant=0.5),
                "The points lie in the plane: log q ends in - log(2 pi std²), twice the - ½ log(2 pi std²) of a line."),
        Mistake("s_p dropped", lambda *a: _path(*a, target_score=False),
                "Only w s_q is left, which knows nothing of the target's score: the gradient is w (s_q - s_p)."),
        Mistake("log q dropped", lambda *a: _path(*a, own_density=False),
                "log_ratio is log p alone. It is log p - log q, at the same points."),
        Mistake("w / r for w", lambda *a: _path(*a, weigh=lambda d, u: d.weight(u) / u.exp()),
                "The weight was divided by the ratio, which is right for samples of p. The samples are of q."),
    ),
)  # fmt: skip

SET = ProblemSet("problem set 1, divergences", (KL, JENSEN_SHANNON, WEIGHT, DISCRIMINATOR, JSD_BOUND, FIT_MEAN))
