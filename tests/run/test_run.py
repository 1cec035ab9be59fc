"""Run: one gate for every setting, and the same run again out of its JSON."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jsdsd.generation import generate
from jsdsd.run import Run
from jsdsd.scene.views import ViewWords

ODD = st.one_of(
    st.none(), st.booleans(), st.integers(-(10**30), 10**30), st.floats(), st.text(max_size=5), st.binary(max_size=3),
    st.lists(st.integers(-5, 5000), max_size=3), st.dictionaries(st.text(max_size=2), st.integers(), max_size=1),
    st.just(np.float64("nan")), st.just(np.int64(3)), st.just(object()), st.just("\ud800"), st.just("a\x00b"),
)  # fmt: skip
SETTINGS = [name for name, *_ in Run.options()] + ["render_sizes"]


@pytest.mark.parametrize("name", SETTINGS)
@given(value=ODD)
def test_any_value_is_taken_or_refused_in_one_sentence(name: str, value: Any) -> None:
    try:
        run = Run("a mug", **{name: value})
    except ValueError as error:
        assert name in str(error) or "view words" in str(error)
        assert "\n" not in str(error)
    else:
        assert Run.from_json(json.loads(json.dumps(run.to_json(), allow_nan=False))) == run


@given(value=ODD)
def test_any_prompt_is_taken_or_refused(value: Any) -> None:
    try:
        run = Run(value)
    except ValueError as error:
        assert "prompt" in str(error)
    else:
        run.prompt.encode()
        assert isinstance(run.prompt, str) and run.prompt.strip()


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("seed", (None, "0", 1.5, math.nan, [], True, 10**23, -1)),
        ("steps", (0, 1.0, True, "3")),
        ("guidance_scale", ("3", math.nan, math.inf, True)),
        ("perp_neg", (None, -1.0, math.nan)),
        ("render_sizes", (48, (), (8,), "48")),
        ("view_words", (3, "front", "front:nan")),
        ("negative_prompt", (3, "\ud800", "\x1b[2J")),
        ("latent", (1, "yes")),
    ],
)
def test_faults_that_were_found(name: str, wrong: tuple[Any, ...]) -> None:
    for value in wrong:
        with pytest.raises(ValueError):
            Run("a mug", **{name: value})
        with pytest.raises(ValueError):  # before a model is looked for
            generate("a mug", model="nobody/nothing", **{name: value})


def test_numbers_of_numpy_are_numbers() -> None:
    assert Run("a mug", seed=np.int64(3)) == Run("a mug", seed=3)
    assert type(Run("a mug", guidance_scale=np.float32(2)).guidance_scale) is float


def test_a_run_says_in_what_it_differs() -> None:
    run = Run("a mug", seed=1, steps=5, view_words=ViewWords((("front", 0.0),)), render_sizes=(16, 32))
    assert run.differences(Run.from_json({**run.to_json(), "steps": 9, "device": "cuda"})) == []
    assert run == Run.from_json({**run.to_json(), "steps": 9})
    assert run.differences(Run.from_json({**run.to_json(), "seed": 2, "latent": True})) == ["seed", "latent"]


def test_what_is_not_decided_is_filled_in_and_what_is_stays() -> None:
    run = Run("a mug", resolution=16).filled(resolution=40, latent=False, steps=3)
    assert (run.resolution, run.latent, run.steps) == (16, False, 3)
