"""The VAE side and the careful arithmetic: SDXL's VAE traps with their wrong twins, clipping, sizes, placement."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import jsdsd
from jsdsd import VoxelGrid, orbit, render
from jsdsd.optimise import Progress
from jsdsd.sdxl.guidance import Guidance
from jsdsd.sdxl.numerics import Numerics, limit_pixel_gradient

sys.path.insert(0, str(Path(__file__).parent))  # the miniature lies beside this file
import miniature
from slopes import slopes

RGB = torch.rand(1, 64, 64, 3, generator=torch.Generator().manual_seed(0))


def latents_agree(encode: Any, pipe: Any) -> bool:
    """The mean of the VAE's posterior in float32, of pictures in [-1, 1], times the configured factor."""
    with torch.no_grad():
        expected = pipe.vae.float().encode(RGB.permute(0, 3, 1, 2) * 2 - 1).latent_dist.mean * 0.13025
        found = encode(RGB)
    return bool(found.shape == expected.shape and torch.allclose(found.float(), expected, rtol=1e-4, atol=1e-6))


def encode_wrongly(
    pipe: Any, factor: float = 0.13025, span: float = 2.0, shift: float = 1.0, sample: bool = False
) -> Any:
    def encode(rgb: torch.Tensor) -> torch.Tensor:
        latent = pipe.vae.encode(rgb.permute(0, 3, 1, 2) * span - shift).latent_dist
        return (latent.sample(torch.Generator().manual_seed(0)) if sample else latent.mean) * factor

    return encode


@pytest.mark.parametrize(
    "wrong", [{"factor": 0.18215}, {"span": 1.0, "shift": 0.0}, {"sample": True}, {"factor": 1.0}], ids=str
)
def test_latents_are_scaled_by_the_configuration_and_are_means(wrong: dict[str, Any]) -> None:
    pipe = miniature.pipeline()
    assert latents_agree(Guidance(pipe).encode_images, pipe)
    assert latents_agree(encode_wrongly(pipe), pipe)
    assert not latents_agree(encode_wrongly(pipe, **wrong), pipe)


def overflowing() -> Any:
    """A VAE whose first layer leaves float16's range; the next one normalises, so float32 does not notice."""
    pipe = miniature.pipeline()
    pipe.vae.encoder.conv_in.weight.data *= 3e5  # at most 6e4, so that the weights themselves fit
    return pipe


def test_a_vae_that_overflows_in_half_precision_stays_in_full(monkeypatch: pytest.MonkeyPatch) -> None:
    guidance = Guidance(overflowing(), dtype=torch.float16)
    rgb = RGB.clone().requires_grad_()
    latents = guidance.encode_images(rgb)
    assert latents.dtype == torch.float32 and latents.isfinite().all()
    latents.sum().backward()
    assert rgb.grad is not None and rgb.grad.isfinite().all()


def test_the_wrong_twin_in_half_precision_overflows_and_says_so() -> None:
    guidance = Guidance(overflowing(), numerics=Numerics(vae_dtype=torch.float16))
    with pytest.raises(FloatingPointError, match="VAE's latents are not finite: it overflows"), torch.no_grad():
        guidance.encode_images(RGB)


def test_what_is_not_finite_is_named_where_it_arises() -> None:
    guidance = Guidance(miniature.pipeline())
    with pytest.raises(FloatingPointError, match="the render that the VAE is shown"):
        guidance.encode_images(RGB * float("nan"))
    guidance.vae.quant_conv.bias.data += float("inf")
    with pytest.raises(FloatingPointError, match="VAE's latents are not finite: fetch"):
        guidance.encode_images(RGB)


def test_autocast_around_it_does_not_reach_the_vae() -> None:
    guidance = Guidance(miniature.pipeline())
    plain = guidance.encode_images(RGB)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = guidance.encode_images(RGB)
        twin = guidance.vae.encode(RGB.permute(0, 3, 1, 2) * 2 - 1).latent_dist.mean * 0.13025
    assert torch.equal(inside, plain)
    assert not torch.allclose(twin.float(), plain, rtol=1e-4, atol=1e-6)  # autocast would have changed it


def test_a_gradient_that_is_not_finite_stops_the_run_in_words() -> None:
    rgb = RGB.clone().requires_grad_()
    latents = Guidance(miniature.pipeline()).encode_images(rgb)
    with pytest.raises(FloatingPointError, match="hands to the render is not finite"):
        (latents * float("inf")).sum().backward()


