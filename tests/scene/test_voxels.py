"""The voxel grid: resampling keeps linear fields, fields and logits invert each other, levels add up."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch import Tensor

from jsdsd.scene.voxels import EMPTY_LOGIT, VoxelGrid, grid_points, resample

F64 = torch.float64
sizes = st.integers(2, 12)


@given(sizes, sizes, st.lists(st.floats(-3, 3), min_size=4, max_size=4))
@example(2, 9, [1.0, 2.0, 3.0, 4.0])
def test_resampling_keeps_a_linear_field_exactly(before: int, after: int, slope: list[float]) -> None:
    def linear(resolution: int) -> Tensor:
        return (grid_points(resolution, F64) @ torch.tensor(slope[:3], dtype=F64) + slope[3])[None]

    torch.testing.assert_close(resample(linear(before), after), linear(after), rtol=1e-12, atol=1e-12)


@given(sizes, st.integers(1, 3), st.integers(0, 99))
def test_resampling_to_twice_as_fine_keeps_every_old_node(resolution: int, channels: int, seed: int) -> None:
    field = torch.randn(channels, *(resolution,) * 3, generator=torch.Generator().manual_seed(seed), dtype=F64)
    fine = resample(field, 2 * resolution - 1)
    torch.testing.assert_close(fine[:, ::2, ::2, ::2], field)
    torch.testing.assert_close(fine[:, 1::2, ::2, ::2], (field[:, :-1] + field[:, 1:]) / 2)  # half-way: the mean


def test_grid_points_are_indexed_z_y_x_and_hold_x_y_z() -> None:
    points = grid_points(3)
    assert points.shape == (3, 3, 3, 3)
    assert points[0, 1, 2].tolist() == [1, 0, -1] and points[2, 0, 0].tolist() == [-1, -1, 1]


@given(sizes, st.integers(0, 99), st.floats(0.01, 500))
@example(2, 0, 19.9)
def test_from_fields_and_fields_invert_each_other(resolution: int, seed: int, most: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    density, *colour = torch.rand(4, *(resolution,) * 3, generator=generator, dtype=F64)
    density = 1e-4 + most * density
    back, painted = VoxelGrid.from_fields(density, torch.stack(colour)).fields()
    torch.testing.assert_close(back, density, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(painted, torch.stack(colour), rtol=0, atol=5e-5)


def test_from_fields_moves_what_logits_cannot_express_to_the_nearest_they_can() -> None:
    density = torch.tensor([0.0, 1e-30, 1e4, 0, 0, 0, 0, 0]).reshape(2, 2, 2)
    colour = torch.tensor([0.0, 1.0] * 12).reshape(3, 2, 2, 2)
    grid = VoxelGrid.from_fields(density, colour)
    assert grid.logits().isfinite().all() and grid.logits()[0, 0, 0, 0] == EMPTY_LOGIT
    back, painted = grid.fields()
    torch.testing.assert_close(back, density, rtol=1e-6, atol=4.6e-5)
    torch.testing.assert_close(painted, colour, rtol=0, atol=4.6e-5)


@given(st.lists(sizes, min_size=1, max_size=4), st.integers(0, 99))
def test_the_logits_are_the_sum_of_all_levels_at_the_finest(resolutions: list[int], seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    top = max(resolutions)
    slopes = torch.randn(len(resolutions), 4, 3, generator=generator, dtype=F64)
    levels = [torch.einsum("zyxi,ci->czyx", grid_points(r, F64), s) for r, s in zip(resolutions, slopes, strict=True)]
    grid = VoxelGrid(levels)
    assert grid.resolution == top and len(list(grid.parameters())) == 2 * len(levels)
    expected = torch.einsum("zyxi,ci->czyx", grid_points(top, F64), slopes.sum(0))  # linear, so resampling is exact
    torch.testing.assert_close(grid.logits(), expected)
    torch.testing.assert_close(grid.upsampled(7).logits(), resample(expected, 7))
    assert all(torch.equal(a, b) for a, b in zip(grid.levels, levels, strict=True))


def test_a_fine_level_over_coarse_ones_is_added_node_by_node() -> None:
    generator = torch.Generator().manual_seed(0)
    coarse, fine = (torch.randn(4, r, r, r, generator=generator, dtype=F64) for r in (3, 5))
    total = VoxelGrid([coarse, fine]).logits()
    torch.testing.assert_close(total[:, ::2, ::2, ::2], coarse + fine[:, ::2, ::2, ::2])


def test_a_grid_owns_its_numbers() -> None:
    level = torch.zeros(4, 3, 3, 3)
    grid = VoxelGrid([level])
    level += 1
    grid.levels[0].add_(1)
    finer = grid.upsampled(3)
    with torch.no_grad():
        finer.density_levels[0].fill_(5)
    assert (grid.logits() == 0).all()


@given(st.floats(0.1, 0.6), st.floats(0.05, 900))
@example(0.4, 6.0)
@example(0.4, 800.0)
def test_a_blob_is_a_grey_ball_in_empty_space(radius: float, density: float) -> None:
    grid = VoxelGrid.blob((3, 21), radius=radius, density=density, dtype=F64)
    solid, colour = grid.fields()
    distance = grid_points(21, F64).norm(dim=-1)
    torch.testing.assert_close(solid[distance <= radius], torch.full_like(solid[distance <= radius], density))
    assert (solid[distance >= 1.5 * radius] < 5e-5).all()
    between = solid[(distance > radius) & (distance < 1.5 * radius)]
    assert ((between <= density) & (between > 4e-5)).all()
    assert (colour == 0.5).all()
    assert (grid.levels[0] == 0).all()


def test_a_blobs_tint_comes_from_its_generator_and_is_smooth() -> None:
    def blob(seed: int) -> VoxelGrid:
        return VoxelGrid.blob((2, 9), colour_std=1.0, generator=torch.Generator().manual_seed(seed))

    assert torch.equal(blob(0).logits(), blob(0).logits()) and not torch.equal(blob(0).logits(), blob(1).logits())
    assert blob(0).levels[0][1:].std() > 0.5 and (blob(0).levels[1][1:] == 0).all()  # on the coarsest level alone
    assert torch.equal(blob(0).fields()[0], blob(1).fields()[0])


def test_a_grid_moves_between_float_types_and_keeps_a_state() -> None:
    grid = VoxelGrid.blob((3, 5), colour_std=1.0, generator=torch.Generator().manual_seed(0))
    other = VoxelGrid.blob((3, 5))
    other.load_state_dict(grid.state_dict())
    assert torch.equal(other.logits(), grid.logits())
    assert grid.double().logits().dtype == F64


def level(*shape: int) -> Tensor:
    return torch.zeros(shape)


@pytest.mark.parametrize(
    ("levels", "words"),
    [
        ([], "at least one"),
        ([level(3, 4, 4, 4)], "shape"),
        ([level(4, 4, 4)], "shape"),
        ([level(4, 4, 4, 5)], "shape"),
        ([level(4, 1, 1, 1)], "r >= 2"),
        ([level(4, 2, 2, 2).long()], "float32 or float64, got torch.int64"),
        ([level(4, 2, 2, 2).half()], "float32 or float64, got torch.float16"),
        ([level(4, 2, 2, 2).bfloat16()], "float32 or float64, got torch.bfloat16"),
        ([level(4, 2, 2, 2), level(4, 3, 3, 3).double()], "one floating-point type"),
    ],
)
def test_what_is_no_grid_is_refused_in_words(levels: Sequence[Tensor], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        VoxelGrid(levels)


@pytest.mark.parametrize("density", [-0.1, math.nan, math.inf])
def test_from_fields_refuses_a_density_that_is_none(density: float) -> None:
    with pytest.raises(ValueError, match="density"):
        VoxelGrid.from_fields(torch.full((2, 2, 2), density), level(3, 2, 2, 2))


@pytest.mark.parametrize("colour", [-0.1, 1.1, math.nan])
def test_from_fields_refuses_a_colour_that_is_none(colour: float) -> None:
    with pytest.raises(ValueError, match="colour"):
        VoxelGrid.from_fields(level(2, 2, 2), torch.full((3, 2, 2, 2), colour))


def test_other_nonsense_is_refused_in_words() -> None:
    with pytest.raises(ValueError, match="shapes"):
        VoxelGrid.from_fields(level(2, 2, 2), level(2, 2, 2))
    wrong = [{"radius": 0.0}, {"radius": 1.0}, {"density": 0.0}, {"density": math.inf}, {"resolutions": ()}]
    for arguments in [*wrong, {"colour_std": math.nan}, {"colour_std": -1.0}]:
        with pytest.raises(ValueError, match=next(iter(arguments))):
            VoxelGrid.blob(**arguments)
    with pytest.raises(ValueError, match="resolutions"):
        VoxelGrid.blob((1, 5))
    with pytest.raises(ValueError, match="resolution"):
        resample(level(4, 2, 2, 2), 1)
    with pytest.raises(ValueError, match="resample"):
        resample(level(2, 2, 2), 3)
