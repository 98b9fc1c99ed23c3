"""The sandbox itself: as many fork servers as workers, programs in, results out.

with Sandbox(level="landlock", workers=2, imports=("numpy",)) as sandbox:
for result in sandbox.run_all(programs): ...
"""

from __future__ import annotations

import logging
import os
import queue
import secrets
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from types import TracebackType
from typing import Any, Final, Self

from papercore.errors import ConfigError, DataError
from papercore.sandbox.compare import same_text, same_value
from papercore.sandbox.inside.plain import NotPlainError, dumps, loads
from papercore.sandbox.levels import Level, Probe, at_least, probe
from papercore.sandbox.server import Server, ServerDiedError
from papercore.sandbox.types import (
    CallTest,
    Coverage,
    Limits,
    Outcome,
    Program,
    RunResult,
    Statement,
    StdinTest,
    TestResult,
)

__all__ = ["COMPILE_CPU_S", "PRELOADED", "Sandbox"]

logger = logging.getLogger(__name__)

PRELOADED: Final = (
    *("array", "bisect", "cmath", "collections", "contextlib", "copy", "dataclasses", "datetime"),
    *("decimal", "enum", "fractions", "functools", "heapq", "io", "itertools", "json", "math"),
    *("numbers", "operator", "queue", "random", "re", "statistics", "string", "textwrap"),
    *("threading", "time", "typing"),
)
"""Modules of the standard library that programs often import; at level `seccomp` the only ones."""

COMPILE_CPU_S: Final = 10.0
"""CPU seconds that compiling may take, besides the limits of tests."""

_GRACE_S: Final = 10.0
"""How much longer than its own limits a fork server may take to answer."""


class Sandbox:
    """Runs programs, several at a time; may be used from several threads.

    Args:
        level: The weakest confinement that will do; the strongest one that this machine grants up
            to `namespaces` is not taken, but this one.
        workers: Fork servers, each of which runs one program at a time; None is one per core.
        imports: Modules that are imported before programs run, besides `PRELOADED`.
        limits: Of every program.
        unsafe_exec: Run at the strongest level there is if the machine does not grant `level`.

    Raises:
        ConfigError: The machine does not grant the level, or the fork server does not start.
    """

    def __init__(
        self,
        *,
        level: Level = "landlock",
        workers: int | None = None,
        imports: Sequence[str] = (),
        limits: Limits | None = None,
        unsafe_exec: bool = False,
    ) -> None:
        if workers is not None and workers < 1:
            raise ConfigError(f"workers={workers} is no positive number")
        self.level: Level = _granted(probe(), level, unsafe_exec=unsafe_exec)
        self.limits = limits or Limits()
        self._imports = tuple(dict.fromkeys((*PRELOADED, *imports)))
        self._num = workers or len(os.sched_getaffinity(0))
        self._free: queue.SimpleQueue[Server | None] = queue.SimpleQueue()
        self._free.put(Server(self.level, self._imports))  # one at once, to fail early
        for _ in range(self._num - 1):
            self._free.put(None)
        self._threads = ThreadPoolExecutor(self._num, thread_name_prefix="sandbox")
        self._closed = False

    def run(self, program: Program) -> RunResult:
        """Runs a program on its tests, and compares.

        A fork server that dies is replaced; its program has outcome `infra` and should neither be
        rewarded nor punished.
        """
        if self._closed:
            raise ConfigError("the sandbox is closed")
        request = _request(program, self.limits)
        server = self._free.get()
        try:
            if self._closed:
                raise ConfigError("the sandbox is closed")
            if server is None:
                server = Server(self.level, self._imports)
            try:
                answer = server.ask(request, request["total_wall_s"] + _GRACE_S)
            except ServerDiedError as error:
                logger.warning("a fork server of the sandbox died (%s); it is replaced", error)
                server = None
                answer = {"failed": {"failed": "infra", "error": f"the fork server died: {error}"}}
        except BaseException:
            if server is not None:
                server.kill()
            server = None
            raise
        finally:
            self._free.put(server)
        return _result(program, answer, self.level)

    def run_all(self, programs: Iterable[Program]) -> Iterator[RunResult]:
        """Results in the order of programs, which may be endless: few are taken ahead."""
        left = iter(programs)
        waiting: queue.SimpleQueue[Future[RunResult]] = queue.SimpleQueue()
        for program in islice(left, 4 * self._num):
            waiting.put(self._threads.submit(self.run, program))
        while not waiting.empty():
            result = waiting.get().result()
            for program in islice(left, 1):
                waiting.put(self._threads.submit(self.run, program))
            yield result

    def close(self) -> None:
        """Waits for what runs, and ends the fork servers; a second call does nothing."""
        if self._closed:
            return
        self._closed = True
        self._threads.shutdown(cancel_futures=True)
        for _ in range(self._num):
            server = self._free.get()
            if server is not None:
                server.close()
        self._free.put(None)  # wakes whoever still waits for one, to be refused

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _granted(found: Probe, wanted: Level, *, unsafe_exec: bool) -> Level:
    if found.level is None:
        raise ConfigError(f"programs cannot be run here: {'; '.join(found.missing.values())}")
    if not at_least(found.level, wanted):
        missing = "; ".join(f"{name}: {said}" for name, said in found.missing.items())
        if not unsafe_exec:
            raise ConfigError(
                f"this machine does not confine programs at level {wanted}, only at {found.level} "
                f"({missing}); unsafe_exec runs them all the same"
            )
        logger.warning("programs run at level %s, not %s: %s", found.level, wanted, missing)
        return found.level
    if wanted == "rlimits" and not unsafe_exec:
        raise ConfigError("level rlimits stops accidents, not malice: it needs unsafe_exec")
    return wanted


