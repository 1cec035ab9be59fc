# %% [markdown]
# # 2. Score distillation in 2D
#
# In tutorial 1 a denoiser made samples out of noise. Score distillation asks it for less: not for a sample, only for a
# direction in which something we already have should change. That something may be a 3D scene, seen through a renderer.
# Here it is a set of points, so that we can see where they go.
#
# ## What you will learn
#
# - score distillation sampling (SDS) from scratch, in a dozen lines, equal to the library's to the last digit;
# - that its mean is the gradient of a reverse KL divergence, and what subtracting `eps` is good for;
# - that SDS *seeks modes*: points that know nothing of each other all choose, and all choose alike;
# - why it shrinks what it finds to a point, and why symmetric test problems hide all this.

# %%
import os

import matplotlib.pyplot as plt
import torch

import jsdsd
from jsdsd.objectives import Anneal
from jsdsd.sandbox import (
    GaussianMixture,
    fit_particles,
    mode_divergence,
    mode_histogram,
    off_centre,
    plot_density,
    plot_particles,
    ring,
    spread_ratio,
    unbalanced,
)

FAST = os.environ.get("JSDSD_FAST") == "1"  # fewer steps and points: a check in seconds
SEED = 0  # of the start and of all noise
PARTICLES = 64 if FAST else 256  # points, each for itself
STEPS = 1000 if FAST else 1500  # optimiser steps; with much fewer the points cannot follow the falling noise
RATE = 75 / STEPS  # Adam's first learning rate, units of the plane per step; falls linearly to 0
T_START, T_END = 0.98, 0.02  # noise levels, fractions of the schedule: from layout to detail
DRAWS = 4_000 if FAST else 40_000  # for expectations

# %% [markdown]
# ## SDS in a dozen lines
#
# Noise the point, ask the denoiser which noise it sees, subtract the noise that is really there (DreamFusion, arXiv
# 2209.14988, Eq. 3; not re-read):
#
#     x_t = alpha x0 + sigma eps
#     grad = eps_hat(x_t) - eps
#
# Then let an optimiser step against `grad`. There is no loss: `grad` is handed to the point directly.
#
# **Claim.** The function below is the library's `SDS`: with the same noise, the same gradient to the last bit.

# %%
target = off_centre()  # four equal modes; one of them is almost where the points start
schedule = target.schedule


def sds(x0, t, eps):  # x0, eps (N, 2)
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    x_t = alpha * x0 + sigma * eps
    return target.predict_eps(x_t, t) - eps


def run_from_scratch():
    generator = torch.Generator().manual_seed(SEED)
    x = (0.5 * torch.randn(PARTICLES, 2, generator=generator)).requires_grad_()
    adam = torch.optim.Adam([x], RATE)
    path = [x.detach().clone()]
    for step in range(STEPS):
        fraction = T_START + (T_END - T_START) * step / (STEPS - 1)
        t = round(999 * fraction)
        x.grad = sds(x.detach(), t, torch.randn(x.shape, generator=generator))
        adam.step()
        adam.param_groups[0]["lr"] = RATE * (1 - (step + 1) / STEPS)
        path.append(x.detach().clone())
    return torch.stack(path)  # (STEPS + 1, N, 2)


start = 0.5 * torch.randn(PARTICLES, 2, generator=torch.Generator().manual_seed(SEED))
eps = torch.randn(PARTICLES, 2, generator=torch.Generator().manual_seed(SEED + 1))
ours, theirs = sds(start, 500, eps), jsdsd.SDS().gradient(target, start, 500, noise=eps).grad
assert torch.equal(ours, theirs)

fig, ax = plt.subplots(figsize=(4, 4))
plot_density(ax, target)
ax.quiver(*start.T, *(-ours.T), color="crimson", angles="xy", width=0.004)
ax.set_title("one SDS step at t = 500: noisy arrows")

# %% [markdown]
# ## The whole run, and the library's
#
# **Claim.** The loop of a dozen lines above ends where `fit_particles` ends, point by point.

