"""Landlock: which files a process and its children may read, for good.

    restrict_files(("/usr/lib/python3.11",))

Source of numbers and layouts: the kernel's `linux/landlock.h`.
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from .kernel import LIBC, check

__all__ = ["landlock_abi", "restrict_files"]

_LANDLOCK = {"create": 444, "add": 445, "restrict": 446}
_READ_FILE, _READ_DIR = 1 << 2, 1 << 3
_TREE = _READ_FILE | _READ_DIR
_ALL_ACCESS: Final[Mapping[int, int]] = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}
"""Version of landlock -> how many kinds of access to files it knows; later ones have no more."""


def landlock_abi() -> int:
    """Version of landlock; 0 where the kernel has none, or keeps it off."""
    found = int(LIBC.syscall(_LANDLOCK["create"], None, 0, 1))
    return max(found, 0)


def restrict_files(readable: Iterable[str]) -> None:
    """Landlock: these trees can be read, and no other file; nothing can be written, run or made.

    From version 4 on no TCP either; from 6 on no signals and no abstract sockets outside.

    Raises:
        OSError: The kernel refuses.
    """
    abi = landlock_abi()
    if not abi:
        raise OSError("landlock: the kernel has none")
    files = (1 << _ALL_ACCESS.get(abi, 16)) - 1
    rules = struct.pack("=QQQ", files, 3, 3)[: 8 if abi < 4 else 16 if abi < 6 else 24]
    ruleset = LIBC.syscall(
        _LANDLOCK["create"], ctypes.c_char_p(rules), ctypes.c_size_t(len(rules)), 0
    )
    check(ruleset, "landlock")
    try:
        for path in readable:
            _allow_tree(ruleset, path)
        check(LIBC.syscall(_LANDLOCK["restrict"], ruleset, 0), "landlock")
    finally:
        os.close(ruleset)


def _allow_tree(ruleset: int, path: str) -> None:
    try:
        place = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        access = _TREE if Path(path).is_dir() else _READ_FILE
        rule = struct.pack("=Qi", access, place)
        check(LIBC.syscall(_LANDLOCK["add"], ruleset, 1, ctypes.c_char_p(rule), 0), "landlock")
    finally:
        os.close(place)
