"""Logging for the command line, and progress that is readable on a terminal and in a file.

Only the CLI calls `setup`; everything else does `logging.getLogger(__name__)`.

    for example in progress(examples, "reading"):
        ...
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterable, Iterator, Sized
from typing import TypeVar

__all__ = ["progress", "setup"]

T = TypeVar("T")

PLAIN_INTERVAL_S = 5.0
"""Seconds between two lines of progress when there is no terminal."""


def setup(*, debug: bool = False) -> None:
    """Send log lines to stderr: warnings, or everything of ours with `debug`."""
    handler = _Stderr()
    handler.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))
    root = logging.getLogger()
    root.handlers[:] = [h for h in root.handlers if not isinstance(h, _Stderr)] + [handler]
    root.setLevel(logging.DEBUG if debug else logging.WARNING)
    for noisy in ("matplotlib", "PIL", "urllib3", "httpx", "httpcore", "filelock", "asyncio"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


def progress(
    items: Iterable[T], description: str, *, total: int | None = None, done: int = 0
) -> Iterator[T]:
    """Hand on `items` while showing on stderr how far it is.

    On a terminal this is a bar with the time left, else a plain line every few seconds, so that a
    short loop leaves no line at all in a file.

    Args:
        items: What to go through.
        description: What is being done, in one or two words.
        total: How many there are, if `items` has no length.
        done: How many were done before, by a session that this one goes on with; shown as done,
            and part of `total`.
    """
    if total is None and isinstance(items, Sized):
        total = done + len(items)
    if sys.stderr.isatty():
        return _bar(items, description, total, done)
    return _lines(items, description, total, done)


class _Stderr(logging.Handler):
    """Writes to whatever stderr is at that moment, so that it outlives a redirection."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            sys.stderr.write(f"{self.format(record)}\n")
        except (OSError, ValueError):  # stderr is gone
            self.handleError(record)


def _bar(items: Iterable[T], description: str, total: int | None, done: int) -> Iterator[T]:
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    yield from track(
        items, description, total=total, completed=done, console=console, transient=True
    )


def _lines(items: Iterable[T], description: str, total: int | None, before: int) -> Iterator[T]:
    start = shown = time.monotonic()
    for count, item in enumerate(items):
        now = time.monotonic()
        if now - shown >= PLAIN_INTERVAL_S:
            sys.stderr.write(_line(description, before, count, total, now - start) + "\n")
            sys.stderr.flush()
            shown = now
        yield item


def _line(description: str, before: int, count: int, total: int | None, elapsed_s: float) -> str:
    done = before + count
    if total is None:
        return f"{description}: {done} done, {elapsed_s:.0f} s"
    left = f", {elapsed_s / count * (total - done):.0f} s left" if count else ""
    return f"{description}: {done}/{total}, {elapsed_s:.0f} s{left}"
