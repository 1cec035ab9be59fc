"""The toybox's language: what captions say, what prompts mean; dropping words keeps the rest's distribution."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from jsdsd.scene.views import OVERHEAD_SHARE, SECTORS, coarse_view, fine_view
from jsdsd.toybox import COLOURS, KINDS, attributes
from jsdsd.toybox.captions import RELATIONS, VIEWS, Label, caption, drop, parse

kinds, colours = st.sampled_from(list(KINDS)), st.sampled_from(list(COLOURS))
toys = st.tuples(st.none() | kinds, st.none() | colours)
views = st.none() | st.sampled_from([*VIEWS, "side"])
labels = st.one_of(
    st.builds(lambda toy, view: Label((toy,), None, view), toys, views),
    st.builds(lambda a, b, r, v: Label((a, b), r, v), toys, toys, st.sampled_from(RELATIONS), views),
)


@given(labels)
def test_a_caption_says_its_label_and_nothing_else(label: Label) -> None:
    assert parse(caption(label)) == label


@pytest.mark.parametrize(
    ("label", "text"),
    [
        (Label((("mushroom", "red"),), None, "front"), "a red mushroom, front view"),
        (Label((("ice cream", "orange"),)), "an orange ice cream"),
        (Label((("airplane", None),)), "an airplane"),
        (Label(((None, "red"),)), "something red"),
        (Label(((None, None),)), "a toy"),
        (Label((("ball", "red"), ("table", "blue")), "on"), "a red ball on a blue table"),
    ],
)
def test_captions_are_english(label: Label, text: str) -> None:
    assert caption(label) == text


@given(labels)
def test_attributes_are_distributions_over_what_is_not_said(label: Label) -> None:
    found = attributes(caption(label))
    assert len(found) == len(label.toys)
    for (kind, colour), one in zip(label.toys, found, strict=True):
        for name, said, all_of_them in (("kind", kind, KINDS), ("colour", colour, COLOURS)):
            assert sum(one[name].values()) == pytest.approx(1)
            assert set(one[name]) == ({said} if said else set(all_of_them))
            assert max(one[name].values()) == pytest.approx(min(one[name].values()))
        assert sum(one["view"].values()) == pytest.approx(1)
        assert set(one["view"]) <= set(VIEWS)


def test_dropping_is_independent_of_what_is_shown() -> None:
    """The colours of captions without a colour are as uniform as the labels were."""
    generator = torch.Generator().manual_seed(0)
    left_out: Counter[str] = Counter()
    for i in range(4000):
        colour = list(COLOURS)[i % 8]
        text = drop(Label((("mug", colour),), None, "front"), generator)
        left_out[colour] += text == "" or colour not in text
    share = torch.tensor([left_out[c] for c in COLOURS]) / 500
    expected = 0.1 + 0.9 * 0.2
    assert (share - expected).abs().max() < 4 * (expected * (1 - expected) / 500) ** 0.5


def test_each_word_is_dropped_as_often_as_the_docstring_says() -> None:
    generator = torch.Generator().manual_seed(0)
    texts = [drop(Label((("mug", "red"),), None, "left side"), generator) for _ in range(6000)]
    said = [text for text in texts if text]
    with_view = [text for text in said if "view" in text]
    for found, count, share in (
        (len(texts) - len(said), len(texts), 1 / 10),
        (len(said) - len(with_view), len(said), 1 / 6),
        (sum("left" not in text for text in with_view), len(with_view), 1 / 3),
        (sum("red" not in text for text in said), len(said), 1 / 5),
        (sum("mug" not in text for text in said), len(said), 1 / 8),
    ):
        assert abs(found / count - share) < 4 * (share * (1 - share) / count) ** 0.5


def test_a_prompt_without_a_view_means_the_cameras_of_the_training_pictures() -> None:
    view = attributes("a mug")[0]["view"]
    assert view["overhead"] == OVERHEAD_SHARE and len({view[word] for word in SECTORS}) == 1
    assert attributes("a mug, side view")[0]["view"] == {"left side": 0.5, "right side": 0.5}


@given(labels, st.integers(0, 10**6))
def test_a_dropped_caption_is_true(label: Label, seed: int) -> None:
    text = drop(label, torch.Generator().manual_seed(seed))
    if not text:
        return
    said = parse(text)
    assert said.relation == label.relation
    assert said.view in (None, label.view) or (said.view == "side" and label.view in ("left side", "right side"))
    for (kind, colour), (true_kind, true_colour) in zip(said.toys, label.toys, strict=True):
        assert kind in (None, true_kind) and colour in (None, true_colour)


@pytest.mark.parametrize(
    ("prompt", "says"),
    [
        ("", "empty"),
        ("  ", "empty"),
        ("a mushrom", "did you mean mushroom"),
        ("a DSLR photo of a corgi", 'model="sdxl"'),
        ("a red", "no toybox sentence"),
        ("a red blue ball", "no toybox sentence"),
    ],
)
def test_prompts_that_mean_nothing_are_refused_in_words(prompt: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        attributes(prompt)


@given(st.floats(-720, 720), st.floats(-90, 59))
def test_view_words_follow_the_camera(azimuth: float, elevation: float) -> None:
    word = fine_view(azimuth, elevation)
    centre = 45 * SECTORS.index(word)
    assert abs((azimuth - centre + 180) % 360 - 180) <= 22.5 + 1e-9
    coarse = coarse_view(azimuth, elevation)
    assert coarse in ("front", "side", "back")
    assert {"front": "front", "back": "back"}.get(word, coarse) == coarse
    assert fine_view(azimuth, 60 + 1e-6) == coarse_view(azimuth, 75) == "overhead"


def test_left_and_right_are_those_of_the_onlooker() -> None:
    assert [fine_view(a, 0) for a in (0, 90, 180, 270)] == ["front", "right side", "back", "left side"]
    assert [coarse_view(a, 0) for a in (0, 45, 46, 90, 134, 135, 180, 270)] == (
        ["front", "front", "side", "side", "side", "back", "back", "side"]
    )
