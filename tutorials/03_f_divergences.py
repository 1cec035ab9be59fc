# %% [markdown]
# # 3. f-divergences
#
# SDS descends the reverse KL divergence. Why that one? There is a whole family of divergences, each with its own idea
# of which mistake is worse: inventing what the target has not, or missing what it has. One formula holds them all,
# and in a score-distillation gradient they differ by one number per sample.
#
# Throughout, **p is the target, q what we generated**, and r = p/q. Values are in nats.
#
# ## What you will learn
#
# - D_f(p‖q) = E_q[f(r)], and the f of seven divergences;
# - which are bounded, and how a bound turns into a gradient that vanishes;
# - the weight w_f(r) = r² f''(r), the only thing a divergence changes in the gradient;
# - what reverse KL, Jensen-Shannon and forward KL do to one Gaussian that must stand for two modes, and where each
#   gives up;
# - how to add a divergence of your own by writing one line.

# %%
import math
import os

import matplotlib.pyplot as plt
import torch
from scipy.spatial.distance import jensenshannon
from scipy.stats import entropy

from jsdsd.objectives import DIVERGENCES, Divergence, ForwardKL, JensenShannon, ReverseKL
from jsdsd.sandbox import GaussianMixture, fit_gaussian, gaussian_divergence, plot_weights, two_modes

FAST = os.environ.get("JSDSD_FAST") == "1"  # fewer separations: a check in seconds
DISTANCES = (1, 3, 6, 10)  # between two unit Gaussians, where saturation is measured
SEPARATIONS = (2.5, 3.0, 4.0, 5.0) if FAST else (1.5, 2.0, 2.5, 2.75, 3.0, 3.5, 4.0, 4.25, 4.5, 4.75, 5.0, 5.5)  # ±
SHOWN = (2.5, 3.0, 4.0, 5.0)  # of these, the ones drawn
EXPONENT = 0.25  # of the divergence you will write yourself, strictly between 0 and 1

# %% [markdown]
# ## One formula
#
#     D_f(p‖q) = sum_k q_k f(p_k / q_k)
#     f convex, f(1) = 0
#
# Convexity makes it non-negative (Jensen's inequality), f(1) = 0 makes it zero for p = q. Choose f and you have chosen
# what a mistake costs:
#
# | divergence | f(r) |
# |---|---|
# | reverse KL, KL(q‖p) | -log r |
# | forward KL, KL(p‖q) | r log r |
# | Jensen-Shannon | ½ [r log r - (1+r) log((1+r)/2)] |
#
# **Claim.** Written out by hand, by the library, and by scipy, the three agree. (scipy's `jensenshannon` is the *square
# root* of the divergence, a frequent slip.)

# %%
p = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
q = torch.tensor([0.1, 0.3, 0.6], dtype=torch.float64)
r = p / q
by_hand = {
    "reverse KL": (q * -r.log()).sum(),
    "forward KL": (q * r * r.log()).sum(),
    "Jensen-Shannon": (q * 0.5 * (r * r.log() - (1 + r) * ((1 + r) / 2).log())).sum(),
}
by_library = [float(d.discrete(p, q)) for d in (ReverseKL(), ForwardKL(), JensenShannon())]
by_scipy = [entropy(q, p), entropy(p, q), jensenshannon(p, q) ** 2]
for (name, hand), library, scipy in zip(by_hand.items(), by_library, by_scipy, strict=True):
    print(f"{name:15} {float(hand):.6f} {library:.6f} {scipy:.6f}")
    assert math.isclose(hand, library, rel_tol=1e-9) and math.isclose(library, scipy, rel_tol=1e-9)

fig, ax = plt.subplots(figsize=(5, 3.2))
grid = torch.linspace(0.01, 4, 300, dtype=torch.float64)
for divergence in (ReverseKL(), JensenShannon(), ForwardKL()):
    ax.plot(grid, divergence.f(grid), label=repr(divergence))
ax.axhline(0, color="gray", linewidth=0.5)
ax.set(xlabel="r = p/q", ylabel="f(r)", title="three prices for the same mistake")
ax.legend(fontsize=8)

# %% [markdown]
# ### Exercise 1
#
# f(r) and f(r) + c (r - 1) give the same divergence for every c. Why? And what is the f of KL(p‖q) if you insist that
# f is nowhere negative?
#
# *Hint.* The mean of r under q is 1. Choose c so that f'(1) = 0.

# %%
# your turn

# %% [markdown]
# ## Bounded means saturated
#
# Jensen-Shannon compares both with their mixture m = (p+q)/2, and neither can be infinitely far from a mixture that
# holds half of it: it is at most log 2. That sounds like a virtue, and it is one where supports do not meet. The
# price is that far apart *nothing changes any more*.
#
# **Claim.** Between two unit Gaussians at distance d, KL grows as d²/2. Jensen-Shannon gets stuck: at d = 10 it is
# within 0.0001 of log 2, and moving one Gaussian by a whole unit changes it by less than that.


