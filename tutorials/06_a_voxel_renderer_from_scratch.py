# %% [markdown]
# # 6. A voxel renderer from scratch
#
# To push a gradient into a 3D scene, the way from scene to picture must be differentiable. Surfaces make that hard:
# moving an edge switches pixels on and off. Fog makes it easy: every bit of a ray has some density, and the picture
# depends smoothly on all of it. This tutorial writes such a renderer in about 40 lines, checks it against the
# library's, and uses both to fit a toy to pictures of it.
#
# ## What you will learn
#
# - emission and absorption: opacity, transmittance, compositing;
# - cameras, rays and a grid of voxels, with one `grid_sample`;
# - that autograd gives the gradient for nothing, and that the library's hand-written one agrees with it;
# - what the number of samples costs and buys;
# - that a few pictures determine a toy, and a single one does not: where Janus faces come from.
#
# The renderer's words are density, opacity and transmittance; alpha and sigma belong to diffusion.

# %%
import math
import os
import time

import matplotlib.pyplot as plt
import torch
from torch.nn import functional as F

import jsdsd
from jsdsd.toybox import Toy, true_grid

FAST = os.environ.get("JSDSD_FAST") == "1"  # smaller pictures, fewer steps: a check in seconds
TOY = Toy("mug", "blue")  # any kind and colour of jsdsd.toybox: its handle shows from where you look
RESOLUTION = 24 if FAST else 40  # voxels per axis
SIZE = 32 if FAST else 64  # pixels per side
SAMPLES = 64  # per ray, between entering and leaving the box
AZIMUTHS = tuple(range(0, 360, 45))  # degrees: the views that a toy is fitted to
HELD_OUT = 20.0  # degrees: a view that no fit sees
STEPS = 40 if FAST else 200  # of Adam, per fit

# %% [markdown]
# ## Light through fog
#
# In fog of a given *density* [1 / length], a piece of a ray of length l lets exp(-density · l) of the light through:
#
#     opacity       = 1 - exp(-density · length)
#     transmittance = 1 - opacity
#
# Pieces multiply. With the colour each piece emits, and T_k for what comes through all pieces before k,
#
#     T_k = product over j < k of (1 - opacity_j)
#     rgb = sum_k T_k opacity_k colour_k + T_end background
#
# **Claim.** Cutting a uniform piece into 1, 10 or 1000 parts gives the same opacity, exactly: the formula knows no
# step size.

# %%
density, length = 0.7, 2.0
exact = 1 - math.exp(-density * length)
for parts in (1, 10, 1000):
    opacity = 1 - torch.exp(-torch.full((parts,), density * length / parts, dtype=torch.float64))
    together = float(1 - (1 - opacity).prod())
    print(f"{parts:5} parts: {together:.12f}   exact {exact:.12f}")
    assert abs(together - exact) < 1e-12

fig, ax = plt.subplots(figsize=(5, 3))
way = torch.linspace(0, 6, 100)
for d in (0.3, 0.7, 2.0):
    ax.plot(way, 1 - torch.exp(-d * way), label=f"density {d}")
ax.set(xlabel="way through the fog", ylabel="opacity")
ax.legend()

# %% [markdown]
# ## Forty lines
#
# The scene is the box [-1, 1]³ with Z up; objects face -Y. A grid holds density and colour at its nodes, indexed
# [channel, z, y, x]. A pinhole camera at distance 4 sends one ray through each pixel's centre. Each ray is cut into
# SAMPLES equal pieces between entering and leaving the box, and each piece looks up its middle.
#
# **Claim.** The picture agrees with `jsdsd.render` up to the error of sampling: below 0.02 (of 1) in the mean.


# %%
def my_rays(azimuth, elevation, size):
    a, e = math.radians(azimuth), math.radians(elevation)
    position = 4.0 * torch.tensor([math.sin(a) * math.cos(e), -math.cos(a) * math.cos(e), math.sin(e)])
    forward, right = -position / 4.0, torch.tensor([math.cos(a), math.sin(a), 0.0])
    up = torch.linalg.cross(right, forward)
    centre = ((torch.arange(size) + 0.5) / size * 2 - 1) * math.tan(math.radians(15))  # field of view 30 degrees
    down, across = torch.meshgrid(centre, centre, indexing="ij")
    direction = forward + across[..., None] * right - down[..., None] * up  # (H, W, 3)
    return position, direction / direction.norm(dim=-1, keepdim=True)


