# %% [markdown]
# # Problem set 1: divergences
#
# Six functions, 30 points. Fill the blanks (`raise NotImplementedError`), then, in a shell:
#
#     python tutorials/grade.py tutorials/exercises/ex1.py
#
# It says per problem what is right, what is wrong, and why; run it as often as you like. Shapes stand in brackets, all
# values are in nats (natural logarithm), names are those of docs/notation.md: p is the target, q the generated
# distribution, and log_ratio = log r = log p/q. Do not use jsdsd's own divergences here: they are what you build.

# %%
import math

import torch
import torch.nn.functional as F


# %% Problem 1 (3 points)
def kl(p, q):
    """KL(p‖q) = sum_k p_k log(p_k / q_k), in nats.

    p, q: (B, K), each row a distribution; q > 0, but p may hold zeros (0 log 0 = 0). Returns (B,), one value a row.
    """
    return (torch.xlogy(p, p) - torch.xlogy(p, q)).sum(-1)


# %% Problem 2 (4 points)
def jensen_shannon(p, q):
    """JS(p, q) = ½ KL(p‖m) + ½ KL(q‖m), m = (p + q) / 2, in nats.

    p, q: (B, K), each row a distribution; both may hold zeros, in the same place too. Returns (B,), in 0 ... log 2.
    """
    m = (p + q) / 2

    def to_m(x):
        """KL(x‖m) (B,)"""
        return (torch.xlogy(x, x) - torch.xlogy(x, m)).sum(-1)

    return (to_m(p) + to_m(q)) / 2


# %% Problem 3 (5 points)
def weight(f, log_ratio):
    """w_f(r) = r² f''(r) at r = exp(log_ratio): what the divergence of f puts on a gradient.

    f: a function of the ratio r, any shape, entry by entry. log_ratio: (N,), nats. Returns (N,), without a gradient.
    Hint: torch.autograd.grad with create_graph=True, twice. Reverse KL, f(r) = -log r, has weight 1 everywhere.
    """
    r = log_ratio.exp().requires_grad_()
    (first,) = torch.autograd.grad(f(r).sum(), r, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), r)
    return (r**2 * second).detach()


# %% Problem 4 (4 points)
def discriminator(log_p, log_q):
    """D = p / (p + q): the probability that a point, from p or q with even odds, is the target's.

    log_p, log_q: (N,), log densities in nats, of any size (-2000 is ordinary for a picture). Returns (N,), in 0 ... 1.
    """
    return torch.sigmoid(log_p - log_q)


# %% Problem 5 (5 points)
def jsd_bound(on_target, on_generated):
    """V(D)/2 + log 2 <= JSD, with V(D) = E_p[log D] + E_q[log(1 - D)], in nats.

    on_target: (N,) logits of D at samples of p; on_generated: (M,) logits at samples of q; D = sigmoid(logit), and
    logits may be as large as 1000. Returns (), differentiable in both (a discriminator is trained by raising it).
    """
    v = F.logsigmoid(on_target).mean() + F.logsigmoid(-on_generated).mean()
    return v / 2 + math.log(2)


# %% Problem 6 (9 points)
def fit_mean(divergence, target, mean, std, z, rate, steps):
    """Gradient descent on the mean of q = N(mean, std² I) towards a target p, under any f-divergence.

    Each step: x = mean + std z, grad = average over the samples of w_f(r) (s_q - s_p) at x, and one step of length
    `rate` against it. log r = log p(x) - log q(x); s_p, s_q: the scores, grad_x log p and grad_x log q.

    divergence: has .weight(log_ratio) -> (N,). target: has .log_prob(x) -> (N,) and .score(x) -> (N, 2).
    mean: (2,). std: a number. z: (N, 2) standard normal, the same in every step. Returns the means on the way,
    (steps + 1, 2), the given one first.
    """
    path = [mean]
    for _ in range(steps):
        x = path[-1] + std * z  # (N, 2)
        log_q = -(z**2).sum(1) / 2 - math.log(2 * math.pi * std**2)  # in 2D
        w = divergence.weight(target.log_prob(x) - log_q)  # (N,)
        s_q = -z / std
        grad = (w[:, None] * (s_q - target.score(x))).mean(0)  # (2,)
        path.append(path[-1] - rate * grad)
    return torch.stack(path)


# %% Questions (in words, for your teacher)
# a. Move p and q apart until they hardly overlap. What do KL(p‖q), KL(q‖p) and JS(p, q) do, and what do their weights?
#
#    Both KLs grow without end (d²/2 for unit Gaussians at distance d). JS saturates at log 2. At q's samples log r goes
#    to minus infinity: the weight of reverse KL stays 1, those of JS (½ r/(1+r)) and of forward KL (r) go to 0, so that
#    both have almost no gradient left there, although forward KL's value is large.
#
# b. In Problem 6, which of ReverseKL(), JensenShannon() and ForwardKL() ends on one mode of two, and why?
#
#    Reverse KL first, as the modes move apart: its weight does not see target mass where q has none. Jensen-Shannon
#    lies between the two, and it too gives a mode up when they are far enough apart. Forward KL stays in the middle.
