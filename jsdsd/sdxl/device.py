"""Which device a run takes, and in words: one that is not there or cannot be used, and one whose memory is full."""

from __future__ import annotations

import os
import re
import subprocess
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

OLDER = "pip install torch --index-url https://download.pytorch.org/whl/cu126"  # for older drivers


def default_device(model: str | Path) -> str:
    """The CPU for the toybox, whose networks are tiny; else "cuda" or "mps" where there is one."""
    if str(model) == "toybox":
        return "cpu"
    if torch.cuda.is_available():
        return "cuda"
    if torch.backends.mps.is_available():
        return "mps"
    if card := nvidia_card():
        warnings.warn(f"the CPU is used, and will take days: {why_no_cuda(card)}", RuntimeWarning, stacklevel=2)
    return "cpu"


def nvidia_card() -> str | None:
    """Name and driver of the first card that nvidia-smi sees, whatever PyTorch can do with it."""
    ask = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    try:
        lines = subprocess.run(ask, capture_output=True, text=True, timeout=20, check=True).stdout.splitlines()
    except (OSError, subprocess.SubprocessError):
        return None
    return lines[0].strip().replace(", ", ", driver ") if lines else None


def why_no_cuda(card: str | None) -> str:
    """Why PyTorch has no CUDA device here, and what helps."""
    if not (torch.version.cuda or torch.version.hip):
        return "PyTorch was installed for the CPU: install it for CUDA, see pytorch.org"
    if card is None:
        return "PyTorch sees 0: see nvidia-smi"
    return (
        f"nvidia-smi sees a card ({card}) that this PyTorch, built for CUDA {torch.version.cuda}, cannot use: update "
        f"the driver, or install a PyTorch for an older CUDA, as\n    {OLDER}"
    )


def usable_device(device: torch.device | str) -> torch.device:
    """ValueError for what is no device's name here, or names a GPU that is not there or that PyTorch cannot use."""
    say = 'give "cpu", "cuda", "cuda:1" (a second GPU) or "mps"'
    try:
        device = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise ValueError(f'there is no device "{device}": {say}') from error
    if device.type not in ("cpu", "cuda", "mps") or device.type == "cpu" and device.index:
        raise ValueError(f'"{device}" is no device for a run: {say}')
    if device.type == "cuda":
        if not torch.cuda.is_available():
            raise ValueError(f'there is no GPU "{device}" here ({why_no_cuda(nvidia_card())}); or give device="cpu"')
        if (device.index or 0) >= (count := torch.cuda.device_count()):
            raise ValueError(f'there is no GPU "{device}" here (PyTorch sees {count}: see nvidia-smi)')
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise ValueError('there is no GPU "mps" here: it is Apple\'s; give device="cuda" or "cpu"')
    return device


def memory_of(device: torch.device) -> int | None:
    """Bytes: of a GPU, or of this machine as far as this process may use it (a container's limit counts); None where
    that is not known."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    found = []
    if hasattr(os, "sysconf") and {"SC_PHYS_PAGES", "SC_PAGE_SIZE"} <= {*os.sysconf_names}:
        found.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    for limit in (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes")):
        try:
            found.append(int(limit.read_text()))
        except (OSError, ValueError):  # not there, or "max"
            continue
    return min(found, default=None)


LESS = "end other programs that use it, or give fewer views_per_step, a lower resolution, --memory 8 (preset=8)"
WORDS = (  # what PyTorch's errors hold, what is raised instead, and what helps
    (r"can't allocate|not enough memory|out of memory|ALLOC_FAILED", MemoryError, "the memory is full: " + LESS),
    (r"no kernel image", OSError, f"this PyTorch was not built for this GPU: install another, as {OLDER}"),
    (r"CUDA|cuDNN|CUBLAS|HIP error|NVIDIA driver", OSError, "the GPU failed: see nvidia-smi, and start again"),
)


@contextmanager
def device_errors_in_words() -> Iterator[None]:
    """MemoryError, or OSError for a GPU that fails, saying what helps, in the place of PyTorch's errors."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:  # torch.OutOfMemoryError is a RuntimeError
        first = (str(error).splitlines() or [""])[0]
        if isinstance(error, MemoryError):
            if first.startswith("the memory is full"):
                raise
            raise MemoryError(WORDS[0][2]) from error
        for pattern, kind, helps in WORDS:
            if re.search(pattern, str(error)):
                raise kind(f"{helps}  ({first})") from error
        raise
