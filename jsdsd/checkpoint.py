"""A run that can go on: the asset so far, Adam's moments, what the objective learned and the random state, in one file.

The file is an asset file with more tensors in it, so `Asset.load` reads it too.  It takes its name when it is whole,
so that a process killed while it writes leaves the one before.  On the CPU a resumed run ends in the same bytes as one
that was never interrupted.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from .files import whole_file
from .run import Run
from .scene.asset import Asset, read_asset_file
from .scene.voxels import VoxelGrid

EVERY = 25  # steps between two writes


class Progress(Protocol):
    """What a checkpoint needs of a step; `optimise` yields such."""

    @property
    def scene(self) -> nn.Module: ...
    @property
    def optimiser(self) -> torch.optim.Optimizer: ...
    @property
    def generator(self) -> torch.Generator: ...


class Learning(Protocol):
    """A part of an objective that learns while it runs.  `restore` meets a fresh copy with the same fields."""

    def state(self) -> dict[str, Tensor]: ...
    def restore(self, state: Mapping[str, Tensor]) -> None: ...


def learning_parts(value: Any, name: str = "objective") -> Iterator[tuple[str, Learning]]:
    """The parts of an objective that learn, itself or in its fields, each by its name in a checkpoint."""
    if callable(getattr(value, "state", None)) and callable(getattr(value, "restore", None)):
        yield name, value
    elif is_dataclass(value) and not isinstance(value, type):
        for f in fields(value):
            yield from learning_parts(getattr(value, f.name, None), f"{name}.{f.name}")


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

    @property
    def run(self) -> Run:
        """The settings that it was begun with."""
        return Run.from_json({**self.asset.config, "prompt": self.asset.prompt})

    def check_same_run(self, run: Run) -> None:
        """ValueError where this is another run's; more steps, another device or version are allowed."""
        old = self.run
        for name in old.differences(run):
            raise ValueError(
                f'"{self.path}" is of another run: its {name} is {getattr(old, name)!r}, not {getattr(run, name)!r}; '
                "give the same settings, or another folder or file"
            )
        if self.steps > (run.steps or 0):
            raise ValueError(f'"{self.path}" has {self.steps} steps already, more than the {run.steps} asked for')

    def restore(self, grid: nn.Module, optimiser: torch.optim.Optimizer, generator: torch.Generator) -> int:
        """Put the state back into a run that was set up with the same settings; returns the steps done."""
        count = len(list(grid.parameters()))
        latent = [self.state[f"latent.{i}"] for i in range(count) if "latent.0" in self.state]
        with torch.no_grad():
            for mine, theirs in zip(grid.parameters(), latent or self.asset.grid.parameters(), strict=True):
                mine.copy_(theirs)
        moments = {i: self._named(f"adam.{i}.") for i in range(count)}
        optimiser.load_state_dict({**optimiser.state_dict(), "state": moments})
        generator.set_state(self.state["generator"])
        return self.steps

    def restore_learning(self, objective: Any) -> None:
        """Give a fresh copy of the objective back what it had learned."""
        for name, part in learning_parts(objective):
            part.restore(self._named(f"{name}."))

    def _named(self, prefix: str) -> dict[str, Tensor]:
        return {name[len(prefix) :]: x for name, x in self.state.items() if name.startswith(prefix)}


def write(path: str | Path, asset: Asset, progress: Progress, objective: Any = None) -> None:
    """The asset after `progress`, with all that is needed to go on, at `path`: whole or not at all."""
    moments = progress.optimiser.state_dict()["state"]
    state = {f"adam.{i}.{name}": x.cpu() for i, entries in moments.items() for name, x in entries.items()}
    if not isinstance(progress.scene, VoxelGrid):  # the asset has its linear preview
        state |= {f"latent.{i}": x.detach().cpu() for i, x in enumerate(progress.scene.parameters())}
    for name, part in learning_parts(objective):
        state |= {f"{name}.{key}": x.detach().cpu() for key, x in part.state().items()}
    with whole_file(path) as file:
        file.write(asset.safetensors(state | {"generator": progress.generator.get_state()}))


def read(path: str | Path) -> Checkpoint:
    """What `write` wrote.  Raises what `Asset.load` does, and ValueError for an asset that holds no running state."""
    asset, state = read_asset_file(path)
    if "generator" not in state:
        raise ValueError(f'"{path}" is a finished asset without the state of its run: it cannot be resumed')
    return Checkpoint(Path(path), asset, state)