# %%
path = run_from_scratch()
ours = path[-1]  # (N, 2)
theirs = fit_particles(target, jsdsd.SDS(), PARTICLES, STEPS, SEED, lr=RATE, times=Anneal())
gap = (ours - theirs).abs().max()
print(f"largest difference between the two runs: {gap:.1e}")
assert gap < 1e-3

fig, ax = plt.subplots(figsize=(4, 4))
plot_density(ax, target)
for i in range(min(PARTICLES, 64)):
    ax.plot(*path[:, i].T, color="crimson", linewidth=0.5, alpha=0.4)
ax.scatter(*ours.T, s=8, color="black", zorder=3)
ax.set_title("paths of SDS, and their ends")

# %% [markdown]
# ### Exercise 1
#
# Leave `- eps` away: use `grad = eps_hat` alone. What changes in the paths, what in where they end?
#
# *Hint.* The mean of `eps` is zero, so the mean gradient is the same. Look at the next section before you wonder.

# %%
# your turn

# %% [markdown]
# ## What SDS descends
#
# A lone point at x0, noised, has the density q_t = N(alpha x0, sigma² I). The reverse KL divergence from the target is
#
#     KL(q_t ‖ p_t) = E_eps[ log q_t(x_t) - log p_t(x_t) ]
#
# Moving x0 does not change the entropy of q_t, so only the second term has a gradient:
#
#     grad KL = -alpha E[ score_p(x_t) ]
#             = (alpha / sigma) E[ eps_hat(x_t) ]
#
# The weight alpha/sigma is dropped. The mean of `eps` is zero, so `- eps` changes nothing in the mean. It is there
# for the noise: near a mode eps_hat follows eps closely, and the difference is small. Between modes it does not help:
# there eps_hat hardly depends on eps, and the subtraction *adds* noise. Papers rarely say so.
#
# **Claim.** The mean SDS gradient is sigma/alpha times the autograd gradient of that KL. At a mode `- eps` more than
# halves the standard deviation of one draw; somewhere between the modes it raises it.

# %%
t = 250
alpha, sigma = schedule.alpha(t), schedule.sigma(t)
eps = torch.randn(DRAWS, 2, generator=torch.Generator().manual_seed(SEED))
line = torch.linspace(-3, 3, 13)  # x0 = (c, 0) for these c; the mode is at c = 0.5
exact, mean, with_eps, without = [], [], [], []
for c in line.tolist():
    x0 = torch.tensor([[c, 0.0]], requires_grad=True)
    kl = -target.log_prob(alpha * x0 + sigma * eps, t).mean()  # + a constant
    exact.append(sigma / alpha * torch.autograd.grad(kl, x0)[0][0, 0])
    draws = sds(x0.detach().expand(DRAWS, 2), t, eps)[:, 0]
    mean.append(draws.mean())
    with_eps.append(draws.std())
    without.append((draws + eps[:, 0]).std())  # eps_hat alone
exact, mean, with_eps, without = map(torch.stack, (exact, mean, with_eps, without))
print(f"largest gap of the means: {(exact - mean).abs().max():.3f}")
print(f"standard deviation of one draw at the mode: {with_eps[7]:.2f} with - eps, {without[7]:.2f} without")
assert (exact - mean).abs().max() < 5 / DRAWS**0.5  # five standard errors of the mean of eps
assert with_eps[7] < without[7] / 2 and (with_eps > without).any()

fig, (left, right) = plt.subplots(1, 2, figsize=(9, 3))
left.plot(line, exact, color="black", label="(sigma/alpha) grad KL, by autograd")
left.plot(line, mean, "o", color="crimson", label="mean of eps_hat - eps")
left.set(xlabel="first coordinate of x0", ylabel="gradient")
left.legend(fontsize=7)
right.plot(line, with_eps, color="crimson", label="eps_hat - eps")
right.plot(line, without, color="gray", label="eps_hat alone")
right.set(xlabel="first coordinate of x0", ylabel="std of one draw")
right.legend(fontsize=7)

# %% [markdown]
# ## Mode seeking, seen
#
# Reverse KL is an expectation over the *generated* points: a mode of the target that no point visits does not enter it.
# Nothing pulls a point there.
#
# **Claim.** On four equal modes SDS puts nearly all points (over 90 %) into the one next to the start, and shrinks
# them to its peak: their spread is under 40 % of the mode's own.

