# %% [markdown]
# # 7. Text to 3D, taken apart
#
# `jsdsd.generate("a red mushroom")` is one line. Here it is taken apart into its steps, each looked at, and put
# together again: a prompt becomes embeddings, a grid becomes pictures, pictures become latents, latents get a gradient
# from a diffusion model, and the gradient goes all the way back to the voxels. The diffusion model is the *toybox*, a
# tiny SDXL that comes with the library. Nothing here is special to it: tutorial 9 puts the real one in its place.
#
# ## What you will learn
#
# - what a prompt is to the model, and how it is told from where it looks;
# - how a gradient on latents becomes a gradient on voxels, without ever going through the U-Net;
# - the whole loop in 30 lines, equal to the library's;
# - how to compare SDS with the paper's JSD recipe fairly;
# - what the guidance scale multiplies, and where Janus faces come from.

# %%
import os

import matplotlib.pyplot as plt
import torch

import jsdsd
from jsdsd.objectives import Anneal, surrogate_loss
from jsdsd.penalties import as_share, solid, total_variation
from jsdsd.scene.views import camera_corner, random_background, random_views, view_prompts
from jsdsd.scene.voxels import sum_levels
from jsdsd.sdxl.guidance import Guidance
from jsdsd.sdxl.recipe import TOY, between
from jsdsd.sdxl.view_denoiser import ViewDenoiser
from jsdsd.toybox import Toy, true_grid

FAST = os.environ.get("JSDSD_FAST") == "1"  # few steps on a coarse grid: a check in seconds
PROMPT = "a red mushroom"  # 24 toys in 8 colours; `jsdsd.toybox.KINDS` and `.COLOURS` name them
TWO_SIDED = "a blue car"  # something with a front, for the last section
SEED = 0  # of every run
RESOLUTION = 16 if FAST else 40  # voxels per axis
VIEWS = 2 if FAST else 4  # renders per step
UNET_CALLS = 8 if FAST else 240  # per run, when objectives are compared
JANUS_STEPS = 2 if FAST else 100  # of the JSD recipe, for the last section; 100 is generate's default
LOOP_STEPS = 3  # of the loop that is compared with the library's
SCALES = (0.0, 1.0, 3.0, 7.5)  # guidance scales, 1 = none
AROUND = (0, 90, 180, 270)  # degrees: the sides that are shown, the front first


def show(axes, pictures, titles):
    for ax, picture, title in zip(axes, pictures, titles, strict=True):
        ax.imshow(torch.as_tensor(picture).clamp(0, 1).numpy())
        ax.set_title(title, fontsize=8)
        ax.axis("off")


# %% [markdown]
# ## A prompt, once per view
#
# Text encoders turn a sentence into vectors. "a red mushroom" does not say from where; so each view gets its own
# sentence, "a red mushroom, back view", encoded once, before the run. In a step, each picture is judged by the sentence
# of its camera.
#
# **Claim.** The sentences of different views get different vectors. No prompt at all comes in two kinds: `None` is a
# vector of zeros, `""` is the embedding of the empty text, and they are not the same.

# %%
guidance = Guidance.load("toybox")
words = list(dict.fromkeys(guidance.view_word(45.0 * i, e) for e in (0.0, 90.0) for i in range(8)))
embeddings = guidance.encode_prompts(view_prompts(PROMPT, words))
print(view_prompts(PROMPT, words[:2]), "...", tuple(embeddings.tokens.shape), "= views, tokens, width")

distance = torch.cdist(embeddings.vectors, embeddings.vectors)  # (views, views)
assert (distance + 9 * torch.eye(len(words)) > 1e-3).all()
assert (embeddings.negative_tokens == 0).all()
assert (guidance.encode_prompts([PROMPT], negative_prompt="").negative_tokens != 0).any()

fig, ax = plt.subplots(figsize=(4.5, 3.8))
shown = ax.imshow(distance.numpy())
ax.set_xticks(range(len(words)), words, rotation=60, ha="right", fontsize=7)
ax.set_yticks(range(len(words)), words, fontsize=7)
fig.colorbar(shown, label="distance of the prompt vectors")