@pytest.mark.parametrize("model", ["toybox", "miniature"])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_the_gradient_through_vae_and_renderer_is_the_finite_difference(model: str, checkpointing: bool) -> None:
    numerics = Numerics(vae_dtype=torch.float64, gradient_checkpointing=checkpointing)
    pipe = miniature.pipeline() if model == "miniature" else Guidance.load("toybox").pipe
    guidance = Guidance(pipe, numerics=numerics)
    generator = torch.Generator().manual_seed(0)
    grid = VoxelGrid([torch.randn(4, r, r, r, generator=generator, dtype=torch.float64) for r in (4, 9)])
    weight = torch.randn(1, *guidance.latent_shape, generator=generator, dtype=torch.float64)

    def loss() -> torch.Tensor:
        picture = render(grid, orbit([30.0], dtype=torch.float64), 24, 0.3).rgb
        return (guidance.encode_images(picture) * weight).sum()

    slope, difference = slopes(grid, loss, generator)
    assert slope == pytest.approx(difference, rel=1e-6)


def test_checkpointing_keeps_the_gradient_and_saves_the_graph() -> None:
    found = []
    for checkpointing in (False, True):
        guidance = Guidance(miniature.pipeline(), numerics=Numerics(gradient_checkpointing=checkpointing))
        rgb, saved = RGB.clone().requires_grad_(), [0]

        def pack(x: torch.Tensor, saved: list[int] = saved) -> torch.Tensor:
            saved[0] += x.numel()
            return x

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
            latents = guidance.encode_images(rgb)
        latents.square().sum().backward()
        found.append((rgb.grad, saved[0]))
    (plain, much), (again, little) = found
    assert plain is not None and again is not None and torch.allclose(plain, again, rtol=1e-5, atol=1e-9)
    assert little < 0.5 * much


def test_large_pictures_go_through_the_vae_one_by_one_to_the_same_latents() -> None:
    rgb = torch.rand(3, 256, 256, 3, generator=torch.Generator().manual_seed(0))
    found = []
    for together in (False, True):
        guidance, sizes = Guidance(miniature.pipeline(sample_size=32)), []
        guidance.vae.encoder.register_forward_hook(lambda _, given, __, sizes=sizes: sizes.append(len(given[0])))
        if together:
            guidance.vae.disable_slicing()
        picture = rgb.clone().requires_grad_()
        latents = guidance.encode_images(picture)
        latents.square().sum().backward()
        assert picture.grad is not None and sizes == ([3] if together else [1, 1, 1])
        found.append((latents, picture.grad))
    assert (found[0][0] - found[1][0]).norm() < 1e-5 * found[1][0].norm()  # attention rounds batches in another order
    assert (found[0][1] - found[1][1]).norm() < 1e-5 * found[1][1].norm()


