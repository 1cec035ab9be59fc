# %% [markdown]
# # 1. Diffusion as a score
#
# A diffusion model is a function that looks at a noisy picture and says which noise is in it. This tutorial builds
# one for points in the plane, where nothing has to be trained: the exact answer is a formula. Everything later in
# the library, SDXL included, answers the same question through the same method, `predict_eps(x_t, t)`.
#
# ## What you will learn
#
# - what a noise level `t` is, and what `alpha` and `sigma` do to a point;
# - why "predict the noise", "predict the clean point" and "know the score" are one and the same;
# - that the best denoiser is a conditional mean, hence blurry where there is much noise;
# - how the denoiser alone turns pure noise into samples;
# - what a guidance scale does to them.
#
# You need some Python, Gaussians and the word *gradient*. Reading takes about a quarter of an hour.

# %%
import os

import matplotlib.pyplot as plt
import torch

from jsdsd.objectives import Schedule
from jsdsd.sandbox import ConditionalMixture, GaussianMixture, mode_divergence, plot_density

FAST = os.environ.get("JSDSD_FAST") == "1"  # fewer samples and steps: a check in seconds
SEED = 0  # of all noise below
SAMPLES = 2_000 if FAST else 20_000  # points per experiment; errors fall with the root of it
LEVELS = (0, 250, 500, 750)  # the noise levels shown, of 0 ... 999
SAMPLER_STEPS = 50 if FAST else 200  # from pure noise to a sample
SCALES = (1.0, 2.0, 5.0)  # guidance scales, diffusers' convention: 1 = none

# %% [markdown]
# ## A target where nothing is hidden
#
# The target is a mixture of three round Gaussians, the stand-in for "all pictures of mushrooms":
#
#     p(x) = sum_k w_k N(x; m_k, s_k² I)
#
# **Claim.** Its density is known: written out with `torch.distributions` it is what the library computes, in nats.

# %%
means = torch.tensor([[-2.0, -1.0], [2.0, -1.0], [0.0, 2.0]])  # (K, d)
std = torch.tensor([0.3, 0.5, 0.4])  # (K,)
weights = torch.tensor([0.5, 0.3, 0.2])  # (K,)
target = GaussianMixture(means, std, weights)

components = torch.distributions.MultivariateNormal(means, (std**2)[:, None, None] * torch.eye(2))
by_torch = torch.distributions.MixtureSameFamily(torch.distributions.Categorical(weights), components)
generator = torch.Generator().manual_seed(SEED)  # one for all draws: two with one seed would be correlated
x0 = target.sample(SAMPLES, generator)  # (N, 2)

gap = (target.log_prob(x0) - by_torch.log_prob(x0)).abs().max()
print(f"largest difference in log p: {gap:.1e} nats")
assert gap < 1e-3

fig, ax = plt.subplots(figsize=(4, 4))
plot_density(ax, target)
ax.scatter(*x0[:500].T, s=2, color="crimson")
ax.set_title("the target, and 500 samples of it")

# %% [markdown]
# ## Noising shrinks and blurs
#
# At noise level `t` a clean point `x0` becomes
#
#     x_t = alpha_t x0 + sigma_t eps,   eps ~ N(0, I)
#     alpha_t² + sigma_t² = 1
#
# `alpha` falls and `sigma` grows with `t`. The library takes both from diffusers' table, `alpha =
# sqrt(alphas_cumprod)`, and 2D and SDXL use the same table. Scaling moves the means, noise adds variance, and a
# mixture stays a mixture:
#
#     p_t = sum_k w_k N(alpha m_k, (alpha² s_k² + sigma²)I)
#
# **Claim.** Points noised by the formula have the mean and the covariance of that mixture.

# %%
schedule = Schedule.scaled_linear()  # SDXL's


def noise(x0, t):
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    return alpha * x0 + sigma * torch.randn(x0.shape, generator=generator)  # (N, 2)


fig, axes = plt.subplots(1, len(LEVELS), figsize=(12, 3.2))
for ax, t in zip(axes, LEVELS, strict=True):
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    x_t = noise(x0, t)
    mean = alpha * weights @ means  # (2,) of the mixture p_t
    centred = alpha * means - mean  # (K, 2)
    covariance = torch.einsum("k,ki,kj->ij", weights, centred, centred)
    covariance += (weights @ (alpha**2 * std**2 + sigma**2)) * torch.eye(2)
    assert torch.allclose(x_t.mean(0), mean, atol=0.15) and torch.allclose(x_t.T.cov(), covariance, atol=0.3)
    ax.scatter(*x_t[:1000].T, s=1, color="crimson")
    ax.set(xlim=(-4, 4), ylim=(-4, 4), aspect="equal")
    ax.set_title(f"t = {t}: alpha {alpha:.2f}, sigma {sigma:.2f}", fontsize=9)