# %% [markdown]
# ## Pictures and latents
#
# The diffusion model does not see pictures but their codes: an encoder (the VAE) turns 3 colours on a fine raster into
# 4 numbers on a coarse one. The encoder is differentiable, and must be: it lies on the gradient's way.
#
# **Claim.** Encoded and decoded again, a render of a true toy comes back within 0.1 (of 1) in the mean, and the latents
# have a gradient to every pixel's neighbourhood.

# %%
toy = true_grid(Toy("mushroom", "red"), resolution=40)
picture = jsdsd.render(toy, jsdsd.orbit(30.0), guidance.image_size).rgb.detach().requires_grad_()  # (1, H, W, 3)
latents = guidance.encode_images(picture)  # (1, 4, h, w)
back = guidance.decode_latents(latents.detach())
(pixel_gradient,) = torch.autograd.grad(latents.square().sum(), picture)
error = float((back - picture).detach().abs().mean())
print(f"picture {tuple(picture.shape)} -> latents {tuple(latents.shape)} -> picture, mean error {error:.3f}")
assert error < 0.1
assert (pixel_gradient.abs().sum(-1) > 0).float().mean() > 0.99

fig, axes = plt.subplots(1, 3, figsize=(9, 3))
three = (picture[0].detach(), latents[0].detach().movedim(0, -1)[..., :3] / 4 + 0.5, back[0])
show(axes, three, ("render", "3 of its 4 latents", "decoded"))

# %% [markdown]
# ## What the model wants
#
# Noise the latents, let the model predict the noise, and compute the clean latents it has in mind, x0_hat. SDS pulls
# towards them: (alpha/sigma) (x0 - x0_hat) = eps_hat - eps. At high t it says something about the layout, at low t
# about details.
#
# **Claim.** The two ways to write the SDS gradient are one.

# %%
denoiser = ViewDenoiser(guidance, embeddings)
denoiser.look([words.index(guidance.view_word(30.0, 15.0))])
generator = torch.Generator().manual_seed(SEED)
wanted = []
for t in (900, 600, 300, 100):
    step = jsdsd.SDS().gradient(denoiser, latents.detach(), t, generator)
    alpha, sigma = denoiser.schedule.alpha(t), denoiser.schedule.sigma(t)
    assert torch.allclose(step.grad, alpha / sigma * (latents.detach() - step.targets[0]), atol=1e-3)
    wanted.append(guidance.decode_latents(step.targets[0])[0])
fig, axes = plt.subplots(1, 4, figsize=(11, 3))
show(axes, wanted, [f"x0_hat from t = {t}" for t in (900, 600, 300, 100)])

# %% [markdown]
# ### Exercise 1
#
# Ask for something else than is shown: look at the render of a mushroom with the embeddings of "a green cactus". At
# which t does the model still see the mushroom?
#
# *Hint.* `guidance.encode_prompts(view_prompts("a green cactus", words))`, then a new `ViewDenoiser`.

# %%
# your turn

# %% [markdown]
# ## From latents to voxels
#
# The gradient lives on latents. The chain rule carries it through the encoder and the renderer to the grid; autograd
# does that if we give it a scalar with the right gradient, the surrogate loss `<x0, grad>`. The U-Net is never
# differentiated.
#
# **Claim.** Backward through the surrogate gives the vector-Jacobian product grad · dx0/dvoxels.

# %%
grid = jsdsd.VoxelGrid.blob((RESOLUTION,))
x0 = guidance.encode_images(jsdsd.render(grid, jsdsd.orbit(30.0), guidance.image_size).rgb)
grad = jsdsd.SDS().gradient(denoiser, x0, 700, generator).grad
parameters = list(grid.parameters())
by_surrogate = torch.autograd.grad(surrogate_loss(x0, grad), parameters, retain_graph=True)
by_chain_rule = torch.autograd.grad(x0, parameters, grad_outputs=grad)
assert all(torch.equal(a, b) for a, b in zip(by_surrogate, by_chain_rule, strict=True))