# %%
def between_unit_gaussians(divergence, d):
    a, b = GaussianMixture(torch.zeros(1, 1).double(), 1.0), GaussianMixture(torch.full((1, 1), float(d)).double(), 1.0)
    return divergence.quadrature(a.log_prob, b.log_prob, -12.0, 12.0 + d)


values = {d: (between_unit_gaussians(ReverseKL(), d), between_unit_gaussians(JensenShannon(), d)) for d in DISTANCES}
for d, (kl, js) in values.items():
    print(f"distance {d:2}: KL {kl:8.4f}   JSD {js:.6f}")
    assert math.isclose(kl, d**2 / 2, rel_tol=1e-6)
assert math.log(2) - values[10][1] < 1e-4
assert abs(between_unit_gaussians(JensenShannon(), 9) - values[10][1]) < 1e-4

fig, ax = plt.subplots(figsize=(5, 3.2))
ax.plot(list(values), [js for _, js in values.values()], "o-", label="Jensen-Shannon")
ax.plot(list(values), [kl / 50 for kl, _ in values.values()], "o-", label="KL / 50")
ax.axhline(math.log(2), color="gray", linewidth=0.5)
ax.set(xlabel="distance between the two Gaussians", ylabel="nats")
ax.legend()

# %% [markdown]
# ## The gradient: one weight per sample
#
# Let samples be x = g_theta(z) ~ q. Then (f-distill, arXiv 2502.15681, not re-read; checked here)
#
#     grad_theta D_f = E_q[ w_f(r) (s_q - s_p) dx/dtheta ]
#     w_f(r) = r² f''(r)
#
# with the scores s = grad log density. All divergences push a sample along the *same* vector s_q - s_p. They differ
# in how hard, and that depends only on the ratio r at the sample. Reverse KL has w = 1 and does not look at r at all.
#
# **Claim.** For a shifted Gaussian q = N(theta, 1) the formula's gradient equals a finite difference of the
# divergence, for every divergence of the library.

# %%
target_1d = two_modes(1.5, 0.7)  # .7 N(-1.5, 1) + .3 N(1.5, 1)
x = torch.linspace(-15, 15, 20_001, dtype=torch.float64)[:, None]
dx = 30 / 20_000


def value_at(divergence, theta):
    zero = torch.zeros((), dtype=torch.float64)
    return float(gaussian_divergence(divergence, target_1d, zero + theta, zero))


theta = 0.4
log_p = target_1d.log_prob(x)
log_q = -0.5 * (x[:, 0] - theta) ** 2 - 0.5 * math.log(2 * math.pi)
s_p, s_q = target_1d.score(x)[:, 0], -(x[:, 0] - theta)
for divergence in DIVERGENCES:
    by_formula = float((log_q.exp() * divergence.weight(log_p - log_q) * (s_q - s_p)).sum() * dx)  # dx/dtheta = 1
    by_difference = (value_at(divergence, theta + 1e-4) - value_at(divergence, theta - 1e-4)) / 2e-4
    print(f"{divergence!r:20} formula {by_formula:+.6f}   finite difference {by_difference:+.6f}")
    assert abs(by_formula - by_difference) < 1e-5

fig, ax = plt.subplots(figsize=(5.5, 3.6))
plot_weights(ax)
ax.set_title("left: too many samples here; right: the target has more", fontsize=9)

# %% [markdown]
# ### Exercise 2
#
# Read the picture: which divergences act most where the target has mass that q misses? Which one acts *least* there,
# and is it bounded?
#
# *Hint.* The Jensen-Shannon weight is ½ sigmoid(log r). What is its mirror image?

# %%
# your turn

# %% [markdown]
# ## One Gaussian for two modes
#
# Now minimise. The target has two modes at ±a, and q is one Gaussian with free mean and width. It cannot be right; each
# divergence chooses its own way of being wrong. `fit_gaussian` searches a grid, so that no start can be lucky.
#
# **Claim.** At ±3 reverse KL takes one mode and forward KL covers both. Jensen-Shannon covers at ±3 and ±4, and at ±5
# it takes one mode too: it lies *between* the two KLs and is not a cure.

# %%
three = (ReverseKL(), JensenShannon(), ForwardKL())
fits = {(repr(d), a): fit_gaussian(d, two_modes(a)) for a in SEPARATIONS for d in three}
covers = {key: fit.std > 1.5 for key, fit in fits.items()}  # a mode's own std is 1
for a in SHOWN:
    print(f"±{a}: " + "   ".join(f"{d!r} {'covers' if covers[repr(d), a] else 'one mode'}" for d in three))
