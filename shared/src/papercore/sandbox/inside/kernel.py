"""What a process can do to itself and its children: limits, no privileges, spaces of its own.

    drop_privileges()

None of it can be undone. Source of numbers: the kernel's `linux/prctl.h`, `linux/sched.h` and
`linux/capability.h`.
"""

from __future__ import annotations

import ctypes
import os
import resource
import struct
from pathlib import Path

__all__ = [
    "LIBC",
    "check",
    "die_with_parent",
    "drop_privileges",
    "hide_memory",
    "isolate",
    "limit_resources",
]

LIBC = ctypes.CDLL(None, use_errno=True)
LIBC.syscall.restype = ctypes.c_long

_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_CAPBSET_DROP = 1, 4, 24
_PR_SET_NO_NEW_PRIVS, _PR_CAP_AMBIENT, _CLEAR_ALL = 38, 47, 4
_CAP_LAST, _CAPABILITY_VERSION_3 = 63, 0x20080522
_NEW_USER, _NEW_NET, _NEW_PID = 0x10000000, 0x40000000, 0x20000000
_NEW_IPC, _NEW_UTS = 0x08000000, 0x04000000


def limit_resources(
    *, cpu_s: int, memory: int, file_bytes: int, open_files: int, processes: int | None
) -> None:
    """Hard limits; what cannot be set is lower already."""
    wanted = {
        resource.RLIMIT_CPU: cpu_s,
        resource.RLIMIT_AS: memory,
        resource.RLIMIT_FSIZE: file_bytes,
        resource.RLIMIT_NOFILE: open_files,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_MEMLOCK: 0,
        resource.RLIMIT_MSGQUEUE: 0,
    }
    if processes is not None:  # it counts all of a user's, also outside
        wanted[resource.RLIMIT_NPROC] = processes
    for what, value in wanted.items():
        hard = resource.getrlimit(what)[1]
        most = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(what, (most, most))


def drop_privileges() -> None:
    """Gives up all capabilities, and all ways to get new ones.

    Raises:
        OSError: The kernel refuses.
    """
    for capability in range(_CAP_LAST + 1):
        LIBC.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0)  # fails beyond the last, or without any
    LIBC.prctl(_PR_CAP_AMBIENT, _CLEAR_ALL, 0, 0, 0)
    header = struct.pack("=Ii", _CAPABILITY_VERSION_3, 0)
    check(LIBC.capset(header, b"\0" * 24), "capset")
    check(LIBC.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs")


def hide_memory() -> None:
    """No other process of this user may look into this one."""
    check(LIBC.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0), "dumpable")


def die_with_parent() -> None:
    """This process is killed when the thread that started it ends."""
    check(LIBC.prctl(_PR_SET_PDEATHSIG, 9, 0, 0, 0), "pdeathsig")


def isolate() -> None:
    """Own user, network, process, message and name spaces; the next child is the first process.

    Raises:
        OSError: The kernel or its administrator refuses.
    """
    uid, gid = os.geteuid(), os.getegid()
    flags = _NEW_USER | _NEW_NET | _NEW_PID | _NEW_IPC | _NEW_UTS
    check(LIBC.unshare(flags), "unshare")
    for name, text in (
        ("setgroups", "deny"),
        ("uid_map", f"{uid} {uid} 1"),
        ("gid_map", f"{gid} {gid} 1"),
    ):
        Path(f"/proc/self/{name}").write_text(text, encoding="ascii")


def check(returned: int, what: str) -> None:
    """Raises the OSError that a call of libc has left."""
    if returned < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
