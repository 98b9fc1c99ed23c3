"""A running program, seen from outside: what it says, how long it takes, how it ends.

child = Child(request, 0, layers, hangup=3)
child.follow(found)
"""

from __future__ import annotations

import fcntl
import gc
import json
import math
import os
import select
import signal
import time
from typing import Any, Final

from . import kernel, seccomp
from .child import HEADER, run

__all__ = ["Child"]

_SLACK_BYTES = 65536
"""What a frame may have beyond output (up to 6 letters each), places and hits: the message."""
_OPEN_FILES, _PROCESSES = 4096, 64
_BROKEN: Final = 99
"""Exit code of a child that failed before the program ran."""
_ENDING_S = 1
"""How long a process may take to die after its pipe is closed."""
_TICK_S, _LONGEST_TICK_S = 0.002, 0.05
"""How often CPU time is looked at: at first, and later."""


class Child:
    """A running program, seen from outside."""

    def __init__(
        self, request: dict[str, Any], first: int, layers: set[str], *, hangup: int
    ) -> None:
        """Starts a child on the tests from one on.

        Args:
            request: As the parent sent it.
            layers: How the child is confined.
            hangup: Socket to the parent; when it hangs up, nobody wants the result.
        """
        self._request, self._hangup = request, hangup
        self._nonce = bytes.fromhex(request["nonce"])
        self._most = 8 * request["output"] + 16 * len(request["code"]) + _SLACK_BYTES
        stdin, stdout = os.memfd_create("stdin"), os.memfd_create("stdout")
        self._pipe, pipe = os.pipe()
        os.set_blocking(self._pipe, False)
        self._pid = os.fork()
        if self._pid == 0:
            try:
                _confine(request, layers, (stdin, stdout, pipe))
                run(request, first, pipe=5, stdin=3, stdout=4)
            finally:
                os._exit(_BROKEN)
        for one in (stdin, stdout, pipe):
            os.close(one)
        self._pidfd = os.pidfd_open(self._pid)
        self._clock = (~self._pid << 3) | 2  # the CPU clock of a process, as libc computes it
        self._buffer = bytearray()
        self._compiling, self._foreign = True, False
        self._limit = request["compile_cpu_s"]  # of what it does now, and since when
        self._since, self._wall = 0.0, time.monotonic()

    def follow(self, found: dict[str, Any]) -> None:
        """Reads frames until the program is done or must be killed; adds what it did.

        It wakes when the process dies, and now and then to read and to look at the time: a wake-up
        for each frame would cost more than most tests.
        """
        poll, hangup = select.poll(), select.poll()
        poll.register(self._pidfd, select.POLLIN)
        hangup.register(self._hangup, select.POLLIN | select.POLLHUP)
        before, tick, reason = found["cpu_s"], _TICK_S, None
        while reason is None and not self._is_done(found):
            died = bool(poll.poll(tick * 1000))
            now, used = time.monotonic(), self._cpu_s()
            had = len(found["tests"])
            reason = self._take(found, used, now, died=died)
            tick = _TICK_S if len(found["tests"]) > had else min(2 * tick, _LONGEST_TICK_S)
            if hangup.poll(0):
                self._kill()
                os._exit(0)
            if reason is None and not self._is_done(found):
                reason = self._late(before, used, now)
        self._finish(found, reason)

    def _is_done(self, found: dict[str, Any]) -> bool:
        return "failed" in found or len(found["tests"]) >= len(self._request["tests"])

    def _late(self, before: float, used: float, now: float) -> str | None:
        """Whether its time is up, and which one."""
        if used - self._since > self._limit or before + used > self._request["total_cpu_s"]:
            return "timeout"
        return "wall" if now - self._wall > self._request["wall_s"] else None

    def _take(self, found: dict[str, Any], used: float, now: float, *, died: bool) -> str | None:
        """Takes what the pipe holds; why nothing more is to be expected."""
        ended = self._read(died=died)
        for frame in self._frames():
            if self._compiling:
                self._compiling = False
                if "failed" in frame:
                    found["failed"] = frame
                    break
                found["places"] = _places(frame)
            else:
                one = _trusted(frame, used - self._since, self._limit, self._request["output"])
                found["tests"].append(one)
                found["hits"] = _merged(found["hits"], frame.get("hits"))
            self._since, self._wall, self._limit = used, now, self._request["cpu_s"]
            if self._is_done(found):
                break
        return "flood" if self._foreign else ended

    def _finish(self, found: dict[str, Any], reason: str | None) -> None:
        self._kill()
        _, status, usage = os.wait4(self._pid, 0)
        os.close(self._pipe)
        os.close(self._pidfd)
        found["cpu_s"] += usage.ru_utime + usage.ru_stime
        found["memory"] = max(found["memory"], usage.ru_maxrss * 1024)
        if self._is_done(found):
            return
        failure = _failure(reason, os.waitstatus_to_exitcode(status), started=not self._compiling)
        if self._compiling:
            found["failed"] = {"failed": failure["outcome"], "error": failure["error"]}
        else:
            found["tests"].append(failure)

    def _cpu_s(self) -> float:
        try:
            return time.clock_gettime(self._clock)
        except OSError:  # it is dead
            return 0.0

    def _kill(self) -> None:
        try:
            os.killpg(self._pid, signal.SIGKILL)
        except OSError:
            os.kill(self._pid, signal.SIGKILL)

    def _read(self, *, died: bool) -> str | None:
        """Takes what is in the pipe; why that is all, or too much."""
        while len(self._buffer) <= self._most:
            try:
                data = os.read(self._pipe, 1 << 16)
            except BlockingIOError:
                return "ended" if died else None
            if not data:
                ending = select.poll()
                ending.register(self._pidfd, select.POLLIN)
                return "ended" if died or ending.poll(1000 * _ENDING_S) else "hung up"
            self._buffer += data
        return "flood"

    def _frames(self) -> list[dict[str, Any]]:
        found = []
        while len(self._buffer) >= HEADER.size:
            nonce, length = HEADER.unpack_from(self._buffer)
            if nonce != self._nonce:
                self._foreign = True
                break
            if len(self._buffer) < HEADER.size + length:
                break
            content = bytes(self._buffer[HEADER.size : HEADER.size + length])
            del self._buffer[: HEADER.size + length]
            try:
                frame = json.loads(content)
            except (ValueError, RecursionError):
                frame = None
            if not isinstance(frame, dict):
                self._foreign = True
                break
            found.append(frame)
        return found


