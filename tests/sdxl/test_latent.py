"""Latent-space mode: the linear maps, the identity that carries it, no VAE in a step, an ordinary asset at the end."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import jsdsd
from jsdsd import Asset, VoxelGrid, checkpoint, orbit
from jsdsd.__main__ import OK, main
from jsdsd.optimise import Progress
from jsdsd.scene.renderer import render, render_fields
from jsdsd.sdxl.guidance import Guidance
from jsdsd.sdxl.latent import SQUARES, LatentGrid, LinearColours, fit_linear_colours, shrunk
from jsdsd.sdxl.numerics import Numerics
from jsdsd.toybox.scenes import Toy, true_grid

sys.path.insert(0, str(Path(__file__).parent))  # the miniature lies beside this file
import miniature
from slopes import slopes

pytestmark = pytest.mark.usefixtures("one_thread")
QUICK: dict[str, Any] = {"steps": 3, "resolution": 16, "views_per_step": 2, "progress": False, "latent": True}
F64 = torch.float64


@pytest.fixture(scope="module")
def guidance() -> Guidance:
    return Guidance.load("toybox")


@pytest.fixture(scope="module")
def colours(guidance: Guidance) -> LinearColours:
    return fit_linear_colours(guidance)


def made(guidance: Guidance, **changes: Any) -> Asset:
    asset = jsdsd.generate("a red ball", model=guidance, **{**QUICK, **changes})
    assert isinstance(asset, Asset)
    return asset


def random_maps(seed: int) -> LinearColours:
    generator = torch.Generator().manual_seed(seed)
    return LinearColours(
        torch.randn(4, 4, generator=generator, dtype=F64), torch.randn(5, 3, generator=generator, dtype=F64), 1.0
    )


def test_the_fit_finds_maps_that_are_there(monkeypatch: pytest.MonkeyPatch, guidance: Guidance) -> None:
    """With a VAE that is linear in the mean colour the fit returns it, and its inverse."""
    true = random_maps(0)

    def linear(rgb: torch.Tensor, size: int) -> torch.Tensor:
        return true.latents(torch.nn.functional.avg_pool2d(rgb.permute(0, 3, 1, 2), 4).movedim(1, -1)).movedim(-1, 1)

    monkeypatch.setattr(guidance, "encode_images", linear)
    found = fit_linear_colours(guidance)
    torch.testing.assert_close(found.to_latents, true.to_latents.float(), rtol=1e-4, atol=1e-4)
    assert found.explained == pytest.approx(1)
    rgb = torch.rand(100, 3)
    torch.testing.assert_close(found.rgb(found.latents(rgb)), rgb, rtol=1e-3, atol=1e-3)


def test_the_toyboxs_latents_tell_the_colours_of_toys_that_the_fit_never_saw(
    guidance: Guidance, colours: LinearColours
) -> None:
    assert colours.explained > 0.9
    for kind, colour in (("mushroom", "red"), ("duck", "yellow"), ("mug", "blue")):
        cameras = orbit([0.0, 60.0, 200.0])
        with torch.no_grad():
            rgb = render(true_grid(Toy(kind, colour, 0.9)), cameras, 48, torch.rand(3, 3)).rgb
            latents = guidance.encode_images(rgb).movedim(1, -1)
        mean = shrunk(rgb, latents.shape[1]).movedim(1, -1)
        there, back = (colours.latents(mean) - latents).std(), (colours.rgb(latents) - mean).std()
        assert back < 0.1 < mean.std()  # 0.06 to 0.08 as measured
        assert there < 0.45 * latents.std()  # explains more than 80 %
        wrong = LinearColours(colours.to_latents.flip(1), colours.to_rgb.flip(0), 1.0)
        assert (wrong.rgb(latents) - mean).std() > 2 * back


def test_a_vae_without_linear_colours_is_refused_in_words() -> None:
    with pytest.raises(ValueError, match="a linear map explains only .* leave it out"):
        fit_linear_colours(Guidance(miniature.pipeline()))


def test_compositing_latents_is_compositing_colours() -> None:
    """A affine map before or after volume rendering: the same, since the weights and what passes add up to one."""
    generator = torch.Generator().manual_seed(1)
    density = 3 * torch.rand(9, 9, 9, generator=generator, dtype=F64)
    colour = torch.rand(3, 9, 9, 9, generator=generator, dtype=F64)
    back = torch.rand(2, 3, generator=generator, dtype=F64)
    cameras, maps = orbit([20.0, 250.0], dtype=F64), random_maps(2)
    after = maps.latents(render_fields(density, colour, cameras, 12, back).rgb)
    before = render_fields(
        density, maps.latents(colour.movedim(0, -1)).movedim(-1, 0), cameras, 12, maps.latents(back)
    ).rgb
    torch.testing.assert_close(before, after)


def test_the_gradient_to_the_grid_is_the_finite_difference() -> None:
    generator = torch.Generator().manual_seed(0)
    grid = LatentGrid(VoxelGrid.blob((4, 9), dtype=F64), random_maps(3)).double()
    weight = torch.randn(1, 4, 6, 6, generator=generator, dtype=F64)

    def loss() -> torch.Tensor:
        return (shrunk(render_fields(*grid.fields(), orbit([30.0], dtype=F64), 24, 0.3).rgb, 6) * weight).sum()

    slope, difference = slopes(grid, loss, generator)
    assert slope == pytest.approx(difference, rel=1e-6)


def test_it_begins_as_the_grey_blob(colours: LinearColours) -> None:
    blob = VoxelGrid.blob((5, 10, 20))
    density, colour = blob.fields()
    latent = LatentGrid(blob, colours)
    seen = latent.as_rgb()
    torch.testing.assert_close(seen.fields()[0], density, rtol=1e-4, atol=1e-6)
    assert (seen.fields()[1] - colour).abs().max() < 0.1
    assert [name for name, _ in latent.named_parameters()] == [name for name, _ in blob.named_parameters()]


def test_a_step_calls_no_vae_and_reaches_every_level(guidance: Guidance, monkeypatch: pytest.MonkeyPatch) -> None:
    calls, encode, seen = 0, guidance.vae.encode, []

    def counted(x: torch.Tensor) -> Any:
        nonlocal calls
        calls += 1
        assert not x.requires_grad and not torch.is_grad_enabled()
        return encode(x)

    monkeypatch.setattr(guidance.vae, "encode", counted)
    monkeypatch.setattr(guidance.vae, "decode", None)
    asset = made(guidance, callback=lambda p: seen.append([float(x.grad.abs().sum()) for x in p.scene.parameters()]))
    assert calls == 16 * len(SQUARES)  # the fit's, before the first step
    assert len(seen) == 3 and all(total > 0 for step in seen for total in step)
    assert [h["unet_calls"] for h in asset.history] == [2 + 3 + 2 * 2, 2, 2]  # conftest.py: few words


def test_the_asset_and_every_preview_are_in_colours(guidance: Guidance, tmp_path: Path) -> None:
    previews: list[Progress] = []
    asset = made(guidance, steps=12, callback=previews.append)
    for progress in previews:
        rgb, size = progress.render.rgb, 48 if progress.record.step < 6 else 96
        assert rgb.shape == (2, size, size, 3) and rgb.min() >= 0 and rgb.max() <= 1
        assert isinstance(progress.scene, LatentGrid) and isinstance(progress.grid, VoxelGrid)
    assert [tuple(level.shape) for level in asset.grid.levels] == [(4, 16, 16, 16)]
    for name in ("a.safetensors", "a.glb", "a.obj", "a.ply", "a.png", "a.html"):
        assert asset.save(tmp_path / name).stat().st_size > 0
    again = Asset.load(tmp_path / "a.safetensors")
    assert torch.equal(again.grid.levels[0], asset.grid.levels[0]) and again.config["latent"] is True
    assert again.render(0.0, size=16).shape == (16, 16, 3)


def test_a_stopped_run_goes_on_to_the_same_bytes(
    guidance: Guidance, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint, "EVERY", 1)
    whole = made(guidance, steps=4)

    def stop(progress: Progress) -> None:
        if progress.record.step == 2:
            raise KeyboardInterrupt

    def resumed(name: str) -> Asset:
        with pytest.raises(KeyboardInterrupt):
            made(guidance, steps=4, checkpoint=tmp_path / name, callback=stop)
        return made(guidance, steps=4, checkpoint=tmp_path / name, resume=True)

    assert torch.equal(resumed("a.safetensors").grid.levels[0], whole.grid.levels[0])
    assert torch.equal(Asset.load(tmp_path / "a.safetensors").grid.levels[0], whole.grid.levels[0])
    read = checkpoint.read

    def forgetful(path: Path) -> Any:  # the wrong twin: the latents begin anew
        found = read(path)
        fresh = LatentGrid(VoxelGrid.blob((2, 4, 8, 16)), fit_linear_colours(guidance))
        found.state.update({f"latent.{i}": x.detach() for i, x in enumerate(fresh.parameters())})
        return found

    monkeypatch.setattr(checkpoint, "read", forgetful)
    assert not torch.equal(resumed("b.safetensors").grid.levels[0], whole.grid.levels[0])


def test_the_command_line_makes_and_resumes_it(tmp_path: Path) -> None:
    quick = ("--resolution", "16", "--views-per-step", "1", "--quiet")
    assert main(["a red ball", "--latent", "-o", str(tmp_path), "--steps", "2", *quick]) == OK
    assert main(["--resume", str(tmp_path), "--steps", "3", "--quiet"]) == OK
    config = Asset.load(tmp_path / "asset.safetensors").config
    assert config["latent"] is True and config["steps"] == 3


def test_what_does_not_go_together_is_refused_in_words(guidance: Guidance, tmp_path: Path) -> None:
    large = Guidance(miniature.pipeline(), numerics=Numerics(256))
    with pytest.raises(ValueError, match="at least the latents' 32 pixels"):
        jsdsd.generate("a ball", model=large, latent=True, render_sizes=(16, 64))
    with pytest.raises(ValueError, match="latent is True, False or None"):
        made(guidance, latent="yes")
    place = tmp_path / "run.safetensors"
    made(guidance, latent=False, checkpoint=place)
    with pytest.raises(ValueError, match="its latent is False, not True"):
        made(guidance, checkpoint=place, resume=True)
