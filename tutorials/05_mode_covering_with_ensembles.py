# %% [markdown]
# # 5. Mode covering with ensembles
#
# Tutorial 2 left all points on one mode. Tutorial 3 blamed reverse KL and found divergences that cover; tutorial 4
# learned the ratio they need. Now the parts come together: points that know of each other, weighted by a divergence.
# The result is good, and the reason is not the one that is usually given. We measure which part does what.
#
# ## What you will learn
#
# - the ensemble gradient from scratch: the points' own denoiser in place of `eps`;
# - that an ensemble finds all modes where SDS finds one, and keeps their spread;
# - that this holds for reverse KL *too*, if the annealing begins at nearly pure noise, and fails for *both* if not;
# - that with noise levels at *random* the divergence does matter: Jensen-Shannon ends several times closer;
# - that a lone particle sees, at one x_t, no difference between divergences but the step length;
# - what the paper's JSD recipe computes, as an identity, and what it does and does not do here.

# %%
import os

import matplotlib.pyplot as plt
import torch

import jsdsd
from jsdsd.objectives import Anneal, ForwardKL, JensenShannon, ReverseKL, UniformTime, particle_mixture
from jsdsd.sandbox import (
    fit_particles,
    mode_divergence,
    mode_histogram,
    off_centre,
    on_mode_share,
    plot_particles,
    spread_ratio,
)

FAST = os.environ.get("JSDSD_FAST") == "1"  # fewer steps, points and sizes: a check in seconds
SEED = 0  # of every run
PARTICLES = 64 if FAST else 256  # points
STEPS = 300 if FAST else 1500  # optimiser steps
LATE_STARTS = (0.3,) if FAST else (0.3, 0.5, 0.7)  # fractions of the schedule, where annealing begins instead of 0.98
SEEDS = (0,) if FAST else (0, 1, 2)  # of the comparison of random and falling noise levels
SIZES = (1, 4, 64) if FAST else (1, 4, 16, 64, 256)  # ensemble sizes

# %% [markdown]
# ## The ensemble gradient
#
# SDS compares the target's denoiser with `eps`, the noise that is really there. For a point that believes to be alone
# this is the denoiser of its own distribution. An ensemble of N points has another one: their noised mixture
#
#     q_t(x) = 1/N sum_i N(x; alpha x0_i, sigma² I)
#
# whose exact denoiser predicts eps_q. It says: from *here*, noise more likely came from one of us over there. So
#
#     grad = w_f(p_t/q_t) · (eps_hat - eps_q)
#     w_f  = 1 for reverse KL
#
# **Claim.** Five lines give the library's `Ensemble(ReverseKL())`, and the term repels: with a target that pulls
# nowhere, the points would move apart.

# %%
target = off_centre()  # four equal modes; one of them is almost where the points start
schedule = target.schedule
generator = torch.Generator().manual_seed(SEED)
x0 = 0.5 * torch.randn(PARTICLES, 2, generator=generator)  # (N, 2)
eps = torch.randn(PARTICLES, 2, generator=generator)
t = 500
alpha, sigma = schedule.alpha(t), schedule.sigma(t)

x_t = alpha * x0 + sigma * eps
share = torch.softmax(-(torch.cdist(x_t, alpha * x0) ** 2) / (2 * sigma**2), 1)  # (N, N): which of us was it?
eps_q = (x_t - alpha * share @ x0) / sigma
ours = target.predict_eps(x_t, t) - eps_q
theirs = jsdsd.Ensemble(ReverseKL()).gradient(target, x0, t, noise=eps).grad
assert torch.allclose(ours, theirs, atol=1e-4)

outwards = ((+eps_q) * x0).sum(1).mean()  # a step against -eps_q moves along +eps_q
print(f"mean of <eps_q, x0> = {outwards:.3f}: positive, away from the centre")
assert outwards > 0

fig, ax = plt.subplots(figsize=(4, 4))
ax.quiver(*x_t.T, *eps_q.T, color="crimson", angles="xy", width=0.004)
ax.scatter(*(alpha * x0).T, s=4, color="black", zorder=3)  # the centres of the mixture
ax.set_title("+ eps_q at the noised points: away from us", fontsize=10)

