"""Objectives by name, one's own among them; and which of them can make a single asset."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from .distillation import SDS, Objective
from .divergences import JensenShannon
from .jsd import JSD, SDI, TwoSided
from .local_jsd import LocalJSD
from .log_odds import GuidanceLogOdds
from .neighbours import CSD
from .seeded import Seeded

OBJECTIVES: dict[str, Callable[[], Objective]] = {  # for one asset, by the names that `generate` and commands know
    "sds": SDS,
    "sdi": SDI,
    "jsd": JSD,
    "seeded": Seeded,
    "two_sided": lambda: TwoSided(JensenShannon(), log_odds=GuidanceLogOdds()),
    "local_jsd": LocalJSD,
    "csd": CSD,
}


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


def check_for_asset(objective: Objective) -> None:
    """Refuse, in words, what cannot make one asset: particles that know of each other, and log-odds that need a
    density."""
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


def named(objective: str | Objective | None) -> Objective | None:
    """The objective of that name for one asset, or the object itself, checked; None stays: the model's default."""
    if isinstance(objective, str):
        objective = named_objective(objective, OBJECTIVES)
    if isinstance(objective, type):
        raise ValueError(f"objective must be an object with a gradient method: write {objective.__name__}()")
    if objective is not None and not callable(getattr(objective, "gradient", None)):
        raise ValueError(f"objective must be a name or an object with a gradient method, got {objective!r}")
    if objective is not None:
        check_for_asset(objective)
    return objective
