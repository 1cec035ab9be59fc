"""A run that can go on: the asset so far, Adam's moments and the random state, in one safetensors file.

The file is an asset file with more tensors in it, so `Asset.load` reads it too.  It takes its name when it is whole,
so that a process killed while it writes leaves the one before.  On the CPU a resumed run ends in the same bytes as one
that was never interrupted.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from .scene.asset import Asset, read_asset_file, whole_file
from .scene.voxels import VoxelGrid

if TYPE_CHECKING:
    from .optimise import Progress

EVERY = 25  # steps between two writes
FREE = ("steps", "device", "versions")  # settings that a resumed run may change


@dataclass(frozen=True)
class Checkpoint:
    """What `read` found: the asset so far (its history has one record per step done) and the rest of the state."""

    path: Path
    asset: Asset
    state: dict[str, Tensor]

    @property
    def steps(self) -> int:
        """Optimiser steps done."""
        return len(self.asset.history)

    def check_same_run(self, config: dict[str, Any]) -> None:
        """ValueError where `config` describes another run; more steps, another device or version are allowed."""
        old, new = self.asset.config, Asset(self.asset.grid, "", config).facts()["config"]
        for name in sorted({*old, *new} - {*FREE}):
            if old.get(name) != new.get(name):
                raise ValueError(
                    f'"{self.path}" is of another run: its {name} is {old.get(name)!r}, not {new.get(name)!r}; give '
                    "the same settings, or another folder or file"
                )
        if self.steps > config["steps"]:
            raise ValueError(f'"{self.path}" has {self.steps} steps already, more than the {config["steps"]} asked for')

    def restore(self, grid: nn.Module, optimiser: torch.optim.Optimizer, generator: torch.Generator) -> int:
        """Put the state back into a run that was set up with the same settings; returns the steps done."""
        count = len(list(grid.parameters()))
        latent = [self.state[f"latent.{i}"] for i in range(count) if "latent.0" in self.state]
        with torch.no_grad():
            for mine, theirs in zip(grid.parameters(), latent or self.asset.grid.parameters(), strict=True):
                mine.copy_(theirs)
        moments = {i: self._moments(f"adam.{i}.") for i in range(count)}
        optimiser.load_state_dict({**optimiser.state_dict(), "state": moments})
        generator.set_state(self.state["generator"])
        return self.steps

    def _moments(self, prefix: str) -> dict[str, Tensor]:
        return {name[len(prefix) :]: x for name, x in self.state.items() if name.startswith(prefix)}


def write(path: str | Path, asset: Asset, progress: Progress) -> None:
    """The asset after `progress`, with all that is needed to go on, at `path`: whole or not at all."""
    path = Path(path)
    moments = progress.optimiser.state_dict()["state"]
    state = {f"adam.{i}.{name}": x.cpu() for i, entries in moments.items() for name, x in entries.items()}
    if not isinstance(progress.scene, VoxelGrid):  # the asset has its linear preview
        state |= {f"latent.{i}": x.detach().cpu() for i, x in enumerate(progress.scene.parameters())}
    for left in path.parent.glob(f".{path.name}.*.part"):  # by a process that was killed while it wrote
        left.unlink(missing_ok=True)
    with whole_file(path) as file:
        file.write(asset.safetensors(state | {"generator": progress.generator.get_state()}))


def read(path: str | Path) -> Checkpoint:
    """What `write` wrote.  Raises what `Asset.load` does, and ValueError for an asset that holds no running state."""
    asset, state = read_asset_file(path)
    if "generator" not in state:
        raise ValueError(f'"{path}" is a finished asset without the state of its run: it cannot be resumed')
    return Checkpoint(Path(path), asset, state)