# %% [markdown]
# ## All four modes
#
# **Claim.** From the same start SDS ends in one mode. Ensembles end in all four, in the right shares (below 0.005 nats)
# and with the modes' own spread (within 15 %), under reverse KL, Jensen-Shannon and forward KL alike.

# %%
objectives = {
    "SDS": jsdsd.SDS(),
    "reverse KL": jsdsd.Ensemble(ReverseKL()),
    "Jensen-Shannon": jsdsd.Ensemble(JensenShannon()),
    "forward KL": jsdsd.Ensemble(ForwardKL()),
}
falling = Anneal()  # the noise level of each step, from 0.98 of the schedule to 0.02
ends = {name: fit_particles(target, objectives[name], PARTICLES, STEPS, SEED, times=falling) for name in objectives}
nats = {name: mode_divergence(x, target) for name, x in ends.items()}
for name, x in ends.items():
    shares = [round(s, 2) for s in mode_histogram(x, target).tolist()]
    print(f"{name:15} {nats[name]:.5f} nats   shares {shares}   spread {spread_ratio(x, target):.2f}")
assert nats["SDS"] > 0.3
assert all(nats[name] < 0.005 for name in ends if name != "SDS")
assert all(abs(spread_ratio(x, target) - 1) < 0.15 for name, x in ends.items() if name != "SDS")

fig, axes = plt.subplots(1, 4, figsize=(13, 3.4))
for ax, (name, x) in zip(axes, ends.items(), strict=True):
    plot_particles(ax, target, x, f"{name}: {nats[name]:.5f} nats")

# %% [markdown]
# ## It is the noise, not the divergence
#
# We expected reverse KL to lose modes here, as it does for the one Gaussian of tutorial 3. It does not. The run
# begins at 0.98 of the schedule, where p_t is nearly one Gaussian blob. Covering a blob is easy for every divergence,
# and as the noise falls the points, who know of each other, split up with it.
#
# **Claim.** Let the annealing begin at 0.3 of the schedule and the advantage is gone: reverse KL and Jensen-Shannon
# both lose modes (more than 0.1 nats each).

# %%
late = {}
for start in (*LATE_STARTS, 0.98):
    for name in ("reverse KL", "Jensen-Shannon", "forward KL"):
        x = fit_particles(target, objectives[name], PARTICLES, STEPS, SEED, times=Anneal(start=start))
        late[start, name] = mode_divergence(x, target)
    print(f"from {start}: " + "   ".join(f"{n} {late[start, n]:.4f}" for n in list(objectives)[1:]))
assert late[0.3, "reverse KL"] > 0.1 and late[0.3, "Jensen-Shannon"] > 0.1
assert late[0.98, "reverse KL"] < 0.005

fig, ax = plt.subplots(figsize=(5, 3.2))
for name in ("reverse KL", "Jensen-Shannon", "forward KL"):
    ax.plot((*LATE_STARTS, 0.98), [late[s, name] for s in (*LATE_STARTS, 0.98)], "o-", label=name)
ax.set(xlabel="where annealing begins (fraction of the schedule)", ylabel="mode divergence (nats)")
ax.legend(fontsize=8)

# %% [markdown]
# ### Exercise 1
#
# Is there a beginning at which one divergence keeps modes that another loses? How sure can you be from one seed?
#
# *Hint.* Loop over a few starts between 0.3 and 0.98 and over seeds 0, 1, 2; look at the ranges, not at the best.

# %%
# your turn

# %% [markdown]
# ## Random noise levels: here the divergence counts
#
# DreamFusion draws `t` anew in each step. Then there is no blob to begin with: each step mixes layout with detail, and
# mass has to cross between modes against the pull of each of them. Reverse KL has the weight 1 everywhere and does not
# see where mass is missing. Jensen-Shannon's weight, ½ D, is largest just there, and nearly 0 where there is too much.
#
# **Claim.** With `t` at random reverse KL stays farther than 0.1 nats from the right shares, and Jensen-Shannon ends at
# least five times closer (about ten; [docs/sandbox.md](../docs/sandbox.md) has more targets and seeds). Annealed, both
# are below 0.005 nats.

