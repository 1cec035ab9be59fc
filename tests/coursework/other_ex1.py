"""Problem set 1, answered otherwise: every function must pass too."""

import math

import torch
import torch.nn.functional as F


def kl(p, q):
    return F.kl_div(q.log(), p, reduction="none").sum(dim=1)


def jensen_shannon(p, q):
    """Entropy of the mixture minus the mean of the entropies."""
    p_and_q = torch.stack([p, q])
    return torch.special.entr(p_and_q.mean(0)).sum(-1) - torch.special.entr(p_and_q).sum(-1).mean(0)


def weight(f, log_ratio):
    r = torch.exp(log_ratio)
    second = torch.func.vmap(torch.func.grad(torch.func.grad(f)))
    return second(r) * r * r


def discriminator(log_p, log_q):
    return torch.softmax(torch.stack([log_p, log_q], dim=1), dim=1)[:, 0]


def jsd_bound(on_target, on_generated):
    """The discriminator's cross-entropy, turned round."""
    real = F.binary_cross_entropy_with_logits(on_target, torch.ones_like(on_target))
    fake = F.binary_cross_entropy_with_logits(on_generated, torch.zeros_like(on_generated))
    return math.log(2) - (real + fake) / 2


def fit_mean(divergence, target, mean, std, z, rate, steps):
    """With log q and its score from torch, sample by sample."""
    path = torch.zeros(steps + 1, 2, dtype=mean.dtype)
    path[0] = mean
    for step in range(steps):
        q = torch.distributions.Normal(path[step].clone(), std)
        x = (path[step] + std * z).requires_grad_()
        log_q = q.log_prob(x).sum(1)
        (s_q,) = torch.autograd.grad(log_q.sum(), x)
        w = divergence.weight((target.log_prob(x) - log_q).detach())
        path[step + 1] = path[step] + rate * torch.einsum("n,nd->d", w, target.score(x.detach()) - s_q) / len(z)
    return path
