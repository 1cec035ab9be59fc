"""Problem set 2, answered otherwise: every function must pass too."""

import math

import torch
import torch.nn.functional as F

from jsdsd.objectives import Ensemble


def add_noise(x0, eps, alphas_cumprod, t):
    """Row by row."""
    rows = []
    for x, e, level in zip(x0, eps, t.tolist(), strict=True):
        alpha = math.sqrt(alphas_cumprod[level])
        rows.append(alpha * x + math.sqrt(1 - alpha**2) * e)
    return torch.stack(rows)


def guided_x0(x_t, eps_0, eps_y, guidance_scale, alpha, sigma):
    """Through the score: x0_hat = (x_t + sigma² score) / alpha."""
    score = -torch.lerp(eps_0, eps_y, guidance_scale) / sigma
    return (x_t + sigma**2 * score) / alpha


def mixture_eps(x_t, t, means, std, weights, schedule):
    """The score of torch's mixture, by autograd."""
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    spread = torch.sqrt((alpha * std) ** 2 + sigma**2)
    parts = torch.distributions.Normal(alpha * means, spread[:, None].expand_as(means))
    p_t = torch.distributions.MixtureSameFamily(
        torch.distributions.Categorical(weights), torch.distributions.Independent(parts, 1)
    )
    x = x_t.clone().requires_grad_()
    return -sigma * torch.autograd.grad(p_t.log_prob(x).sum(), x)[0]


def sds_loss(x0, eps, t, denoiser):
    """Half the squared distance to a target that is held fixed."""
    x_t = denoiser.schedule.add_noise(x0.detach(), eps, t)
    target = x0.detach() - (denoiser.predict_eps(x_t, t) - eps)
    return F.mse_loss(x0, target, reduction="sum") / (2 * x0.shape[0])


def jsd_gradient(denoiser, x0, x_t, eps, t, minority_weight):
    """In eps-units: (1 + k)(eps_hat - eps_inv) + k (eps_hat' - eps)."""
    schedule, k = denoiser.schedule, minority_weight
    eps_hat = denoiser.predict_eps(x_t, t)
    x_t2 = schedule.add_noise(schedule.x0_from_eps(x_t, eps_hat, t), eps, t)
    return (1 + k) * (eps_hat - schedule.eps_from_x0(x_t, x0, t)) + k * (denoiser.predict_eps(x_t2, t) - eps)


def ensemble_gradient(divergence, target, x0, eps, t):
    """With the mixture of the particles written out."""
    alpha, sigma = target.schedule.alpha(t), target.schedule.sigma(t)
    x_t = alpha * x0 + sigma * eps
    log_kernel = -(torch.cdist(x_t, alpha * x0) ** 2) / (2 * sigma**2)  # (N, N)
    normal = x0.shape[1] / 2 * math.log(2 * math.pi * sigma**2)
    log_q = torch.logsumexp(log_kernel, 1) - normal - math.log(len(x0))
    eps_q = (x_t - alpha * torch.softmax(log_kernel, 1) @ x0) / sigma
    w = divergence.weight(target.log_prob(x_t, t) - log_q)
    return (w * (target.predict_eps(x_t, t) - eps_q).T).T


def distill_particles(divergence, target, x0, noises, times, rate):
    """With the library's own objective, one step and the rest by recursion."""
    if not times:
        return x0
    grad = Ensemble(divergence).gradient(target, x0, times[0], noise=noises[0]).grad
    return distill_particles(divergence, target, x0 - rate * grad, noises[1:], times[1:], rate)
