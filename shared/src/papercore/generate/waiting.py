"""Waiting for a coroutine from code that is not asynchronous.

completions = run(lambda: generate(requests))
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

__all__ = ["run"]

T = TypeVar("T")

_LOOK_S = 0.1
"""How often a caller that is itself a task looks whether it was cancelled."""


def run(work: Callable[[], Coroutine[object, object, T]]) -> T:
    """The result of a coroutine, also where an event loop is already running (in a notebook).

    An interrupt cancels the coroutine and lets it clean up.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work())
    started: list[tuple[asyncio.AbstractEventLoop, asyncio.Task[T]]] = []

    async def noted() -> T:
        task = asyncio.ensure_future(work())
        started.append((asyncio.get_running_loop(), task))
        return await task

    with ThreadPoolExecutor(1, "papercore-endpoint") as pool:
        future = pool.submit(asyncio.run, noted())
        try:
            return _wait(future)
        except BaseException:
            for loop, task in started:
                if not loop.is_closed():
                    loop.call_soon_threadsafe(task.cancel)
            raise


def _wait(future: Future[T]) -> T:
    """The result, unless the task that waits is cancelled: `asyncio.run` turns Ctrl-C into that."""
    caller = asyncio.current_task()
    while True:
        if caller is not None and caller.cancelling():
            raise asyncio.CancelledError
        try:
            return future.result(timeout=_LOOK_S)
        except TimeoutError:
            if future.done():
                raise
