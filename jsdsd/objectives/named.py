"""Objectives by name, one's own among them; and which of them can make a single asset."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from .distillation import Objective


def named_objective(name: str, known: Mapping[str, Callable[[], Objective]]) -> Objective:
    """A fresh objective: one of `known`, or "module:Name", which a module or a file module.py in the current folder
    has.

    Name may be a class or function that makes one without arguments, or an objective. ValueError, in words, for a name
    that is neither, a module that cannot be imported, or what has no `gradient`.
    """
    if name.lower() in known:
        return known[name.lower()]()
    module, _, attribute = name.partition(":")
    if not module or not attribute:
        known_names = ", ".join(known)
        raise ValueError(f'unknown objective "{name}": known are {known_names}; your own is module:Name, as mine:MySDS')
    sys.path.insert(0, str(Path.cwd()))
    try:
        made = getattr(importlib.import_module(module.removesuffix(".py")), attribute)
    except ModuleNotFoundError as error:
        raise ValueError(f'objective "{name}": there is no module "{error.name}", nor such a file here') from error
    except AttributeError as error:
        raise ValueError(f'objective "{name}": the module has no "{attribute}"') from error
    finally:
        sys.path.pop(0)
    if not callable(getattr(made, "gradient", None)) or isinstance(made, type):
        made = made() if callable(made) else made
    if not callable(getattr(made, "gradient", None)):
        raise ValueError(f'objective "{name}": {made!r} has no gradient(denoiser, x0, t, generator)')
    objective: Objective = made
    return objective


def check_for_asset(objective: Objective, checkpoint: bool = False) -> None:
    """Refuse, in words, what cannot make one asset: particles that know of each other, log-odds that need a density,
    and, with a checkpoint, an objective whose repr is another in each process (a run that goes on is recognised by
    it).
    """
    name = type(objective).__name__
    if getattr(objective, "needs_particles", False):
        raise ValueError(
            f"{name} is for particles that know of each other, and the views of one asset are none: take "
            "TwoSided(divergence, log_odds=GuidanceLogOdds()), which sees each view alone"
        )
    if getattr(objective, "needs_density", False):
        raise ValueError(
            f"{objective!r} needs the target's density, which a network does not have: give it "
            "log_odds=GuidanceLogOdds() or Undecided()"
        )
    if checkpoint and re.search(r" at 0x[0-9a-f]+", repr(objective)):
        raise ValueError(
            f"a run with a checkpoint is recognised by its objective's repr, and {objective!r} has another one in each "
            "process: make its class a dataclass, or write its __repr__"
        )
