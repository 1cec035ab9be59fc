"""A student half way: what docs/coursework.md shows is the checker's answer to this file."""

import torch


def kl(p, q):
    return (p * (p / q).log()).sum(-1)


def jensen_shannon(p, q):
    m = (p + q) / 2
    return (torch.xlogy(p, p) - torch.xlogy(p, m) + torch.xlogy(q, q) - torch.xlogy(q, m)).sum(-1)


def weight(f, log_ratio):
    raise NotImplementedError


def discriminator(log_p, log_q):
    return torch.sigmoid(log_p - log_q)


def jsd_bound(on_target, on_generated):
    v = torch.log(torch.sigmoid(on_target)) + torch.log(1 - torch.sigmoid(on_generated))
    return v.mean() / 2 + torch.log(torch.tensor(2.0))


def fit_mean(divergence, target, mean, std, z, rate, steps):
    raise NotImplementedError
