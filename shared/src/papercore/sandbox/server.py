"""One fork server, as its parent sees it: started, asked, and replaced when it dies.

A server is a fresh Python without site packages and without our threads, so that torch and locks of
this process are not in it; it is single-threaded, and forks safely.
"""

from __future__ import annotations

import json
import os
import socket
import struct
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, cast

from papercore.errors import ConfigError
from papercore.sandbox.levels import LAYERS, Level

__all__ = ["BOOT", "Server", "ServerDiedError", "interpreter"]

BOOT: Final = f"import sys; sys.path.append({str(Path(__file__).parent)!r}); "
"""Makes the package `inside` importable; at the end, for our `types` must not hide Python's."""

_MAIN: Final = f"{BOOT}from inside.zygote import main; sys.path.pop(); main()"
_LENGTH: Final = struct.Struct("=Q")
_START_S: Final = 120.0
"""For imports such as numpy, on a busy machine."""
_LARGEST: Final = 1 << 30
_ENVIRONMENT: Final = {
    "PYTHONHASHSEED": "0",
    "PYTHONUTF8": "1",
    "LC_ALL": "C.UTF-8",
    "TZ": "UTC0",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",  # one thread
    "LD_BIND_NOW": "1",  # symbols are looked up once, not in every child
}


class ServerDiedError(Exception):
    """A fork server ended, hung, or said nonsense; what it was asked is not answered."""


def interpreter() -> list[str]:
    """This Python without a virtual environment, site packages and bytecode that it writes."""
    own = getattr(sys, "_base_executable", None) or sys.executable
    return [os.path.realpath(own), "-S", "-s", "-P", "-B", "-c"]


class Server:
    """A fork server.

    Args:
        level: How programs are confined.
        imports: Modules that are imported once, before any program.

    Raises:
        ConfigError: It does not start, such as for an import that fails.
    """

    def __init__(self, level: Level, imports: Sequence[str]) -> None:
        ours, theirs = socket.socketpair()
        self._socket = ours
        config = {
            "layers": LAYERS[level],
            "imports": list(imports),
            "paths": _paths(imports),
            "readable": _readable(imports),
            "socket": theirs.fileno(),
        }
        with tempfile.TemporaryFile() as said, Path(os.devnull).open("r+b") as nothing:
            self._process = subprocess.Popen(
                [*interpreter(), _MAIN, json.dumps(config)],
                env=_ENVIRONMENT,
                stdin=nothing,
                stdout=nothing,
                stderr=said,
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
                cwd="/",
            )
            theirs.close()
            try:
                self._receive(time.monotonic() + _START_S)
            except ServerDiedError:
                self.kill()
                said.seek(0)
                reason = said.read().decode("utf-8", "replace").strip().rpartition("\n")[2]
                raise ConfigError(
                    f"the sandbox does not start at level {level}: {reason or 'no reason given'}"
                ) from None

    @property
    def pid(self) -> int:
        """Of the process that was started."""
        return self._process.pid

    def ask(self, request: dict[str, Any], timeout_s: float) -> dict[str, Any]:
        """Runs a program.

        Raises:
            ServerDiedError: There is no answer in time, or none at all. The server is dead then.
        """
        content = json.dumps(request).encode()
        try:
            self._socket.settimeout(timeout_s)
            self._socket.sendall(_LENGTH.pack(len(content)) + content)
            return self._receive(time.monotonic() + timeout_s)
        except (OSError, ServerDiedError) as error:
            self.kill()
            raise ServerDiedError(str(error)) from None

    def close(self) -> None:
        """Lets it end; it does when we hang up."""
        self._socket.close()
        try:
            self._process.wait(5.0)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """Ends it and what it started."""
        self._socket.close()
        self._process.kill()
        self._process.wait()

    def _receive(self, until: float) -> dict[str, Any]:
        (size,) = _LENGTH.unpack(self._exactly(_LENGTH.size, until))
        if size > _LARGEST:
            raise ServerDiedError("an answer of nonsense")
        try:
            return cast("dict[str, Any]", json.loads(self._exactly(size, until)))
        except ValueError as error:
            raise ServerDiedError(f"an answer of nonsense: {error}") from None

    def _exactly(self, size: int, until: float) -> bytes:
        parts = bytearray()
        while len(parts) < size:
            self._socket.settimeout(max(until - time.monotonic(), 0.001))
            try:
                data = self._socket.recv(min(size - len(parts), 1 << 20))
            except OSError as error:
                raise ServerDiedError(f"no answer: {error}") from None
            if not data:
                raise ServerDiedError("it ended")
            parts += data
        return bytes(parts)


def _paths(imports: Sequence[str]) -> list[str]:
    """Where modules that are not Python's own come from; none if there are none."""
    own = sys.stdlib_module_names
    if all(name.partition(".")[0] in own for name in imports):
        return []
    paths = sysconfig.get_paths()
    return list(dict.fromkeys([paths["purelib"], paths["platlib"]]))


def _readable(imports: Sequence[str]) -> list[str]:
    """Trees that a confined program may read: libraries, and time zones."""
    system = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/etc/ld.so.cache", "/usr/share/zoneinfo")
    return list(dict.fromkeys([sysconfig.get_path("stdlib"), *system, *_paths(imports)]))
