"""The asset's own words: DDIM against diffusers and a closed form; learning against its loss and against the judge."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.evidence.judge import load_judge
from jsdsd.objectives import ddim_sample
from jsdsd.scene.views import view_prompts
from jsdsd.sdxl.embeddings import Embeddings
from jsdsd.sdxl.guidance import Guidance
from jsdsd.sdxl.own_words import own_words, padded
from jsdsd.sdxl.view_denoiser import ViewDenoiser

sys.path.insert(0, str(Path(__file__).parent))  # the miniature lies beside this file
import miniature


@pytest.fixture(scope="module")
def guidance() -> Guidance:
    return Guidance.load("toybox")


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@given(st.integers(1, 5), st.integers(6, 9))
def test_what_is_learned_stands_at_the_prompts_places(places: int, length: int) -> None:
    e = Embeddings(*(torch.zeros(1, length, 3), torch.zeros(1, 2)) * 2)
    delta = padded(torch.ones(1, places, 3), e)
    assert delta.shape == (1, length, 3) and float(delta.sum()) == 3 * places
    assert not delta[:, 0].any() and not delta[:, 1 + places :].any()


@pytest.mark.parametrize(("prompt", "tokens"), [("a mug", 2), ("a red car next to a white house", 8), ("a ball", 2)])
def test_the_view_words_follow_the_prompts_tokens(guidance: Guidance, prompt: str, tokens: int) -> None:
    assert guidance.count_tokens(prompt) == tokens
    texts = [guidance.pipe.tokenizer(text).input_ids for text in view_prompts(prompt, guidance.all_views()[0])]
    assert len({tuple(text[: 1 + tokens]) for text in texts}) == 1
    assert len({text[2 + tokens] for text in texts}) > 1  # after a comma, the word for the view


def test_the_gradient_to_the_words_is_the_finite_difference(guidance: Guidance) -> None:
    e, x = guidance.encode_prompts(["a mug, front view"]), noise(1, *guidance.latent_shape)
    along, out = noise(*e.tokens.shape, seed=1), noise(1, *guidance.latent_shape, seed=2)

    def value(delta: torch.Tensor) -> torch.Tensor:
        return (guidance.predict_eps_with_gradient(x, 700, e.shifted(delta), 2.0) * out).sum()

    zero = torch.zeros_like(e.tokens, requires_grad=True)
    value(zero).backward()
    h = 1e-2
    with torch.no_grad():
        slope = (value(h * along) - value(-h * along)) / (2 * h)
    assert zero.grad is not None and float((zero.grad * along).sum()) == pytest.approx(float(slope), rel=0.02)
    assert not guidance.predict_eps(x, 700, e.shifted(zero)).requires_grad


def test_own_words_mean_one_sample(guidance: Guidance) -> None:
    """ "a ball", seeds 0 to 3: fresh noise under own words has the sample's colour, as the judge sees it, from all
    sides; under the prompt alone it has any.  The words differ between seeds, and repeat with them."""
    words, _ = guidance.all_views()
    e, judge, agree, chance, deltas = guidance.encode_prompts(view_prompts("a ball", words)), load_judge(), 0, 0, []
    for seed in range(4):
        delta, calls = own_words(guidance, e[torch.tensor([0])], 2, seed, 3.0)
        assert calls == 25 + 2 * 30 and not delta.requires_grad
        deltas.append(delta)
        first = noise(1, *guidance.latent_shape, seed=seed)

        def colours(e: Embeddings, x: torch.Tensor) -> list[int]:
            x = ddim_sample(lambda x, t: guidance.predict_eps(x, t, e, 3.0), guidance.schedule, x)
            return judge.judge(guidance.decode_latents(x))["colour"].argmax(1).tolist()

        (sample,) = colours(e[torch.tensor([0])], first)
        fresh = noise(8, *guidance.latent_shape, seed=100 + seed)
        agree += sum(c == sample for c in colours(e.shifted(delta)[torch.arange(8)], fresh))
        chance += sum(c == sample for c in colours(e[torch.arange(8)], fresh))
    assert agree >= 28 and chance <= 12  # of 32
    assert torch.equal(own_words(guidance, e[torch.tensor([0])], 2, 3, 3.0)[0], deltas[3])
    assert not torch.allclose(deltas[2], deltas[3], atol=0.1)


def test_the_denoiser_leans_as_far_as_it_is_told(guidance: Guidance) -> None:
    e = guidance.encode_prompts(view_prompts("a car", ["front", "back", "side"]))
    delta, x = noise(1, *e.tokens.shape[1:]), noise(2, *guidance.latent_shape)
    learned = []

    def learn() -> tuple[torch.Tensor, int]:
        learned.append(1)
        return delta, 5

    denoiser = ViewDenoiser(guidance, e, 2.0, learn)
    denoiser.look([2, 0])
    plain = denoiser.predict_eps(x, 500)
    assert denoiser.lean(0.5) == 5
    rows = e[torch.tensor([2, 0])]
    half = guidance.predict_eps(x, 500, replace(rows, tokens=rows.tokens + 0.5 * delta), 2.0)
    assert torch.equal(denoiser.predict_eps(x, 500), half) and not torch.allclose(half, plain, atol=1e-3)
    denoiser.look([1, 1])  # and keeps it
    ones = e[torch.tensor([1, 1])]
    assert torch.equal(
        denoiser.predict_eps(x, 500),
        guidance.predict_eps(x, 500, replace(ones, tokens=ones.tokens + 0.5 * delta), 2.0),
    )
    assert denoiser.lean(0.0) == 0 and len(learned) == 1
    denoiser.look([2, 0])
    assert torch.equal(denoiser.predict_eps(x, 500), plain)
    resumed = ViewDenoiser(guidance, e, 2.0, learn, counted=True)
    assert resumed.lean(1.0) == 0 and len(learned) == 2


def test_half_precision_does_not_overflow_on_large_latents() -> None:
    """A past failure: the sum of the squared error over 16,384 latents, on its way back in float16."""
    model = Guidance(miniature.pipeline(sample_size=64), dtype=torch.float16)
    delta, _ = own_words(model, model.encode_prompts(["a mug"]), 1, 0, 3.0, steps=1, batch=1, sample_steps=1)
    assert delta.abs().max() == pytest.approx(0.2, rel=0.01)  # one step of Adam


def test_what_cannot_work_is_refused_in_words(guidance: Guidance) -> None:
    e = guidance.encode_prompts(["a mug"])
    with pytest.raises(TypeError, match="learn="):
        ViewDenoiser(guidance, e).lean(1.0)
    for weight in (-0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match="weight"):
            ViewDenoiser(guidance, e, learn=lambda: (e.tokens, 0)).lean(weight)
    broken = replace(e, tokens=e.tokens * float("nan"))
    with pytest.raises(FloatingPointError, match="own words"):
        own_words(guidance, broken, 2, 0, 3.0, steps=1, batch=1, sample_steps=1)