# %% [markdown]
# ### Exercise 1
#
# At which `t` is the signal as strong as the noise, `alpha = sigma`? Is it in the middle of the schedule?
#
# *Hint.* `schedule.alphas_cumprod` is alpha². Look for the level where it crosses one half.

# %%
# your turn

# %% [markdown]
# ## The score, and the noise
#
# The *score* is the direction in which the log density rises fastest, `grad log p_t(x)`. For a mixture it is a weighted
# pull towards the means, the weights being each component's responsibility for the point. The noise that the best
# denoiser sees is the same vector in other units:
#
#     score = -eps_hat / sigma     eps_hat = -sigma score
#
# **Claim.** Differentiating log p_t with autograd gives exactly what `predict_eps` returns.

# %%
t = LEVELS[1]
sigma = schedule.sigma(t)
x_t = noise(x0[:500], t).requires_grad_()
(score,) = torch.autograd.grad(target.log_prob(x_t, t).sum(), x_t)  # (500, 2)
x_t = x_t.detach()

eps_hat = target.predict_eps(x_t, t)
gap = (eps_hat - (-sigma * score)).abs().max()
print(f"largest difference: {gap:.1e} (eps itself is about 1)")
assert gap < 1e-3

fig, ax = plt.subplots(figsize=(4, 4))
plot_density(ax, target, t)
ax.quiver(*x_t[:120].T, *score[:120].T, color="crimson", angles="xy", width=0.004)
ax.set_title(f"the score at t = {t}: uphill, everywhere")

# %% [markdown]
# ## The best guess is a mean
#
# Turn the noise prediction into a clean point and you get the *mean* of all clean points that could have led here
# (Tweedie's formula):
#
#     x0_hat = (x_t - sigma eps_hat) / alpha = E[x0 | x_t]
#
# A mean of two modes lies between them. That is why a denoiser's picture at high noise is a blur, and why one step is
# no way to make samples.
#
# **Claim.** `x0_hat` equals the mean over clean samples, each weighted with how likely it makes `x_t`.

# %%
t = 700
alpha, sigma = schedule.alpha(t), schedule.sigma(t)
x_t = noise(x0[:200], t)
x0_hat = schedule.x0_from_eps(x_t, target.predict_eps(x_t, t), t)  # (200, 2)

log_likelihood = -(torch.cdist(x_t, alpha * x0) ** 2) / (2 * sigma**2)  # (200, N)
brute_force = torch.softmax(log_likelihood, 1) @ x0  # (200, 2): the mean of x0 given x_t, by counting
gap = (x0_hat - brute_force).norm(dim=1)
print(f"median distance {gap.median():.3f} (the target is 4 wide)")
assert gap.median() < 0.15

fig, ax = plt.subplots(figsize=(4, 4))
plot_density(ax, target)
ax.scatter(*x0_hat.T, s=6, color="crimson", label="x0_hat")
ax.scatter(*brute_force.T, s=20, facecolor="none", edgecolor="black", linewidth=0.5, label="by counting")
ax.legend()
ax.set_title(f"best guesses at t = {t}: between the modes")

# %% [markdown]
# ## No other denoiser is better
#
# A network is trained by the squared error of its noise prediction, `E |eps_hat(x_t) - eps|²`. The mean is what
# minimises a squared error, so the exact denoiser is where training would end if it never ended.
#
# **Claim.** Make the exact prediction 10 % longer or shorter and the training loss rises.

# %%
t = 400
alpha, sigma = schedule.alpha(t), schedule.sigma(t)
eps = torch.randn(x0.shape, generator=generator)
eps_hat = target.predict_eps(alpha * x0 + sigma * eps, t)
factors = torch.linspace(0.5, 1.5, 11)
loss = torch.stack([(f * eps_hat - eps).square().sum(1).mean() for f in factors])  # (11,)

print(f"loss of the exact denoiser {loss[5]:.3f}, 10 % shorter {loss[4]:.3f}, 10 % longer {loss[6]:.3f}")
assert loss.argmin() == 5  # factor 1
assert loss[5] > 0.1  # and it is not zero: what is lost in noise is lost

fig, ax = plt.subplots(figsize=(5, 3))
ax.plot(factors, loss, "o-", color="crimson")
ax.set(xlabel="factor on eps_hat", ylabel="mean |eps_hat - eps|²", title="the exact denoiser is the bottom")

