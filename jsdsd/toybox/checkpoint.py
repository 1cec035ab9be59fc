"""Training state as one safetensors file, written whole or not at all; nothing is ever unpickled."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn


def write(path: Path, step: int, model: nn.Module, ema: dict[str, Tensor], optimiser: torch.optim.AdamW) -> None:
    """Step, weights, their moving average and Adam's moments."""
    state = {f"model.{k}": v for k, v in model.state_dict().items()} | {f"ema.{k}": v for k, v in ema.items()}
    for i, parameter in enumerate(p for group in optimiser.param_groups for p in group["params"]):
        state |= {f"adam.{i}.{k}": v for k, v in optimiser.state[parameter].items()}
    temporary = path.with_suffix(".part")
    save_file(
        {k: v.detach().clone().contiguous() for k, v in state.items()},
        temporary,
        metadata={"step": str(step)},
    )
    temporary.replace(path)


def read(path: Path, model: nn.Module, ema: dict[str, Tensor], optimiser: torch.optim.AdamW) -> int:
    """Restore what `write` wrote; returns the number of steps done, 0 where there is no file."""
    if not path.exists():
        return 0
    with safe_open(path, "pt") as file:
        step = int(file.metadata()["step"])
        names = list(file.keys())
        model.load_state_dict({k[6:]: file.get_tensor(k) for k in names if k.startswith("model.")})
        ema.update({k[4:]: file.get_tensor(k) for k in names if k.startswith("ema.")})
        for i, parameter in enumerate(p for group in optimiser.param_groups for p in group["params"]):
            prefix = f"adam.{i}."
            optimiser.state[parameter] = {k[len(prefix) :]: file.get_tensor(k) for k in names if k.startswith(prefix)}
    return step
