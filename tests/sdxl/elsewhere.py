"""A device that is not there: its tensors are computed on the CPU, but refuse, as a GPU's do, to meet the CPU's.

`with elsewhere():` gives numbers to the tensors of torch.device("meta"), which have none.  An operation on a tensor
there and one with a shape here raises; numbers without a shape and CPU indices of a tensor there pass, as on a GPU.
`.to("cpu")` and `.item()` bring results back.  What it cannot show: kernels that a device lacks or rounds otherwise.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

DEVICE = torch.device("meta")  # a name that PyTorch knows and that needs nothing to be initialised
FROM_DATA = {torch.tensor, torch.as_tensor}
MOVES = {torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default}
INDEX = {torch.ops.aten.index.Tensor, torch.ops.aten.index_put_.default, torch.ops.aten._index_put_impl_.default}


class There(Tensor):
    """A tensor on DEVICE, whose numbers are `inside`, on the CPU."""

    inside: Tensor

    @staticmethod
    def __new__(cls, real: Tensor) -> There:
        new = Tensor._make_wrapper_subclass(
            cls, real.shape, strides=real.stride(), storage_offset=real.storage_offset(), dtype=real.dtype,
            device=DEVICE,
        )  # type: ignore[attr-defined]  # fmt: skip
        new.inside = real
        return new

    __torch_function__ = torch._C._disabled_torch_function_impl

    def __repr__(self) -> str:  # type: ignore[override]
        return f"There({self.inside!r})"

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return compute(func, args, kwargs or {})


class Everywhere(TorchDispatchMode):
    """Sees the calls that make a tensor on DEVICE out of nothing, or of one on the CPU."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return compute(func, args, kwargs or {})


def compute(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
    there = [x for x in tensors if isinstance(x, There)]
    here = [x for x in tensors if not isinstance(x, There) and x.ndim > 0]
    if func in INDEX and isinstance(args[0], There):
        here = []
    if there and here and func not in MOVES:
        raise RuntimeError(f"{func}: tensors on two devices, {len(there)} on {DEVICE} and {len(here)} on the CPU")
    target = kwargs.get("device")
    on_device = bool(there) if target is None else torch.device(target).type == DEVICE.type
    if func == torch.ops.aten.copy_.default:
        on_device = isinstance(args[0], There)
    if target is not None:
        kwargs = {**kwargs, "device": torch.device("cpu")}
    out = func(*_real(args), **_real(kwargs))
    known = {id(x.inside): x for x in there}  # what is changed in place stays the same tensor
    return tree_map_only(Tensor, lambda x: known[id(x)] if id(x) in known else There(x), out) if on_device else out


def _real(tree: Any) -> Any:
    return tree_map_only(There, lambda x: x.inside, tree)


class FromData(TorchFunctionMode):
    """Python numbers on DEVICE: PyTorch forgets them there."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        device = kwargs.get("device")
        if func in FROM_DATA and device is not None and torch.device(device).type == DEVICE.type:
            return func(*args, **{**kwargs, "device": None}).to(DEVICE)
        if func is Tensor.new_tensor and isinstance(args[0], There):
            return torch.tensor(args[1], dtype=args[0].dtype, **kwargs).to(DEVICE)
        return func(*args, **kwargs)


@contextmanager
def elsewhere() -> Iterator[torch.device]:
    known = torch.autocast

    def autocast(device_type: str, *args: Any, **rest: Any) -> Any:
        return nullcontext() if device_type == DEVICE.type else known(device_type, *args, **rest)

    with mock.patch.object(torch, "autocast", autocast), FromData(), Everywhere():
        yield DEVICE
