"""SDXL's peculiarities on a miniature that has them all, and implementations that ignore one: each must be noticed.

The judge is diffusers' own pipeline, run for its first step, and the text encoders run by hand.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler

from jsdsd.sdxl.embeddings import Embeddings
from jsdsd.sdxl.guidance import Guidance
from jsdsd.sdxl.numerics import Numerics

sys.path.insert(0, str(Path(__file__).parent))  # the miniature lies beside this file
import miniature

PROMPTS = ["a red mushroom", "a blue car on a box"]
NEGATIVES = [None, "", "a green ball"]
SCALE = 4.0
KINDS = ["epsilon", "v_prediction", "sample"]
FAMILIES = [miniature.pipeline, miniature.stable_diffusion]


def theirs(pipe: Any, negative: str | None, rescale: float = 0.0, prompts: list[str] = PROMPTS) -> dict[str, Any]:
    """x_t, t and the clean latents that diffusers' pipeline sees in them, in its first step."""
    seen: dict[str, Any] = {}
    scheduler = DDIMScheduler.from_config(pipe.scheduler.config, clip_sample=False, set_alpha_to_one=False)
    step = scheduler.step

    def record(out: torch.Tensor, t: torch.Tensor, x_t: torch.Tensor, **rest: Any) -> Any:
        result = step(out, t, x_t, **{**rest, "return_dict": True})
        if not seen:
            seen.update(t=int(t), x_t=x_t.clone(), x0=result.pred_original_sample)
        return (result.prev_sample,)

    scheduler.step = record  # type: ignore[method-assign]
    old, pipe.scheduler = pipe.scheduler, scheduler
    try:
        pipe.set_progress_bar_config(disable=True)
        pipe(
            prompts, negative_prompt=None if negative is None else [negative] * len(prompts), num_inference_steps=2,
            guidance_scale=SCALE, guidance_rescale=rescale, generator=torch.Generator().manual_seed(0),
            output_type="latent",
        )  # fmt: skip
    finally:
        pipe.scheduler = old
    return seen


def noise_agrees(guidance: Guidance, expected: dict[str, Any], negative: str | None) -> bool:
    x_t, t = expected["x_t"], expected["t"]
    eps = guidance.predict_eps(x_t, t, guidance.encode_prompts(PROMPTS, negative), SCALE)
    x0 = guidance.schedule.x0_from_eps(x_t, eps, t)
    return bool((x0 - expected["x0"]).abs().max() < 1e-4 * expected["x0"].abs().max())


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("negative", NEGATIVES)
def test_the_guided_prediction_is_that_of_diffusers(kind: str, negative: str | None, family: Any) -> None:
    pipe = family(kind)
    assert noise_agrees(Guidance(pipe), theirs(pipe, negative), negative)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kind", KINDS)
def test_the_rescaled_prediction_is_that_of_diffusers(kind: str, family: Any) -> None:
    pipe = family(kind)
    expected = theirs(pipe, None, rescale=0.7)
    assert noise_agrees(Guidance(pipe, numerics=Numerics(guidance_rescale=0.7)), expected, None)
    assert not noise_agrees(Guidance(pipe), expected, None)


@pytest.mark.parametrize("negative", [None, ""])
def test_a_model_that_wants_no_zeros_gets_the_empty_text(negative: str | None) -> None:
    pipe = miniature.pipeline(force_zeros=False)
    e = Guidance(pipe).encode_prompts(PROMPTS, negative)
    assert e.negative_tokens.any() and torch.equal(e.negative_tokens[0], by_hand(pipe, "")[0])
    assert noise_agrees(Guidance(pipe), theirs(pipe, negative), negative)


