"""The procedural toys: whole, inside the box, with a front where they have one; light and pairs as promised."""

from __future__ import annotations

from itertools import combinations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from jsdsd import Camera, orbit
from jsdsd.scene.renderer import render_fields
from jsdsd.toybox import COLOURS, KINDS, Toy, true_grid
from jsdsd.toybox.dataset import dataset, load_shard, render_scene, scene, shrink
from jsdsd.toybox.kinds import ORIENTED
from jsdsd.toybox.scenes import build, next_to, on, random_light
from jsdsd.toybox.sdf import box, capsule, cone, ellipsoid, sphere, star, torus

# What looks the same from in front, behind and the sides; all other kinds must not.
ROUND = {"ball", "cube", "cone", "donut", "mushroom", "tree", "lamp", "ice cream", "table"}
SAME_BEHIND = ROUND | {"mug", "cactus", "teapot", "star", "airplane"}


def silhouette_and_colour(kind: str, camera: Camera) -> torch.Tensor:
    density, colour = build([Toy(kind, "red")], resolution=40)
    return render_fields(density, colour, camera, 32, 0.8).rgb


def share_that_differs(a: torch.Tensor, b: torch.Tensor) -> float:
    """Share of pixels (H, W, 3) that differ by more than a tenth: 0.01 is ten pixels of 32 x 32."""
    return ((a - b).abs().amax(-1) > 0.1).float().mean().item()


@pytest.mark.parametrize("kind", KINDS)
def test_a_toy_fills_the_box_without_touching_it(kind: str) -> None:
    density, colour = build([Toy(kind, "blue")], resolution=48)
    solid = density > 40
    assert 0.01 < solid.float().mean() < 0.5
    axis = torch.linspace(-1, 1, 48)
    reach = max(axis[solid.any(a).any(b)].abs().max() for a, b in ((-1, -1), (0, -1), (0, 0)))
    assert 0.55 < reach < 0.95  # the cube: 0.6, less half a cell
    assert density[0].max() < 1e-3 and colour.min() >= 0 and colour.max() <= 1


@pytest.mark.parametrize("kind", sorted(set(KINDS) - ROUND))
def test_kinds_with_a_front_differ_from_the_side(kind: str) -> None:
    front, side = silhouette_and_colour(kind, orbit([0.0, 90.0], 15))
    assert share_that_differs(front, side) > 0.01


@pytest.mark.parametrize("kind", sorted(set(KINDS) - SAME_BEHIND))
def test_kinds_with_a_front_differ_from_behind(kind: str) -> None:
    front, back = silhouette_and_colour(kind, orbit([0.0, 180.0], 15))
    assert share_that_differs(front, back) > 0.01


@pytest.mark.parametrize("kind", KINDS)
def test_oriented_kinds_are_those_whose_eight_sides_all_differ(kind: str) -> None:
    density, colour = build([Toy(kind, "red")], resolution=40)
    sides = render_fields(density, colour, orbit([45.0 * i for i in range(8)], 15), 32, 0.8).rgb
    least = min(share_that_differs(a, b) for a, b in combinations(sides, 2))
    assert (least > 0.01) == (kind in ORIENTED)


@pytest.mark.parametrize("colour", COLOURS)
@pytest.mark.parametrize("kind", ["ball", "house", "car", "robot"])
def test_the_named_colour_is_the_main_one(kind: str, colour: str) -> None:
    """Of the eight colours, the named one is nearest to more of the toy's pixels than any other."""
    density, field = build([Toy(kind, colour)], resolution=40)
    out = render_fields(density, field, orbit([20.0, 200.0], 25), 48, 0.5)
    pixels = out.rgb[out.opacity > 0.9]
    hue = (
        torch.nn.functional.normalize(pixels, dim=1)
        @ torch.nn.functional.normalize(torch.tensor(list(COLOURS.values())), dim=1).T
    )
    votes = torch.bincount(hue.argmax(1), minlength=8)
    assert list(COLOURS)[int(votes.argmax())] == colour


points = st.lists(st.floats(-1, 1), min_size=3, max_size=3)


@given(points, points)
def test_distances_never_overshoot(a: list[float], b: list[float]) -> None:
    """A signed distance changes by no more than the way gone: |d(a) - d(b)| <= |a - b| (bounds may change less)."""
    p = torch.tensor([a, b], dtype=torch.float64).T
    way = (p[:, 0] - p[:, 1]).norm()
    for d in (
        sphere(p, (0.1, 0, 0), 0.5),
        box(p, (0, 0.1, 0), (0.3, 0.5, 0.2)),
        capsule(p, (0, 0, -0.3), (0.2, 0, 0.4), 0.2),
        cone(p, (0, 0, -0.5), (0, 0, 0.5), 0.4, 0.1),
        torus(p, (0, 0, 0), 0.5, 0.2),
        star(p, (0, 0, 0), 0.8, 0.4, 0.2),
    ):
        assert (d[0] - d[1]).abs() <= way + 1e-9


