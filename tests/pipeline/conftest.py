"""What every test of the pipeline gets: own words that are learned in a moment."""

from __future__ import annotations

from functools import partial

import pytest

from jsdsd.pipeline import optimise
from jsdsd.pipeline.own_words import own_words

FEW = {"steps": 2, "batch": 2, "sample_steps": 3}


@pytest.fixture
def full_words() -> None:
    """For a test that compares this process with launched ones, which learn in full."""


@pytest.fixture(autouse=True)
def few_words(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if "full_words" not in request.fixturenames:
        monkeypatch.setattr(optimise, "own_words", partial(own_words, **FEW))  # type: ignore[arg-type]
