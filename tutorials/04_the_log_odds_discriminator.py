# %% [markdown]
# # 4. The log-odds discriminator
#
# The weight of a divergence needs r = p/q, and outside of toy problems nobody knows p or q. But a ratio of densities
# can be *learned*: show a classifier samples of both and let it tell which is which. That is the discriminator of a
# GAN, and the Jensen-Shannon divergence is what a perfect one reports.
#
# ## What you will learn
#
# - the optimal discriminator is sigmoid(log p/q): its logit *is* the log density ratio, the "log-odds";
# - the classification loss is a lower bound on the Jensen-Shannon divergence;
# - the saturating and the non-saturating GAN loss are two members of the f-divergence family;
# - a perfect discriminator stops teaching, and noise makes it teach again;
# - a discriminator learned on the fly can stand in for the densities in 2D, and why the exact ratio is of no use to a
#   single sample in many dimensions.

# %%
import math
import os

import matplotlib.pyplot as plt
import torch

from jsdsd import Ensemble, JensenShannon, ReverseKL, Schedule, SoftenedReverseKL
from jsdsd.objectives import Anneal, LearnedLogOdds, discriminator, jsd_lower_bound, particle_mixture
from jsdsd.objectives.log_odds import Situation, non_saturating_weight, saturating_weight
from jsdsd.sandbox import GaussianMixture, Particles, mode_divergence, off_centre, plot_particles

FAST = os.environ.get("JSDSD_FAST") == "1"  # fewer steps and points: a check in seconds
SEED = 0  # of all samples and starts
SAMPLES = 20_000  # of each side, for the 1-D experiments
DISTANCE = 2.0  # between the two Gaussians of the 1-D experiments
FAR = 10.0  # between two that hardly overlap
PARTICLES = 128 if FAST else 256  # points in the 2D run
STEPS = 300 if FAST else 1500  # optimiser steps of the 2D run
UPDATES = 300 if FAST else 1000  # steps of cross-entropy of the network that is checked
SIGMA = 0.95  # noise level of the experiment on dimensions
DIMENSIONS = (2, 64, 1024, 16384)  # the last: the latent of one small SDXL picture, 4 x 64 x 64

# %% [markdown]
# ## A classifier learns the ratio
#
# Draw from p and from q with even odds. The best guess that a point x came from p is (Goodfellow et al. 2014, Prop. 1,
# not re-read)
#
#     D*(x) = p(x) / (p(x) + q(x)) = sigmoid(log p(x)/q(x))
#
# So a network that ends in a sigmoid and is trained by cross-entropy has log p/q in front of the sigmoid. For unit
# Gaussians at ±d/2 that is a straight line, log p/q = d x.
#
# **Claim.** Logistic regression on samples finds that line: slope d, offset 0.

# %%
generator = torch.Generator().manual_seed(SEED)
from_p = torch.randn(SAMPLES, generator=generator) + DISTANCE / 2  # (N,)
from_q = torch.randn(SAMPLES, generator=generator) - DISTANCE / 2

slope, offset = torch.zeros((), requires_grad=True), torch.zeros((), requires_grad=True)
lbfgs = torch.optim.LBFGS([slope, offset], max_iter=50)


def loss():
    lbfgs.zero_grad()
    on_p, on_q = slope * from_p + offset, slope * from_q + offset
    value = -(torch.nn.functional.logsigmoid(on_p).mean() + torch.nn.functional.logsigmoid(-on_q).mean()) / 2
    value.backward()
    return value


lbfgs.step(loss)
slope, offset = slope.item(), offset.item()
print(f"learned logit: {slope:.3f} x {offset:+.3f}     log p/q: {DISTANCE} x")
assert abs(slope - DISTANCE) < 0.1 and abs(offset) < 0.1

fig, ax = plt.subplots(figsize=(5, 3.2))
x = torch.linspace(-4, 4, 200)
ax.hist(from_p, 60, density=True, alpha=0.4, label="p")
ax.hist(from_q, 60, density=True, alpha=0.4, label="q")
ax.plot(x, discriminator(DISTANCE * x), "k", label="D* = sigmoid(log p/q)")
ax.plot(x, discriminator(slope * x + offset), "r--", label="learned")
ax.legend(fontsize=8)

