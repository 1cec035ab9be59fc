"""What a class hands in, as Moodle, Canvas, GitHub Classroom and Gradescope give it out: read, never unpacked.

Files, folders and archives become `Submission`s in memory.  Nothing of an archive is written to the disk, links are not
followed, and sizes are bounded, so that no file can lead elsewhere or grow.
"""

from __future__ import annotations

import io
import json
import re
import tokenize
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

LARGEST_FILE, MOST_FILES, LARGEST_ARCHIVE = 2**20, 5000, 2**28
SKIPPED = {"__MACOSX", "__pycache__", "node_modules", "site-packages", "solutions"}


class BadFile(Exception):
    """A file that cannot be checked; the message is for the student."""


@dataclass(frozen=True)
class Submission:
    """student: as the learning platform calls them.  name: of the file.  content: its bytes, or why there are none."""

    student: str
    name: str
    content: bytes | str


def collect(places: Sequence[Path]) -> list[Submission]:
    """Every Python file and notebook in files, folders and archives, one student after the other."""
    found: list[Submission] = []
    for place in places:
        if place.is_dir():
            found += _folder(place)
        elif place.suffix == ".zip":
            found += _archive(place.name, PurePosixPath(), place.read_bytes())
        elif place.is_file():
            found.append(Submission(place.stem, place.name, _bounded(place)))
        else:
            raise BadFile(f"there is no file {place}" if not place.exists() else f"{place} is no file")
    found = [replace(s, student=harmless(s.student), name=harmless(s.name)) for s in found]
    return sorted(found, key=lambda s: (s.student.casefold(), s.name))


def harmless(text: str) -> str:
    """Without the control characters by which a text could rewrite a terminal."""
    return "".join(c if c.isprintable() or c == "\n" else "\N{REPLACEMENT CHARACTER}" for c in text)


def _bounded(path: Path) -> bytes | str:
    if path.stat().st_size > LARGEST_FILE:
        return f"{path.name} is larger than {LARGEST_FILE // 2**20} MiB: no exercise is"
    return path.read_bytes()


def _folder(top: Path) -> Iterator[Submission]:
    paths = sorted(p for p in top.rglob("*") if not set(p.relative_to(top).parts) & SKIPPED)
    for path in paths[:MOST_FILES]:
        inner = PurePosixPath(path.relative_to(top).as_posix())
        if any(part.startswith(".") for part in inner.parts):
            continue
        linked = any(p.is_symlink() for p in (path, *path.parents) if p != top and top in p.parents)
        if path.suffix in (".py", ".ipynb") and (linked or path.is_file()):
            content = f"{path.name} is a link, and links are not followed" if linked else _bounded(path)
            yield Submission(student(inner), inner.name, content)
        elif path.suffix == ".zip" and path.is_file() and not linked:
            yield from _archive(inner.name, inner.parent, path.read_bytes())


def _archive(name: str, at: PurePosixPath, content: bytes, depth: int = 0) -> Iterator[Submission]:
    """at: where the archive lies, as far as it says who handed it in."""
    owner = at if depth == 0 and not at.parts else at / PurePosixPath(name).stem
    try:
        archive = zipfile.ZipFile(io.BytesIO(content))
        members = archive.infolist()[:MOST_FILES]
    except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        yield Submission(student(at / name), name, f"{name} is no zip file that can be read: {error}")
        return
    left = LARGEST_ARCHIVE
    for member in members:
        inner = PurePosixPath(member.filename.replace("\\", "/"))
        clean = PurePosixPath(*[p for p in inner.parts if p not in ("..", "/")])
        hidden = any(p in SKIPPED or p.startswith(".") for p in clean.parts)
        if member.is_dir() or hidden or clean.suffix not in (".py", ".ipynb", ".zip"):
            continue
        limit = LARGEST_FILE if clean.suffix != ".zip" else LARGEST_ARCHIVE // 4
        try:
            data: bytes | str = archive.open(member).read(min(limit, left) + 1)
        except Exception as error:  # a wrong checksum, a password, a method that is not known
            data = f"{clean.name} in {name} cannot be read: {error}"
        left -= len(data)
        if len(data) > limit or left < 0:
            data = f"{clean.name} in {name} is too large when unpacked"
        if clean.suffix != ".zip":
            yield Submission(student(owner / clean), clean.name, data)
        elif depth < 2 and isinstance(data, bytes):
            yield from _archive(clean.name, owner / clean.parent, data, depth + 1)
        else:
            yield Submission(student(owner / clean), clean.name, f"{clean.name} is an archive in an archive too deep")


MOODLE = re.compile(r"^(.+?)_\d+_assignsubmission_file_?")
CANVAS = re.compile(r"^([^_/]+?)_(?:LATE_)?(\d+)_\d+_.+$")
SETS_OWN_NAME = re.compile(r"^(ex\d|[Ee]xercise\d?|homework\d?|hw\d?)( ?\(\d+\)|-\d+)?$")


def student(path: PurePosixPath) -> str:
    """Who handed a file in, by its path below the download: Moodle's or Canvas's names, or the outermost folder."""
    for part in path.parts:
        if match := MOODLE.match(part) or CANVAS.match(part):
            return match[1]
    folders = [p for p in path.parts[:-1] if not SETS_OWN_NAME.match(p)]
    if len(folders) > 1 and folders[0].lower() in ("submissions", "export", "assignment"):
        folders = folders[1:]
    return folders[0] if folders else path.stem


# ------------------------------------------------------------------------------------------------------- into text
def cells(name: str, content: bytes | str) -> list[tuple[str, str]]:
    """The Python text of a file, or of each cell of a notebook, with its name.  BadFile: there is none in it."""
    if isinstance(content, str):
        raise BadFile(content)
    text = decode(name, content)
    return _notebook(name, text) if name.endswith(".ipynb") else [(name, text)]


def decode(name: str, content: bytes) -> str:
    """Text with or without a byte order mark, of any line ends, in UTF-8, UTF-16, or the encoding that it declares."""
    try:
        if content[:2] in (b"\xff\xfe", b"\xfe\xff"):
            text = content.decode("utf-16")
        else:
            encoding, _ = tokenize.detect_encoding(io.BytesIO(content).readline)
            text = content.decode(encoding)
    except (UnicodeDecodeError, SyntaxError, LookupError):
        text = content.decode("cp1252", errors="replace")  # Windows; only comments hold such letters, mostly
    if "\0" in text:
        raise BadFile(f"{name} is no text: it holds NUL bytes")
    return text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")


def _notebook(name: str, text: str) -> list[tuple[str, str]]:
    try:
        book = json.loads(text)
        parts = book["cells"] if "cells" in book else [c for sheet in book["worksheets"] for c in sheet["cells"]]
        sources = [c.get("source", c.get("input", "")) for c in parts if c["cell_type"] == "code"]
        texts = [s if isinstance(s, str) else "".join(s) for s in sources]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise BadFile(f"{name} is no Jupyter notebook") from None
    found = [(f"{name}, cell {number}", t) for number, t in enumerate(texts, 1)]
    if not any(t.strip() for _, t in found):
        raise BadFile(f"{name} is a notebook without code")
    return found
