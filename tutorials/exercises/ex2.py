# %% [markdown]
# # Problem set 2: distillation in 2D
#
# Seven functions, 30 points. Fill the blanks (`raise NotImplementedError`), then, in a shell:
#
#     python tutorials/grade.py tutorials/exercises/ex2.py
#
# It says per problem what is right, what is wrong, and why. Shapes stand in brackets; B points of any shape are a batch
# (B, ...). x_t = alpha x0 + sigma eps, alpha² + sigma² = 1, t an integer from 0 (almost clean) to 999 (almost noise).
# A `schedule` has .alpha(t) and .sigma(t), numbers for an integer t, .add_noise(x0, eps, t) and
# .x0_from_eps(x_t, eps, t). Do not use jsdsd's own objectives here: they are what you build.

# %%
import torch

from jsdsd.objectives import particle_mixture  # noqa: F401


# %% Problem 1 (3 points)
def add_noise(x0, eps, alphas_cumprod, t):
    """x_t = alpha x0 + sigma eps, with alpha = sqrt(alphas_cumprod[t]) and alpha² + sigma² = 1.

    x0, eps: (B, ...), any number of axes. alphas_cumprod: (T,). t: (B,) integers, one level per row. Returns (B, ...).
    """
    raise NotImplementedError


# %% Problem 2 (3 points)
def guided_x0(x_t, eps_0, eps_y, guidance_scale, alpha, sigma):
    """x0_hat = (x_t - sigma eps_hat) / alpha, with the guided prediction eps_hat = eps_0 + s (eps_y - eps_0).

    x_t, eps_0 (without prompt), eps_y (with prompt): (B, ...). guidance_scale s: a number, 1 = no guidance.
    alpha, sigma: numbers. Returns (B, ...).
    """
    raise NotImplementedError


# %% Problem 3 (5 points)
def mixture_eps(x_t, t, means, std, weights, schedule):
    """The exact denoiser of a mixture of Gaussians p = sum_k weights_k N(means_k, std_k² I): eps_hat = -sigma score.

    Noised, it is p_t = sum_k weights_k N(alpha means_k, (alpha² std_k² + sigma²) I); its score is
    grad log p_t(x) = sum_k P(k | x) (alpha means_k - x) / (alpha² std_k² + sigma²), P(k | x) the posterior probability.

    x_t: (B, d), perhaps so far away that every density underflows. t: an integer. means: (K, d). std, weights: (K,),
    weights sum to 1. Returns (B, d).
    """
    raise NotImplementedError


# %% Problem 4 (5 points)
def sds_loss(x0, eps, t, denoiser):
    """A scalar whose gradient with respect to x0 is that of SDS, (eps_hat - eps) / B: the mean over the batch.

    Its value does not matter. The gradient does not flow through the denoiser, and the time weight is 1.

    x0: (B, d), requires grad. eps: (B, d). t: an integer. denoiser: has .schedule and .predict_eps(x_t, t) -> (B, d).
    Returns ().
    """
    raise NotImplementedError


# %% Problem 5 (5 points)
def jsd_gradient(denoiser, x0, x_t, eps, t, minority_weight):
    """The gradient of the practical JSD recipe: (alpha/sigma) [(x0 - x1) + k (x0 - x2)], two targets instead of one.

    x1 = x0_hat(x_t), the clean point that x_t points at; x2 = x0_hat(alpha x1 + sigma eps), the re-noised target.
    Source: official code of arXiv 2503.10660. There x_t is a DDIM inversion of x0; here it is given.

    denoiser: as in Problem 4. x0, x_t, eps: (B, d). t: an integer. minority_weight k: a number >= 0. Returns (B, d).
    """
    raise NotImplementedError


# %% Problem 6 (6 points)
def ensemble_gradient(divergence, target, x0, eps, t):
    """w_f(r) (eps_hat - eps_q) at x_t: score distillation of N particles that know of each other.

    q_t is the mixture of the noised particles, 1/N sum_i N(alpha x0_i, sigma² I), and eps_q = -sigma grad log q_t;
    r = p_t / q_t. `particle_mixture(schedule, x0, x_t, t)` returns log q_t (N,) and eps_q (N, d); points for style if
    you write it yourself.

    divergence: has .weight(log_ratio) -> (N,). target: as the denoiser in Problem 4, and .log_prob(x_t, t) -> (N,).
    x0: (N, d), particle i. eps: (N, d), its noise. t: an integer. Returns (N, d).
    """
    raise NotImplementedError


# %% Problem 7 (3 points)
def distill_particles(divergence, target, x0, noises, times, rate):
    """The run: plain gradient descent on the particles with Problem 6, x <- x - rate * gradient, once per noise level.

    x0: (N, d), the start. noises: (S, N, d), the noise of each step. times: S integers, the level of each step.
    Returns (N, d), the particles at the end.
    """
    raise NotImplementedError


# %% See it, once Problems 6 and 7 are done: run this file, `python ex2.py`
def see(divergence, particles=128, steps=400, rate=0.4, seed=0):
    """Your particles on four equal modes, one of them where they start: their share of each, and the divergence."""
    from jsdsd.sandbox import mode_divergence, mode_histogram, off_centre

    generator = torch.Generator().manual_seed(seed)
    x0 = 0.5 * torch.randn(particles, 2, generator=generator)
    noises = torch.randn(steps, particles, 2, generator=generator)
    times = torch.linspace(979, 20, steps).long().tolist()
    x = distill_particles(divergence, off_centre(), x0, noises, times, rate)
    share = ", ".join(f"{h:.2f}" for h in mode_histogram(x, off_centre()).tolist())
    return f"{divergence}: share of the modes {share}; divergence {mode_divergence(x, off_centre()):.4f} nats"


if __name__ == "__main__":
    from jsdsd import ForwardKL, JensenShannon, ReverseKL

    for divergence in (ReverseKL(), JensenShannon(), ForwardKL()):
        print(see(divergence))


# %% Questions (in words, for your teacher)
# a. In Problem 4, what is computed if the gradient does flow through the denoiser, and what does it cost with SDXL?
#
# b. For a lone particle (N = 1), how do the gradients of two divergences at one x_t differ?
#
# c. Is Problem 5 the gradient of a Jensen-Shannon divergence?
