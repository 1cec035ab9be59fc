"""Files that are there whole or not at all, and nothing left over by a process that was killed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


@contextmanager
def whole_file(path: str | Path) -> Iterator[BinaryIO]:
    """A file that takes its name when the block ends without an error; until then nothing changes at `path`.

    Its folder is made.  A link at `path` is replaced, not followed.  Raises OSError, in words: for a place that cannot
    be written to before the block, for a full disk in it.
    """
    path = Path(path)
    part = path.with_name(f".{path.name[:200]}.{os.getpid()}.part")
    try:
        check_writable(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        for left in path.parent.glob(f".{_literal(path.name[:200])}.*.part"):
            if not _alive(left.name.split(".")[-2]):  # of a process that was killed while it wrote
                left.unlink(missing_ok=True)
        file = part.open("wb")
    except OSError as error:
        if error.errno is None:  # not the system's: it has its words
            raise
        raise type(error)(f'cannot write into the folder "{path.parent}": {error.strerror}') from error
    try:
        try:
            with file:
                yield file
                file.flush()
                os.fsync(file.fileno())  # the content before the name, also where the power fails
            part.replace(path)
        except OSError as error:
            if error.errno is None:  # not the system's: it has its words
                raise
            raise type(error)(f'could not write "{path}" whole ({error.strerror}); what stood there is kept') from error
    finally:
        part.unlink(missing_ok=True)


def check_writable(path: str | Path) -> None:
    """Raise OSError, in words, where no file could be written at `path`.  Nothing is made, not even its folder."""
    path = Path(path)
    if path.is_dir() and not path.is_symlink():
        raise IsADirectoryError(f'cannot write "{path}": there is a folder of that name')
    folder = next((p for p in path.absolute().parents if p.exists()), Path("/"))
    if not folder.is_dir():
        raise NotADirectoryError(f'cannot write "{path}": "{folder}" is a file, not a folder')
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(f'cannot write into the folder "{folder}": Permission denied')


def _literal(name: str) -> str:
    """The glob pattern that finds this name alone."""
    return "".join(f"[{c}]" if c in "*?[" else c for c in name)


def _alive(pid: str) -> bool:
    """Whether that process runs here; also True for what is no process number, and where one cannot ask."""
    if not pid.isdecimal() or os.name == "nt":  # on Windows, to ask is to end it
        return True
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    except OSError:  # another user's
        return True
    return True
