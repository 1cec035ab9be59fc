"""The procedural toys: whole, inside the box, with a front where they have one; light and pairs as promised."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from jsdsd import Camera, orbit
from jsdsd.scene.renderer import render_fields
from jsdsd.scene.voxels import grid_points
from jsdsd.toybox import COLOURS, KINDS, Toy, true_grid
from jsdsd.toybox.captions import parse
from jsdsd.toybox.dataset import PAIR_SHARE, VIEWS_PER_SCENE, dataset, joined, render_scene, scene
from jsdsd.toybox.kinds import FIXED, ORIENTED
from jsdsd.toybox.scenes import AMBIENT, LIGHT, SIZE, build, materials, next_to, on, palette, shade
from jsdsd.toybox.sdf import box, capsule, cone, ellipsoid, sphere, star, torus
from jsdsd.toybox.trace import trace

# What looks the same from in front, behind and the sides; all other kinds must not.
ROUND = {"ball", "cube", "cone", "donut", "mushroom", "tree", "lamp", "ice cream", "table"}
SAME_BEHIND = ROUND | {"mug", "cactus", "teapot", "star", "airplane"}


def silhouette_and_colour(kind: str, camera: Camera) -> torch.Tensor:
    """(B, 32, 32, 3) without the light, under which all sides differ."""
    toys, points = [Toy(kind, "red", 1.0)], grid_points(40).reshape(-1, 3).T.contiguous()
    unlit = materials(toys, points, palette(toys)).view(3, 40, 40, 40)
    return render_fields(build(toys, resolution=40)[0], unlit, camera, 32, 0.8).rgb


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
    assert 0.52 < reach < 0.9  # the cube: 0.57, less half a cell
    assert density[0].max() < 1e-3 and colour.min() >= 0 and colour.max() <= 1


@pytest.mark.parametrize("kind", sorted(set(KINDS) - ROUND))
def test_kinds_with_a_front_differ_from_the_side(kind: str) -> None:
    front, side = silhouette_and_colour(kind, orbit([0.0, 90.0], 15))
    assert share_that_differs(front, side) > 0.01


@pytest.mark.parametrize("kind", sorted(set(KINDS) - SAME_BEHIND))
def test_kinds_with_a_front_differ_from_behind(kind: str) -> None:
    front, back = silhouette_and_colour(kind, orbit([0.0, 180.0], 15))
    assert share_that_differs(front, back) > 0.01


@pytest.mark.parametrize("kind", ORIENTED)
def test_oriented_kinds_look_different_from_all_eight_sides(kind: str) -> None:
    sides = trace(Toy(kind, "red"), orbit([45.0 * i for i in range(8)], 15), 48)[..., :3]
    assert min(share_that_differs(a, b) for a, b in combinations(sides, 2)) > 0.005  # 11 pixels


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


def test_the_light_comes_from_the_left_in_front_and_above() -> None:
    picture = trace(Toy("ball", "white"), orbit(0.0, 0), 48)[0, ..., :3].mean(-1)  # in front
    assert picture[20:28, 12:16].mean() > picture[20:28, 32:36].mean() + 0.05
    assert picture[12:16, 20:28].mean() > picture[32:36, 20:28].mean() + 0.05
    normals = torch.nn.functional.normalize(torch.tensor([LIGHT, [-x for x in LIGHT]]), dim=1).T  # (3, 2)
    torch.testing.assert_close(shade(3 * normals), torch.tensor([1.0, AMBIENT]))


@pytest.mark.parametrize("kind", KINDS)
def test_traced_pictures_are_what_voxels_of_the_same_distances_show(kind: str) -> None:
    """An independent twin: volume rendering of a fine grid.  They differ where a cell (0.025) blurs an edge."""
    toy, camera = Toy(kind, "green"), orbit([20.0, 160.0], [10.0, 60.0])
    traced = trace(toy, camera, 48)
    voxels = render_fields(*build([toy], resolution=80), camera, 48, 0.0)
    inside, mine = traced[..., 3] > 0.5, voxels.opacity > 0.5
    assert ((inside & mine).sum() / (inside | mine).sum()) > 0.93
    deep = (traced[..., 3] == 1) & (voxels.opacity > 0.98)
    assert (traced[..., :3] - voxels.rgb).abs()[deep].median() < 0.02


def test_a_traced_ball_is_a_ball_to_the_pixel() -> None:
    """Its outline, the cone of rays that touch the sphere, and its colour facing the light: closed forms."""
    camera, size, radius = orbit(0.0, 0.0), 64, 0.78 * SIZE
    picture = trace(Toy("ball", "red"), camera, size, samples=4)[0]
    origin, direction = (x.reshape(-1, 3) for x in camera.rays(4 * size))
    gap = torch.linalg.cross(origin, direction).norm(dim=1)  # of the ray and the centre
    exact = torch.nn.functional.avg_pool2d((gap < radius).float().view(1, 4 * size, 4 * size), 4)[0]
    assert (picture[..., 3] - exact).abs().max() <= 3 / 16 and (picture[..., 3] - exact).abs().mean() < 2e-3
    assert picture[..., 0].max() == pytest.approx(COLOURS["red"][0], abs=0.01)


def test_paint_replaces_the_parts_colours() -> None:
    toy, camera = Toy("mushroom", "blue"), orbit(30.0, 20.0)
    light = trace(toy, camera, 24, paint=torch.eye(2))  # the cap's and the stem's
    colours = torch.tensor([COLOURS["blue"], FIXED["cream"]])
    torch.testing.assert_close(light[..., :2] @ colours, trace(toy, camera, 24)[..., :3])


def test_scenes_are_seeded_and_balanced() -> None:
    a, b, other = render_scene(5, 1, views=2), render_scene(5, 1, views=2), render_scene(5, 2, views=2)
    assert torch.equal(a.layers, b.layers) and a.labels == b.labels and torch.equal(a.cameras, b.cameras)
    assert not torch.equal(a.layers, other.layers)
    assert {scene(i, 1)[0][0].kind for i in range(24)} == set(KINDS)
    pairs = sum(scene(i, 1)[1] is not None for i in range(400)) / 400
    assert pairs == pytest.approx(PAIR_SHARE, abs=0.09)  # four standard errors


def test_shards_are_read_back_and_reused(tmp_path: Path) -> None:
    made = dataset(tmp_path, 3, seed=9, shard=2)
    assert made.layers.shape == (3 * VIEWS_PER_SCENE, 6, 96, 96) and made.layers.dtype == torch.uint8
    first = sorted(tmp_path.iterdir())[0]
    before = first.stat().st_mtime_ns
    again = dataset(tmp_path, 3, seed=9, shard=2)
    assert torch.equal(again.layers, made.layers) and torch.equal(again.cameras, made.cameras)
    assert again.labels == made.labels and first.stat().st_mtime_ns == before
    assert torch.equal(dataset(None, 3, seed=9).layers, made.layers)


def test_a_painted_picture_is_the_traced_one_before_its_background() -> None:
    index = next(i for i in range(100) if scene(i, 1)[1] == "next to")
    pictures = render_scene(index, 1, views=2)
    toys = [replace(toy, colour=c) for toy, c in zip(scene(index, 1)[0], ("purple", "orange"), strict=True)]
    names, background = list(COLOURS), torch.tensor([0.2, 0.5, 0.9])
    colours = torch.tensor([[names.index("purple"), names.index("orange")]])
    painted = pictures.painted(torch.tensor([1]), colours, background[None])[0]
    truth = trace(toys, orbit(*pictures.cameras[1].tolist()), 96)[0]
    truth = truth[..., :3] + (1 - truth[..., 3:]) * background
    assert (painted.permute(1, 2, 0) / 2 + 0.5 - truth).abs().max() < 6 / 255  # six layers, each rounded


def test_captions_say_only_what_the_variant_shows() -> None:
    pictures = joined([render_scene(i, 1, views=1) for i in range(6)])
    sentences, numbers, colours = pictures.variants(40, seed=3)
    names = list(COLOURS)
    for label, row, painted in zip(pictures.labels, numbers.tolist(), colours.tolist(), strict=True):
        for number, choice in zip(row, painted, strict=True):
            if sentences[number]:
                said = parse(sentences[number]).toys
                for (kind, colour), (true, _), c in zip(said, label.toys, choice, strict=False):
                    assert kind in (None, true) and colour in (None, names[c])
    assert torch.bincount(colours.flatten(), minlength=8).min() > 30  # of 480, 60 each: four standard deviations


def test_the_true_grid_is_what_the_pictures_show() -> None:
    density, colour = build([Toy("mug", "green", 0.9)])
    grid = true_grid(Toy("mug", "green", 0.9))
    d, c = grid.fields()
    assert torch.allclose(d, density, atol=1e-3) and torch.allclose(c, colour, atol=1e-4)
