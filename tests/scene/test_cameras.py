"""Cameras: orbit and look_at agree, rays and intrinsics agree, and the conventions that notation promises hold."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch import Tensor

from jsdsd.scene.cameras import Camera, look_at, orbit

F64 = torch.float64
angles = st.floats(-720, 720)
radii = st.floats(0.5, 10)
fovs = st.floats(1, 150)


@given(angles, st.floats(-89, 89), radii, fovs)
@example(0.0, 0.0, 4.0, 30.0)
def test_orbit_is_look_at_from_the_same_place(azimuth: float, elevation: float, radius: float, fov: float) -> None:
    one = orbit(azimuth, elevation, radius, fov, dtype=F64)
    two = look_at(one.position, fov=fov)
    torch.testing.assert_close(one.rotation, two.rotation)
    torch.testing.assert_close(one.fov, two.fov)


def test_azimuth_0_sees_the_front_and_90_the_side_on_the_right_hand() -> None:
    views = orbit([0.0, 90.0, 180.0, 0.0], [0.0, 0.0, 0.0, 90.0], 3.0, dtype=F64)
    torch.testing.assert_close(views.position, torch.tensor([[0, -3, 0], [3, 0, 0], [0, 3, 0], [0, 0, 3]], dtype=F64))
    right, up, forward = views.rotation[0]  # in front of the object: +X on the right hand, +Z up, looking at +Y
    assert right.tolist() == [1, 0, 0] and up.tolist() == [0, 0, 1] and forward.tolist() == [0, 1, 0]


@given(angles, st.floats(-90, 90), radii)
@example(30.0, 90.0, 2.0)
@example(30.0, -90.0, 2.0)
def test_the_axes_are_orthonormal_and_the_picture_is_upright(azimuth: float, elevation: float, radius: float) -> None:
    view = orbit(azimuth, elevation, radius, dtype=F64)
    torch.testing.assert_close(view.rotation @ view.rotation.mT, torch.eye(3, dtype=F64)[None])
    right, up, forward = view.rotation[0]
    torch.testing.assert_close(torch.linalg.cross(right, forward), up)
    assert abs(right[2]) < 1e-12 and up[2] >= -1e-12  # level, and the sky above
    torch.testing.assert_close(view.position[0], -radius * forward)


@given(st.floats(0.5, 5), st.sampled_from([-1.0, 1.0]))
def test_a_camera_that_looks_straight_up_or_down_has_y_up(height: float, sign: float) -> None:
    view = look_at(torch.tensor([[0.0, 0.0, sign * height]], dtype=F64))
    assert view.rotation[0, 1].tolist() == [0, 1, 0]
    torch.testing.assert_close(torch.linalg.cross(view.rotation[0, 0], view.rotation[0, 2]), view.rotation[0, 1])


points = st.tuples(*[st.floats(-3, 3)] * 3)


@given(points, points, fovs, st.integers(1, 9))
@example((0.0, -4.0, 0.0), (0.0, 0.0, 0.0), 30.0, 2)
def test_a_point_on_a_ray_projects_back_onto_its_pixel(
    place: tuple[float, float, float], target: tuple[float, float, float], fov: float, size: int
) -> None:
    position = torch.tensor([place], dtype=F64)
    aim = torch.tensor([target], dtype=F64)
    if (position - aim).norm() < 0.1:
        aim = aim + 1
    view = look_at(position, aim, fov)
    origin, direction = view.rays(size)
    assert origin.shape == direction.shape == (1, size, size, 3)
    torch.testing.assert_close(direction.norm(dim=-1), torch.ones(1, size, size, dtype=F64))
    far = origin + 2.5 * direction
    local = torch.einsum("bij,bhwj->bhwi", view.rotation, far - view.position) * torch.tensor([1.0, -1, 1], dtype=F64)
    assert (local[..., 2] > 0).all()
    pixel = torch.einsum("bij,bhwj->bhwi", view.intrinsics(size), local / local[..., 2:])
    centre = torch.arange(size, dtype=F64) + 0.5
    torch.testing.assert_close(pixel[0, ..., 0], centre.expand(size, size), rtol=0, atol=1e-8)
    torch.testing.assert_close(pixel[0, ..., 1], centre[:, None].expand(size, size), rtol=0, atol=1e-8)


@given(fovs, st.integers(2, 9))
def test_the_field_of_view_is_the_angle_between_top_and_bottom(fov: float, size: int) -> None:
    _, direction = orbit(0.0, 0.0, fov=fov, dtype=F64).rays(size)
    slope = direction[0, :, 0, 2] / direction[0, :, 0, 1]  # upwards over forwards, one per row of pixels
    edge = math.tan(math.radians(fov / 2))
    torch.testing.assert_close(slope[0], torch.tensor(edge * (1 - 1 / size), dtype=F64))  # top row first
    torch.testing.assert_close(slope, -slope.flip(0))


def test_a_radius_of_4_shows_1_07_units_around_the_centre() -> None:
    assert 4 * torch.tan(orbit(0.0).fov / 2).item() == pytest.approx(1.07, abs=0.005)


def test_batches_broadcast_index_and_iterate() -> None:
    views = orbit([0.0, 90.0, 180.0], 10.0, [1.0, 2.0, 3.0])
    assert len(views) == 3 and views.position.shape == (3, 3)
    assert [round(v.position.norm().item(), 5) for v in views] == [1, 2, 3]
    assert torch.equal(views[-1].position, views[2].position) and torch.equal(views[-3].fov, views[:1].fov)
    assert len(views[1:]) == 2 and len(views[3:]) == 0 and len(orbit([])) == 0
    for wrong in (3, -4):
        with pytest.raises(IndexError):
            views[wrong]


def test_a_camera_moves_between_float_types() -> None:
    view = orbit(30.0)
    there = view.to(dtype=F64)
    assert {x.dtype for x in (there.position, there.rotation, there.fov, *there.rays(2))} == {F64}
    torch.testing.assert_close(there.to("cpu", torch.float32).position, view.position)


def test_whole_numbers_are_taken_as_places() -> None:
    assert torch.equal(look_at(torch.tensor([[0, -3, 0]])).position, torch.tensor([[0.0, -3, 0]]))
    views = look_at(torch.tensor([[0.0, -3, 0], [0, 3, 0]]), torch.tensor([0, 0, 1]), torch.tensor([20, 40]))
    torch.testing.assert_close(views.fov, torch.deg2rad(torch.tensor([20.0, 40])))


EYE, PLACE, FOV = torch.eye(3)[None], torch.zeros(1, 3), torch.ones(1)


@pytest.mark.parametrize(
    ("position", "rotation", "fov", "words"),
    [
        (PLACE[0], EYE, FOV, "shapes"),
        (PLACE, EYE[0], FOV, "shapes"),
        (PLACE, EYE, torch.ones(2), "shapes"),
        (PLACE, EYE, torch.tensor(1.0), "shapes"),
        (PLACE * math.nan, EYE, FOV, "finite"),
        (PLACE, EYE, FOV * math.inf, "finite"),
        (PLACE, EYE, FOV * 0, "fov"),
        (PLACE, EYE, FOV * math.pi, "fov"),
        (PLACE, 2 * EYE, FOV, "unit vectors"),
        (PLACE, torch.ones(1, 3, 3), FOV, "unit vectors"),
        (PLACE.double(), EYE, FOV, "one floating-point type"),
        (PLACE.long(), EYE.long(), FOV.long(), "floating-point"),
    ],
)
def test_what_is_no_camera_is_refused_in_words(position: Tensor, rotation: Tensor, fov: Tensor, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Camera(position, rotation, fov)


def test_impossible_views_are_refused_in_words() -> None:
    for arguments, words in [
        ((0.0, 91.0), "elevation"),
        ((0.0, math.nan), "elevation"),
        ((0.0, 0.0, 0.0), "radius"),
        ((0.0, 0.0, -1.0), "radius"),
        ((0.0, 0.0, 4.0, 180.0), "fov"),
        ((math.nan,), "finite"),
    ]:
        with pytest.raises(ValueError, match=words):
            orbit(*arguments)
    with pytest.raises(ValueError, match="its own position"):
        look_at(torch.ones(1, 3), torch.ones(3))
    with pytest.raises(ValueError, match=r"\(B, 3\)"):
        look_at(torch.ones(3))
    for size in (0, -1, 2.5):
        with pytest.raises(ValueError, match="size"):
            orbit(0.0).rays(size)  # type: ignore[arg-type]
