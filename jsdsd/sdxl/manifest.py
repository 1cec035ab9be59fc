"""sha256.txt: what a model folder's files must be, in the format of `sha256sum`, so that `sha256sum -c` checks it too.

A flipped bit in a weight gives another object, or none, without a word.  The embedded model ships with this list.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

NAME = "sha256.txt"


def write_manifest(folder: Path) -> None:
    """List all files of a model folder; to be called again whenever one changes."""
    files = sorted(path for path in folder.rglob("*.*") if path.is_file() and path.name != NAME)
    lines = (f"{_sha256(path)}  {path.relative_to(folder).as_posix()}\n" for path in files)
    (folder / NAME).write_text("".join(lines), encoding="utf-8")


def check_manifest(folder: Path) -> None:
    """OSError that names a file which is missing or differs from the list; nothing where there is no list."""
    if not (folder / NAME).is_file():
        return
    for line in (folder / NAME).read_text(encoding="utf-8").splitlines():
        expected, _, name = line.partition("  ")
        if not (folder / name).is_file():
            raise FileNotFoundError(f'the model folder "{folder}" lacks {name}; install or train it again')
        if _sha256(folder / name) != expected:
            raise OSError(
                f'the model file "{folder / name}" is damaged: its SHA-256 is not the one in {NAME}; install or train '
                f"it again (of a file that you changed yourself: delete {NAME})"
            )


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
