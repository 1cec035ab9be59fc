"""What every test gets: fixed randomness, few threads, no network."""

from __future__ import annotations

import os

# Before anything imports a Hugging Face library: nothing is looked up on the hub, and no telemetry is sent.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
os.environ["MPLBACKEND"] = "Agg"

import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import hypothesis
import pytest
import torch

# "fixed" draws the same examples on every run; HYPOTHESIS_PROFILE=explore looks for new ones.
hypothesis.settings.register_profile("fixed", derandomize=True, deadline=None, print_blob=True)
hypothesis.settings.register_profile("explore", deadline=None, max_examples=1000, print_blob=True)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fixed"))

if "OMP_NUM_THREADS" not in os.environ:
    torch.set_num_threads(min(2, os.cpu_count() or 1))  # small tensors: more threads only wait for each other


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test that reaches for the network fails, except to this machine itself (notebook kernels)."""
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: Any) -> None:
        if self.family in (socket.AF_INET, socket.AF_INET6) and address[0] not in ("127.0.0.1", "::1", "localhost"):
            raise OSError(f"tests use no network, but something connects to {address}")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", guarded)


@pytest.fixture(autouse=True)
def same_random_state() -> None:
    """Library code takes a torch.Generator; this guards what a test draws from torch's global one."""
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., str]:
    """chromium(url, *flags) opens a page without a window or a GPU and returns what it prints; skips where none is."""
    names = ("chromium", "chromium-browser", "google-chrome", "chrome")
    program = next((path for name in names if (path := shutil.which(name))), None)
    if program is None:
        pytest.skip("no Chromium here")

    def run(url: str, *flags: str) -> str:
        always = [
            "--headless", "--no-sandbox", "--disable-gpu", "--use-angle=swiftshader", "--enable-unsafe-swiftshader",
            "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync",
            "--hide-scrollbars", f"--user-data-dir={tmp_path_factory.mktemp('profile')}",
        ]  # fmt: skip
        return subprocess.run(
            [program, *always, *flags, url], check=True, capture_output=True, text=True, timeout=300
        ).stdout

    return run


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Sums depend on the number of threads in their last bits: for tests that compare bytes between processes."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def few_words(monkeypatch: pytest.MonkeyPatch) -> None:
    """An asset's own words are learned in a moment instead of in full."""
    from functools import partial

    from jsdsd import optimise
    from jsdsd.sdxl.own_words import own_words

    monkeypatch.setattr(optimise, "own_words", partial(own_words, steps=2, batch=2, sample_steps=3))