# %%
by_times = {}  # nats of one run each
for times in (UniformTime(), Anneal()):
    for name in ("reverse KL", "Jensen-Shannon"):
        fits = {s: fit_particles(target, objectives[name], PARTICLES, STEPS, s, times=times) for s in SEEDS}
        by_times[type(times), name] = [mode_divergence(x, target) for x in fits.values()]
        print(f"{type(times).__name__:12} {name:15}" + "".join(f" {n:.5f}" for n in by_times[type(times), name]))
at_random, js_at_random = by_times[UniformTime, "reverse KL"], by_times[UniformTime, "Jensen-Shannon"]
assert all(kl > 0.1 and kl > 5 * js for kl, js in zip(at_random, js_at_random, strict=True))
assert all(n < 0.005 for name in ("reverse KL", "Jensen-Shannon") for n in by_times[Anneal, name])

fig, ax = plt.subplots(figsize=(5, 3.2))
for name, marker, colour in (("reverse KL", "o", "tab:blue"), ("Jensen-Shannon", "x", "tab:orange")):
    for place, times in enumerate((UniformTime, Anneal)):
        nats_of_seeds = [max(n, 1e-6) for n in by_times[times, name]]  # exactly 0 has no logarithm
        ax.semilogy([place] * len(SEEDS), nats_of_seeds, marker, color=colour, label=name if place == 0 else None)
ax.set(xlim=(-0.5, 1.5), ylabel="mode divergence (nats)")
ax.set_xticks([0, 1], ["t at random", "t falling"])
ax.legend(fontsize=8)

# %% [markdown]
# ## A lone particle sees only a step length, at one x_t
#
# With N = 1 the mixture is one Gaussian, eps_q is eps again, and each divergence multiplies the SDS gradient by a
# positive number. That number is another one at every x_t, so the *mean* over x_t, the gradient, has a direction of its
# own (Theory, section 10).
#
# **Claim.** For one particle and one noise all divergences have SDS's direction exactly (cosine 1), and they differ
# only in length.

# %%
lone, noise = torch.tensor([[1.0, 1.0]]), torch.tensor([[0.3, -0.8]])
reference = jsdsd.SDS().gradient(target, lone, t, noise=noise).grad[0]
lengths = {}
for name, objective in objectives.items():
    grad = objective.gradient(target, lone, t, noise=noise).grad[0]
    lengths[name] = float(grad.norm() / reference.norm())
    cosine = float(torch.cosine_similarity(grad, reference, 0))
    print(f"{name:15} cosine {cosine:.6f}   length {lengths[name]:.3f} of SDS")
    assert cosine > 0.9999
assert abs(lengths["reverse KL"] - 1) < 1e-3 and lengths["Jensen-Shannon"] < 0.5

fig, ax = plt.subplots(figsize=(5, 2.6))
ax.barh(list(lengths), list(lengths.values()), color="crimson")
ax.set(xlabel="length of the gradient, SDS = 1", title="one particle: same direction")

# %% [markdown]
# ## How many does it take?
#
# **Claim.** One particle can hold one mode only. Four find more than one, and from 64 on the shares are right.

# %%
by_size = {}
for n in SIZES:
    x = fit_particles(target, objectives["Jensen-Shannon"], n, STEPS, SEED, times=Anneal())
    by_size[n] = mode_divergence(x, target)
    print(
        f"{n:4} particles: {by_size[n]:.4f} nats   shares {[round(s, 2) for s in mode_histogram(x, target).tolist()]}"
    )
assert by_size[1] > 0.3 > by_size[4] and by_size[64] < 0.005

fig, ax = plt.subplots(figsize=(5, 3))
ax.semilogx(list(by_size), list(by_size.values()), "o-", color="crimson")
ax.set(xlabel="particles", ylabel="mode divergence (nats)")

# %% [markdown]
# ### Exercise 2
#
# Give the four particles three seeds. Do they always share the four modes out?
#
# *Hint.* `fit_particles(target, objective, 4, STEPS, seed, times=Anneal())`; print the shares.

