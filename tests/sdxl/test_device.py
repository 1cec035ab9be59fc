"""A device that cannot be used, and errors of its libraries: each in one sentence with the remedy."""

from __future__ import annotations

import subprocess
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from jsdsd.sdxl import device as module
from jsdsd.sdxl.device import default_device, device_errors_in_words, usable_device


def machine(monkeypatch: pytest.MonkeyPatch, card: str | None, built: str | None) -> None:
    """nvidia-smi sees `card`; PyTorch, built for CUDA `built`, cannot use it, though NVML counts one."""

    def smi(*_: Any, **__: Any) -> Any:
        if card is None:
            raise FileNotFoundError
        return SimpleNamespace(stdout=card + "\n")

    monkeypatch.setattr(subprocess, "run", smi)
    monkeypatch.setattr(torch.version, "cuda", built)
    monkeypatch.setattr(torch.version, "hip", None, raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)


CASES = [
    ("Tesla V100, 470.82.01", "13.0", "card .Tesla V100, driver 470.82.01. that this PyTorch, built for CUDA 13.0"),
    ("NVIDIA L4, 580.1", None, "installed for the CPU"),
    (None, "13.0", "PyTorch sees 0: see nvidia-smi"),
]  # fmt: skip


@pytest.mark.parametrize(("card", "built", "says"), CASES)
def test_a_gpu_that_pytorch_cannot_use_is_said_with_the_remedy(
    card: str | None, built: str | None, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine(monkeypatch, card, built)
    with pytest.raises(ValueError, match=says):
        usable_device("cuda")
    if card:
        with pytest.warns(RuntimeWarning, match=says):
            assert default_device("sdxl") == "cpu"
    assert default_device("toybox") == "cpu"


@pytest.mark.parametrize("name", ["xpu", "hpu", "vulkan", "meta", "", "cpu:3", "gpu"])
def test_other_devices_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match='give "cpu", "cuda"'):
        usable_device(name)


ERRORS = [
    (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 99 bytes"),
     MemoryError, "the memory is full: .*preset=8.*99 bytes"),
    (torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), MemoryError, "the memory is full"),
    (RuntimeError("MPS backend out of memory"), MemoryError, "the memory is full"),
    (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling"), MemoryError, "the memory is full"),
    (MemoryError(), MemoryError, "the memory is full"),
    (RuntimeError("CUDA error: no kernel image is available for execution"), OSError, "not built for this GPU"),
    (RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"), OSError, "the GPU failed: see nvidia-smi"),
]  # fmt: skip


@pytest.mark.parametrize(("error", "kind", "says"), ERRORS, ids=lambda x: str(x)[:30])
def test_errors_of_a_device_become_words(error: Exception, kind: type[Exception], says: str) -> None:
    with pytest.raises(kind, match=says), device_errors_in_words(), device_errors_in_words():
        raise error


def test_other_errors_pass_and_a_real_allocation_fails_in_words() -> None:
    with pytest.raises(RuntimeError, match="shapes"), device_errors_in_words():
        raise RuntimeError("the shapes differ")
    with pytest.raises(MemoryError, match="the memory is full"), device_errors_in_words():
        torch.empty(2**55)
    assert module.nvidia_card() is None or "driver" in str(module.nvidia_card())
