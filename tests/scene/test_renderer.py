"""The renderer against a scalar ray marcher, closed forms and the symmetries of the cube.  float64 throughout."""

from __future__ import annotations

import math
import sys
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from jsdsd.scene import renderer
from jsdsd.scene.cameras import Camera, look_at, orbit
from jsdsd.scene.renderer import render, render_fields
from jsdsd.scene.voxels import VoxelGrid, grid_points

sys.path.insert(0, str(Path(__file__).parent))  # the oracle lies beside this file
import marcher
from marcher import F64, SYMMETRIES, cameras, everything, fields, smooth, turned


def few_at_once(rays: int) -> AbstractContextManager[Any]:
    """Rays in small portions, as large pictures have them."""
    return mock.patch.object(renderer, "RAYS", rays)


AXIS_PARALLEL = look_at(torch.tensor([[0.0, -3, 0]], dtype=F64))  # size 1: the only ray is exactly +y
DIAGONAL = look_at(torch.tensor([[2.0, -2, 2]], dtype=F64))  # size 1: all three axes tie
INSIDE = look_at(torch.tensor([[0.3, 0.2, -0.1]], dtype=F64), fov=100.0)


@settings(max_examples=25)
@given(cameras(), st.integers(1, 3), st.integers(2, 6), st.integers(0, 99), st.sampled_from([1, 2, 100]))
@example(AXIS_PARALLEL, 1, 4, 0, 2)
@example(DIAGONAL, 1, 5, 0, 100)
@example(INSIDE, 3, 5, 1, 2)
def test_values_and_gradients_are_those_of_the_scalar_marcher(
    camera: Camera, size: int, resolution: int, seed: int, portion: int
) -> None:
    density, colour = (x.requires_grad_() for x in fields(resolution, seed))
    with few_at_once(portion):
        fast = everything(render_fields(density, colour, camera, size, 0.3))
    rgb, depth, opacity = marcher.render_slowly(density, colour, camera, size, 0.3)
    slow = torch.cat([rgb, depth[..., None], opacity[..., None]], -1)
    torch.testing.assert_close(fast, slow, rtol=1e-9, atol=1e-11)
    probe = torch.rand(fast.shape, generator=torch.Generator().manual_seed(seed), dtype=F64) - 0.5
    expected = torch.autograd.grad((slow * probe).sum() + 0 * density.sum() + 0 * colour.sum(), (density, colour))
    torch.testing.assert_close(torch.autograd.grad((fast * probe).sum(), (density, colour)), expected)


@settings(max_examples=4)
@given(cameras(count=2), st.integers(2, 3), st.integers(0, 99), st.sampled_from([3, 100]))
def test_gradcheck(camera: Camera, resolution: int, seed: int, portion: int) -> None:
    density, colour = fields(resolution, seed)
    density = (density + 0.1).requires_grad_()  # gradcheck steps to both sides, and density must not be negative
    with few_at_once(portion):
        assert torch.autograd.gradcheck(
            lambda d, c: everything(render_fields(d, c, camera, 2)), (density, colour.requires_grad_())
        )


