"""SDXL guidance, proven on the embedded toybox: equal to diffusers' own pipeline, with gradient where promised."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler

import jsdsd
from jsdsd import toybox
from jsdsd.__main__ import OK, main
from jsdsd.scene.views import ViewWords, view_prompts
from jsdsd.sdxl.guidance import Guidance
from jsdsd.sdxl.view_denoiser import ViewDenoiser

PROMPTS = ["a red mushroom, front view", "a blue car", "a toy"]


@pytest.fixture(scope="module")
def guidance() -> Guidance:
    return Guidance.load("toybox")


def diffusers_step(
    guidance: Guidance, prompts: list[str], negative: str | None, scale: float, steps: int
) -> dict[str, Any]:
    """What diffusers' own pipeline computes in its first step: the guided prediction, its latents and its timestep."""
    seen: dict[str, Any] = {}
    scheduler = DDIMScheduler.from_config(guidance.pipe.scheduler.config)
    step = scheduler.step

    def record(model_output: torch.Tensor, t: torch.Tensor, sample: torch.Tensor, **rest: Any) -> Any:
        seen.setdefault("out", model_output.clone())
        seen.setdefault("t", int(t))
        seen.setdefault("x_t", sample.clone())
        return step(model_output, t, sample, **rest)

    scheduler.step = record  # type: ignore[method-assign]
    old, guidance.pipe.scheduler = guidance.pipe.scheduler, scheduler
    try:
        guidance.pipe.set_progress_bar_config(disable=True)
        generator = torch.Generator().manual_seed(3)
        negatives = None if negative is None else [negative] * len(prompts)
        guidance.pipe(
            prompts,
            negative_prompt=negatives,
            num_inference_steps=steps,
            guidance_scale=scale,
            generator=generator,
            output_type="latent",
        )
    finally:
        guidance.pipe.scheduler = old
    return seen


@pytest.mark.parametrize("negative", [None, "", "a green ball"])
@pytest.mark.parametrize(("scale", "steps"), [(7.5, 1), (3.0, 2), (1.5, 5)])
def test_guided_noise_is_that_of_diffusers(guidance: Guidance, negative: str | None, scale: float, steps: int) -> None:
    theirs = diffusers_step(guidance, PROMPTS, negative, scale, steps)
    ours = guidance.predict_eps(theirs["x_t"], theirs["t"], guidance.encode_prompts(PROMPTS, negative), scale)
    eps = guidance.schedule.eps_from_v(theirs["x_t"], theirs["out"], theirs["t"])  # the toybox predicts v
    assert (ours - eps).abs().max() < 1e-5


def test_no_negative_prompt_is_zeros_and_an_empty_one_is_not(guidance: Guidance) -> None:
    none, empty = (guidance.encode_prompts(PROMPTS[:1], n) for n in (None, ""))
    assert not none.negative_tokens.any() and not none.negative_vectors.any()
    assert empty.negative_tokens.abs().max() > 0.1


def test_scale_one_is_the_conditional_prediction_and_zero_the_other(guidance: Guidance) -> None:
    e = guidance.encode_prompts(PROMPTS)
    x = torch.randn(3, *guidance.latent_shape, generator=torch.Generator().manual_seed(0))
    one, zero, three = (guidance.predict_eps(x, 400, e, s) for s in (1.0, 0.0, 3.0))
    assert torch.allclose(zero + 3 * (one - zero), three, atol=1e-5)
    assert (one - zero).abs().max() > 1e-3


def test_a_batch_is_its_rows_and_times_may_differ(guidance: Guidance) -> None:
    e = guidance.encode_prompts(PROMPTS)
    x = torch.randn(3, *guidance.latent_shape, generator=torch.Generator().manual_seed(0))
    t = torch.tensor([10, 500, 990])
    together = guidance.predict_eps(x, t, e)
    for i in range(3):
        alone = guidance.predict_eps(x[i : i + 1], int(t[i]), e[torch.tensor([i])])
        assert torch.allclose(together[i : i + 1], alone, atol=1e-5)
    with pytest.raises(ValueError, match="2 pictures need 2 embeddings"):
        guidance.predict_eps(x[:2], 3, e)


