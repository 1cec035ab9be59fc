"""What every test of a run gets: own words that are learned in a moment."""

from __future__ import annotations

import pytest


@pytest.fixture
def full_words() -> None:
    """For a test that compares this process with launched ones, which learn in full."""


@pytest.fixture(autouse=True)
def quick(request: pytest.FixtureRequest) -> None:
    if "full_words" not in request.fixturenames:
        request.getfixturevalue("few_words")