fig, (left, right) = plt.subplots(1, 2, figsize=(7, 3.2))
left.imshow(grad[0].norm(dim=0).numpy())
left.set_title("size of the gradient on latents", fontsize=9)
density_slice = by_surrogate[0][0, :, RESOLUTION // 2].flip(0)  # the plane y = 0, seen from the front
right.imshow(density_slice.numpy(), cmap="RdBu", vmin=-density_slice.abs().max(), vmax=density_slice.abs().max())
right.set_title("on density, a slice through the middle", fontsize=9)

# %% [markdown]
# ## The whole loop
#
# Put together: random cameras, random plain backgrounds (a scene that must look right before any background cannot hide
# haze), render, encode, gradient, step. Noise falls quadratically from 0.98 to 0.02 of the schedule, density's rate
# rises. Penalties on half-transparent pixels and on speckle, each a share of the guidance's gradient, grow over the
# run, so that a body may form in fog and must end solid.
#
# **Claim.** These lines are what `generate` does: after a few steps the voxels agree.


# %%
def my_optimise(objective, steps):
    generator = torch.Generator().manual_seed(SEED)
    levels = [max(2, RESOLUTION // k) for k in (8, 4, 2)] + [RESOLUTION]
    grid = jsdsd.VoxelGrid.blob(levels, generator=generator)
    denoiser = ViewDenoiser(guidance, embeddings)
    rates = [{"params": grid.density_levels, "lr": 0.1}, {"params": grid.colour_levels, "lr": 0.03}]
    adam = torch.optim.Adam(rates, betas=(0.9, 0.99))
    for step in range(steps):
        adam.param_groups[0]["lr"] = between(TOY.density_rates, step / steps)  # logits per step
        t = Anneal(0.98, 0.02, power=2)(step, steps, denoiser.schedule)
        azimuth, elevation = random_views(VIEWS, generator, spread=True)  # degrees
        seen = zip(azimuth.tolist(), elevation.tolist(), strict=True)
        corners = camera_corner(azimuth, elevation)  # the toybox is told exact cameras as well
        denoiser.look([words.index(guidance.view_word(*view)) for view in seen], corners)
        background = random_background(VIEWS, generator)
        picture = jsdsd.render(grid, jsdsd.orbit(azimuth, elevation), guidance.image_size, background)
        rough = TOY.smooth * total_variation(sum_levels(grid.colour_levels, RESOLUTION))
        rgb, opacity, rough = as_share(picture.rgb, picture.opacity, rough)
        x0 = guidance.encode_images(rgb)  # (VIEWS, 4, h, w)
        loss = surrogate_loss(x0, objective.gradient(denoiser, x0, t, generator).grad)
        loss = loss + step / steps * (TOY.solid * solid(opacity) + rough)
        adam.zero_grad()
        loss.backward()
        adam.step()
    return grid


common = dict(model=guidance, seed=SEED, views_per_step=VIEWS, resolution=RESOLUTION, progress=False)
common |= dict(render_sizes=(guidance.image_size,))  # the default renders half of the run at half the size
mine = my_optimise(jsdsd.JSD(), LOOP_STEPS)
theirs = jsdsd.generate(PROMPT, objective="jsd", steps=LOOP_STEPS, **common)
gap = max(float((a - b).abs().max()) for a, b in zip(mine.levels, theirs.grid.levels, strict=True))
print(f"largest difference between the two grids after {LOOP_STEPS} steps: {gap:.1e}")
assert gap < 1e-4

fig, axes = plt.subplots(1, 4, figsize=(9, 2.4))
show(axes, [theirs.render(a, size=96) for a in AROUND], [f"after {LOOP_STEPS} steps, {a}°" for a in AROUND])

# %% [markdown]
# ## SDS against the paper's JSD, fairly
#
# A step of SDS costs one evaluation of the U-Net, a step of the JSD recipe four (two to invert, two for its targets).
# Equal *calls* are the usual measure. They are not equal seconds: each step also renders and encodes, so that SDS, with
# more steps, takes longer on a small U-Net.
#
# **Claim.** The two runs below spend the same number of U-Net calls. Which toy is better, look: one prompt and one seed
# prove nothing.

# %%
assets = {}
for name, calls_per_step in (("sds", 1), ("jsd", 4)):
    assets[name] = jsdsd.generate(PROMPT, objective=name, steps=UNET_CALLS // calls_per_step, **common)
spent = {name: sum(record["unet_calls"] for record in asset.history) for name, asset in assets.items()}
print(spent, "U-Net calls;", {n: f"{sum(r['seconds'] for r in a.history):.0f} s" for n, a in assets.items()})
assert spent == {"sds": UNET_CALLS, "jsd": UNET_CALLS}

fig, axes = plt.subplots(2, 4, figsize=(9, 4.6))
for row, (name, asset) in zip(axes, assets.items(), strict=True):
    show(row, [asset.render(a, size=96) for a in AROUND], [f"{name}, {a}°" for a in AROUND])

# %% [markdown]
# ### Exercise 2
#
# Give SDS the same number of *steps* as JSD instead. And give both three seeds. What would you need to see before you
# say that one is better?
#
# *Hint.* `jsdsd.toybox.true_grid` is the true toy.

# %%
# your turn

# %% [markdown]
# ## What the guidance scale multiplies
#
#     eps_hat = eps_0 + s (eps_y - eps_0)
#
# The part that knows the prompt is the difference. s = 1 takes the model at its word; larger s exaggerates it.
#
# **Claim.** The prediction is exactly linear in s, so that its distance from the unguided one grows as |s - 1|.

# %%
x_t = torch.randn(1, *guidance.latent_shape, generator=generator)
eps = {s: denoiser.predict_eps(x_t, 600, s) for s in SCALES}
difference = eps[1.0] - eps[0.0]  # eps_y - eps_0
away = [float((eps[s] - eps[1.0]).norm()) for s in SCALES]
print("distance from s = 1:", {s: round(a, 2) for s, a in zip(SCALES, away, strict=True)})
for s in SCALES:
    assert torch.allclose(eps[s], eps[0.0] + s * difference, atol=1e-3)

fig, ax = plt.subplots(figsize=(5, 3))
ax.plot(SCALES, away, "o-", color="crimson")
ax.set(xlabel="guidance scale s", ylabel="|eps(s) - eps(1)|")

# %% [markdown]
# ## Janus, on order
#
# Nothing in the objective says that an object has one front. A prompt that names a view already, "a blue car, front
# view", asks for a front on every side; the toybox, told the exact camera as well, has to choose whom to believe.
#
# **Claim.** With a view in the prompt all nine sentences are the same, and so is what the model is asked for from every
# side; without it they differ. Below, how much front and side differ in what came out, beside the true toy; this
# depends on how well the weights follow view words, and is printed, not asserted.

# %%
on_order = f"{TWO_SIDED}, front view"
asked = guidance.encode_prompts(view_prompts(on_order, words)).vectors
assert (asked - asked[0]).abs().max() < 1e-5
assert (guidance.encode_prompts(view_prompts(TWO_SIDED, words)).vectors.diff(dim=0).norm(dim=1) > 1e-3).all()

cars = {"true": jsdsd.Asset(true_grid(Toy("car", "blue")), TWO_SIDED)}
for name, prompt in (("view words", TWO_SIDED), ("front from everywhere", on_order)):
    cars[name] = jsdsd.generate(prompt, objective="jsd", steps=JANUS_STEPS, **common)
fig, axes = plt.subplots(3, 4, figsize=(9, 6.8))
for row, (name, car) in zip(axes, cars.items(), strict=True):
    views = [car.render(azimuth, size=96) for azimuth in AROUND]
    print(f"{name:22} mean difference of front and side: {abs(views[0] - views[1]).mean():.3f}")
    show(row, views, [f"{name}, {azimuth}°" for azimuth in AROUND])

# %% [markdown]
# ## What was left out
#
# - **The default run**: 100 steps with 4 views of `Seeded()`: JSD, asked with words that the seed has learned from one
#   of the model's own samples, so that seeds differ; its record is in `asset.history`.
# - **Exporting.** `asset.save("mushroom.glb")` and seven other formats.
# - **How good it is**: the [model card](../docs/toybox.md). One prompt and one seed are no comparison.
#
# Next: [8. Inside the toybox](08_inside_the_toybox.py).
