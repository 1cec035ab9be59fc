"""The grader's side of a student's process: a job goes out, numbers come back, and nothing else is believed."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import struct
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from torch import Tensor

import jsdsd

from .handed_in import harmless
from .inside.observe import LARGEST, Seen

INSIDE = Path(__file__).with_name("inside")
LARGEST_FRAME = 2**26
CAN_FORK = hasattr(os, "fork")
READABLE = ("/usr", "/lib", "/lib64", "/etc", "/opt", sys.prefix, sys.base_prefix, str(Path(jsdsd.__file__).parent))
HINTS = {"EOFError": "nobody answers an `input()` here", "MemoryError": "it asked for more memory than it may have"}


class Silence(Exception):
    """No answer, and why; the message is for the student."""


@dataclass(frozen=True)
class Reply:
    """answer: what the process sent, taken for what it is: a text by a stranger.  why: why there is none."""

    answer: dict[str, Any] | None
    why: str
    printed: str
    seconds: float


class Worker:
    """A process with torch loaded that forks one process per job.  A context manager; not for two threads at once."""

    def __init__(self, fork: bool = CAN_FORK) -> None:
        self.fork = fork
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Worker:
        self._folder = tempfile.mkdtemp()
        os.chmod(self._folder, 0o711)  # a process that root starts becomes nobody and must reach its folder in it
        if os.name == "posix":
            from .inside import limits

            limits.unreadable_to_others()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stop()
        shutil.rmtree(self._folder, ignore_errors=True)

    def ask(self, job: dict[str, Any], seconds: float) -> Reply:
        """Have the job done in a process of its own.  seconds: of processor time; three times as long on the clock."""
        frame = pickle.dumps({**job, "seconds": seconds, "readable": READABLE})
        frame = struct.pack("<Q", len(frame)) + frame
        try:
            return self._forked(frame, seconds) if self.fork else self._fresh(frame, seconds)
        except (OSError, EOFError, struct.error, ValueError):
            self._stop()
            return Reply(None, "It took the checker's own helper down with it.", "", 0.0)

    # ------------------------------------------------------------------------------------------------- two ways
    def _forked(self, frame: bytes, seconds: float) -> Reply:
        process = self._process or self._start()
        assert process.stdin and process.stdout
        process.stdin.write(frame)
        process.stdin.flush()
        reply = json.loads(self._read(process))
        why, code = "", int(reply["code"])
        if reply["stopped"] == "time" or (code < 0 and reply["seconds"] > seconds - 0.5):
            why = f"It did not come back within {seconds:g} s: an endless loop?"
        elif reply["stopped"]:
            why = f"It was stopped: {reply['stopped']}."
        elif code < 0:
            why = f"The process was ended by signal {-code}{SIGNALS.get(-code, '')}."
        elif not reply["answer"]:
            why = f"It ended the process (exit code {code}) instead of returning."
        return _reply(reply["answer"], why, reply["printed"], bool(reply["cut"]), float(reply["seconds"]))

    def _fresh(self, frame: bytes, seconds: float) -> Reply:
        """Without fork: Python anew for each job, which costs the seconds of importing torch, and only a clock."""
        with tempfile.TemporaryDirectory() as folder:
            try:
                done = subprocess.run(
                    self._command("-1"), input=frame, capture_output=True, timeout=3 * seconds + 60, cwd=folder,
                    env=self._environment(folder), check=False,
                )  # fmt: skip
            except subprocess.TimeoutExpired:
                return Reply(None, f"It did not come back within {seconds:g} s: an endless loop?", "", seconds)
        answer = done.stdout[8 : LARGEST_FRAME + 8].decode(errors="replace")
        why = "" if answer else f"It ended the process (exit code {done.returncode}) instead of returning."
        printed = done.stderr.decode(errors="replace")
        return _reply(answer, why, printed[:2000], len(printed) > 2000, 0.0)

    # ------------------------------------------------------------------------------------------------- the process
    def _command(self, *more: str) -> list[str]:
        return [sys.executable, "-I", str(INSIDE), str(Path(jsdsd.__file__).parents[1]), __package__ + ".inside", *more]

    def _environment(self, folder: str) -> dict[str, str]:
        """Nothing of the grader's own environment, which may hold secrets, but what finds programs and fonts."""
        kept = {k: os.environ[k] for k in ("PATH", "SYSTEMROOT", "LANG", "MPLCONFIGDIR") if k in os.environ}
        one = {k: "1" for k in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")}
        return {**kept, **one, "HOME": folder, "TMPDIR": folder, "MPLBACKEND": "Agg"}

    def _start(self) -> subprocess.Popen[bytes]:
        self._process = subprocess.Popen(
            self._command(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            env=self._environment(self._folder), cwd=self._folder, start_new_session=True,
        )  # fmt: skip
        if self._read(self._process) != b"ready":
            raise EOFError
        return self._process

    def _stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None

    @staticmethod
    def _read(process: subprocess.Popen[bytes]) -> bytes:
        assert process.stdout
        (length,) = struct.unpack("<Q", process.stdout.read(8))
        if length > LARGEST_FRAME:
            raise ValueError(length)
        return process.stdout.read(length)


SIGNALS = {
    6: " (abort)", 7: " (bus error)", 8: " (arithmetic)", 9: " (killed: too much memory?)", 11: " (segmentation fault)",
    24: " (too much time)", 25: " (a file too large)", 31: " (a forbidden call)",
}  # fmt: skip


def _reply(answer: str, why: str, printed: str, cut: bool, seconds: float) -> Reply:
    shown = harmless(printed) + ("\n... (cut)" if cut else "")
    if why:
        return Reply(None, why, shown, seconds)
    try:
        content = json.loads(answer)
        if not isinstance(content, dict):
            raise ValueError
        return Reply(content, "", shown, seconds)
    except (ValueError, RecursionError):
        return Reply(None, "What it sent cannot be read: did it write to a pipe that is not its own?", shown, seconds)


def tables(answer: dict[str, Any], names: list[str], count: int) -> tuple[list[Seen], Seen, bool]:
    """The tensors in an answer: one table per case, the first case once more, and whether a graph is left.

    Silence where the process sent anything else than numbers by these names, case by case.
    """
    try:
        seen, again = answer["seen"], answer["again"]
        if not (isinstance(seen, list) and len(seen) == count):
            raise ValueError
        every = [{name: _tensor(table[name]) for name in names} for table in [*seen, again]]
        return every[:-1], every[-1], answer["keeps"] is True
    except (KeyError, TypeError, ValueError, IndexError, OverflowError, RuntimeError):
        raise Silence("What it sent are not the numbers that were asked for.") from None


def _tensor(sent: Any) -> Tensor | None:
    if sent is None:
        return None
    shape, values = sent["shape"], sent["values"]
    if not (isinstance(shape, list) and isinstance(values, list) and len(values) <= LARGEST and len(shape) <= 16):
        raise ValueError
    if not all(type(n) is int and 0 <= n <= LARGEST for n in shape) or not all(type(x) is float for x in values):
        raise ValueError
    return torch.tensor(values, dtype=torch.float64).reshape(shape)