# %%
# your turn

# %% [markdown]
# ## The paper's recipe, as it is
#
# The 3D recipe of arXiv 2503.10660 (official code read, text not re-read) has no ensemble, and its discriminator stands
# at ½ (Theory, sections 6 and 7: why it has two targets). It inverts x0 to x_t, denoises to x1, noises x1 afresh and
# denoises again to x2. The gradient pulls x0 towards both:
#
#     grad = (alpha/sigma) [ (x0 - x1) + k (x0 - x2) ]
#          = (1+k) (eps_hat(x_t) - eps_inv)
#            + k (eps_hat(x_t') - eps')
#     x_t' = alpha x1 + sigma eps'
#
# that is, (1+k) times the SDI gradient at x0 plus k times the SDS gradient at x1. The second target differs from draw
# to draw, so it may push x0 off the mode it belongs to; this is the recipe's "minority" idea.
#
# **Claim.** The identity holds to rounding. And, in 2D, points that use the recipe *each for itself* do not cover: they
# end farther than 0.1 nats from the right shares, where an ensemble is below 0.005. Here they do not even end on a
# mode, but between two: inverted, such a point becomes noise that belongs to both, and x1, the mean of both, is where
# the point already is. Inversion sharpens; it does not carry across empty space as random noise does.

# %%
k = 1.0
recipe = jsdsd.JSD(minority_weight=k, inversion_eta=0.0)
step = recipe.gradient(target, x0, t, noise=eps)
x1 = step.targets[0]
at_x1 = jsdsd.SDS().gradient(target, x1, t, noise=eps).grad
sdi = jsdsd.SDI(inversion_eta=0.0).gradient(target, x0, t).grad
assert torch.allclose(step.grad, (1 + k) * sdi + k * at_x1, atol=1e-4)

x = fit_particles(target, jsdsd.JSD(), PARTICLES, STEPS, SEED, times=Anneal())
recipe_nats = mode_divergence(x, target)
shares = [round(s, 2) for s in mode_histogram(x, target).tolist()]
print(f"JSD recipe, each alone: {recipe_nats:.3f} nats, shares {shares}; SDS {nats['SDS']:.3f} nats")
print(f"share of points on a mode: recipe {on_mode_share(x, target):.2f}, SDS {on_mode_share(ends['SDS'], target):.2f}")
assert recipe_nats > 0.1
assert on_mode_share(x, target) < 0.1 and on_mode_share(ends["SDS"], target) > 0.9

fig, ax = plt.subplots(figsize=(4, 4))
plot_particles(ax, target, x, f"JSD recipe, each alone: {recipe_nats:.3f} nats")

# %% [markdown]
# ### Exercise 3
#
# Build the hybrid that nobody sells: the recipe's two targets, with the ensemble's eps_q in the SDS part. Does it
# cover?
#
# *Hint.* An objective is any object with a `gradient(denoiser, x0, t, generator)` method that returns a
# `DistillationStep`. `particle_mixture(schedule, x0, x_t, t).eps` is eps_q.

# %%
q_t = particle_mixture(schedule, x0, x_t, t)  # its .eps is the eps_q of the first section
assert torch.allclose(q_t.eps, eps_q, atol=1e-4)

# %% [markdown]
# ## What was left out
#
# - **Many seeds.** Nearly all claims above are one run each. [docs/sandbox.md](../docs/sandbox.md) has ten seeds and
#   ten random mixtures, all of them.
# - **3D.** An ensemble of N scenes costs N times the U-Net calls, and no density of SDXL is known;
#   `Ensemble(ReverseKL())` needs none, since its weight is 1. Whether it helps in 3D is not answered here.
# - **A learned ratio** in this run: tutorial 4.
# - **Repulsion by design.** Kernel repulsion (arXiv 2406.16683) and VSD (2305.16213) are other ways to let particles
#   know of each other; VSD's fine-tuned network learns eps_q instead of computing it.
#
# Next: [6. A voxel renderer from scratch](06_a_voxel_renderer_from_scratch.py).
