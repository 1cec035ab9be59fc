"""The memory plan against allocations that really happen, and the presets against the true SDXL's sizes."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import jsdsd
from jsdsd.scene.views import ViewWords, view_prompts
from jsdsd.sdxl.embeddings import Embeddings
from jsdsd.sdxl.guidance import Guidance
from jsdsd.sdxl.latent import FIT_SIZE
from jsdsd.sdxl.memory import GB, AllocationCounter, check_memory, plan
from jsdsd.sdxl.numerics import PRESETS, Numerics, preset_for
from jsdsd.sdxl.perp_neg import PerpNegDenoiser, unet_batch

sys.path.insert(0, str(Path(__file__).parent))  # the miniature lies beside this file
import miniature

from jsdsd.sdxl import memory, sdxl_base
from jsdsd.sdxl.device import memory_of


def planned(pipe: Any, numerics: Numerics, views: int, **more: Any) -> Any:
    run: dict[str, Any] = {"dtype": torch.float32, "views_per_step": views, "resolution": 16, "render_size": 24}
    return plan(pipe.unet.config, pipe.vae.config, numerics, **run, **more)


def test_the_counter_counts_what_lives() -> None:
    with AllocationCounter() as inside:
        a = torch.zeros(1000)
        b = a.view(10, 100)  # the same memory
        c = a + 1
        assert inside.now == 8000
        del a, b
        assert inside.now == 4000
        del c
        assert (inside.now, inside.peak) == (0, 8000)


def test_the_counter_forgets_what_was_made_before_when_it_dies() -> None:
    """A past failure, one run in a few: a new tensor at the address of a dead one, made before, was not counted."""
    before = [torch.zeros(1000) for _ in range(50)]
    with AllocationCounter() as inside:
        for x in before:
            x.sum()
        del x
        before.clear()  # the same sizes are likely to be given the same addresses
        after = [torch.zeros(1000) for _ in range(50)]
        assert inside.now >= 4000 * len(after)


@pytest.mark.parametrize("views", [1, 3])
@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("pixels", [128, 256])  # from 256 on, picture by picture
def test_the_plan_on_fake_tensors_is_the_count_on_real_ones(views: int, checkpointing: bool, pixels: int) -> None:
    pipe, numerics = miniature.pipeline(), Numerics(pixels, gradient_checkpointing=checkpointing)
    foretold = planned(pipe, numerics, views)
    guidance = Guidance(pipe, numerics=numerics)
    e = tokens_of_sdxl(guidance.encode_prompts(["a mug"] * views))
    with AllocationCounter() as inside:
        rgb = torch.rand(views, pixels, pixels, 3, requires_grad=True)
        latents = guidance.encode_images(rgb)
        encode, graph = inside.peak, inside.now
        inside.peak = inside.now
        guidance.predict_eps(latents.detach(), 500, e, 2.0)
        predict = inside.peak
        inside.peak = inside.now
        latents.sum().backward()
    assert foretold.encode == pytest.approx(encode, rel=0.02)
    assert foretold.predict == pytest.approx(predict, rel=0.02)
    assert foretold.backward == pytest.approx(max(inside.peak, graph), rel=0.02)
    weights = sum(p.numel() * 4 for part in (pipe.unet, pipe.vae) for p in part.parameters())
    assert foretold.networks == weights


def test_slices_share_the_memory_of_one_pictures_layers() -> None:
    pipe = miniature.pipeline()
    one, four = (planned(pipe, Numerics(256, gradient_checkpointing=True), views) for views in (1, 4))
    assert four.backward < 2 * one.backward  # all at once: four times


def tokens_of_sdxl(e: Embeddings) -> Embeddings:
    return Embeddings(*(x.repeat(1, 4, 1)[:, :77] if x is not None and x.ndim == 3 else x for x in vars(e).values()))


@pytest.mark.parametrize("own", [None, "front:0, side:90, back:180, side:270", "a:0, b:90, c:180, d:270"])
def test_the_plan_knows_perp_negs_batch(own: str | None) -> None:
    pipe = miniature.pipeline()
    guidance = Guidance(pipe, numerics=Numerics(128))
    words, view_word = guidance.all_views(ViewWords.parse(own) if own else None)
    rows = unet_batch(words, view_word)
    assert rows == (5 if own and "d:" in own else 4)  # this view, no view, and two or three others
    e = tokens_of_sdxl(guidance.encode_prompts(view_prompts("a mug", words)))
    denoiser = PerpNegDenoiser(guidance, e, 2.0, words, view_word, 1.0)
    denoiser.look([0, 1])  # makes the batch of embeddings
    tokens = denoiser.batch.tokens.nbytes
    with torch.no_grad():
        latents = guidance.encode_images(torch.rand(2, 128, 128, 3))
        with AllocationCounter() as inside:
            denoiser.predict_eps(latents, 500)
    foretold = planned(pipe, Numerics(128), 2, batch=rows, latent=True).predict
    assert foretold == pytest.approx(inside.peak + tokens, rel=0.02)
    assert foretold > 1.15 * rows / 4 * planned(pipe, Numerics(128), 2, latent=True).predict


def test_the_plan_of_latent_space_mode_has_no_vae_graph() -> None:
    pipe, pixels = miniature.pipeline(), Numerics(384)
    foretold, usual = (planned(pipe, pixels, 2, latent=latent) for latent in (True, False))
    guidance = Guidance(pipe, numerics=pixels)
    e = tokens_of_sdxl(guidance.encode_prompts(["a mug"] * 2))
    with AllocationCounter() as inside:
        with torch.no_grad():
            guidance.encode_images(torch.rand(1, FIT_SIZE, FIT_SIZE, 3), FIT_SIZE)  # the largest of the fit
        encode, inside.peak = inside.peak, inside.now
        assert inside.now < 0.01 * encode
        guidance.predict_eps(torch.zeros(2, *guidance.latent_shape), 500, e, 2.0)
    assert foretold.encode == pytest.approx(encode, rel=0.02)
    assert foretold.predict == pytest.approx(inside.peak, rel=0.02)
    assert foretold.backward < 0.01 * usual.backward and foretold.predict < 0.5 * usual.predict
    assert foretold.scene == pytest.approx(5 / 4 * usual.scene)  # density and four latents, not density and three


def test_the_text_encoders_are_in_the_plan_before_the_other_networks() -> None:
    guidance = Guidance(miniature.pipeline())
    texts = sum(
        p.numel() * 4 for e in (guidance.pipe.text_encoder, guidance.pipe.text_encoder_2) for p in e.parameters()
    )
    need = check_memory(guidance, 1, 16, 24)
    assert need.texts == texts and need.total > need.networks
    assert replace(need, texts=need.total).total == need.total
    assert replace(need, texts=2 * need.total).total == 2 * need.total


def test_checkpointing_and_smaller_pictures_need_less() -> None:
    pipe = miniature.pipeline()
    whole, kept = (planned(pipe, Numerics(128, gradient_checkpointing=c), 1) for c in (False, True))
    small = planned(pipe, Numerics(64), 1)
    assert kept.predict < 0.5 * whole.predict and kept.backward < whole.backward
    assert small.encode == pytest.approx(whole.encode / 4, rel=0.1)
    assert f"{whole.total / GB:.2f} GB" in str(whole)


def test_latent_space_mode_takes_the_unets_own_size_to_8_gb() -> None:
    sizes: dict[str, Any] = {"dtype": torch.float16, "views_per_step": 1, "resolution": 96, "render_size": 256}
    sizes |= {"texts": 2 * sdxl_base.TEXT_WEIGHTS}
    large = Numerics(1024, gradient_checkpointing=True)
    usual, latent = (plan(sdxl_base.UNET, sdxl_base.VAE, large, latent=x, **sizes) for x in (False, True))
    assert latent.total / GB < 0.85 * 8 < 0.85 * 12 < usual.total / GB


def test_the_written_out_sizes_are_sdxls() -> None:
    """The number of weights of the public model: 2,567,463,684 and 83,653,863."""
    from diffusers import AutoencoderKL, UNet2DConditionModel

    with torch.device("meta"):
        parts = UNet2DConditionModel(**sdxl_base.UNET), AutoencoderKL(**sdxl_base.VAE)
    assert [sum(p.numel() for p in part.parameters()) for part in parts] == [2_567_463_684, 83_653_863]


@pytest.mark.parametrize("gigabytes", sorted(PRESETS))
def test_every_preset_fits_its_card_with_room_for_cuda(gigabytes: int) -> None:
    preset = PRESETS[gigabytes]
    assert preset.gigabytes == gigabytes
    need = plan(
        sdxl_base.UNET, sdxl_base.VAE, preset.numerics, dtype=torch.float16, views_per_step=preset.views_per_step,
        resolution=preset.resolution, render_size=max(preset.render_sizes), latent=preset.latent,
        texts=2 * sdxl_base.TEXT_WEIGHTS,
    )  # fmt: skip
    assert need.networks / GB == pytest.approx(5.47, abs=0.02)  # 2.567e9 weights of 2 bytes, 8.4e7 of 4
    most = {8: 0.8, 80: 0.81}.get(gigabytes, 0.7)  # cards of 80 GB have 85
    assert 0.5 * gigabytes < need.total / GB < most * gigabytes
    assert preset.latent == (gigabytes == 8)
    page = (Path(__file__).parents[2] / "docs" / "gpu.md").read_text(encoding="utf-8")
    row = next(line for line in page.splitlines() if line.startswith(f"| {gigabytes} GB |"))
    pixels, renders = f"| {preset.numerics.image_size} px", ", ".join(map(str, preset.render_sizes)).rsplit(", ", 1)
    assert pixels in row and f"{preset.resolution}³ | {preset.views_per_step} |" in row
    assert renders[0] in row and f"{renders[1]} px" in row and f"| {need.total / GB:.1f} GB |" in row


def test_the_preset_goes_with_the_cards_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    assert preset_for("cpu") == preset_for("mps") == PRESETS[12]
    cards = {6.2e9: 8, 8.3e9: 8, 10.4e9: 12, 12.6e9: 12, 15.8e9: 16, 21e9: 24, 23.6e9: 24, 34e9: 40, 77e9: 40, 85e9: 80}
    for there, expected in cards.items():
        facts = type("Properties", (), {"total_memory": int(there)})
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device, facts=facts: facts)
        assert preset_for("cuda:0") == PRESETS[expected]


def test_a_preset_that_does_not_exist_is_refused_before_anything_is_loaded() -> None:
    with pytest.raises(ValueError, match="no preset for 10 GB: there are 8, 12, 16, 24, 40, 80"):
        Guidance.load("nobody/nothing", preset=10)
    with pytest.raises(ValueError, match=r"belongs to Guidance\.load"):
        jsdsd.generate("a corgi", model=Guidance(miniature.pipeline()), preset=12)


@pytest.mark.parametrize("more", [{"resolution": 600}, {"views_per_step": 4096}], ids=str)
def test_a_toy_run_too_large_for_the_machine_is_refused_before_it_starts(more: Any, monkeypatch: Any) -> None:
    """A past failure: the process was killed, and with it the rest of a list."""
    monkeypatch.setattr(memory, "memory_of", lambda device: 8 * 10**9)
    with pytest.raises(ValueError, match=r"needs \d+.\d GB, this machine has 8.0 GB: give smaller views_per_step"):
        jsdsd.generate("a mug", steps=1, progress=False, **more)


def test_the_memory_of_this_machine_is_what_the_process_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = memory_of(torch.device("cpu"))
    assert whole is not None and 1e8 < whole < 1e14
    limits = {"/sys/fs/cgroup/memory.max": "12345678\n"}
    monkeypatch.setattr(Path, "read_text", lambda path: limits.get(str(path), "max\n"))
    assert memory_of(torch.device("cpu")) == 12345678
    monkeypatch.delattr("os.sysconf", raising=False)
    limits.clear()
    assert memory_of(torch.device("cpu")) is None


def test_a_large_model_is_announced_once_and_refused_where_it_cannot_fit(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    guidance = Guidance(miniature.pipeline(), numerics=Numerics(256))  # 256 pixels: no toy
    run: dict[str, Any] = {"model": guidance, "steps": 1, "resolution": 16, "render_sizes": (32,), "objective": "sds"}
    for _ in range(2):
        jsdsd.generate("a corgi", progress=True, **run)
    said = capsys.readouterr().err
    assert said.count("memory plan:") == said.count("no GPU is used") == 1
    guidance.device = torch.device("cuda")
    facts = type("Properties", (), {"total_memory": 1000})
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: facts)
    with pytest.raises(ValueError, match="the GPU has 0.0 GB: give smaller(.|\\n)*preset=8"):
        jsdsd.generate("a corgi", **run)
