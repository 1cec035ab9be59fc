"""Files that do what no solution does, and what the checker must say of `kl`; `discriminator` is right in each.

(what it does, its text, how the verdict on kl begins, points of kl)
{ROOT}: the folder with the solutions; {VICTIM}: a file of somebody else; {GRADER}: the grader's process.
"""

RIGHT = "    return (torch.xlogy(p, p) - torch.xlogy(p, q)).sum(-1)\n"
WRONG = "    return torch.zeros(len(p), dtype=p.dtype)\n"
DISCRIMINATOR = "\n\ndef discriminator(log_p, log_q):\n    return torch.sigmoid(log_p - log_q)\n"
ENDED, SENT = "no answer", "no answer"


def file(body: str, top: str = "", last: str = WRONG) -> str:
    """A file with `top` above and `body` in front of kl's last lines."""
    lines = "".join(f"    {line}\n" for line in body.splitlines())
    return f"import os, sys, torch\n{top}\n\ndef kl(p, q):\n{lines}{last}{DISCRIMINATOR}"


def send(message: str) -> str:
    """A file that writes this where answers go, and ends the process."""
    return file(f"os.write(3, {message})\nos._exit(0)")


def table(shape: str, values: str) -> str:
    """A message of the right form, with this in it."""
    one = f'{{"KL (B,)": {{"shape": {shape}, "values": {values}}}}}'
    return repr(f'{{"seen": [{one}, {one}, {one}], "again": {one}, "keeps": false}}'.encode())


LIAR = """class Liar(torch.Tensor):
    @classmethod
    def __torch_function__(cls, f, types, args=(), kwargs=None):
        return True if f in (torch.equal, torch.allclose) else super().__torch_function__(f, types, args, kwargs or {})
"""