assert covers["ReverseKL()", 2.5] and not covers["ReverseKL()", 3.0]
assert covers["JensenShannon()", 4.0] and not covers["JensenShannon()", 5.0]
assert all(covers["ForwardKL()", a] for a in SEPARATIONS)

fig, axes = plt.subplots(1, len(SHOWN), figsize=(12, 2.8))
for ax, a in zip(axes, SHOWN, strict=True):
    grid = torch.linspace(-a - 4, a + 4, 300, dtype=torch.float64)
    ax.fill_between(grid, two_modes(a).log_prob(grid[:, None]).exp(), color="lightsteelblue")
    for d, line in zip(three, ("-", "--", "-"), strict=True):  # dashed, since forward KL often does the same
        best = torch.distributions.Normal(fits[repr(d), a].mean, fits[repr(d), a].std)
        ax.plot(grid, best.log_prob(grid).exp(), line, zorder=3 if line == "--" else 2, label=repr(d))
    ax.set_title(f"modes at ±{a}", fontsize=9)
axes[0].legend(fontsize=6)

# %% [markdown]
# ## Giving up is sudden
#
# **Claim.** The best width does not shrink little by little: between two neighbouring separations it falls from about
# the target's own spread to one mode's. Two minima exist side by side, and their order changes.

# %%
fig, ax = plt.subplots(figsize=(5, 3.2))
for d in three:
    ax.plot(SEPARATIONS, [fits[repr(d), a].std for a in SEPARATIONS], "o-", label=repr(d))
ax.plot(SEPARATIONS, [(1 + a**2) ** 0.5 for a in SEPARATIONS], "k:", zorder=3, label="the target's std")
ax.set(xlabel="modes at ±", ylabel="std of the best Gaussian")
ax.legend(fontsize=7)

for name in ("ReverseKL()", "JensenShannon()"):
    given_up = [a for a in SEPARATIONS if not covers[name, a]]
    last = max(a for a in SEPARATIONS if covers[name, a])
    print(f"{name}: covers up to ±{last}, one mode from ±{given_up[0]}")
    for a in SEPARATIONS:
        share = fits[name, a].std / (1 + a**2) ** 0.5  # of the target's own std
        assert share > 0.75 if covers[name, a] else fits[name, a].std < 1.1
    assert last < given_up[0]  # one switch, no way back

# %% [markdown]
# ## Your own divergence
#
# A divergence of the library is a class with one method, `f`. Its weight comes from differentiating f twice. Between
# the two KLs lie Amari's alpha-divergences, up to a factor those with the weight r^e, e between 0 and 1:
#
#     f(r) = (r - r^e) / (e (1-e))  =>  w = r² f'' = r^e
#
# **Claim.** Four lines make a divergence that the library can use: it is zero for p = q, positive otherwise, and its
# weight, which nobody wrote down, is r^e.


# %%
class Alpha(Divergence):
    slope = 1 / (EXPONENT * (1 - EXPONENT))  # f(r)/r for r -> infinity: the price of target mass where q has none

    def f(self, r):
        return (r - r**EXPONENT) / (EXPONENT * (1 - EXPONENT))


log_r = torch.linspace(-4, 4, 81, dtype=torch.float64)
mine = Alpha()
print(f"D(p‖p) = {float(mine.discrete(p, p)):.1e}, D(p‖q) = {float(mine.discrete(p, q)):.3f} nats")
assert abs(float(mine.discrete(p, p))) < 1e-12 < float(mine.discrete(p, q))
assert torch.allclose(mine.weight(log_r), (EXPONENT * log_r).exp(), rtol=1e-6)

fig, ax = plt.subplots(figsize=(5, 3.2))
plot_weights(ax, (ReverseKL(), ForwardKL()))
ax.plot(log_r, mine.weight(log_r), "k--", label=f"Alpha, r^{EXPONENT}")
ax.legend(fontsize=8)

# %% [markdown]
# ### Exercise 3
#
# At which separation does your divergence give up? Try exponents 0.1, 0.5, 0.9.
#
# *Hint.* `fit_gaussian(Alpha(), two_modes(a)).std`. It has to lie between reverse KL (0) and forward KL (1).

# %%
# your turn

# %% [markdown]
# ## What was left out
#
# - **Where r comes from.** Here both densities are known. Tutorial 4 learns log r from samples.
# - **Estimating from samples.** `monte_carlo` gives a value with its standard error; forward KL's has a heavy tail.
# - **Normalised weights.** Some codes clamp r and divide w by its batch mean. That changes what is minimised.
# - **Noise levels.** Score distillation minimises the divergence between *noised* densities, level by level. A sum of
#   those is not the divergence at noise zero, and tutorial 5 shows that this changes the verdict on mode seeking.
# - **Other families.** Wasserstein distances and MMD are no f-divergences: they see how *far* apart two sets are.
#
# Next: [4. The log-odds discriminator](04_the_log_odds_discriminator.py).