def _confine(request: dict[str, Any], layers: set[str], files: tuple[int, int, int]) -> None:
    """Makes this process one that can compute and nothing else; files become 3, 4 and 5."""
    tests = request["tests"]
    os.setsid()
    kernel.die_with_parent()
    high = [fcntl.fcntl(one, fcntl.F_DUPFD, 64) for one in files]
    os.closerange(3, 64)
    for number, one in enumerate(high, 3):
        os.dup2(one, number)
    os.closerange(6, 4096)
    os.dup2(0, 1)  # the fork server's own input is /dev/null
    os.dup2(0, 2)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    kernel.limit_resources(
        cpu_s=math.ceil(request["total_cpu_s"] + request["compile_cpu_s"]) + 1,
        memory=request["memory"],
        file_bytes=max(request["output"], *(_size(test["stdin"]) for test in tests)) + 1,
        open_files=_OPEN_FILES,
        processes=None if "seccomp" in layers else _PROCESSES,
    )
    if "seccomp" in layers:
        seccomp.restrict_calls(files="landlock" in layers)
    gc.enable()


def _size(text: str) -> int:
    return len(text.encode("utf-8", "surrogateescape"))


def _places(frame: dict[str, Any]) -> list[list[int]]:
    """Places of statements, if that is what the frame holds."""
    found = frame.get("compiled")
    if not isinstance(found, list):
        return []
    good = all(
        isinstance(one, list) and len(one) == 4 and all(type(number) is int for number in one)
        for one in found
    )
    return found if good else []


def _trusted(
    frame: dict[str, Any], used_s: float, limit_s: float, most_bytes: int
) -> dict[str, Any]:
    """What a child says of a test, with types that are checked and the time that it took."""
    outcome = frame.get("outcome")
    if outcome not in ("ok", "runtime", "memory", "output"):
        outcome = "runtime"
    own = frame.get("cpu_s")  # finer than ours, which is from one look to the next
    known = isinstance(own, float) and 0 <= own < math.inf
    found: dict[str, Any] = {"outcome": outcome, "cpu_s": own if known else max(used_s, 0.0)}
    for name in ("stdout", "value", "error"):
        if isinstance(frame.get(name), str):
            found[name] = frame[name]
    if len(found.get("value", "")) > most_bytes:  # forged, to keep whoever reads it busy
        del found["value"]
    if type(frame.get("line")) is int:
        found["line"] = frame["line"]
    if found["cpu_s"] > limit_s:
        found["outcome"] = "timeout"
    return found


def _merged(hits: str, more: object) -> str:
    """Statements that ran in any test: both as hexadecimal bytes."""
    if not isinstance(more, str):
        return hits
    try:
        first, second = bytes.fromhex(hits), bytes.fromhex(more)
    except ValueError:
        return hits
    if not first:
        return more
    if len(first) != len(second):
        return hits
    both = int.from_bytes(first, "big") | int.from_bytes(second, "big")
    return both.to_bytes(len(first), "big").hex()


def _failure(reason: str | None, exit_code: int, *, started: bool) -> dict[str, Any]:
    """What a test came to whose process ended, or was ended, before it was done."""
    if reason == "timeout" or exit_code == -signal.SIGXCPU:
        return {"outcome": "timeout", "error": "its CPU time is up"}
    if reason == "wall":
        return {"outcome": "timeout", "error": "it waited for too long"}
    if reason == "flood":
        return {"outcome": "output", "error": "it wrote into the pipe of results"}
    if reason == "hung up":
        return {"outcome": "runtime", "error": "it closed the pipe of results"}
    if exit_code == -signal.SIGKILL:
        return {"outcome": "memory", "error": "the system killed it, most likely for its memory"}
    if exit_code == _BROKEN and not started:
        return {"outcome": "infra", "error": "its process could not be set up"}
    if exit_code < 0:
        known = {one.value: one.name for one in signal.Signals}  # some of real time have no name
        name = known.get(-exit_code, f"signal {-exit_code}")
        return {"outcome": "runtime", "error": f"killed by {name}"}
    return {"outcome": "runtime", "error": f"it ended itself with exit code {exit_code}"}