# %% [markdown]
# ## Its loss is a bound
#
# With V(D) = E_p[log D] + E_q[log(1-D)],
#
#     V(D)/2 + log 2  <=  JSD(p, q),    equality for D*
#
# A worse discriminator sees *less* divergence than there is. Note the direction: the generator minimises a lower bound,
# and a weak discriminator flatters it.
#
# **Claim.** Make the exact logit steeper or flatter, and the bound falls below the divergence; at the exact logit it
# meets it, within three standard errors.

# %%
p, q = (GaussianMixture(torch.tensor([[m]]), 1.0) for m in (DISTANCE / 2, -DISTANCE / 2))
truth = JensenShannon().quadrature(*(lambda x, g=g: g.log_prob(x.float()).double() for g in (p, q)), -12.0, 12.0)
steepness = torch.tensor([0.1, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0])
bounds = [jsd_lower_bound(k * DISTANCE * from_p, k * DISTANCE * from_q) for k in steepness]
best = max(range(len(bounds)), key=lambda i: bounds[i].value)
print(f"JSD {truth:.4f} nats; best bound {bounds[best].value:.4f}, at steepness {steepness[best]:g}")
assert steepness[best] == 1 and abs(bounds[best].value - truth) < 3 * bounds[best].standard_error
assert all(b.value < truth - 3 * b.standard_error for b in (bounds[0], bounds[-1]))

fig, ax = plt.subplots(figsize=(5, 3.2))
ax.plot(steepness, [b.value for b in bounds], "o-", color="crimson", label="V(D)/2 + log 2")
ax.axhline(truth, color="black", label="JSD")
ax.set(xlabel="steepness of the logit, 1 = exact", ylabel="nats")
ax.legend()

# %% [markdown]
# ### Exercise 1
#
# Give the discriminator a memory: let it be right on every single sample (logit +20 on `from_p`, -20 on `from_q`). What
# is the "bound" then, and why is it no bound?
#
# *Hint.* The bound holds for a D that did not see these samples.

# %% [markdown]
# ## Two GAN losses, two divergences
#
# Freeze D and move generated samples x ~ q. Using log D - log(1-D) = log p/q,
#
#     grad log(1-D) = D (s_q - s_p)         saturating
#     grad -log D   = (1-D) (s_q - s_p)     non-saturating
#
# The first is the original game, the second what everybody trains. In the language of tutorial 3 these are weights: D
# is twice the Jensen-Shannon weight, 1-D is twice that of KL(m‖p), which is *softened reverse KL*. Their sum is 1,
# plain reverse KL.
#
# **Claim.** The two weights are those of the two divergences, and they add up to reverse KL's. So the non-saturating
# trick is still mode seeking; it is not Jensen-Shannon.

# %%
log_r = torch.linspace(-6, 6, 121)
assert torch.allclose(saturating_weight(log_r), 2 * JensenShannon().weight(log_r))
assert torch.allclose(non_saturating_weight(log_r), 2 * SoftenedReverseKL().weight(log_r))
assert torch.allclose(saturating_weight(log_r) + non_saturating_weight(log_r), ReverseKL().weight(log_r))

# and by autograd, for one x between the two Gaussians, D held fixed as a function
x = torch.tensor(-0.3, requires_grad=True)
(by_autograd,) = torch.autograd.grad(torch.log1p(-discriminator(DISTANCE * x)), x)
s_q_minus_s_p = -(x + DISTANCE / 2) + (x - DISTANCE / 2)  # = -d
assert torch.allclose(by_autograd, discriminator(DISTANCE * x) * s_q_minus_s_p)

fig, ax = plt.subplots(figsize=(5, 3.2))
ax.plot(log_r, saturating_weight(log_r), label="saturating: D")
ax.plot(log_r, non_saturating_weight(log_r), label="non-saturating: 1 - D")
ax.plot(log_r, torch.ones_like(log_r), "k:", label="their sum: reverse KL")
ax.set(xlabel="log r (nats): left, the generator is caught", ylabel="weight")
ax.legend(fontsize=8)