@given(st.integers(0, 1000), st.floats(0.01, 10))
def test_a_limited_pixel_keeps_its_direction_and_small_ones_their_length(seed: int, limit: float) -> None:
    grad = torch.randn(2, 5, 5, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 3
    cut = limit_pixel_gradient(grad, limit)
    for old, new in zip(grad.reshape(-1, 3), cut.reshape(-1, 3), strict=True):
        if old.abs().max() <= limit:
            assert torch.equal(old, new)
        else:
            assert float(new.abs().max()) == pytest.approx(limit)
            assert torch.allclose(new / new.norm(), old / old.norm())
    assert limit_pixel_gradient(grad, None) is grad


def test_the_limit_reaches_the_render_and_does_not_depend_on_the_batch() -> None:
    def gradient(views: int, limit: float | None) -> torch.Tensor:
        guidance = Guidance(miniature.pipeline(), numerics=Numerics(pixel_gradient_limit=limit))
        rgb = RGB.repeat(views, 1, 1, 1).requires_grad_()
        guidance.encode_images(rgb).sum().backward()
        assert rgb.grad is not None
        return rgb.grad

    free = gradient(1, None)
    limit = float(free.abs().amax(-1).median())
    one, four = gradient(1, limit), gradient(4, limit)
    assert torch.equal(one, limit_pixel_gradient(free, limit)) and not torch.equal(one, free)
    assert torch.allclose(four, one.expand_as(four), rtol=1e-3, atol=1e-3 * limit)


@pytest.mark.parametrize("size", [16, 32, 128])
def test_the_limit_is_that_of_a_pixel_of_the_picture_whatever_the_render(size: int) -> None:
    guidance = Guidance(miniature.pipeline(), numerics=Numerics(pixel_gradient_limit=1e-6))  # every pixel is above it
    rgb = torch.rand(1, size, size, 3, generator=torch.Generator().manual_seed(0), requires_grad=True)
    guidance.encode_images(rgb).sum().backward()
    assert rgb.grad is not None
    assert torch.allclose(rgb.grad.abs().amax(-1), torch.tensor(1e-6 * (64 / size) ** 2))


def test_another_picture_size_changes_the_latents_and_not_what_the_unet_is_told() -> None:
    guidance = Guidance(miniature.pipeline(), numerics=Numerics(image_size=96))
    assert guidance.latent_shape == (4, 12, 12) and guidance.own_size == 64
    latents = guidance.encode_images(RGB)
    assert latents.shape == (1, 4, 12, 12)
    told: dict[str, torch.Tensor] = {}
    unet = guidance.unet

    def listen(*args: Any, **rest: Any) -> Any:
        told.update(rest["added_cond_kwargs"])
        return unet(*args, **rest)

    guidance.unet = listen
    guidance.predict_eps(latents, 500, guidance.encode_prompts(["a mug"]))
    assert told["time_ids"].tolist() == [[64.0, 64.0, 0.0, 0.0, 64.0, 64.0]] * 2


@pytest.mark.parametrize("size", [512, 768, 1024])
def test_a_run_takes_each_of_sdxls_picture_sizes(size: int) -> None:
    guidance = Guidance(miniature.pipeline(), numerics=Numerics(size, 0.1, gradient_checkpointing=True))
    seen: list[Progress] = []
    asset = jsdsd.generate(
        "a corgi", model=guidance, objective="sds", steps=1, resolution=12, views_per_step=1, render_sizes=(48,),
        progress=False, callback=seen.append,
    )  # fmt: skip
    assert seen[0].record.x0.shape == (1, 4, size // 8, size // 8) and seen[0].render.rgb.shape == (1, 48, 48, 3)
    assert all(p.grad is not None and p.grad.isfinite().all() and p.grad.any() for p in seen[0].grid.parameters())
    assert f"image_size={size}" in asset.config["numerics"]


def test_a_picture_below_half_of_the_models_own_size_is_refused() -> None:
    assert Guidance(miniature.pipeline(), numerics=Numerics(32)).image_size == 32  # its own: 64
    with pytest.raises(ValueError, match="image_size 32 is less than half of the 128 pixels"):
        Guidance(miniature.pipeline(sample_size=16), numerics=Numerics(32))


def test_renders_grow_in_equal_shares_of_the_run() -> None:
    sizes: list[int] = []
    guidance = Guidance.load("toybox")
    run: dict[str, Any] = {"model": guidance, "objective": "sds", "resolution": 12, "views_per_step": 1}
    jsdsd.generate(
        "a mug", steps=7, render_sizes=(16, 24, 48), progress=False,
        callback=lambda p: sizes.append(p.render.rgb.shape[1]), **run,
    )  # fmt: skip
    assert sizes == [16, 16, 16, 24, 24, 48, 48]


@pytest.mark.parametrize(
    "wrong", [{"image_size": 500}, {"image_size": 0}, {"pixel_gradient_limit": 0.0}, {"guidance_rescale": 1.5}], ids=str
)
def test_impossible_numerics_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Numerics(**wrong)


def test_text_encoders_and_the_other_networks_take_turns_on_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """On the CPU nothing moves, so the moves themselves are recorded: away, there, back, and there again."""
    guidance, moves = Guidance(miniature.pipeline()), []
    texts, others = ["text_encoder", "text_encoder_2"], ["unet", "vae"]
    for name in texts + others:
        part = getattr(guidance.pipe, name)
        monkeypatch.setattr(part, "to", lambda place, name=name: moves.append((name, str(place))))
    guidance.device = torch.device("cpu", 0)  # as a device's name, not the CPU's
    turns = [(n, "cpu") for n in others] + [(n, "cpu:0") for n in texts]
    turns += [(n, "cpu") for n in texts] + [(n, "cpu:0") for n in others]
    guidance.encode_prompts(["a mug"])
    assert moves == turns
    moves.clear()
    monkeypatch.setattr(guidance.pipe, "encode_prompt", None)
    with pytest.raises(TypeError):  # a failure leaves everything in its place
        guidance.encode_prompts(["a mug"])
    assert moves == turns


def test_a_zero_terminal_schedule_keeps_a_trace_of_the_signal() -> None:
    from diffusers import DDIMScheduler

    pipe = miniature.pipeline("v_prediction")
    pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config, rescale_betas_zero_snr=True)
    assert pipe.scheduler.alphas_cumprod[-1] == 0
    guidance = Guidance(pipe)
    assert guidance.schedule.alpha(999) == pytest.approx(2**-12)
    x = torch.randn(1, *guidance.latent_shape, generator=torch.Generator().manual_seed(0))
    eps = guidance.predict_eps(x, 999, guidance.encode_prompts(["a mug"]), 2.0)
    assert torch.allclose(eps, x, atol=1e-2)  # there is nothing but noise at that level