def test_other_predictions_are_turned_into_noise(guidance: Guidance) -> None:
    """One network, declared to predict noise, v or x0: noise, v and x0 of one point must agree with the schedule."""
    e = guidance.encode_prompts(PROMPTS[:1])
    x, t = torch.randn(1, *guidance.latent_shape, generator=torch.Generator().manual_seed(1)), 300
    guidance.prediction_type = "epsilon"
    try:
        out = guidance.predict_eps(x, t, e, 1.0)
    finally:
        guidance.prediction_type = "v_prediction"
    alpha, sigma = guidance.schedule.alpha(t), guidance.schedule.sigma(t)
    for kind, expected in (("v_prediction", sigma * x + alpha * out), ("sample", (x - alpha * out) / sigma)):
        guidance.prediction_type = kind
        try:
            assert torch.allclose(guidance.predict_eps(x, t, e, 1.0), expected, atol=1e-5)
        finally:
            guidance.prediction_type = "v_prediction"


def test_latents_carry_a_gradient_and_are_the_vaes(guidance: Guidance) -> None:
    rgb = torch.rand(2, 96, 96, 3, generator=torch.Generator().manual_seed(0), requires_grad=True)
    latents = guidance.encode_images(rgb)
    assert latents.shape == (2, *guidance.latent_shape)
    with torch.no_grad():
        theirs = (
            guidance.vae.encode(rgb.permute(0, 3, 1, 2) * 2 - 1).latent_dist.mean * guidance.vae.config.scaling_factor
        )
    assert torch.allclose(latents, theirs, atol=1e-6)
    latents.sum().backward()
    assert rgb.grad is not None and rgb.grad.abs().sum() > 0
    assert guidance.encode_images(torch.rand(1, 48, 48, 3)).shape == (1, *guidance.latent_shape)


def test_the_gradient_through_the_vae_is_the_finite_difference(guidance: Guidance) -> None:
    generator = torch.Generator().manual_seed(0)
    rgb = torch.rand(1, 48, 48, 3, generator=generator)
    along, out = (
        torch.randn(rgb.shape, generator=generator),
        torch.randn(1, *guidance.latent_shape, generator=generator),
    )
    rgb.requires_grad_()
    (guidance.encode_images(rgb) * out).sum().backward()
    h = 1e-2
    with torch.no_grad():
        up, down = ((guidance.encode_images(rgb + s * h * along) * out).sum() for s in (1, -1))
    assert rgb.grad is not None
    assert float((rgb.grad * along).sum()) == pytest.approx(float((up - down) / (2 * h)), rel=0.02)


def test_decoding_undoes_encoding(guidance: Guidance) -> None:
    grid = toybox.true_grid(toybox.Toy("mug", "red"))
    from jsdsd import orbit, render

    with torch.no_grad():
        rgb = render(grid, orbit([0.0, 60.0]), 96, 0.7).rgb
        again = guidance.decode_latents(guidance.encode_images(rgb))
    assert again.shape == rgb.shape and (again - rgb).abs().mean() < 0.04


def test_the_view_denoiser_answers_to_the_view_it_looks_at(guidance: Guidance) -> None:
    prompts = view_prompts("a red car", ["front", "right side"])
    assert prompts == ["a red car, front view", "a red car, right side view"]
    assert view_prompts("a car, back view", ["front", "back"]) == ["a car, back view"] * 2
    e = guidance.encode_prompts(prompts)
    denoiser = ViewDenoiser(guidance, e, guidance_scale=2.0)
    x = torch.randn(2, *guidance.latent_shape, generator=torch.Generator().manual_seed(0))
    denoiser.look([1, 0])
    assert torch.equal(denoiser.predict_eps(x, 500), guidance.predict_eps(x, 500, e[torch.tensor([1, 0])], 2.0))
    assert not torch.allclose(denoiser.predict_eps(x, 500), guidance.predict_eps(x, 500, e, 2.0))


@pytest.mark.parametrize("t", [500, torch.tensor([100, 900])])
@pytest.mark.parametrize("rescale", [0.0, 0.7])
def test_the_two_halves_are_those_of_one_guided_prediction(
    guidance: Guidance, monkeypatch: pytest.MonkeyPatch, t: int | torch.Tensor, rescale: float
) -> None:
    monkeypatch.setattr(guidance, "numerics", replace(guidance.numerics, guidance_rescale=rescale))
    e = guidance.encode_prompts(view_prompts("a red car", ["front", "right side"]), "fog")
    x = torch.randn(2, *guidance.latent_shape, generator=torch.Generator().manual_seed(0))
    for denoiser in (ViewDenoiser(guidance, e, 2.0), ViewDenoiser(guidance, e, 1.0)):
        denoiser.look([1, 0])
        parts = denoiser.predict_parts(x, t)
        assert torch.allclose(parts.guided, denoiser.predict_eps(x, t), atol=1e-5)
        for half, scale in ((parts.eps_0, 0.0), (parts.eps_y, 1.0)):
            assert torch.allclose(half, denoiser.predict_eps(x, t, scale), atol=1e-5)


