"""Files are there whole or not at all, and what a dead process left is cleaned, no more."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from jsdsd.files import check_writable, whole_file


def parts(folder: Path) -> list[str]:
    return [p.name for p in folder.iterdir() if p.name.endswith(".part")]


def test_check_writable_makes_nothing_and_keeps_an_old_file(tmp_path: Path) -> None:
    (tmp_path / "x.gif").write_text("old")
    for name in ("a/b/x.gif", "x.gif"):
        check_writable(tmp_path / name)
    assert [p.name for p in tmp_path.iterdir()] == ["x.gif"] and (tmp_path / "x.gif").read_text() == "old"
    with pytest.raises(NotADirectoryError, match="is a file, not a folder"):
        check_writable(tmp_path / "x.gif" / "y.gif")
    with pytest.raises(IsADirectoryError, match="a folder of that name"):
        check_writable(tmp_path)


def test_an_error_while_writing_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_text("old")
    for error, says in ((RuntimeError("broke"), "broke"), (OSError(errno.ENOSPC, "No space left"), "whole .No space")):
        with pytest.raises(type(error), match=says), whole_file(path) as file:
            file.write(b"new")
            raise error
    assert path.read_text() == "old" and not parts(tmp_path)


def test_a_link_is_replaced_and_not_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_text("theirs")
    (tmp_path / "x").symlink_to(tmp_path / "elsewhere")
    with whole_file(tmp_path / "x") as file:
        file.write(b"mine")
    assert (tmp_path / "elsewhere").read_text() == "theirs" and (tmp_path / "x").read_text() == "mine"


def test_parts_of_dead_processes_are_cleaned_and_those_of_living_ones_kept(tmp_path: Path) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    for name in (f".x.{ended.pid}.part", f".x.{os.getppid()}.part", ".y.1.part", ".x.part"):
        (tmp_path / name).write_text("half")
    with whole_file(tmp_path / "x") as file:
        file.write(b"whole")
    assert sorted(parts(tmp_path)) == sorted([f".x.{os.getppid()}.part", ".x.part", ".y.1.part"])