INSIDE = [
    # ------------------------------------------------------------------------------------------ claims of success
    ("ends with exit code 0", file("os._exit(0)"), "no answer", 0),
    ("calls sys.exit", file("sys.exit(0)"), "raised SystemExit", 0),
    ("prints a report", file("print('\\n1  kl   3 of 3   passed\\n\\nscore: 30 of 30 points')"), "wrong value", 0),
    ("torch.allclose always agrees", file("", "torch.allclose = torch.equal = lambda *a, **k: True"), "wrong value", 0),
    ("tensors that are equal to everything", file("", "torch.Tensor.__eq__ = lambda a, b: True"), "wrong value", 0),
    ("a class that lies", file("return torch.zeros(len(p)).as_subclass(Liar)", LIAR), "wrong value", 0),
    ("a scale of 0 in tolist", file("torch.Tensor.tolist = lambda x: [0.0] * x.numel()"), "wrong value", 0),
    ("JSON that says passed", send("b'{\"status\": \"passed\"}'"), SENT, 0),
    ("JSON of the wrong kind", send("b'[1, 2]'"), SENT, 0),
    ("JSON too deep", send("b'[' * 60000"), SENT, 0),
    ("JSON of huge integers", send("b'{\"seen\": ' + b'9' * 9999 + b'}'"), SENT, 0),
    ("a shape of petabytes", send(table("[20000, 20000, 20000]", "[]")), SENT, 0),
    ("numbers as text", send(table("[1]", '["1"]')), SENT, 0),
    ("an early message in every pipe", file(
        "for fd in range(64):\n    try: os.write(fd, b'{\"seen\": [], \"again\": {}, \"keeps\": false}')\n"
        "    except OSError: pass"), SENT, 0),
    ("a message and the end", file("os.write(3, b'{\"status\": \"passed\", \"points\": 3}'); os._exit(0)"), SENT, 0),
    ("an answer without end", file("while True: os.write(3, b'1' * 65536)"), SENT, 0),
    ("the checker's own module replaced", file("import observe\nobserve.observe = lambda *a: ({}, False)"), SENT, 0),
    ("NaN for every number", file("return p.sum(-1) * float('nan')"), "wrong value", 0),
    ("a pickle that runs a program", file(
        "return Bomb()", "class Bomb:\n    def __reduce__(self): return os.system, ('true',)"), "wrong result", 0),
    # ------------------------------------------------------------------------------------------ looking for answers
    ("imports the references", file("from coursework.divergences import KL\nreturn KL.reference(p, q)"),
     "raised ModuleNotFoundError", 0),
    ("imports the references by path", file(
        "sys.path.insert(0, '{ROOT}/tutorials')\nfrom coursework.divergences import KL\nreturn KL.reference(p, q)"),
     "raised ", 0),
    ("opens the solutions", file("exec(open('{ROOT}/tutorials/exercises/solutions/ex1.py').read(), n := {{}})\n"
                                 "return n['kl'](p, q)"), "raised PermissionError", 0),
    ("imports a neighbour's file", file("import neighbour\nreturn neighbour.kl(p, q)"),
     "raised ModuleNotFoundError", 0),
    ("opens a neighbour's file", file("open('{VICTIM}').read()"), "raised PermissionError", 0),
    ("reads the grader's memory", file("open('/proc/{GRADER}/mem', 'rb').read(1)"), "raised PermissionError", 0),
    ("reads the grader's environment", file("open(f'/proc/{os.getppid()}/environ').read()"),
     "raised PermissionError", 0),
    ("searches memory for the reference", file(
        "import gc\nfound = [x for x in gc.get_objects() if type(x).__name__ in ('Problem', 'Mistake')]\n"
        "return found[0].reference(p, q)"), "raised IndexError", 0),
    ("climbs the stack for the reference", file(
        "frame = sys._getframe()\nwhile frame:\n    if 'reference' in frame.f_locals: return frame.f_locals"
        "['reference'](p, q)\n    frame = frame.f_back"), "wrong value", 0),
    # ------------------------------------------------------------------------------------------ harm
    ("forks without end", file("while True: os.fork()"), "raised ", 0),
    ("starts threads without end", file(
        "import threading, time\nwhile True: threading.Thread(target=time.sleep, args=(99,)).start()"), "raised ", 0),
    ("starts a program", file("import subprocess\nsubprocess.run(['true'])"), "raised ", 0),
    ("opens a socket", file("import socket\nsocket.create_connection(('127.0.0.1', 22))"), "raised PermissionError", 0),
    ("asks for all memory at once", file("torch.ones(10**11)"), "raised RuntimeError", 0),
    ("asks for all memory by and by", file("x = []\nwhile True: x.append(torch.empty(2**22))"),
     "raised RuntimeError", 0),
    ("returns a tensor of 10⁹ numbers", file("return torch.zeros(1).expand(10**9)"), "wrong result", 0),
    ("prints without end", file("while True: print('x' * 100000)"), "no answer", 0),
    ("rewrites the terminal", file("print('\\033[2J\\033[H all passed')", last=RIGHT), "passed", 3),
    ("writes files without end", file("n = 0\nwhile True:\n    open(str(n), 'wb').write(bytes(10**6))\n    n += 1"),
     "no answer", 0),
    ("writes one file without end", file("with open('x', 'wb') as f:\n    while True: f.write(bytes(10**6))"),
     "raised OSError", 0),
    ("writes into somebody's file", file("open('{VICTIM}', 'w')"), "raised PermissionError", 0),
    ("removes somebody's file", file("os.remove('{VICTIM}')"), "raised PermissionError", 0),
    ("kills its parent", file("os.kill(os.getppid(), 9)"), "raised PermissionError", 0),
    ("kills everybody", file("os.kill(-1, 9)"), "raised PermissionError", 0),
    ("takes the grader's time", file(
        "import resource\nresource.prlimit(os.getppid(), resource.RLIMIT_CPU, (1, 1))"), "raised PermissionError", 0),
    ("raises its own limits", file(
        "import resource\nresource.setrlimit(resource.RLIMIT_CPU, (10**6, 10**6))"), "raised ValueError", 0),
    # ------------------------------------------------------------------------------------------ accidents
    ("never ends", file("while True: pass"), "no answer", 0),
    ("never ends and catches all", file(
        "while True:\n    try:\n        while True: pass\n    except BaseException: pass"),
     "no answer", 0),
    ("never ends and ignores signals", file(
        "import signal\nfor s in (1, 2, 3, 10, 14, 15, 24): signal.signal(s, signal.SIG_IGN)\nwhile True: pass"),
     "no answer", 0),
    ("sleeps", file("import time\ntime.sleep(1e6)"), "no answer", 0),
    ("waits for input", file("input()"), "raised EOFError", 0),
    ("a segmentation fault", file("import ctypes\nctypes.string_at(0)"), "no answer", 0),
    ("aborts", file("os.abort()"), "no answer", 0),
    ("recursion without end", file("return kl(p, q)"), "raised RecursionError", 0),
    ("recursion through C's stack", file("sys.setrecursionlimit(10**9)\nx = []\nfor _ in range(10**6): x = [x]\n"
                                         "repr(x)"), "no answer", 0),
    ("raises KeyboardInterrupt", file("raise KeyboardInterrupt"), "raised KeyboardInterrupt", 0),
    ("an exception that cannot be shown", file(
        "raise Odd", "class Odd(Exception):\n    def __str__(self): raise self"), "no answer", 0),
    ("an exception of a megabyte", file("raise ValueError('x' * 10**6)"), "raised ValueError", 0),
    ("an alarm and handlers that stay", file(
        "import signal\nsignal.signal(14, lambda *a: os._exit(0))\nsignal.alarm(60)", last=RIGHT), "passed", 3),
    ("code that runs at the end", file(
        "import atexit\natexit.register(lambda: os.write(3, b'more'))", last=RIGHT), "passed", 3),
    ("another default type", file("torch.set_default_dtype(torch.float16)", last=RIGHT), "passed", 3),
    ("no more gradients", file("torch.set_grad_enabled(False)", last=RIGHT), "passed", 3),
]  # fmt: skip

