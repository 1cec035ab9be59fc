"""What every test of SDXL gets: own words that are learned in a moment."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def quick(few_words: None) -> None:
    """See tests/conftest.py."""