def test_prompts_are_checked_before_any_work(guidance: Guidance) -> None:
    guidance.check_prompt("a red mushroom")
    with pytest.raises(ValueError, match="empty"):
        guidance.check_prompt("")
    wrong = [{"prompt": p} for p in ("a corgi", "on", "next to", "red red red", "!!!", "a", "a mug \U0001f344")]
    more = [{"negative_prompt": "xyzzy"}, {"view_words": "xyzzy:0"}, {"view_words": "front:0; xyzzy:60"}]
    for changes in (*wrong, *more):  # the model's own language: parse's
        with pytest.raises(ValueError, match="toybox|empty"):
            jsdsd.generate(**{"prompt": "a mug", "model": guidance, **changes})  # type: ignore[arg-type]


def test_a_prompt_whose_view_words_would_be_cut_off_is_refused(guidance: Guidance) -> None:
    """CLIP's tokenizer cuts the end, where the words are: every view would be told the same."""
    window = guidance.pipe.tokenizer.model_max_length
    longest = max(guidance.all_views()[0], key=lambda word: len(word.split()))
    room = window - len(guidance.pipe.tokenizer(f"a mushroom, {longest} view").input_ids)
    fits = f"a {'red ' * room}mushroom"  # no sentence of the toybox's, and as long as may be
    guidance.check_prompt(fits)
    with pytest.raises(ValueError, match=f"too long: (.|\\n)*has {window + 1} tokens, the model reads {window}"):
        guidance.check_prompt(fits + " red")
    with pytest.raises(ValueError, match="too long"):
        jsdsd.generate(fits, model=guidance, view_words=ViewWords((("front right of it", 0.0),)))


def test_a_compiled_unet_makes_the_same_object(
    guidance: Guidance, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With PyTorch's tracer, but no compiler behind it: to the same bytes."""
    small = ["--steps", "1", "--resolution", "12", "--views-per-step", "1", "--objective", "sds", "--quiet"]
    compile_, graphs = torch.compile, []

    def traced(net: Any) -> Any:
        return compile_(net, backend=lambda graph, example: graphs.append(graph) or graph.forward)

    monkeypatch.setattr(torch, "compile", traced)
    monkeypatch.setattr("jsdsd.__main__.save_all", lambda asset, folder: asset.save(folder / "asset.safetensors"))
    for name in ("plain", "--compile"):
        more = [name] if name == "--compile" else []
        assert main(["a red mug", "-o", str(tmp_path / name), *small, *more]) == OK
        assert bool(graphs) == bool(more)
    plain, compiled = (jsdsd.Asset.load(tmp_path / name / "asset.safetensors") for name in ("plain", "--compile"))
    assert all(torch.equal(a, b) for a, b in zip(plain.grid.levels, compiled.grid.levels, strict=True))


def test_a_compiled_unet_takes_its_turn_on_a_device() -> None:
    guidance = Guidance.load("toybox")
    guidance.unet = torch.compile(guidance.unet, backend="eager")
    guidance.device = torch.device("cpu", 0)  # as a GPU, for the turns
    guidance.encode_prompts(["a mug"])
    assert guidance.unet.config.sample_size == guidance.latent_shape[-1]


def copy_of_the_toybox(folder: Path) -> Path:
    return Path(shutil.copytree(toybox.path(), folder / "model", ignore=shutil.ignore_patterns("sha256.txt")))


def test_missing_and_incomplete_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no model folder"):
        Guidance.load(tmp_path / "nowhere")
    model = copy_of_the_toybox(tmp_path)
    shutil.rmtree(model / "unet")
    with pytest.raises(FileNotFoundError, match="lacks unet"):
        Guidance.load(model)


def test_unknown_predictions_are_refused(tmp_path: Path) -> None:
    model = copy_of_the_toybox(tmp_path)
    file = model / "scheduler" / "scheduler_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"prediction_type": "flow"}))
    with pytest.raises((ValueError, NotImplementedError), match="flow"):
        Guidance.load(model)


def test_a_hub_id_without_network_says_what_to_fetch() -> None:
    with pytest.raises(OSError, match="hf download nobody/nothing"):
        Guidance.load("nobody/nothing")
