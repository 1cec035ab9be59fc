"""What a student's process may use: time, memory, its own folder, and nothing of anybody else's.

`resource` limits work on every POSIX system.  On Linux two locks of the kernel are added, neither of which needs a
right: Landlock (since 5.13) opens Python and the process's own folder and no other file; seccomp refuses processes,
threads, programs, sockets, and signals to others.  Run by root, the process gives its rights up first and,
where nobody may read Python, becomes nobody.
"""

from __future__ import annotations

import ctypes
import os
import platform
import resource
import struct
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

MEBIBYTE = 2**20
MEMORY = 1024 * MEBIBYTE  # private memory, torch's own 0.3 GiB included
FILE_SIZE = MEBIBYTE
NOBODY = 65534


def restrict(folder: str, readable: Sequence[str], seconds: int) -> None:
    """Limits on this process that it cannot take back.  folder: its own; seconds: of processor time."""
    hard = {
        "RLIMIT_CPU": seconds, "RLIMIT_FSIZE": FILE_SIZE, "RLIMIT_CORE": 0, "RLIMIT_NOFILE": 64, "RLIMIT_NPROC": 0,
        "RLIMIT_DATA" if sys.platform == "linux" else "RLIMIT_AS": MEMORY,
    }  # fmt: skip
    for name, value in hard.items():
        with suppress(AttributeError, ValueError, OSError):  # macOS knows some limits and keeps none of memory
            resource.setrlimit(getattr(resource, name), (value, value))
    if os.geteuid() == 0 and all(_reaches(path) for path in (os.__file__, folder, *readable)):
        os.chown(folder, NOBODY, NOBODY)
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        if os.geteuid() == 0:  # Python lies where nobody else may look: root without its rights
            libc.capset(struct.pack("Ii", 0x20080522, 0), bytes(24))
        libc.prctl(1, 9, 0, 0, 0)  # PR_SET_PDEATHSIG: dies with the grader
        libc.prctl(38, 1, 0, 0, 0)  # PR_SET_NO_NEW_PRIVS
        _landlock(libc, folder, readable)
        _seccomp(libc)


def _reaches(path: str) -> bool:
    """Whether every user may pass the folders above `path`."""
    return all(os.stat(p).st_mode & 1 for p in Path(path).resolve().parents)


def unreadable_to_others() -> None:
    """Linux: no other process of the same user may read this one's memory."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(4, 0, 0, 0, 0)  # PR_SET_DUMPABLE


# Landlock: https://docs.kernel.org/userspace-api/landlock.html
READ, WRITE_FILE, READ_DIR = 0b1101, 0b10, 0b1000  # execute, read a file, list a folder


def _landlock(libc: ctypes.CDLL, folder: str, readable: Sequence[str]) -> None:
    version = libc.syscall(444, None, ctypes.c_size_t(0), ctypes.c_uint(1))
    if version < 1:
        return
    everything = (1 << (13 + min(version - 1, 2) + (version >= 5))) - 1
    rules = struct.pack("QQQ", everything, 0b11, 0b11)  # files; TCP (from version 4); signals, abstract sockets (6)
    rules = rules[: 24 if version >= 6 else 16 if version >= 4 else 8]
    fd = libc.syscall(444, rules, ctypes.c_size_t(len(rules)), ctypes.c_uint(0))
    allowed = [(path, READ) for path in readable]
    allowed += [(f"/dev/{x}", READ | WRITE_FILE) for x in ("null", "zero", "urandom", "random")]
    for path, access in [*allowed, (folder, everything)]:
        with suppress(OSError):  # not every system has every folder
            place = os.open(path, os.O_PATH | os.O_CLOEXEC)
            rule = struct.pack("=Qi", access if os.path.isdir(path) else access & ~READ_DIR, place)
            libc.syscall(445, fd, ctypes.c_int(1), rule, ctypes.c_uint(0))
            os.close(place)
    if libc.syscall(446, fd, ctypes.c_uint(0)):
        raise OSError(ctypes.get_errno(), "Landlock does not close")
    os.close(fd)


# seccomp, by the numbers of the system calls (x86_64, aarch64); None: there is no such call
FORBIDDEN = {
    "clone": (56, 220), "clone3": (435, 435), "fork": (57, None), "vfork": (58, None),
    "execve": (59, 221), "execveat": (322, 281), "socket": (41, 198),
    "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "tkill": (200, 130),
    "rt_sigqueueinfo": (129, 138), "rt_tgsigqueueinfo": (297, 240), "pidfd_send_signal": (424, 424),
    "pidfd_open": (434, 434), "mount": (165, 40), "umount2": (166, 39), "unshare": (272, 97), "setns": (308, 268),
    "bpf": (321, 280), "keyctl": (250, 219), "io_uring_setup": (425, 425), "userfaultfd": (323, 282),
    "perf_event_open": (298, 241), "reboot": (169, 142), "setpriority": (141, 140), "sched_setaffinity": (203, 122),
}  # fmt: skip
ONLY_ITSELF = {"kill": (62, 129), "tgkill": (234, 131), "prlimit64": (302, 261)}  # their first argument is a process
LOAD, EQUAL, AT_LEAST, RETURN = 0x20, 0x15, 0x35, 0x06
ALLOW, REFUSE, KILL = 0x7FFF0000, 0x50001, 0x80000000  # refused: errno 1, EPERM


def _seccomp(libc: ctypes.CDLL) -> None:
    machines = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}
    if platform.machine() not in machines:
        return
    column, architecture = machines[platform.machine()]
    code = [(LOAD, 0, 0, 4), (EQUAL, 1, 0, architecture), (RETURN, 0, 0, KILL), (LOAD, 0, 0, 0)]
    code += [(AT_LEAST, 0, 1, 0x40000000), (RETURN, 0, 0, REFUSE)]  # x86_64's second table of calls
    for numbers in FORBIDDEN.values():
        if numbers[column] is not None:
            code += [(EQUAL, 0, 1, numbers[column] or 0), (RETURN, 0, 0, REFUSE)]
    for numbers in ONLY_ITSELF.values():
        code += [(EQUAL, 0, 5, numbers[column]), (LOAD, 0, 0, 16), (EQUAL, 2, 0, 0), (EQUAL, 1, 0, os.getpid())]
        code += [(RETURN, 0, 0, REFUSE), (RETURN, 0, 0, ALLOW)]
    code += [(RETURN, 0, 0, ALLOW)]
    program = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *line) for line in code))
    head = struct.pack("HxxxxxxP", len(code), ctypes.addressof(program))
    if libc.prctl(22, 2, head, 0, 0):  # PR_SET_SECCOMP, SECCOMP_MODE_FILTER
        raise OSError(ctypes.get_errno(), "seccomp does not close")