# %%
shares = mode_histogram(ours, target)  # (4,)
print("share of points in each mode:", [round(s, 3) for s in shares.tolist()], "- the truth: 0.25 each")
print(f"spread inside the mode, 1 = the target's: {spread_ratio(ours, target):.2f}")
assert shares.max() > 0.9
assert spread_ratio(ours, target) < 0.4

fig, ax = plt.subplots(figsize=(4, 4))
plot_particles(ax, target, ours, f"SDS: {mode_divergence(ours, target):.3f} nats from the truth")

# %% [markdown]
# ## Why they shrink
#
# A lone point is not asked to be a sample. It is asked to sit where log p_t is highest on average, and every point is
# asked the same. So even a target with a single mode is not matched: all points move to its middle.
#
# **Claim.** With N(0, I) as the target, SDS leaves less than half of the spread that samples have.

# %%
single = GaussianMixture(torch.zeros(1, 2), 1.0)
collapsed = fit_particles(single, jsdsd.SDS(), PARTICLES, STEPS, SEED, lr=RATE, times=Anneal())
print(f"spread {spread_ratio(collapsed, single):.2f} (samples: 1)")
assert spread_ratio(collapsed, single) < 0.5

fig, ax = plt.subplots(figsize=(4, 4))
plot_particles(ax, single, collapsed, "SDS on one Gaussian")

# %% [markdown]
# ### Exercise 2
#
# In 3D this is the over-smooth, over-saturated look of SDS. Which knob of this file makes the spread larger, and is
# that the target's spread, or just noise that was not averaged out?
#
# *Hint.* End the annealing earlier (`T_END`) or keep the learning rate up. Then compare two seeds.

# %%
# your turn

# %% [markdown]
# ## A symmetric target hides it
#
# The usual demonstration is a ring of modes with the start in the middle. There SDS looks fine: by symmetry, each
# mode has its own share of the starting points.
#
# **Claim.** On the ring SDS finds all eight modes, in nearly equal shares. On four modes with weights .7 .1 .1 .1, at
# equal distances from the start, it gets the shares wrong.

# %%
on_ring = fit_particles(ring(), jsdsd.SDS(), PARTICLES, STEPS, SEED, lr=RATE, times=Anneal())
on_unbalanced = fit_particles(unbalanced(), jsdsd.SDS(), PARTICLES, STEPS, SEED, lr=RATE, times=Anneal())
print("ring:", [round(s, 2) for s in mode_histogram(on_ring, ring()).tolist()])
print("unbalanced:", [round(s, 2) for s in mode_histogram(on_unbalanced, unbalanced()).tolist()])
assert mode_histogram(on_ring, ring()).min() > 0.01
assert mode_divergence(on_ring, ring()) < 0.05 < mode_divergence(on_unbalanced, unbalanced())

fig, axes = plt.subplots(1, 2, figsize=(8, 4))
plot_particles(axes[0], ring(), on_ring, f"ring: {mode_divergence(on_ring, ring()):.3f} nats")
error = mode_divergence(on_unbalanced, unbalanced())
plot_particles(axes[1], unbalanced(), on_unbalanced, f"unbalanced: {error:.3f} nats")

# %% [markdown]
# ### Exercise 3
#
# Move the ring by (1, 0). How many modes are left?
#
# *Hint.* `GaussianMixture(ring().means + torch.tensor([1.0, 0.0]), 0.2)`.

# %%
# your turn

# %% [markdown]
# ## What was left out
#
# - **The renderer.** In 3D the points are latents of renders of *one* scene from several sides, and the gradient
#   flows on through VAE and renderer. The gradient on x0 stays this one (tutorial 7).
# - **Time weights.** Papers weight noise levels differently. Here every level counts in eps-units, and Adam rescales.
# - **Guidance.** With SDXL, SDS needs guidance scales of 7.5 to 100, which makes modes even sharper.
# - **Remedies.** VSD, CSD, ISM and others change `eps`. SDI, used by the library, replaces it by inverted noise;
#   tutorials 4 and 5 weight the difference and let the points know of each other.
#
# Next: [3. f-divergences](03_f_divergences.py).