# %% [markdown]
# ## A perfect discriminator stops teaching
#
# Early in training p and q hardly overlap. Every generated sample is recognised, D = 0 there, and the saturating weight
# is zero: nothing to learn. Diffusion noise helps. It pulls both towards N(0, I), where they overlap, and gives
# gradients from far away (noise on the inputs of a GAN does the same, arXiv 1610.04490, not re-read).
#
# **Claim.** For two unit Gaussians at distance 10 the mean of D over generated samples is below 0.0001 without noise,
# and above 0.3 at t = 900.

# %%
schedule = Schedule.scaled_linear()
levels = list(range(0, 1000, 50)) + [999]
mean_d = []
for t in levels:
    # both variances stay alpha² + sigma² = 1; the distance shrinks to alpha * FAR
    d = schedule.alpha(t) * FAR
    x_q = from_q + DISTANCE / 2 - d / 2  # samples of N(-d/2, 1)
    mean_d.append(float(saturating_weight(d * x_q).mean()))
print(f"mean D on generated samples: {mean_d[0]:.1e} at t = 0, {mean_d[levels.index(900)]:.2f} at t = 900")
assert mean_d[0] < 1e-4 and mean_d[levels.index(900)] > 0.3

fig, ax = plt.subplots(figsize=(5, 3.2))
ax.semilogy(levels, mean_d, "o-", color="crimson")
ax.set(xlabel="noise level t", ylabel="mean saturating weight", title="two Gaussians at distance 10")

# %% [markdown]
# ### Exercise 2
#
# With the *non-saturating* weight, what is the mean weight at t = 0? So why bother with noise levels?
#
# *Hint.* One is blind at the beginning, the other at the end. And who computes D where p is nearly zero?

# %% [markdown]
# ## Learned from samples, in the plane
#
# Now points in 2D. A small network gets noised samples of the target and noised points of a blob in the middle, and
# learns to tell them apart at one noise level. The blob's noised density is known too (`particle_mixture`), so that the
# answer can be checked.
#
# **Claim.** After a few hundred steps its logit follows the exact log-ratio: the correlation is above 0.8, on fresh
# samples of both sides. It is no exact copy.

# %%
target = off_centre()
t = 400
blob = 0.5 * torch.randn(PARTICLES, 2, generator=generator)  # (N, 2): where a run starts
alpha, sigma = target.schedule.alpha(t), target.schedule.sigma(t)


def exact_log_ratio(x_t):
    return target.log_prob(x_t, t) - particle_mixture(target.schedule, blob, x_t, t).log_prob


situation = Situation(target, target.schedule, blob, log_q=torch.zeros(0), generator=generator)  # log_q: not used here
network = LearnedLogOdds(known_q=False)  # the whole ratio, as a GAN would learn it
for _ in range(UPDATES):
    network.update(t, situation)  # one step of cross-entropy

x0 = torch.cat([target.sample(200, generator), blob[:200]])  # both sides
x_t = alpha * x0 + sigma * torch.randn(x0.shape, generator=generator)
learned, exact = network.logits(x_t, t, target.schedule).detach(), exact_log_ratio(x_t)
correlation = float(torch.corrcoef(torch.stack([learned, exact]))[0, 1])
print(f"correlation {correlation:.3f}; exact from {exact.min():.1f} to {exact.max():.1f} nats")
assert correlation > 0.8

fig, ax = plt.subplots(figsize=(4, 4))
ax.scatter(exact, learned, s=5, color="crimson")
ax.axline((0, 0), slope=1, color="gray", linewidth=0.5)
ax.set(xlabel="exact log p/q (nats)", ylabel="learned logit")