def by_hand(pipe: Any, text: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens (L, 80) and vector (48,): both encoders' last but one layer side by side, encoder 2's projected vector."""
    states = []
    for tokenizer, encoder in ((pipe.tokenizer, pipe.text_encoder), (pipe.tokenizer_2, pipe.text_encoder_2)):
        ids = tokenizer(text, padding="max_length", max_length=miniature.WINDOW, return_tensors="pt").input_ids
        with torch.no_grad():
            out = encoder(ids, output_hidden_states=True)
        states.append(out.hidden_states[-2][0])
    return torch.cat(states, -1), out.text_embeds[0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("negative", NEGATIVES)
@pytest.mark.parametrize("count", [1, 2])
def test_embeddings_are_encode_prompts_and_those_made_by_hand(
    dtype: torch.dtype, negative: str | None, count: int
) -> None:
    pipe = miniature.pipeline()
    prompts = PROMPTS[:count]
    mine = Guidance(pipe, dtype=dtype).encode_prompts(prompts, negative)
    for i, prompt in enumerate(prompts):
        with torch.no_grad():
            tokens, none, vector, no = pipe.encode_prompt(
                prompt, device=torch.device("cpu"), do_classifier_free_guidance=True, negative_prompt=negative
            )
        row = mine[torch.tensor([i])]
        pairs = ((row.tokens, tokens), (row.vectors, vector), (row.negative_tokens, none), (row.negative_vectors, no))
        for ours, expected in pairs:
            assert ours.dtype == dtype and torch.allclose(
                ours.float(), expected.to(dtype).float(), atol=1e-5, rtol=1e-2
            )
        if dtype == torch.float32:
            hand = by_hand(pipe, prompt)
            assert torch.allclose(row.tokens[0], hand[0], atol=1e-5)
            assert torch.allclose(row.vectors[0], hand[1], atol=1e-5)


# The wrong twins.  Each takes a right implementation and breaks one thing that the literature of SDXL bugs knows.


def unet_sees(change: Callable[[torch.Tensor, torch.Tensor, torch.Tensor], tuple[torch.Tensor, ...]]) -> Any:
    """Break what reaches the U-Net: change(tokens, vectors, time_ids) -> the same three."""

    def broken(guidance: Guidance) -> None:
        unet = guidance.unet

        def call(x: Any, t: Any, tokens: Any, added_cond_kwargs: Any, return_dict: bool) -> Any:
            tokens, vectors, ids = change(tokens, added_cond_kwargs["text_embeds"], added_cond_kwargs["time_ids"])
            added = {"text_embeds": vectors, "time_ids": ids}
            return unet(x, t, tokens, added_cond_kwargs=added, return_dict=return_dict)

        guidance.unet = call

    return broken


def embeds(change: Callable[[Guidance, Embeddings, str | None], Embeddings]) -> Any:
    """Break what encode_prompts returns."""

    def broken(guidance: Guidance) -> None:
        encode = guidance.encode_prompts
        guidance.encode_prompts = (  # type: ignore[method-assign]
            lambda prompts, negative_prompt=None: change(guidance, encode(prompts, negative_prompt), negative_prompt)
        )

    return broken


def with_part(name: str, value: Callable[[Any], Any]) -> Any:
    """Break a part of the pipeline while prompts are encoded."""

    def broken(guidance: Guidance) -> None:
        encode = guidance.encode_prompts

        def call(prompts: Any, negative_prompt: Any = None) -> Embeddings:
            right = getattr(guidance.pipe, name)
            setattr(guidance.pipe, name, value(guidance.pipe))
            try:
                return encode(prompts, negative_prompt)
            finally:
                setattr(guidance.pipe, name, right)

        guidance.encode_prompts = call  # type: ignore[method-assign]

    return broken


def last_layer(guidance: Guidance, e: Embeddings, negative: str | None) -> Embeddings:
    tokens = []
    for prompt in PROMPTS:
        parts = ((guidance.pipe.tokenizer, guidance.pipe.text_encoder),
                 (guidance.pipe.tokenizer_2, guidance.pipe.text_encoder_2))  # fmt: skip
        with torch.no_grad():
            each = [
                m(
                    k(prompt, padding="max_length", max_length=miniature.WINDOW, return_tensors="pt").input_ids,
                    output_hidden_states=True,
                )
                for k, m in parts
            ]
        tokens.append(torch.cat([out.hidden_states[-1][0] for out in each], -1))
    return Embeddings(torch.stack(tokens), e.vectors, e.negative_tokens, e.negative_vectors)


def empty_text(guidance: Guidance, e: Embeddings, negative: str | None) -> Embeddings:
    tokens, vector = by_hand(guidance.pipe, "")
    return Embeddings(e.tokens, e.vectors, tokens.expand_as(e.tokens), vector.expand_as(e.vectors))


def zeros(guidance: Guidance, e: Embeddings, negative: str | None) -> Embeddings:
    return Embeddings(e.tokens, e.vectors, 0 * e.tokens, 0 * e.vectors)


def scale_off_by_one(guidance: Guidance) -> None:
    predict = guidance.predict_eps
    guidance.predict_eps = lambda x, t, e, s=None: predict(x, t, e, s + 1)  # type: ignore[method-assign]


def takes_it_for(kind: str) -> Any:
    def broken(guidance: Guidance) -> None:
        guidance.prediction_type = kind

    return broken


HALF = torch.tensor([[0.0], [0.0], [1.0], [1.0]])
TRAPS: list[tuple[str, str | None, str, Any]] = [
    ("no picture sizes", None, "epsilon", unet_sees(lambda k, v, ids: (k, v, 0 * ids))),
    ("the latents' size", None, "epsilon", unet_sees(lambda k, v, ids: (k, v, ids / 8))),
    ("sizes in another order", None, "epsilon", unet_sees(lambda k, v, ids: (k, v, ids[:, [2, 3, 0, 1, 4, 5]]))),
    ("sizes for one half", None, "epsilon", unet_sees(lambda k, v, ids: (k, v, ids * HALF))),
    ("no prompt vector", None, "epsilon", unet_sees(lambda k, v, ids: (k, 0 * v, ids))),
    ("halves swapped", None, "epsilon", unet_sees(lambda k, v, ids: (k.roll(2, 0), v.roll(2, 0), ids))),
    ("encoder 1 alone", None, "epsilon", unet_sees(lambda k, v, ids: (k * (torch.arange(80) < 32), v, ids))),
    ("encoder 2 alone", None, "epsilon", unet_sees(lambda k, v, ids: (k * (torch.arange(80) >= 32), v, ids))),
    ("encoders in another order", None, "epsilon", unet_sees(lambda k, v, ids: (k.roll(48, -1), v, ids))),
    ("the last layer", None, "epsilon", embeds(last_layer)),
    ("one tokenizer for both", None, "epsilon", with_part("tokenizer_2", lambda pipe: pipe.tokenizer)),
    ("None is the empty text", None, "epsilon", embeds(empty_text)),
    ("the empty text is zeros", "", "epsilon", embeds(zeros)),
    ("a negative prompt forgotten", "a green ball", "epsilon", embeds(zeros)),
    ("guidance scale s - 1", None, "epsilon", scale_off_by_one),
    ("v taken for noise", None, "v_prediction", takes_it_for("epsilon")),
    ("x0 taken for noise", None, "sample", takes_it_for("epsilon")),
    ("v taken for x0", None, "v_prediction", takes_it_for("sample")),
]  # fmt: skip


@pytest.mark.parametrize(("negative", "kind", "broken"), [t[1:] for t in TRAPS], ids=[t[0] for t in TRAPS])
def test_a_prediction_that_ignores_it_is_noticed(negative: str | None, kind: str, broken: Any) -> None:
    pipe = miniature.pipeline(kind)
    expected, guidance = theirs(pipe, negative), Guidance(pipe)
    assert noise_agrees(guidance, expected, negative)
    broken(guidance)
    assert not noise_agrees(guidance, expected, negative)
