"""Many prompts: what there is to do, in which folder, and whose share it is when several processes work on one list.

The split needs no talk between the processes: process r of n takes every n-th job.  Each job has a folder of its own,
keeps a checkpoint there and is skipped when its files are complete, so a command can be repeated until all is done.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from .checkpoint import read
from .files import whole_file
from .objectives.distillation import Objective
from .run import Run, identity
from .scene.asset import Asset

if TYPE_CHECKING:
    from .sdxl.guidance import Guidance

CHECKPOINT = "checkpoint.safetensors"
T3BENCH_CANNOT = "/[]*?()\"$&;|<>`\\"  # its scripts quote the apostrophe alone


@dataclass(frozen=True)
class Job:
    """One asset to make.  files: what is there when it is done (globs)."""

    run: Run
    folder: Path
    files: tuple[str, ...]
    objective: str | None = None  # by its name; None: the model's default

    @property
    def checkpoint(self) -> Path:
        return self.folder / CHECKPOINT

    @property
    def finished(self) -> bool:
        """There is nothing left to do, and nothing to check."""
        return not self.checkpoint.exists() and self.complete(self.run.steps)

    def complete(self, steps: int | None) -> bool:
        """All files are there, of a run that was not stopped and has this many steps (None: any number)."""
        if not all(any(self.folder.glob(name)) for name in self.files):
            return False
        try:
            record = json.loads((self.folder / "run.json").read_text(encoding="utf-8"))
            done = len(record["history"])
            return bool(done == record["config"]["steps"] and steps in (None, done))
        except (ValueError, TypeError, KeyError, OSError):  # half written or damaged: it is made again
            return False


def read_prompts(path: Path) -> list[str]:
    """One prompt a line; empty lines, lines that begin with # and repetitions are left out.

    Raises OSError for a file that cannot be read, ValueError for one without a prompt or that is not text.
    """
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    except UnicodeDecodeError as error:
        raise ValueError(f'"{path}" is not UTF-8 text: give a file with one prompt a line') from error
    except OSError as error:
        raise type(error)(f'the list of prompts "{path}" cannot be read: {error.strerror}') from error
    prompts = list(dict.fromkeys(line for line in lines if line and not line.startswith("#")))
    if not prompts:
        raise ValueError(f'there is no prompt in "{path}": write one a line')
    return prompts


def folder_name(prompt: str) -> str:
    """A name for any file system, another one for every other prompt: "a red ball" -> a_red_ball.

    Where signs are lost in it, a hash of the prompt tells it from its like.
    """
    name = re.sub(r"[^a-z0-9]+", "_", prompt.lower()).strip("_")[:60]
    if name.replace("_", " ") == prompt:
        return name
    return f"{name}_{hashlib.sha256(prompt.encode()).hexdigest()[:8]}"


def t3bench_folder(output: Path, method: str, group: str, prompt: str, seed: int) -> Path:
    """Where T3Bench's scripts look for a prompt's mesh: outputs_mesh_t3/METHOD_GROUP/<prompt, spaces as _>*/save/...

    The "@seed" behind the prompt keeps seeds apart; its scripts take the last folder that fits.
    Source: THU-LYJ-Lab/T3Bench, run_eval_quality.py and run_caption.py.
    """
    if wrong := [c for c in dict.fromkeys(prompt) if c in T3BENCH_CANNOT]:
        raise ValueError(
            f"T3Bench's scripts hand a prompt to glob and to a shell, and would not find the mesh of \"{prompt}\": "
            f"it holds {' '.join(wrong)}"
        )
    return output / "outputs_mesh_t3" / f"{method}_{group}" / f"{prompt.replace(' ', '_')}@{seed}"


def save_t3bench(asset: Asset, folder: Path) -> None:
    """The asset, its record, and save/it<steps>-export/model.obj, whose vertex colours trimesh and pyrender show.

    Other meshes leave with Y up; this one has Z up, as threestudio's, which T3Bench's cameras take for granted.
    """
    asset.save(folder / "asset.safetensors")
    place = folder / "save" / f"it{len(asset.history)}-export" / "model.obj"
    for old in folder.glob("save/it*-export"):
        if old != place.parent:  # of a shorter run: T3Bench would not know which to take
            shutil.rmtree(old)
    mesh = asset.mesh()
    mesh.apply_transform([[1, 0, 0, 0], [0, 0, -1, 0], [0, 1, 0, 0], [0, 0, 0, 1]])  # (x, y, z) -> (x, -z, y)
    with whole_file(place) as file:
        file.write(mesh.export(file_type="obj").encode())
    save_record(asset, folder)


def save_record(asset: Asset, folder: Path) -> None:
    """run.json: the settings, the versions, one record a step."""
    with whole_file(folder / "run.json") as file:
        file.write((json.dumps(asset.facts(), indent=1) + "\n").encode())


def found_jobs(
    folder: Path, steps: int | None, files: tuple[str, ...], named: Mapping[str, Callable[[], Objective]]
) -> list[Job]:
    """The runs whose checkpoints are in `folder` or below it, as they were begun; steps: a new, larger number of them.
    named: the objectives that a command can name.

    Raises FileNotFoundError where there is none, and ValueError for runs that Python objects shaped: those go on in
    Python alone.
    """
    places = sorted(folder.rglob(CHECKPOINT))
    if not places:
        raise FileNotFoundError(f'there is no {CHECKPOINT} in "{folder}": nothing to resume')
    jobs = []
    for place in places:
        run = read(place).run
        same = (name for name, make in named.items() if not run.differences(replace(run, objective=identity(make()))))
        name = next(same, None)
        if run.model == "Guidance object" or name is None:
            raise ValueError(
                f'"{place}" was made with {run.objective} and model {run.model}, which a command cannot '
                "say: go on in Python, with generate(..., checkpoint=..., resume=True)"
            )
        jobs.append(Job(replace(run, steps=steps or run.steps), place.parent, files, name))
    return jobs


def process() -> tuple[int, int, int]:
    """(rank, number of processes, rank on this machine), as accelerate launch and torchrun say; else (0, 1, 0)."""
    rank, count, local = (os.environ.get(name) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
    return int(rank or 0), int(count or 1), int(local or 0)


def work(
    jobs: Sequence[Job],
    load: Callable[[Job], Guidance],
    make: Callable[[Job, Guidance], Asset],
    save: Callable[[Asset, Path], None],
    skip_done: bool,
    failed: Callable[[Job, Exception], None],
) -> None:
    """Do the jobs in order.  One that fails is handed to `failed` and the rest goes on; not so where `load` fails."""
    for job in jobs:
        if skip_done and job.finished:
            continue
        model = load(job)  # what is wrong with a model is wrong with all its jobs
        try:
            asset = make(job, model)  # from its checkpoint, where there is one; at once where that is at the last step
            if not (skip_done and job.complete(len(asset.history))):
                save(asset, job.folder)
        except (ValueError, OSError, FloatingPointError, MemoryError) as error:
            failed(job, error)