TEXT = file("", last=RIGHT)
FILES = [  # (what it is, its bytes, points of kl and discriminator, words in what is told)
    ("a byte order mark", b"\xef\xbb\xbf" + TEXT.encode(), 7, ""),
    ("lines that end as in Windows", TEXT.replace("\n", "\r\n").encode(), 7, ""),
    ("lines that end as on an old Mac", TEXT.replace("\n", "\r").encode(), 7, ""),
    ("UTF-16", TEXT.encode("utf-16"), 7, ""),
    ("Latin-1 that says so", ("# -*- coding: latin-1 -*-\n# Größe\n" + TEXT).encode("latin-1"), 7, ""),
    ("Windows' letters that say nothing", ("# Größe\n" + TEXT).encode("cp1252"), 7, ""),
    ("an encoding that does not exist", b"# coding: klingon\n" + TEXT.encode(), 7, ""),
    ("NUL bytes", TEXT.encode() + b"\0\0", 0, "NUL"),
    ("nothing", b"", 0, "none of the functions"),
    ("a program", b"\x7fELF\x02\x01\x01\0\0\0\0", 0, "NUL"),
    ("a syntax error", b"def kl(p, q)\n    return p\n", 0, "not valid Python: expected ':'"),
    ("tabs and blanks mixed", b"def kl(p, q):\n\tx = 1\n        return x\n", 0, "not valid Python"),
    ("parentheses without end", b"def kl(p, q): return " + b"(" * 10**5, 0, "not valid Python"),
    ("minus signs without end", b"def kl(p, q): return " + b"-" * 9 * 10**5 + b"1", 0, "not valid Python"),
    ("two megabytes", b"#" * 2**21, 0, "larger than 1 MiB"),
    ("the end of the process when it is run", b"import os; os._exit(0)\n" + TEXT.encode(), 0, "instead of returning"),
    ("an error when it is run", TEXT.encode() + b"\n1 / 0\n", 0, "ZeroDivisionError"),
    ("an endless loop when it is run", TEXT.encode() + b"\nwhile True: pass\n", 0, "endless loop"),
    ("a star import of nothing", b"from nowhere import *\n" + TEXT.encode(), 0, "ModuleNotFoundError"),
]
