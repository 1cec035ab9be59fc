"""What every test of the pipeline gets: own words learned in a moment, but in the file that tests the learning."""

from __future__ import annotations

from functools import partial

import pytest

from jsdsd.pipeline import optimise
from jsdsd.pipeline.own_words import own_words

FEW = {"steps": 2, "batch": 2, "sample_steps": 3}


@pytest.fixture(autouse=True)
def few_words(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """In this process only; launched ones learn in full."""
    if request.module.__name__.split(".")[-1] != "test_own_words":
        monkeypatch.setattr(optimise, "own_words", partial(own_words, **FEW))  # type: ignore[arg-type]
