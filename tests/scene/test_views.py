"""View words of one's own, and Perp-Neg: geometry, the reduction to plain guidance, and the real batch it costs."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import jsdsd
from jsdsd.scene.views import ViewWords, coarse_view, fine_view, view_prompts
from jsdsd.sdxl.guidance import Guidance
from jsdsd.sdxl.numerics import Numerics
from jsdsd.sdxl.perp_neg import PerpNegDenoiser, perpendicular
from jsdsd.sdxl.view_denoiser import ViewDenoiser

COARSE = ViewWords.parse("front:0, side:90, back:180, side:270")
FINE = ViewWords(tuple((fine_view(45.0 * i, 0), 45.0 * i) for i in range(8)))


@given(st.floats(-720, 720), st.floats(-90, 90))
def test_words_of_ones_own_can_say_what_the_models_do(azimuth: float, elevation: float) -> None:
    if min(abs((azimuth - edge + 180) % 360 - 180) for edge in (22.5 + 45 * i for i in range(8))) > 1e-6:
        assert FINE(azimuth, elevation) == fine_view(azimuth, elevation)
    if min(abs((azimuth - edge + 180) % 360 - 180) for edge in (45.0, 135.0, 225.0, 315.0)) > 1e-6:
        assert COARSE(azimuth, elevation) == coarse_view(azimuth, elevation)


@given(st.floats(-720, 720))
def test_the_nearest_middle_wins(azimuth: float) -> None:
    words = ViewWords((("a", 10.0), ("b", 100.0), ("c", 350.0)), overhead=30, overhead_word="top")
    distance = {w: abs((azimuth - m + 180) % 360 - 180) for w, m in words.sectors}
    assert distance[words(azimuth, 0)] == min(distance.values())
    assert words(azimuth, 30) == "top" and words.words == ["a", "b", "c", "top"]


def test_text_and_words_are_the_same() -> None:
    for words in (COARSE, FINE, ViewWords((("x", 1.5),), 45.0, "from above")):
        assert ViewWords.parse(str(words)) == words
    for wrong in ("", "front", "front:x", ":3", "front:0; top", "front:nan"):
        with pytest.raises(ValueError, match="word:degrees"):
            ViewWords.parse(wrong)


@given(st.integers(0, 10**6))
def test_the_perpendicular_part_is_perpendicular_and_the_rest_is_parallel(seed: int) -> None:
    x, y = torch.randn(2, 3, 4, 2, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    part = perpendicular(x, y)
    assert ((part * y).sum((1, 2, 3)).abs() < 1e-10).all()
    rest = ((x - part) / y).flatten(1)
    assert torch.allclose(rest, rest[:, :1].expand_as(rest))
    assert torch.allclose(perpendicular(3 * y, y), 0 * y, atol=1e-12)
    assert torch.equal(perpendicular(x, 0 * y), x)


@pytest.fixture(scope="module")
def guidance() -> Guidance:
    return Guidance.load("toybox")


def denoisers(guidance: Guidance, weight: float) -> tuple[ViewDenoiser, PerpNegDenoiser, Any]:
    words = COARSE.words  # front, side, back, overhead
    e = guidance.encode_prompts(view_prompts("a red car", words))
    return ViewDenoiser(guidance, e, 3.0), PerpNegDenoiser(guidance, e, 3.0, words, COARSE, weight), e


def test_perp_neg_is_its_formula(guidance: Guidance) -> None:
    _, perp, e = denoisers(guidance, 0.7)
    assert perp.others.tolist() == [[1, 2], [2, 0], [1, 0], [3, 3]]
    x = torch.randn(3, *guidance.latent_shape, generator=torch.Generator().manual_seed(0))
    perp.look([0, 2, 3])
    found = perp.predict_eps(x, 500)
    for row, (own, others) in enumerate(((0, (1, 2)), (2, (1, 0)), (3, ()))):
        one = x[row : row + 1]

        def eps(word: int, s: float = 1.0, one: torch.Tensor = one) -> torch.Tensor:
            return guidance.predict_eps(one, 500, e[torch.tensor([word])], s)

        d = eps(own) - eps(own, 0.0)
        expected = eps(own, 0.0) + 3 * d
        for other in others:
            expected -= 3 * 0.7 * perpendicular(eps(other) - eps(own, 0.0), d)
        assert torch.allclose(found[row : row + 1], expected, atol=2e-5)


def test_weight_zero_is_plain_guidance_and_times_may_differ(
    guidance: Guidance, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, perp, _ = denoisers(guidance, 0.0)
    x = torch.randn(2, *guidance.latent_shape, generator=torch.Generator().manual_seed(0))
    for denoiser in (plain, perp):
        denoiser.look([1, 0])
    seen: list[torch.Tensor] = []
    for rescale in (0.0, 0.7):  # a past failure: Perp-Neg was never rescaled
        monkeypatch.setattr(guidance, "numerics", Numerics(guidance_rescale=rescale))
        for t in (400, torch.tensor([10, 900])):
            found = plain.predict_eps(x, t)
            assert torch.allclose(found, perp.predict_eps(x, t), atol=1e-5)
        seen.append(found)
    assert not torch.allclose(*seen, atol=1e-3)


def test_a_run_takes_words_and_perp_neg_and_counts_the_same_calls(
    guidance: Guidance, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches: list[int] = []
    real = guidance.unet.forward

    def counted(x: torch.Tensor, *args: Any, **rest: Any) -> Any:
        batches.append(len(x))
        return real(x, *args, **rest)

    monkeypatch.setattr(guidance.unet, "forward", counted)
    small: dict[str, Any] = {"steps": 1, "resolution": 12, "views_per_step": 2, "progress": False, "model": guidance}
    small |= {"objective": "jsd"}
    words = ViewWords.parse("front:0, right side:90, back:180, left side:270")
    asset = jsdsd.generate("a red car", view_words=words, **small)
    assert set(batches) == {4} and asset.config["view_words"] == str(words)
    batches.clear()
    perp = jsdsd.generate("a red car", view_words=words, perp_neg=1.0, **small)
    assert set(batches) == {2 * (2 + 3)} and len(batches) == perp.history[0]["unet_calls"] == 4
    assert not torch.equal(perp.grid.levels[-1], asset.grid.levels[-1])
    with pytest.raises(ValueError, match="perp_neg"):
        jsdsd.generate("a red car", perp_neg=-1.0, **small)