# %% [markdown]
# ## Learned while the points move
#
# In a run both sides change, and the network follows: two steps of cross-entropy per step of the run. The target's
# score is used as before; its *density* is not.
#
# **Claim.** Weighted by a learned ratio, the points find all four modes, less than 0.005 nats from the true shares. Do
# not read too much into it: at half time the exact ratio of the points is nearly 1 everywhere (standard deviation below
# 0.5 nats), so that there is little left to know, and tutorial 5 shows that an ensemble covers with no ratio at all.

# %%
points = Particles(PARTICLES, SEED)
for record in points.run(target, Ensemble(JensenShannon(), LearnedLogOdds()), STEPS, times=Anneal()):
    if record.step == STEPS // 2:
        step = record.distilled
        q_t = particle_mixture(target.schedule, record.x0, step.x_t, step.t)
        halfway = target.log_prob(step.x_t, step.t) - q_t.log_prob  # (N,)
error = mode_divergence(points.x.detach(), target)
print(f"std of the exact log-ratio at half time {halfway.std():.2f}; mode divergence at the end {error:.5f} nats")
assert halfway.std() < 0.5
assert error < 0.005

fig, ax = plt.subplots(figsize=(4, 4))
plot_particles(ax, target, points.x.detach(), f"learned log-odds: {error:.5f} nats")

# %% [markdown]
# ## Why a lone sample has nothing to weigh
#
# In 3D we hold one scene, not an ensemble. Its noised density is q_t = N(alpha x0, sigma² I). Even where x0 is a
# perfect sample of p = N(0, I), the log-ratio at its own noised points is, in the mean,
#
#     E log p_t/q_t = d log sigma    (d dimensions)
#
# **Claim.** The measured mean follows that line: about -840 nats for a latent of 4 x 64 x 64 at sigma = 0.95. The
# Jensen-Shannon weight ½ sigmoid(-840) is zero in floating point.

# %%
means = []
for d in DIMENSIONS:
    x0 = torch.randn(32, d, generator=generator)  # 32 lone samples
    x_t = (1 - SIGMA**2) ** 0.5 * x0 + SIGMA * torch.randn(32, d, generator=generator)
    normal = torch.distributions.Normal
    log_p = normal(0.0, 1.0).log_prob(x_t).sum(1)
    log_q = normal((1 - SIGMA**2) ** 0.5 * x0, SIGMA).log_prob(x_t).sum(1)
    means.append(float((log_p - log_q).mean()))
    weight = float(JensenShannon().weight(torch.tensor(means[-1])))
    print(
        f"d = {d:6}: mean log r {means[-1]:8.1f} nats, by the formula {d * math.log(SIGMA):8.1f}; weight {weight:.1e}"
    )
    assert abs(means[-1] - d * math.log(SIGMA)) < 0.5 + 0.5 * d**0.5
assert weight == 0

fig, ax = plt.subplots(figsize=(5, 3.2))
ax.loglog(DIMENSIONS, [-m for m in means], "o", color="crimson", label="measured")
ax.loglog(DIMENSIONS, [-d * math.log(SIGMA) for d in DIMENSIONS], "k", label="-d log sigma")
ax.set(xlabel="dimensions", ylabel="-log r (nats)")
ax.legend()

# %% [markdown]
# ### Exercise 3
#
# Clamping log r to ±10 makes the weight non-zero again. Is that still the Jensen-Shannon divergence? What does the
# weight then depend on?
#
# *Hint.* If log r is below -10 everywhere, the clamped weight is the same number everywhere.

# %% [markdown]
# ## What was left out
#
# - **Calibration.** A network's logits are over-confident where it saw few samples; `calibration_curve` measures it,
#   and `LearnedLogOdds(bound=...)` clamps them, which changes the divergence where it bites.
# - **A discriminator on pictures.** A learned one is perfect at once on latents. The two halves of guidance make one
#   that costs nothing: `GuidanceLogOdds`, with `objective="two_sided"`. arXiv 2312.00739 learns one.
# - **The paper's recipe** is the two-sided gradient with D frozen at ½ (Theory, sections 6 and 7).
#
# Next: [5. Mode covering with ensembles](05_mode_covering_with_ensembles.py).