def my_render(density, colour, azimuth, elevation=15.0, size=SIZE, samples=SAMPLES, background=1.0):
    origin, direction = my_rays(azimuth, elevation, size)
    sides = torch.stack([(-1 - origin) / direction, (1 - origin) / direction])  # (2, H, W, 3)
    enter, leave = sides.amin(0).amax(-1), sides.amax(0).amin(-1)  # (H, W)
    length = (leave - enter).clamp(min=0) / samples  # 0 for a ray that misses the box
    k = torch.arange(samples)[:, None, None]
    t = enter + (k + 0.5) * length  # (S, H, W)
    at = origin + t[..., None] * direction  # (S, H, W, 3), x y z
    fields = torch.cat([density[None], colour])  # (4, R, R, R)
    value = F.grid_sample(fields[None], at[None], align_corners=True, padding_mode="border")[0]  # (4, S, H, W)
    opacity = 1 - torch.exp(-value[0] * length)
    after = (1 - opacity).cumprod(0)
    before = torch.cat([torch.ones_like(after[:1]), after[:-1]])
    rgb = (before * opacity * value[1:]).sum(1).movedim(0, -1)  # (H, W, 3)
    return rgb + after[-1][..., None] * background, 1 - after[-1]


truth = true_grid(TOY, resolution=RESOLUTION)
density, colour = (x.detach() for x in truth.fields())
mine, _ = my_render(density, colour, HELD_OUT)
theirs = jsdsd.render(truth, jsdsd.orbit(HELD_OUT, 15.0), SIZE).rgb[0].detach()
gap = (mine - theirs).abs().mean()
print(f"mean difference {gap:.4f} of 1")
assert gap < 0.02

fig, axes = plt.subplots(1, 3, figsize=(9, 3))
three = (mine, theirs, 10 * (mine - theirs).abs())
for ax, picture, title in zip(axes, three, ("mine", "jsdsd", "10 × gap"), strict=True):
    ax.imshow(picture.clamp(0, 1).numpy())
    ax.set_title(title)
    ax.axis("off")

# %% [markdown]
# ### Exercise 1
#
# Leave out the transmittance: use `opacity` alone as the weight of a colour. What do you see, and where is it worst?
#
# *Hint.* Look at the mug's far wall, and at values above 1 before they are clamped.

# %%
# your turn

# %% [markdown]
# ## The gradient, for nothing
#
# Everything above is made of differentiable parts. Autograd knows how each voxel changes the picture. The library
# writes this gradient out by hand, for speed: the sum over what lies *behind* a sample, from the back.
#
# **Claim.** For the same loss, the two gradients with respect to the density point the same way: cosine above 0.95.

# %%
gradients = []
for draw in (
    lambda d: my_render(d, colour, HELD_OUT)[0],
    lambda d: jsdsd.scene.renderer.render_fields(d, colour, jsdsd.orbit(HELD_OUT, 15.0), SIZE).rgb[0],
):
    d = (0.05 * density).requires_grad_()  # thin fog: a solid toy hides its inside, which then gets no gradient
    draw(d).sub(0.5).square().mean().backward()
    gradients.append(d.grad)
cosine = float(torch.cosine_similarity(gradients[0].flatten(), gradients[1].flatten(), 0))
print(f"cosine {cosine:.4f}")
assert cosine > 0.95

