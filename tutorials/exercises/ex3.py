# %% [markdown]
# # Problem set 3: renderer and 3D
#
# Six functions, 30 points. Fill the blanks (`raise NotImplementedError`), then, in a shell:
#
#     python tutorials/grade.py tutorials/exercises/ex3.py
#
# It says per problem what is right, what is wrong, and why. Shapes stand in brackets. The scene is the box [-1, 1]³,
# right-handed, Z up; objects face -Y; grids are indexed [channel, z, y, x]. P rays have K samples each, the sample next
# to the camera first. density is per scene unit; opacity and transmittance lie in 0 ... 1. Gradients must flow.

# %%
import torch  # noqa: F401

import jsdsd  # noqa: F401


# %% Problem 1 (4 points)
def camera_position(azimuth, elevation, radius):
    """Where cameras stand that orbit the origin.

    Azimuth 0 sees the front of the object (the camera is on the -Y side), azimuth 90 has it on the +X side.

    azimuth: (B,), degrees. elevation: (B,), degrees above the horizon, -90 ... 90. radius: (B,), scene units.
    Returns (B, 3).
    """
    raise NotImplementedError


# %% Problem 2 (3 points)
def opacity(density, length):
    """1 - exp(-density length): the share of light that a piece of fog takes away.

    density: (K, P), per scene unit, >= 0. length: (K, P), or what broadcasts to it, scene units. Returns (K, P).
    """
    raise NotImplementedError


# %% Problem 3 (6 points)
def composite(opacity, colour, background):
    """rgb = sum_k T_k opacity_k colour_k + T_end background and opacity = 1 - T_end, front to back.

    T_k = (1 - opacity_0) (1 - opacity_1) ... (1 - opacity_{k-1}), so T_0 = 1; T_end is the product over all samples.

    opacity: (K, P), in 0 ... 1, and 1 may occur. colour: (K, P, 3). background: (3,). Returns rgb (P, 3) and
    opacity (P,).
    """
    raise NotImplementedError


# %% Problem 4 (5 points)
def trilinear(field, points):
    """The field between its nodes: the mean of the 8 corners of the cell, each by its nearness along x, y and z.

    field: (C, R, R, R), indexed [channel, z, y, x]; node i of an axis is at -1 + 2 i / (R - 1). points: (P, 3), each
    (x, y, z) in [-1, 1], the faces of the box included. Returns (C, P). Without torch's grid_sample, please.
    """
    raise NotImplementedError


# %% Problem 5 (6 points)
def march(density, colour, origin, direction, near, far, samples, background):
    """The colour of P rays: `samples` equal parts between near and far, each sampled in its middle, composited.

    density: (R, R, R), per scene unit. colour: (3, R, R, R). origin, direction: (P, 3), direction of length 1.
    near, far: (P,), distances from the origin, scene units; all between them lies inside the box. samples: an integer
    K. background: (3,). Returns rgb (P, 3).
    """
    raise NotImplementedError


# %% Problem 6 (6 points)
def distill_views(grid, camera, denoiser, noises, times, rate, background):
    """Text to 3D, all of it: render, noise, predict, and push the SDS gradient back through the renderer.

    Each step: x0 = the renders; gradient eps_hat - eps on x0, not through the denoiser, as the mean over the B views;
    one step of plain gradient descent (torch.optim.SGD) of all of the grid's parameters. The denoiser here works on
    pictures and knows the picture of each view; SDXL stands in its place elsewhere.

    grid: a jsdsd.VoxelGrid, changed in place. camera: a jsdsd.Camera of B views. denoiser: has .schedule and
    .predict_eps(x_t, t). noises: (S, B, H, H, 3). times: S integers. rate: the learning rate. background: a grey level.
    jsdsd.render(grid, camera, H, background).rgb is (B, H, H, 3). Returns the logits (4, R, R, R), grid.logits(),
    detached.
    """
    raise NotImplementedError


# %% Questions (in words, for your teacher)
# a. Halve the length of every part and double their number, in fog of constant density. What does `composite` give?
#
# b. Every view of Problem 6 is compared with a picture of its own. What goes wrong if the denoiser knows only one
#    picture, the front, and is asked about all views?