# %% [markdown]
# ### Exercise 2
#
# The loss at the bottom is not zero. At which noise levels is it large, and why does it go to zero at high `t`?
#
# *Hint.* Plot `loss[5]` over `t`. At high `t` the point itself is nearly all noise, so that saying `eps_hat = x_t` is
# hard to get wrong.

# %%
# your turn

# %% [markdown]
# ## From noise to samples
#
# Start with pure noise and take small steps: guess the clean point, then put it back at a slightly lower noise level,
# with the *same* noise direction (DDIM, arXiv 2010.02502; the formula is the same in diffusers):
#
#     x0_hat = (x - sigma eps_hat) / alpha
#     x'     = alpha' x0_hat + sigma' eps_hat
#
# **Claim.** Samples made like this find all three modes in the right shares: the Jensen-Shannon divergence between
# their histogram over the modes and the true weights is below 0.01 nats (0 is perfect, log 2 = 0.69 the worst).


# %%
def ddim(denoiser, n, steps, guidance_scale=None):
    x = torch.randn(n, 2, generator=generator)  # (n, 2) pure noise
    levels = torch.linspace(999, 0, steps + 1).round().long().tolist()
    for t, t_next in zip(levels, levels[1:], strict=False):
        eps_hat = denoiser.predict_eps(x, t, guidance_scale)
        x0_hat = (x - schedule.sigma(t) * eps_hat) / schedule.alpha(t)
        x = schedule.alpha(t_next) * x0_hat + schedule.sigma(t_next) * eps_hat
    return x


made = ddim(target, SAMPLES, SAMPLER_STEPS)
score_in_nats = mode_divergence(made, target)
print(f"mode divergence {score_in_nats:.5f} nats; {SAMPLES} true samples have about {2 / (8 * SAMPLES):.5f}")
assert score_in_nats < 0.01

fig, ax = plt.subplots(figsize=(4, 4))
plot_density(ax, target)
ax.scatter(*made[:500].T, s=2, color="crimson")
ax.set_title(f"made from noise in {SAMPLER_STEPS} steps")

# %% [markdown]
# ## A prompt, and how loudly it is said
#
# A prompt selects a part of all pictures. Here the prompt is "the component on the left", one of two that overlap. With
# the unconditional prediction eps_0 and the prompt's eps_y, classifier-free guidance extrapolates:
#
#     eps = eps_0 + s (eps_y - eps_0)
#
# s = 1 is the prompt as it is. This is diffusers' convention; some codes write s - 1, so always ask.
#
# **Claim.** A larger s drives the samples away from the other class. They no longer have the prompt's distribution:
# their mean moves left of the component's own mean.

# %%
both = GaussianMixture(torch.tensor([[-1.0, 0.0], [1.0, 0.0]]), 0.8)
left = ConditionalMixture(both, label=0)

fig, axes = plt.subplots(1, len(SCALES), figsize=(10, 3.2))
averages = []
for ax, s in zip(axes, SCALES, strict=True):
    made = ddim(left, SAMPLES, SAMPLER_STEPS, guidance_scale=s)
    averages.append(float(made[:, 0].mean()))
    plot_density(ax, both)
    ax.scatter(*made[:500].T, s=2, color="crimson")
    ax.set(xlim=(-4, 4), ylim=(-3, 3))
    ax.set_title(f"s = {s:g}: mean x = {averages[-1]:.2f}", fontsize=9)
print("mean of the samples:", [round(a, 2) for a in averages], "mean of the component: -1")
assert abs(averages[0] + 1) < 0.1  # s = 1: the prompt's own distribution
assert averages[2] < averages[1] - 0.1 < averages[0] - 0.2  # the louder, the farther

# %% [markdown]
# ### Exercise 3
#
# What does `s = 0` sample? And `s = -1`?
#
# *Hint.* Insert both into the formula before you run anything. s = 0 leaves one of the two predictions.

# %%
# your turn

# %% [markdown]
# ## What was left out
#
# - **Training.** A real denoiser is a network with errors of its own, and its score is wrong where it saw no data.
#   Tutorial 8 trains one.
# - **Other samplers.** DDPM adds fresh noise at each step; solvers of higher order need fewer steps.
# - **Other predictions.** Some models predict `v = alpha eps - sigma x0` or x0 itself; `Schedule` converts.
# - **Where guidance comes from.** With s > 1 the guided score at each level is that of p(x) p(y|x)^s, but those
#   levels do not belong to one diffused density. Nobody samples *exactly* from a guided model.
# - **Latents.** SDXL denoises the code of a picture, not the picture. Tutorial 7 gets there.
#
# Next: [2. Score distillation in 2D](02_score_distillation_in_2d.py) uses the denoiser without ever sampling from it.
