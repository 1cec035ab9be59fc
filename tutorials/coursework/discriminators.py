"""Problem set 1's discriminator: D of two log densities, and the bound of the Jensen-Shannon divergence by it."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from .problem import Case, Mistake, Problem

F64 = torch.float64
LOG2, LOG10 = math.log(2), math.log(10)


# ----------------------------------------------------------------------------------------- 4 and 5: the discriminator
def log_densities(g: torch.Generator) -> list[Case]:
    log_p, log_q = 3 * torch.randn(2, 9, generator=g, dtype=F64)
    return [
        Case("log densities of order 1", {"log_p": log_p, "log_q": log_q}),
        Case("log densities near -2000", {"log_p": log_p - 2000, "log_q": log_q - 2000}),
        Case("densities e^900 apart", {"log_p": log_p + 400, "log_q": log_q - 500}),
    ]


DISCRIMINATOR = Problem(
    "discriminator", 4, lambda a, b: torch.sigmoid(a - b), log_densities, outputs=("D (N,)",),
    mistakes=(
        Mistake("D and 1 - D swapped", lambda a, b: torch.sigmoid(b - a),
                "This is q/(p+q) = 1 - D. D is the probability that the point is the target's, p/(p+q)."),
        Mistake("ratio instead of probability", lambda a, b: (a - b).exp(),
                "This is r = p/q, between 0 and infinity. D = p/(p+q) = r/(1+r) lies between 0 and 1."),
        Mistake("logit instead of probability", lambda a, b: a - b,
                "log p - log q is the logit of D; D itself is its sigmoid."),
        Mistake("sigmoid of r instead of log r", lambda a, b: torch.sigmoid((a - b).exp()),
                "sigmoid(log r) = r/(1+r) = D. Applied to r itself it never falls below 1/2."),
        Mistake("densities underflow", lambda a, b: a.exp() / (a.exp() + b.exp()),
                "Right for moderate densities. exp(-2000) is 0 and exp(900) infinite in floating point, so that "
                "p/(p+q) "
                "is 0/0 or inf/inf: use the difference of the logarithms and a sigmoid."),
        Mistake("ratio overflows", lambda a, b: (a - b).exp() / (1 + (a - b).exp()),
                "Right until r = exp(900) overflows: inf/inf is NaN. r/(1+r) is sigmoid(log r), which does not "
                "overflow."),
        Mistake("log D instead of D", lambda a, b: F.logsigmoid(a - b),
                "This is log D, never positive: `torch.sigmoid`, not `logsigmoid`."),
        Mistake("tanh instead of sigmoid", lambda a, b: torch.tanh(a - b),
                "tanh lies between -1 and 1. p/(p+q) is the sigmoid of the log ratio (= (1 + tanh(log r / 2)) / 2)."),
        Mistake("softmax over the points", lambda a, b: torch.softmax(a - b, 0),
                "The softmax runs over the N points. Each point has two classes, target and generated: stack both and "
                "take the softmax over these, or the sigmoid of the difference."),
    ),
)  # fmt: skip


def logits(g: torch.Generator) -> list[Case]:
    def case(label: str, n: int, m: int, scale: float) -> Case:
        on_target, on_generated = (scale * torch.randn(k, generator=g, dtype=F64) for k in (n, m))
        return Case(label, {"on_target": on_target + 1, "on_generated": on_generated - 0.5})

    return [case("moderate logits", 6, 4, 1.0), case("5 against 12", 5, 12, 2.0), case("logits of 1000", 7, 5, 1000.0)]


def _bound(a: Tensor, b: Tensor, half: float = 0.5, shift: float = LOG2) -> Tensor:
    """half * V(D) + shift."""
    return half * (F.logsigmoid(a).mean() + F.logsigmoid(-b).mean()) + shift


JSD_BOUND = Problem(
    "jsd_bound", 5, _bound, logits, outputs=("bound ()",), differentiate=("on_target", "on_generated"),
    mistakes=(
        Mistake("D and 1 - D swapped", lambda a, b: _bound(-a, -b),
                "Target samples were scored with log(1 - D) and generated ones with log D. log D belongs to samples "
                "of p."),
        Mistake("log 2 dropped", lambda a, b: _bound(a, b, shift=0.0),
                "This is V(D)/2, never positive. A discriminator that knows nothing (D = 1/2) must give 0: add log 2."),
        Mistake("log 4 for log 2", lambda a, b: _bound(a, b, shift=2 * LOG2),
                "V(D*) = 2 JSD - log 4: halved, the constant is log 2, not log 4."),
        Mistake("missing factor 1/2", lambda a, b: _bound(a, b, half=1.0, shift=2 * LOG2),
                "This is V(D) + log 4, which bounds 2 JSD. Halve it."),
        Mistake("missing factor 1/2 before V", lambda a, b: _bound(a, b, half=1.0),
                "V(D) itself must be halved before log 2 is added: V(D)/2 + log 2."),
        Mistake("missing minus sign", lambda a, b: -_bound(a, b),
                "A cross-entropy is minus V(D): the discriminator's loss falls where the bound rises."),
        Mistake("sum instead of mean", lambda a, b: (F.logsigmoid(a).sum() + F.logsigmoid(-b).sum()) / 2 + LOG2,
                "Expectations are means over the samples; a sum grows with their number."),
        Mistake("one mean over both batches",
                lambda a, b: torch.cat([F.logsigmoid(a), F.logsigmoid(-b)]).mean() + LOG2,
                "Averaged over both batches together, the larger batch counts more. E_p and E_q are two means."),
        Mistake("log base 2 instead of nats", lambda a, b: _bound(a, b) / LOG2,
                "The answer is in bits. Every divergence here is in nats: use the natural logarithm."),
        Mistake("log of a rounded sigmoid",
                lambda a, b: (a.sigmoid().log().mean() + (1 - b.sigmoid()).log().mean()) / 2 + LOG2,
                "Right for moderate logits. sigmoid(-1000) rounds to 0 and its logarithm is -inf: `F.logsigmoid` does "
                "both in one, and log(1 - D) is logsigmoid(-logit)."),
        Mistake("E_q[log D] for E_q[log(1 - D)]",
                lambda a, b: (F.logsigmoid(a).mean() + F.logsigmoid(b).mean()) / 2 + LOG2,
                "log D was taken on the generated samples too. There it is log(1 - D) = logsigmoid(-logit)."),
        Mistake("E_p[log(1 - D)] for E_p[log D]",
                lambda a, b: (F.logsigmoid(-a).mean() + F.logsigmoid(-b).mean()) / 2 + LOG2,
                "log(1 - D) was taken on the target's samples too. There it is log D = logsigmoid(logit)."),
        Mistake("minus in front of E_q",
                lambda a, b: (F.logsigmoid(a).mean() - F.logsigmoid(-b).mean()) / 2 + LOG2,
                "Both expectations are added: V(D) = E_p[log D] + E_q[log(1 - D)]."),
        Mistake("logarithm dropped", lambda a, b: (a.sigmoid().mean() + (1 - b.sigmoid()).mean()) / 2 + LOG2,
                "This averages D and 1 - D themselves. V(D) holds their logarithms."),
        Mistake("log base 10 instead of nats", lambda a, b: _bound(a, b) / LOG10,
                "`torch.log10` was used. Every divergence here is in nats: use the natural logarithm."),
        Mistake("log 2 subtracted", lambda a, b: _bound(a, b, shift=-LOG2),
                "V(D)/2 is at least -log 2 for the best D: log 2 is added, so that the bound begins at 0."),
    ),
)  # fmt: skip