def _request(program: Program, limits: Limits) -> dict[str, Any]:
    """What the fork server is asked; nothing in it says which answers are right."""
    tests: list[dict[str, object]] = []
    for test in program.tests:
        if isinstance(test, StdinTest):
            tests.append({"stdin": test.stdin})
        else:
            try:
                arguments = dumps(list(test.arguments), most_bytes=1 << 26)
            except NotPlainError as error:
                raise DataError(f"arguments of a test: {error}") from None
            tests.append({"stdin": test.stdin, "arguments": arguments})
    return {
        "nonce": secrets.token_hex(16),
        "kind": "call" if program.function is not None else "stdin",
        "code": program.code,
        "function": program.function,
        "tests": tests,
        "coverage": program.coverage,
        "output": limits.output_bytes,
        "memory": limits.memory_mib << 20,
        "cpu_s": limits.cpu_s,
        "total_cpu_s": limits.total_cpu_s,
        "compile_cpu_s": COMPILE_CPU_S,
        "wall_s": limits.wall_s,
        "total_wall_s": limits.wall_s * (len(tests) + 1),
    }


def _result(program: Program, answer: dict[str, Any], level: str) -> RunResult:
    failed = answer.get("failed")
    if failed is not None:
        outcome: Outcome = failed["failed"]
        error, line = failed.get("error"), failed.get("line")
        one = TestResult(outcome, None if outcome == "infra" else False, error=error, line=line)
        tests = (one,) * len(program.tests)
    else:
        asked: tuple[StdinTest | CallTest, ...] = program.tests
        tests = tuple(
            _test_result(program, test, found)
            for test, found in zip(asked, answer["tests"], strict=True)
        )
    return RunResult(
        tests=tests,
        cpu_s=answer.get("cpu_s", 0.0),
        peak_bytes=answer.get("memory", 0),
        level=level,
        coverage=_coverage(program, answer),
    )


def _test_result(program: Program, test: StdinTest | CallTest, found: dict[str, Any]) -> TestResult:
    outcome: Outcome = found["outcome"]
    stdout, error, value = found.get("stdout", ""), found.get("error"), None
    if outcome == "ok" and isinstance(test, CallTest):
        try:
            value = loads(found["value"])
        except (KeyError, ValueError, TypeError, RecursionError, AttributeError):
            outcome, error = "runtime", "it returned nothing that can be read"
    passed: bool | None = None
    if isinstance(test, StdinTest):
        if test.expected is not None:
            passed = outcome == "ok" and same_text(stdout, test.expected, program.comparison)
    elif test.asked:
        passed = outcome == "ok" and same_value(value, test.expected, program.comparison)
    if outcome == "infra":
        passed = None
    return TestResult(
        outcome=outcome,
        passed=passed,
        stdout=stdout,
        value=value,
        error=error,
        line=found.get("line"),
        cpu_s=found.get("cpu_s", 0.0),
    )


def _coverage(program: Program, answer: dict[str, Any]) -> Coverage | None:
    """What a program says of itself; nothing that it says is worse than all or nothing."""
    if not program.coverage or "failed" in answer:
        return None
    places = tuple(Statement(*place) for place in answer["places"])
    hits = bytes.fromhex(answer["hits"])
    if len(hits) != len(places):
        hits = bytes(len(places))
    return Coverage(places, tuple(bool(one) for one in hits))
