"""Which device a run takes, and in words: one that is not there, and one whose memory is full."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch


def default_device(model: str | Path) -> str:
    """The CPU for the toybox, whose networks are tiny; else "cuda" or "mps" where there is one."""
    if str(model) == "toybox":
        return "cpu"
    return "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"


def usable_device(device: torch.device | str) -> torch.device:
    """ValueError for what is no device's name, or names a GPU that is not there."""
    try:
        device = torch.device(device)
    except RuntimeError as error:
        say = 'give "cpu", "cuda", "cuda:1" (a second GPU) or "mps"'
        raise ValueError(f'there is no device "{device}": {say}') from error
    if device.type == "cuda" and (device.index or 0) >= (count := torch.cuda.device_count()):
        built = torch.version.cuda or torch.version.hip
        why = f"PyTorch sees {count}: see nvidia-smi" if built else "PyTorch was installed for the CPU: see pytorch.org"
        raise ValueError(f'there is no GPU "{device}" here ({why}); or give device="cpu"')
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise ValueError('there is no GPU "mps" here: it is Apple\'s; give device="cuda" or "cpu"')
    return device


@contextmanager
def full_memory_in_words() -> Iterator[None]:
    """MemoryError, saying what helps, in the place of PyTorch's error when a GPU's memory is full."""
    try:
        yield
    except torch.cuda.OutOfMemoryError as error:
        raise MemoryError(
            "the GPU's memory is full: end other programs that use it (nvidia-smi names them), or give smaller sizes: "
            f"--memory 8 (preset=8), fewer views_per_step, a lower resolution  ({str(error).splitlines()[0]})"
        ) from error
