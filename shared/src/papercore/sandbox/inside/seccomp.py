"""Seccomp: which system calls a process and its children may make, for good.

    drop_privileges()
    restrict_calls(files=True)

Source of numbers and layouts: the kernel's `linux/seccomp.h` and `linux/filter.h`.
"""

from __future__ import annotations

import ctypes
import functools
import os
import platform
import struct
from collections.abc import Sequence

from .calls import ARCHES, CALLS
from .kernel import LIBC, check

__all__ = ["make_filter", "prepared", "restrict_calls"]

_PR_SET_SECCOMP = 22
_X32 = 0x40000000
"""Numbers from here on are the x32 interface of x86_64."""


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def restrict_calls(*, files: bool) -> None:
    """Seccomp: the calls of `CALLS` alone; `drop_privileges` must come first.

    Args:
        files: Whether files can be opened, for reading.

    Raises:
        OSError: The kernel refuses, or this kind of machine is not known.
    """
    program = prepared(files=files)
    check(LIBC.prctl(_PR_SET_SECCOMP, 2, ctypes.byref(program), 0, 0), "seccomp")


# Instructions of the filter: load a word, compare, return. Source: linux/filter.h, seccomp.h
_LOAD, _EQUAL, _ABOVE, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _KILL, _REFUSE, _ABSENT = 0x7FFF0000, 0x80000000, 0x00050001, 0x00050026
_NUMBER, _ARCH = 0, 4
_CLONE_THREAD = 0x10000
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_FCNTL = (0, 1, 2, 3, 1030)
"""F_DUPFD, F_GETFD, F_SETFD, F_GETFL, F_DUPFD_CLOEXEC: none of them sends signals."""


def _argument(index: int) -> int:
    """Offset of the low word of an argument, on the little-endian machines that are known."""
    return 16 + 8 * index


@functools.cache
def prepared(*, files: bool) -> _Program:
    """The filter as the kernel takes it; made once, for a new type costs a child 0.4 ms.

    Raises:
        OSError: This kind of machine is not known.
    """
    program = make_filter(files=files)
    return _Program(len(program) // 8, program)


def make_filter(*, files: bool) -> bytes:
    """The filter of `restrict_calls`.

    Raises:
        OSError: This kind of machine is not known.
    """
    machine = platform.machine()
    if machine not in ARCHES:
        raise OSError(f"seccomp: no table of calls for {machine}")
    calls = dict(CALLS[machine])
    blocks = [
        _call(calls.pop("clone3"), [(_RETURN, 0, 0, _ABSENT)]),  # libc then takes clone
        _call(
            calls.pop("clone"),
            [
                (_LOAD, 0, 0, _argument(0)),
                (_ANY_BIT, 0, 1, _CLONE_THREAD),
                (_RETURN, 0, 0, _ALLOW),
                (_RETURN, 0, 0, _REFUSE),
            ],
        ),
        _call(
            calls.pop("prlimit64"),  # its own limits, which only go down
            [
                (_LOAD, 0, 0, _argument(0)),
                (_EQUAL, 0, 1, 0),
                (_RETURN, 0, 0, _ALLOW),
                (_RETURN, 0, 0, _REFUSE),
            ],
        ),
        _call(calls.pop("fcntl"), _one_of(_argument(1), _FCNTL)),
    ]
    opening = calls.pop("openat")
    if files:
        only_read = [
            (_LOAD, 0, 0, _argument(2)),
            (_ANY_BIT, 0, 1, _WRITING),
            (_RETURN, 0, 0, _REFUSE),
            (_RETURN, 0, 0, _ALLOW),
        ]
        blocks.append(_call(opening, only_read))
    numbers = sorted(calls.values())
    head = [
        (_LOAD, 0, 0, _ARCH),
        (_EQUAL, 1, 0, ARCHES[machine]),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, _NUMBER),
        (_ABOVE, 0, 1, _X32),
        (_RETURN, 0, 0, _KILL),
    ]
    plain = [
        step for number in numbers for step in ((_EQUAL, 0, 1, number), (_RETURN, 0, 0, _ALLOW))
    ]
    code = [*head, *(step for block in blocks for step in block), *plain, (_RETURN, 0, 0, _REFUSE)]
    return b"".join(struct.pack("=HBBI", *step) for step in code)


_Step = tuple[int, int, int, int]


def _call(number: int, steps: Sequence[_Step]) -> list[_Step]:
    """These steps for a call, none for the others; steps must return in any case."""
    return [(_EQUAL, 0, len(steps), number), *steps]


def _one_of(offset: int, values: Sequence[int]) -> list[_Step]:
    steps: list[_Step] = [(_LOAD, 0, 0, offset)]
    for value in values:
        steps += [(_EQUAL, 0, 1, value), (_RETURN, 0, 0, _ALLOW)]
    return [*steps, (_RETURN, 0, 0, _REFUSE)]