@given(points)
def test_solids_are_where_they_should_be(a: list[float]) -> None:
    """Inside and outside against the textbook inequalities."""
    p = torch.tensor([a], dtype=torch.float64).T
    x, y, z = a
    assert bool(sphere(p, (0, 0, 0), 0.6) < 0) == (x * x + y * y + z * z < 0.36)
    assert bool(box(p, (0, 0, 0), (0.5, 0.6, 0.7), 0.0) < 0) == (abs(x) < 0.5 and abs(y) < 0.6 and abs(z) < 0.7)
    inside = (x / 0.5) ** 2 + (y / 0.6) ** 2 + (z / 0.7) ** 2 < 1
    assert bool(ellipsoid(p, (0, 0, 0), (0.5, 0.6, 0.7)) < 0) == inside
    assert bool(torus(p, (0, 0, 0), 0.5, 0.2) < 0) == (((x * x + y * y) ** 0.5 - 0.5) ** 2 + z * z < 0.04)
    radius = 0.4 - 0.3 * (z + 0.5)
    assert bool(cone(p, (0, 0, -0.5), (0, 0, 0.5), 0.4, 0.1) < 0) == (abs(z) < 0.5 and (x * x + y * y) ** 0.5 < radius)


def test_pairs_stand_as_told() -> None:
    high, low = on(Toy("ball", "red"), Toy("table", "blue"))
    assert high.offset[2] > low.offset[2] and high.offset[:2] == low.offset[:2] == (0.0, 0.0)
    left, right = next_to(Toy("duck", "red"), Toy("tree", "blue"))
    assert left.offset[0] < -0.2 and right.offset[0] > 0.2
    image = render_fields(*build([left, right], resolution=40), orbit(0.0, 15), 32, 0.8).rgb[0]
    assert image[:, :14, 0].sum() > image[:, :14, 2].sum() and image[:, 18:, 0].sum() < image[:, 18:, 2].sum()


def test_light_brightens_the_side_it_comes_from() -> None:
    out = [
        render_fields(
            *build([Toy("ball", "white")], resolution=40, light=torch.tensor([x, -0.6, 0.0])), orbit(0.0, 0), 32
        )
        for x in (0.8, -0.8)
    ]
    for render, bright, dark in ((out[0], slice(20, 24), slice(8, 12)), (out[1], slice(8, 12), slice(20, 24))):
        assert render.rgb[0, 14:18, bright].mean() > render.rgb[0, 14:18, dark].mean() + 0.05


@given(st.integers(0, 1000))
@settings(max_examples=20)
def test_lights_are_above(seed: int) -> None:
    light = random_light(torch.Generator().manual_seed(seed))
    assert light.norm() == pytest.approx(1, abs=1e-5) and light[2] >= 0.5 - 1e-6


def test_scenes_are_seeded_and_balanced(tmp_path: object) -> None:
    assert render_scene(5, 1)[1] == render_scene(5, 1)[1]
    assert torch.equal(render_scene(5, 1)[0], render_scene(5, 1)[0])
    assert not torch.equal(render_scene(5, 1)[0], render_scene(5, 2)[0])
    firsts = [scene(i, 1)[0][0] for i in range(192)]
    assert len({(t.kind, t.colour) for t in firsts}) == 192


def test_shards_are_read_back_and_reused(tmp_path) -> None:  # type: ignore[no-untyped-def]
    images, labels = dataset(tmp_path, 3, seed=9, shard=2)
    assert images.shape == (18, 3, 64, 64) and len(labels) == 18 and images.dtype == torch.uint8
    first = sorted(tmp_path.iterdir())[0]
    before = first.stat().st_mtime_ns
    again, same = dataset(tmp_path, 3, seed=9, shard=2)
    assert torch.equal(again, images) and same == labels and first.stat().st_mtime_ns == before
    assert torch.equal(load_shard(first)[0], images[:12])
    assert shrink(images).shape == (18, 3, 48, 48)


def test_the_true_grid_is_what_the_pictures_show() -> None:
    density, colour = build([Toy("mug", "green", 0.9)])
    grid = true_grid(Toy("mug", "green", 0.9))
    d, c = grid.fields()
    assert torch.allclose(d, density, atol=1e-3) and torch.allclose(c, colour, atol=1e-4)