@settings(max_examples=30)
@given(cameras(count=2), st.floats(0.01, 50), st.integers(2, 40))
@example(INSIDE, 1.0, 5)
def test_a_full_box_lets_exp_minus_density_times_length_through(
    camera: Camera, density: float, resolution: int
) -> None:
    full = torch.full((resolution,) * 3, density, dtype=F64)
    picture = render_fields(full, torch.full((3, *full.shape), 0.25, dtype=F64), camera, 4, 1.0)
    origin, direction = (x.reshape(-1, 3).tolist() for x in camera.rays(4))
    spans = [marcher.box_span(o, d) for o, d in zip(origin, direction, strict=True)]
    passed = torch.tensor([math.exp(-density * max(b - a, 0)) for a, b in spans], dtype=F64).reshape(-1, 4, 4)
    torch.testing.assert_close(1 - picture.opacity, passed, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(picture.rgb, (0.25 + 0.75 * passed)[..., None].expand(-1, -1, -1, 3))


@settings(max_examples=30)
@given(st.integers(9, 30), st.integers(1, 4), st.floats(0.1, 9), st.floats(0, 40))
def test_a_slab_lets_exp_minus_density_times_length_through(nodes: int, half: int, density: float, tilt: float) -> None:
    """2 half + 1 layers of nodes with linear flanks: as much as a slab of 2 half + 1 spacings, from any angle."""
    resolution = 2 * nodes + 1
    slab = torch.zeros((resolution,) * 3, dtype=F64)
    slab[nodes - half : nodes + half + 1] = density  # horizontal
    camera = orbit(20.0, 90 - tilt, fov=2.0, dtype=F64)
    picture = render_fields(slab, torch.zeros(3, *slab.shape, dtype=F64), camera, 3)
    thickness = (2 * half + 1) * 2 / (resolution - 1)  # scene units
    length = thickness / camera.rays(3)[1][..., 2].abs()
    torch.testing.assert_close(1 - picture.opacity, torch.exp(-density * length))


def test_a_sphere_converges_to_its_chords() -> None:
    radius, density = 0.6, 3.0
    camera = orbit([17.0, 100.0], [20.0, -50.0], dtype=F64)
    origin, direction = camera.rays(24)
    closest = (origin - (origin * direction).sum(-1, keepdim=True) * direction).norm(dim=-1)
    passed = torch.exp(-density * 2 * (radius**2 - closest**2).clamp(min=0).sqrt())
    errors = []
    for resolution in (13, 25, 49):
        distance = grid_points(resolution, dtype=F64).norm(dim=-1)
        ball = density * ((radius - distance) * (resolution - 1) / 2 + 0.5).clamp(0, 1)  # flank one spacing wide
        picture = render_fields(ball, torch.zeros(3, *ball.shape, dtype=F64), camera, 24)
        errors.append((1 - picture.opacity - passed).abs().mean().item())
    assert errors[1] < 0.5 * errors[0] and errors[2] < 0.5 * errors[1] and errors[2] < 6e-3, errors


@pytest.mark.parametrize("camera", [orbit(30.0, 20.0, dtype=F64), INSIDE], ids=["outside", "inside"])
def test_it_converges_to_a_fine_march(camera: Camera) -> None:
    errors = []
    for resolution in (9, 17, 33):
        density, colour = smooth(resolution)
        rgb, depth, opacity = marcher.render_slowly(density, colour, camera, 3, samples=100)
        fine = torch.cat([rgb, depth[..., None], opacity[..., None]], -1)
        errors.append((everything(render_fields(density, colour, camera, 3)) - fine).abs().max().item())
    assert errors[1] < 0.35 * errors[0] and errors[2] < 0.35 * errors[1] and errors[2] < 5e-3, errors  # second order


@settings(max_examples=30)
@given(cameras(count=2), st.integers(2, 8), st.integers(0, 99))
def test_opacity_and_the_background_seen_through_it_add_up_to_one(camera: Camera, resolution: int, seed: int) -> None:
    density, colour = fields(resolution, seed)
    back = torch.rand(2, 2, 3, generator=torch.Generator().manual_seed(seed), dtype=F64)  # two colours per camera
    one, two = (render_fields(density, colour, camera, 5, b) for b in back)
    seen = (1 - one.opacity)[..., None] * (back[0] - back[1])[:, None, None]
    torch.testing.assert_close(one.rgb - two.rgb, seen)
    assert (one.opacity >= 0).all() and (one.opacity <= 1).all() and (one.depth >= 0).all()
    assert (one.rgb >= 0).all() and (one.rgb <= 1 + 1e-12).all()


@settings(max_examples=4)
@given(cameras(), st.integers(2, 6), st.integers(0, 99))
def test_the_48_symmetries_of_the_cube_change_nothing(camera: Camera, resolution: int, seed: int) -> None:
    density, colour = fields(resolution, seed)
    origin, direction = camera.rays(3)
    largest, second, _ = direction.abs().sort(-1, descending=True)[0].unbind(-1)
    clear = (largest - second > 1e-9)[..., None]  # a tie may go to another axis in the turned picture
    expected = everything(render_fields(density, colour, camera, 3)) * clear
    for matrix in SYMMETRIES:
        moved = Camera(camera.position @ matrix.T, camera.rotation @ matrix.T, camera.fov)
        picture = render_fields(turned(density[None], matrix)[0], turned(colour, matrix), moved, 3)
        torch.testing.assert_close(everything(picture) * clear, expected)


@settings(max_examples=20)
@given(st.integers(1, 5), st.data())
def test_a_batch_is_a_loop_of_singles(count: int, data: st.DataObject) -> None:
    camera = data.draw(cameras(count=count))
    density, colour = fields(6, count)
    back = torch.rand(count, 3, generator=torch.Generator().manual_seed(count), dtype=F64)
    together = everything(render_fields(density, colour, camera, 4, back))
    singles = [everything(render_fields(density, colour, camera[i], 4, back[i])) for i in range(count)]
    torch.testing.assert_close(together, torch.cat(singles))


@settings(max_examples=30)
@given(st.floats(0, 360), st.floats(-80, 80), st.integers(2, 8))
def test_rays_that_miss_see_the_background_alone(azimuth: float, elevation: float, resolution: int) -> None:
    density, colour = (x.requires_grad_() for x in fields(resolution, 0))
    there = orbit(azimuth, elevation, dtype=F64)
    away = look_at(there.position, 2 * there.position)
    picture = render_fields(density, colour, away, 3, 0.7)
    assert (picture.rgb == 0.7).all() and (picture.opacity == 0).all() and (picture.depth == 0).all()
    gradients = torch.autograd.grad(picture.rgb.sum(), (density, colour))
    assert all((g == 0).all() for g in gradients)


@pytest.mark.parametrize("axis", range(3))
@pytest.mark.parametrize("sign", [-1.0, 1.0])
def test_a_ray_along_an_axis_adds_up_the_nodes_that_it_passes(axis: int, sign: float) -> None:
    density, colour = fields(7, axis)
    position = torch.zeros(1, 3, dtype=F64)
    position[0, axis] = 3 * sign
    picture = render_fields(density, colour, look_at(position), 1)
    column = density.movedim(2 - axis, 0)[:, 3, 3]  # node 3 of 7 is the middle
    length = torch.tensor([0.5, 1, 1, 1, 1, 1, 0.5], dtype=F64) * 2 / 6
    torch.testing.assert_close(1 - picture.opacity[0, 0, 0], torch.exp(-(column * length).sum()))


@pytest.mark.parametrize("x", [-1.0, 1.0, 0.9, -2.0])
def test_a_ray_in_or_along_a_side_of_the_box_is_finite(x: float) -> None:
    density, colour = (f.requires_grad_() for f in fields(5, 0))
    position = torch.tensor([[x, -3.0, 0.0]], dtype=F64)
    ahead = look_at(position, position + position.new_tensor([0, 1, 0]))
    picture = everything(render_fields(density, colour, ahead, 1))
    gradients = torch.autograd.grad(picture.sum(), (density, colour))
    assert picture.isfinite().all() and all(g.isfinite().all() for g in gradients)
    assert (picture[..., 4] > 0).all() == (abs(x) < 1)


@pytest.mark.parametrize("place", [(2, -2, 0), (2, 2, 0), (-2, 0, 2), (0, -2, -2), (2, -2, 2), (-2, 2, -2)])
def test_a_tie_between_axes_is_as_good_as_the_rays_beside_it(place: tuple[float, float, float]) -> None:
    density, colour = smooth(25)
    position = torch.tensor([place], dtype=F64)
    tie = everything(render_fields(density, colour, look_at(position), 1))
    fine = marcher.render_slowly(density, colour, look_at(position), 1, samples=400)
    assert (tie[0, 0, 0, :3] - fine[0][0, 0, 0]).abs().max() < 2e-3
    for nudge in 1e-7 * torch.eye(3, dtype=F64):
        for side in (nudge, -nudge):
            beside = everything(render_fields(density, colour, look_at(position + side), 1))
            torch.testing.assert_close(tie, beside, rtol=0, atol=2e-3)


@pytest.mark.parametrize("opaque", [1e3, 1e6, 1e30])
def test_behind_an_opaque_wall_nothing_counts_and_nothing_breaks(opaque: float) -> None:
    density, colour = (x.to(torch.float32) for x in fields(20, 3))
    density[:, 10] = opaque  # the plane y = 1/19, across the view
    density.requires_grad_()
    picture = render_fields(density, colour.requires_grad_(), orbit(0.0, 0.0, fov=20.0), 8)
    gradients = torch.autograd.grad(picture.rgb.sum() + picture.depth.sum(), (density, colour))
    assert everything(picture).isfinite().all() and all(g.isfinite().all() for g in gradients)
    torch.testing.assert_close(picture.opacity, torch.ones_like(picture.opacity))
    assert (gradients[0][:, 11:] == 0).all() and (gradients[1][:, :, 11:] == 0).all()
    assert (gradients[1][:, :, :10] != 0).any()


def test_depth_is_the_distance_to_what_is_seen() -> None:
    wall = torch.full((9, 9, 9), 1e6, dtype=F64)
    camera = orbit([0.0, 30.0], fov=10.0, dtype=F64)
    picture = render_fields(wall, torch.zeros(3, 9, 9, 9, dtype=F64), camera, 5)
    origin, direction = (x.reshape(-1, 3).tolist() for x in camera.rays(5))
    enter = [marcher.box_span(o, d)[0] for o, d in zip(origin, direction, strict=True)]
    beyond = picture.depth.reshape(-1) - torch.tensor(enter, dtype=F64)
    assert (beyond >= 0).all() and (beyond < math.sqrt(3) * 2 / 8 / 2).all()  # half a sample's length at most


def test_gradients_reach_every_level_of_a_grid_and_no_camera() -> None:
    grid = VoxelGrid.blob((3, 6, 12), colour_std=1.0, generator=torch.Generator().manual_seed(0))
    place = torch.tensor([[0.5, -3.0, 1.0]], requires_grad=True)
    picture = render(grid, look_at(place), 6, torch.tensor([0.1, 0.5, 0.9]))
    picture.rgb.square().sum().backward()
    assert all(p.grad is not None and (p.grad != 0).any() for p in grid.parameters())
    assert place.grad is None


def test_float32_agrees_with_float64_and_takes_cameras_of_either() -> None:
    density, colour = fields(20, 0)
    camera = orbit([10.0, 130.0], 25.0, dtype=F64)
    exact = everything(render_fields(density, colour, camera, 16))
    for view in (camera, camera.to(dtype=torch.float32)):
        quick = everything(render_fields(density.float(), colour.float(), view, 16))
        assert quick.dtype == torch.float32
        torch.testing.assert_close(quick.double(), exact, rtol=0, atol=2e-5)


def test_an_empty_batch_of_cameras_gives_an_empty_batch_of_pictures() -> None:
    picture = render_fields(*fields(4, 0), orbit([], dtype=F64), 5)
    assert picture.rgb.shape == (0, 5, 5, 3) and picture.opacity.shape == (0, 5, 5)


@pytest.mark.gpu
def test_a_gpu_draws_the_same_picture() -> None:
    density, colour = fields(20, 0)
    camera = orbit([10.0, 130.0], 25.0, dtype=F64)
    there = [x.cuda().requires_grad_() for x in (density, colour)]
    here = [density.requires_grad_(), colour.requires_grad_()]
    pictures = [everything(render_fields(d, c, camera, 16)) for d, c in (here, there)]
    torch.testing.assert_close(pictures[1].cpu(), pictures[0])
    gradients = [torch.autograd.grad(p.square().sum(), pair) for p, pair in zip(pictures, (here, there), strict=True)]
    torch.testing.assert_close(tuple(g.cpu() for g in gradients[1]), gradients[0])


GOOD = torch.rand(4, 4, 4), torch.rand(3, 4, 4, 4)


@pytest.mark.parametrize(
    ("density", "colour", "background", "size", "words"),
    [
        (GOOD[0], GOOD[0], 1.0, 4, "shape"),
        (GOOD[0][:3], GOOD[1][:, :3], 1.0, 4, "shape"),
        (torch.rand(()), torch.rand(3), 1.0, 4, "shape"),
        (torch.rand(1, 1, 1), torch.rand(3, 1, 1, 1), 1.0, 4, "R >= 2"),
        (GOOD[0].double(), GOOD[1], 1.0, 4, "both float32 or both float64"),
        (GOOD[0].long(), GOOD[1].long(), 1.0, 4, "both float32 or both float64.*int64"),
        (GOOD[0].half(), GOOD[1].half(), 1.0, 4, "both float32 or both float64.*float16"),
        (GOOD[0].bfloat16(), GOOD[1].bfloat16(), 1.0, 4, "both float32 or both float64.*bfloat16"),
        (GOOD[0] - 2, GOOD[1], 1.0, 4, ">= 0"),
        (GOOD[0] * math.nan, GOOD[1], 1.0, 4, "finite"),
        (GOOD[0] + math.inf, GOOD[1], 1.0, 4, "finite"),
        (GOOD[0], GOOD[1].index_fill(1, torch.tensor(2), math.nan), 1.0, 4, "NaN"),
        (*GOOD, torch.ones(2), 4, "background"),
        (*GOOD, torch.ones(3, 3), 4, "background"),
        (*GOOD, 1.0, 0, "size"),
        (*GOOD, 1.0, 2.5, "size"),
        (*GOOD, 1.0, 4.0, "a whole number of pixels, at least 1, got 4.0"),
        (*GOOD, 1.0, (4, 4), "a whole number of pixels"),
    ],
)
def test_what_cannot_be_drawn_is_refused_in_words(
    density: Tensor, colour: Tensor, background: float | Tensor, size: int, words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        render_fields(density, colour, orbit([0.0, 1.0]), size, background)


@pytest.mark.parametrize("background", [math.nan, 255, -1, torch.tensor([0.0, 0.0, 1.1])])
def test_a_background_that_is_no_colour_is_refused(background: float | Tensor) -> None:
    with pytest.raises(ValueError, match=r"background must lie in \[0, 1\], got values from"):
        render(VoxelGrid.blob((4,)), orbit(0.0), 4, background)
