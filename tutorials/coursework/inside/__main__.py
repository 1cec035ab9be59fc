"""The process from which a process for each answer is forked: torch is loaded once, the references never.

    python -I inside ROOT NAME     jobs come in at stdin and replies leave at stdout until stdin closes
    python -I inside ROOT NAME -1  one job, in this process and without limits: for systems that cannot fork

ROOT: the folder that holds jsdsd.  NAME: what the grader calls this package, for its pickles.
A frame is its length, 8 bytes, and as many bytes: a pickle from the grader, JSON back.
"""

from __future__ import annotations

import json
import math
import os
import pickle
import select
import shutil
import signal
import struct
import sys
import tempfile
import time
from contextlib import suppress
from types import ModuleType
from typing import TYPE_CHECKING, Any, BinaryIO

if TYPE_CHECKING:
    import resource

MOST_ANSWER, MOST_PRINTED, MOST_KEPT = 4 * 2**20, 2**24, 2000
MOST_FILES, MOST_BYTES = 500, 64 * 2**20  # in its folder


def load(root: str, name: str) -> None:
    """Everything that an answer may need, so that no child loads it again."""
    sys.path.insert(0, root)
    import given
    import observe
    import source  # noqa: F401
    import torch

    import jsdsd

    for parent in (name.split(".")[0], name):
        sys.modules[parent] = ModuleType(parent)  # empty, so that nothing else of the grader is found
    sys.modules[f"{name}.given"], sys.modules[f"{name}.observe"] = given, observe
    for public in ("Ensemble", "VoxelGrid", "orbit", "render", "objectives", "sandbox"):
        getattr(jsdsd, public)
    with suppress(ImportError):
        import limits  # noqa: F401
    with suppress(ImportError):
        import matplotlib.pyplot  # noqa: F401
    torch.set_num_threads(1)
    here = os.path.dirname(os.path.abspath(__file__))
    closed = (here, os.path.dirname(here), os.path.dirname(os.path.dirname(here)), root)
    sys.path[:] = [p for p in sys.path if os.path.abspath(p) not in closed]


def read_frame(source: BinaryIO) -> bytes | None:
    """The next frame, or None at the end."""
    head = source.read(8)
    return source.read(struct.unpack("<Q", head)[0]) if len(head) == 8 else None


def write_frame(target: BinaryIO, content: bytes) -> None:
    target.write(struct.pack("<Q", len(content)) + content)
    target.flush()


def child(job: dict[str, Any], folder: str, answer: int, printed: int) -> None:
    """In the forked process: close everything, answer, end."""
    try:
        os.setsid()
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(printed, 1)
        os.dup2(printed, 2)
        os.dup2(answer, 3)
        os.closerange(4, 1024)
        os.chdir(folder)
        os.environ["TMPDIR"] = tempfile.tempdir = folder
        import limits

        limits.restrict(folder, job["readable"], math.ceil(job["seconds"]))
        import observe

        text = observe.report(job).encode()
        sys.stdout.flush()
        while text:
            text = text[os.write(3, text) :]
    finally:
        os._exit(0)


def supervise(job: dict[str, Any]) -> dict[str, Any]:
    """Fork a child for the job, collect what it sends and prints, and end it when its time is over."""
    folder = tempfile.mkdtemp()
    answer, answer_in = os.pipe()
    printed, printed_in = os.pipe()
    pid = os.fork()
    if pid == 0:
        child(job, folder, answer_in, printed_in)
    os.close(answer_in)
    os.close(printed_in)
    got, limit = {answer: b"", printed: b""}, {answer: MOST_ANSWER, printed: MOST_PRINTED}
    count, stopped = {answer: 0, printed: 0}, ""
    done: tuple[int, resource.struct_rusage] | None = None  # how it ended, what it used
    deadline, look_again = time.monotonic() + 3 * job["seconds"] + 5, time.monotonic() + 0.3
    while not stopped:
        ready = select.select([answer, printed], [], [], 0 if done else 0.02)[0]
        chunks = {fd: os.read(fd, 65536) for fd in ready}
        for fd, chunk in chunks.items():
            count[fd] += len(chunk)
            got[fd] += chunk if fd == answer else chunk[: max(0, MOST_KEPT - len(got[fd]))]
            if count[fd] > limit[fd]:
                stopped = "its answer is too large" if fd == answer else "it prints without end"
        if done and not any(chunks.values()):
            break
        if done is None:
            reaped, status, used = os.wait4(pid, os.WNOHANG)
            done = (status, used) if reaped else None
        if time.monotonic() > deadline and not done:
            stopped = "time"
        if time.monotonic() > look_again:
            look_again = time.monotonic() + 0.3
            stopped = stopped or too_much(folder)
    with suppress(OSError):
        os.killpg(pid, signal.SIGKILL)  # and what it may have left behind
    if done is None:
        os.kill(pid, signal.SIGKILL)
        done = os.wait4(pid, 0)[1:]
    status, used = done
    os.close(answer)
    os.close(printed)
    shutil.rmtree(folder, ignore_errors=True)
    return {
        "answer": got[answer].decode(errors="replace"), "printed": got[printed].decode(errors="replace"),
        "cut": count[printed] > MOST_KEPT, "code": os.waitstatus_to_exitcode(status), "stopped": stopped,
        "seconds": used.ru_utime + used.ru_stime,
    }  # fmt: skip


def too_much(folder: str) -> str:
    """Why a folder holds too much, or an empty string."""
    files = size = 0
    for place, folders, names in os.walk(folder):
        files += len(folders) + len(names)
        with suppress(OSError):
            size += sum(os.lstat(os.path.join(place, name)).st_size for name in names[:MOST_FILES])
        if files > MOST_FILES or size > MOST_BYTES:
            return "it writes files without end"
    return ""


def main() -> None:
    source, target = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever prints by mistake does not disturb the frames
    load(sys.argv[1], sys.argv[2])
    if "-1" in sys.argv:
        import observe

        write_frame(target, observe.report(pickle.loads(read_frame(source) or b"")).encode())
        sys.stdout.flush()
        os._exit(0)
    import limits

    limits.unreadable_to_others()
    write_frame(target, b"ready")
    while (frame := read_frame(source)) is not None:
        write_frame(target, json.dumps(supervise(pickle.loads(frame))).encode())


main()
