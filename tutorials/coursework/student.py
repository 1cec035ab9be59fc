"""A student's file: read, run under a time limit, and every accident told with its line."""

from __future__ import annotations

import ast
import ctypes
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TypeVar

from .grade import Verdict, diagnose
from .problem import Problem, Unreadable, observe

T = TypeVar("T")


class TimeUp(BaseException):
    """Raised inside code that does not come back."""


class BadFile(Exception):
    """A file that cannot be checked; the message is for the student."""


@dataclass(frozen=True)
class Submission:
    """A file that ran: its module and where its functions stand."""

    path: Path
    module: ModuleType
    functions: dict[str, ast.FunctionDef]


def function_names(path: Path) -> dict[str, ast.FunctionDef]:
    """The functions at the top level of the file, which is not run.  BadFile: no such file, no text, no Python."""
    if not path.is_file():
        raise BadFile(f"there is no file {path}" if not path.exists() else f"{path} is no file")
    if path.suffix == ".ipynb":
        raise BadFile(f"{path} is a notebook; as a .py file it can be checked: jupytext --to py:percent {path}")
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
    except UnicodeDecodeError:
        raise BadFile(f"{path} is not a text file in UTF-8") from None
    except (SyntaxError, ValueError) as error:
        line = f"line {error.lineno}: " if isinstance(error, SyntaxError) else ""
        shown = (error.text or "").strip() if isinstance(error, SyntaxError) else ""
        raise BadFile(f"{path} is not valid Python, {line}{getattr(error, 'msg', error)}\n    {shown}") from None
    return {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}


def load(path: Path, seconds: float) -> Submission:
    """Run the file.  BadFile where that raises or takes longer than `seconds`."""
    functions = function_names(path)
    module = ModuleType("exercise")
    module.__file__ = str(path)
    code = compile(path.read_text(encoding="utf-8"), str(path), "exec")
    sys.modules["exercise"], folder = module, str(path.resolve().parent)  # dataclasses look their module up
    sys.path[:] = [folder, *(p for p in sys.path if p != folder)]  # its neighbours can be imported
    try:
        within(seconds, lambda: exec(code, module.__dict__))
    except TimeUp:
        raise BadFile(
            f"{path} did not finish within {seconds:g} s when it was run: an endless loop, or input()?"
        ) from None
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise BadFile(f"{path} cannot be run: {accident(error, path)}") from None
    return Submission(path, module, functions)


def check(submission: Submission, problem: Problem, seconds: float) -> Verdict:
    """The verdict on one problem; never raises."""
    path, name = submission.path, problem.name
    answer = getattr(submission.module, name, None)
    if answer is None:
        return Verdict("error", "missing", f"There is no function `{name}` in {path.name}: keep the exercise's names.")
    if not callable(answer):
        return Verdict("error", "no function", f"`{name}` in {path.name} is no function any more.")
    if name in submission.functions and has_blank(submission.functions[name]):
        return Verdict("not done yet")
    right = observe(problem, problem.reference)  # outside the limit: the first use of a torch module can take seconds
    try:
        return diagnose(problem, within(seconds, lambda: observe(problem, answer)), right)
    except Unreadable as fault:
        return Verdict("wrong", "wrong result", f"As it stands, {fault}.")
    except TimeUp:
        return Verdict("error", "no answer", f"It did not come back within {seconds:g} s: an endless loop, or input()?")
    except NotImplementedError as error:
        return _not_done(error, submission, name)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # SystemExit too
        return Verdict("error", f"raised {type(error).__name__}", f"It stopped with {accident(error, path)}")


def has_blank(function: ast.FunctionDef) -> bool:
    """A `raise NotImplementedError`, or a `...` that stands for code (an index like x[..., 0] does not)."""
    indices = {id(x) for node in ast.walk(function) if isinstance(node, ast.Subscript) for x in ast.walk(node.slice)}
    dots = (x for part in function.body for x in ast.walk(part) if isinstance(x, ast.Constant) and x.value is ...)
    raised = [ast.unparse(x.exc) for x in ast.walk(function) if isinstance(x, ast.Raise) and x.exc]
    return any(id(x) not in indices for x in dots) or any(x.startswith("NotImplementedError") for x in raised)


def accident(error: BaseException, path: Path) -> str:
    """The exception in words, with the last line of the student's file that it passed."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename == str(path)]
    where = f"\n    line {frames[-1].lineno}: {frames[-1].line}" if frames else ""
    return f"{type(error).__name__}: {error}{where}"


def _not_done(error: NotImplementedError, submission: Submission, name: str) -> Verdict:
    last = traceback.extract_tb(error.__traceback__)[-1]
    if last.filename != str(submission.path):  # a library's, not a blank's
        return Verdict("error", "raised NotImplementedError", f"It stopped with {accident(error, submission.path)}")
    if last.name == name:
        return Verdict("not done yet")
    return Verdict("not done yet", why=f"It calls `{last.name}` (line {last.lineno}), which is still a blank.")


def within(seconds: float, call: Callable[[], T]) -> T:
    """call(), in a thread of its own; TimeUp if it takes more processor time (or waits three times as long).

    Processor time, so that a busy machine condemns nobody.  A thread that is late is asked to stop.
    """
    results: list[T] = []
    errors: list[BaseException] = []

    def work() -> None:
        try:
            results.append(call())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=work, daemon=True)  # a daemon: it cannot keep the program from ending
    thread.start()
    started, used = time.monotonic(), time.process_time()
    while thread.is_alive() and time.process_time() - used < seconds and time.monotonic() - started < 3 * seconds:
        thread.join(0.05)
    if thread.is_alive():
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident or 0), ctypes.py_object(TimeUp))
        thread.join(1.0)
        raise TimeUp
    if errors:
        raise errors[0]
    return results[0]