fig, axes = plt.subplots(1, 2, figsize=(7, 3.4))
for ax, g, title in zip(axes, gradients, ("autograd, mine", "by hand, jsdsd"), strict=True):
    ax.imshow(g[RESOLUTION // 2].flip(0).numpy(), cmap="RdBu", vmin=-g.abs().max(), vmax=g.abs().max())
    ax.set_title(f"{title}: a slice through the middle", fontsize=9)

# %% [markdown]
# ## How many samples?
#
# The library samples each ray where it crosses the grid's own planes: on a plane four corners are mixed instead of
# eight, and PyTorch's 2D `grid_sample` is faster than its 3D one ([the renderer's page](../docs/renderer.md) has the
# measurement).
#
# **Claim.** More samples make my renderer more exact, and slower. With a few, thin walls are missed. (At an equal
# number of samples mine is the more exact one: all of its samples lie inside the box. The library's is the faster.)

# %%
reference, _ = my_render(density, colour, HELD_OUT, samples=512)
counts, errors, seconds = (8, 16, 32, 64, 128), [], []
for samples in counts:
    started = time.perf_counter()
    picture, _ = my_render(density, colour, HELD_OUT, samples=samples)
    seconds.append(time.perf_counter() - started)
    errors.append(float((picture - reference).abs().mean()))
    print(f"{samples:4} samples: mean error {errors[-1]:.4f}, {1e3 * seconds[-1]:.1f} ms")
library_error = float((theirs - reference).abs().mean())
print(f"jsdsd, about {RESOLUTION} samples: mean error {library_error:.4f}")
assert errors[-1] < errors[1] / 2 and errors[-1] < 0.01

fig, ax = plt.subplots(figsize=(5, 3))
ax.loglog(counts, errors, "o-", color="crimson", label="mine")
ax.loglog([RESOLUTION], [library_error], "ks", label="jsdsd")
ax.set(xlabel="samples per ray", ylabel="mean error of the picture")
ax.legend()

# %% [markdown]
# ## Fit a toy to its views
#
# Now backwards: eight pictures of the toy are given, the grid is unknown. Start with a grey ball, render, compare,
# step. The grid is a sum of coarse and fine levels (`VoxelGrid.blob`): single voxels would turn noise into speckle.
#
# **Claim.** From a direction that no picture showed, the fitted toy looks like the true one: mean error below 0.06.


# %%
def fit(azimuths):
    cameras = jsdsd.orbit(azimuths, 15.0)
    wanted = jsdsd.render(truth, cameras, SIZE).rgb.detach()  # (V, H, W, 3)
    grid = jsdsd.VoxelGrid.blob((RESOLUTION // 4, RESOLUTION // 2, RESOLUTION))
    adam = torch.optim.Adam(grid.parameters(), 0.2)
    for _ in range(STEPS):
        loss = (jsdsd.render(grid, cameras, SIZE).rgb - wanted).square().mean()
        adam.zero_grad()
        loss.backward()
        adam.step()
    return grid, float(loss.detach())


def seen_from(grid, azimuth):
    return jsdsd.render(grid, jsdsd.orbit(azimuth, 15.0), SIZE).rgb[0].detach()


fitted, training_loss = fit(AZIMUTHS)
many_views = float((seen_from(fitted, HELD_OUT) - theirs).abs().mean())
print(f"held-out view: mean error {many_views:.3f} (training loss {training_loss:.5f})")
assert many_views < 0.06

fig, axes = plt.subplots(1, 2, figsize=(6, 3))
for ax, picture, title in zip(axes, (theirs, seen_from(fitted, HELD_OUT)), ("true", "fitted"), strict=True):
    ax.imshow(picture.clamp(0, 1).numpy())
    ax.set_title(f"{title}, from {HELD_OUT:g}°")
    ax.axis("off")

# %% [markdown]
# ### Exercise 2
#
# Give the fit half of the pictures: `fit(AZIMUTHS[::2])`, then `AZIMUTHS[::4]`. When does the handle go wrong?
#
# *Hint.* Plot the held-out error over the number of views, for several held-out azimuths.

# %%
# your turn

# %% [markdown]
# ## One view is not enough
#
# **Claim.** Fitted to a single picture, the grid reproduces this picture, and from the side it is more than twice as
# wrong as the toy fitted to eight. Nothing in one picture says how deep things are. A text-to-image model that shows
# the front from everywhere is such a picture for all sides at once: that is a Janus face.

# %%
flat, front_loss = fit(AZIMUTHS[:1])
side = 90.0
side_truth = seen_from(truth, side)
one_view = float((seen_from(flat, side) - side_truth).abs().mean())
eight_views = float((seen_from(fitted, side) - side_truth).abs().mean())
print(f"from the side: {one_view:.3f} with one view, {eight_views:.3f} with eight; front loss {front_loss:.5f}")
assert front_loss < 0.01
assert one_view > 2 * eight_views

fig, axes = plt.subplots(1, 3, figsize=(9, 3))
shown = (seen_from(flat, 0.0), seen_from(flat, side), side_truth)
for ax, picture, title in zip(axes, shown, ("one view: front", "one view: side", "true side"), strict=True):
    ax.imshow(picture.clamp(0, 1).numpy())
    ax.set_title(title)
    ax.axis("off")

# %% [markdown]
# ### Exercise 3
#
# Add a penalty that makes the unseen sides plausible: for instance little density in all. Does the side get better,
# and what does it cost at the front?
#
# *Hint.* `loss + 1e-3 * grid.fields()[0].mean()`.

# %%
# your turn

# %% [markdown]
# ## What was left out
#
# - **Light.** Colours are what the voxels emit; shadows and highlights are painted into them.
# - **Surfaces.** `asset.mesh()` extracts one afterwards, by marching cubes.
# - **Other scenes.** NeRFs put a network, Gaussian splatting a set of blobs where the grid stands. Score distillation
#   does not care.
# - **Speed.** A CUDA kernel is far faster than both renderers here, and has to be compiled.
# - **Camera gradients.** The library has none; poses are known in text-to-3D.
#
# Next: [7. Text to 3D, taken apart](07_text_to_3d_taken_apart.py).
