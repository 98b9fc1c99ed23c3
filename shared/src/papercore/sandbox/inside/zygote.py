"""The fork server: imports what programs may need, then forks a confined child for each of them.

    python -S -s -P -c "... from inside.zygote import main; main()" CONFIG

It speaks with its parent over the socket 3: one JSON request after a length, one JSON answer. It
runs one program at a time; the parent starts as many as it wants workers. It believes nothing that
a child says: outcome of death, time and memory are measured here.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import struct
import sys
import time
from typing import Any, Final

from . import kernel, landlock, seccomp
from .following import Child

__all__ = ["SOCKET", "main"]

SOCKET: Final = 3
_LENGTH: Final = struct.Struct("=Q")


def main() -> None:
    """Serves until the parent hangs up."""
    config: dict[str, Any] = json.loads(sys.argv[1])
    sys.argv[:] = ["<program>"]  # what a program sees
    if config["socket"] != SOCKET:
        os.dup2(config["socket"], SOCKET)
        os.close(config["socket"])
    sys.path += config["paths"]
    _import(config["imports"])
    layers = set(config["layers"])
    if "namespaces" in layers:
        kernel.isolate()
        _become_first_process()
    if "seccomp" in layers:
        kernel.drop_privileges()
        kernel.hide_memory()
        seccomp.prepared(files="landlock" in layers)  # once, not in every child
    if "landlock" in layers:
        landlock.restrict_files(config["readable"])
    sys.dont_write_bytecode = True
    gc.collect()
    gc.freeze()
    _send({"ready": sorted(layers), "pid": os.getpid()})
    while (request := _receive()) is not None:
        _send(_answer(request, layers))


def _import(names: list[str]) -> None:
    """Imports without hooks for forks, which cost every child some eighty page faults.

    That of `random` would make it another in each child; that of `threading` has nothing to forget.
    """
    register = os.register_at_fork
    os.register_at_fork = lambda **_: None
    try:
        for name in names:
            importlib.import_module(name)
    finally:
        os.register_at_fork = register


def _become_first_process() -> None:
    """Goes on as the first process of the new process space; what it leaves behind waits for it."""
    child = os.fork()
    if child:
        os.close(SOCKET)
        os._exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) & 0xFF)
    kernel.die_with_parent()


def _answer(request: dict[str, Any], layers: set[str]) -> dict[str, Any]:
    """Runs a program: a child for its tests, and one more after each that had to be killed."""
    found: dict[str, Any] = {"tests": [], "cpu_s": 0.0, "memory": 0, "places": [], "hits": ""}
    began = time.monotonic()
    tests = request["tests"]
    while len(found["tests"]) < len(tests):
        spent = found["cpu_s"] >= request["total_cpu_s"]
        if spent or time.monotonic() - began >= request["total_wall_s"]:
            rest = {"outcome": "timeout", "error": "the time of the whole program is up"}
            found["tests"] += [rest] * (len(tests) - len(found["tests"]))
            break
        Child(request, len(found["tests"]), layers, hangup=SOCKET).follow(found)
        if "failed" in found:
            break
    return found


def _send(document: dict[str, Any]) -> None:
    content = json.dumps(document).encode()
    data = memoryview(_LENGTH.pack(len(content)) + content)
    while data:
        data = data[os.write(SOCKET, data) :]


def _receive() -> dict[str, Any] | None:
    """The next request; None when the parent has hung up."""
    head = _exactly(_LENGTH.size)
    if head is None:
        return None
    content = _exactly(_LENGTH.unpack(head)[0])
    return None if content is None else json.loads(content)


def _exactly(size: int) -> bytes | None:
    parts = bytearray()
    while len(parts) < size:
        data = os.read(SOCKET, min(size - len(parts), 1 << 20))
        if not data:
            return None
        parts += data
    return bytes(parts)
