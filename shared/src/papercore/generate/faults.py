"""What can go wrong with an endpoint, and what follows: try again, give up, or stop altogether.

    fault = fault_of(error, redact=redact, now=clock.wall)
    wait_s = backoff(attempt, fault, random)

Later is worth a try after 408, 409, 425, 429, 5xx, time-outs, broken connections and replies that
are not whole. A wrong key, model or address is not.
"""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Protocol

from papercore.generate.types import ErrorKind

__all__ = ["Breaker", "Clock", "Fault", "Pace", "SystemClock", "backoff", "fault_of"]

FIRST_WAIT_S = 1.0
"""Longest wait before the second attempt; it doubles with each further one."""
LONGEST_WAIT_S = 60.0
"""Longest wait before any attempt, also if the endpoint asks for more."""

_LATER = frozenset({408, 409, 425, 429})
_REFUSED = frozenset({401, 403, 404, 405, 410})


class Clock(Protocol):
    """Time, so that tests can have their own."""

    def now(self) -> float:
        """Seconds that only grow."""
        ...

    def wall(self) -> datetime:
        """The time of day, in UTC."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Waits."""
        ...


class SystemClock:
    """The machine's own time."""

    def now(self) -> float:
        """Seconds that only grow."""
        return time.monotonic()

    def wall(self) -> datetime:
        """The time of day, in UTC."""
        return datetime.now(UTC)

    async def sleep(self, seconds: float) -> None:
        """Waits."""
        await asyncio.sleep(seconds)


@dataclass(frozen=True)
class Fault:
    """Why an attempt failed.

    Attributes:
        again: Whether later is worth a try.
        paid: Whether the endpoint may have done the work.
        everywhere: Whether no other request can fare better.
        wait_s: What the endpoint asks to wait.
    """

    kind: ErrorKind
    problem: str
    again: bool = False
    paid: bool = False
    everywhere: bool = False
    wait_s: float | None = None


class Breaker:
    """Opens when an endpoint has failed so often that sending more makes no sense.

    One refusal of key, model or address before any success opens it at once.
    """

    def __init__(self, give_up_after: int) -> None:
        self._limit = give_up_after
        self._in_a_row = 0
        self._succeeded = False
        self._lock = threading.Lock()
        self.problem: str | None = None
        """Why it is open, if it is."""

    def close(self) -> None:
        """Gives the endpoint another chance; what failed before still counts."""
        with self._lock:
            self.problem = None

    def success(self) -> None:
        """The endpoint answered."""
        with self._lock:
            self._in_a_row = 0
            self._succeeded = True

    def failure(self, fault: Fault) -> None:
        """A request failed for good; one that is bad in itself says nothing about the endpoint."""
        if fault.kind not in ("refused", "transport"):
            return
        with self._lock:
            self._in_a_row += 1
            at_once = fault.everywhere and not self._succeeded
            if self.problem is None and (at_once or self._in_a_row >= self._limit):
                self.problem = fault.problem


class Pace:
    """Spreads attempts over time: a limit per minute, and pauses that the endpoint asks for."""

    def __init__(self, clock: Clock, requests_per_minute: float | None) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._interval_s = 60.0 / requests_per_minute if requests_per_minute else 0.0
        self._next = clock.now()

    async def turn(self) -> None:
        """Waits until the next attempt may be made."""
        with self._lock:
            now = self._clock.now()
            start = max(now, self._next)
            self._next = start + self._interval_s
        if start > now:
            await self._clock.sleep(start - now)

    def pause(self, seconds: float) -> None:
        """Holds back all attempts that have not had their turn."""
        with self._lock:
            self._next = max(self._next, self._clock.now() + seconds)


def backoff(attempt: int, fault: Fault, dice: random.Random) -> float:
    """Seconds until the next attempt: what the endpoint asks, plus full jitter that doubles.

    Args:
        attempt: Attempts made so far, from 1.
    """
    jitter = dice.uniform(0, min(LONGEST_WAIT_S, FIRST_WAIT_S * 2 ** (attempt - 1)))
    return min(LONGEST_WAIT_S, jitter if fault.wait_s is None else fault.wait_s + jitter)


def fault_of(
    error: Exception, *, model: str, redact: Callable[[str], str], now: datetime
) -> Fault | None:
    """The fault behind an exception of the client; None if it is none of them.

    Args:
        model: The name that was asked for: a complaint about it holds for all requests.
        redact: Takes secrets out of a text.
        now: The time of day, for a Retry-After that is a date.
    """
    import openai

    if isinstance(error, TimeoutError | openai.APITimeoutError):
        return Fault("transport", "no reply in time", again=True, paid=not _unsent(error))
    if isinstance(error, openai.APIStatusError):
        headers = error.response.headers
        fault = _of_status(error.status_code, _told(error, redact), headers, now, error.body)
        if fault.kind == "input" and _complains_of(model, error.body):
            return replace(fault, kind="refused", everywhere=True)
        return fault
    if isinstance(error, openai.APIConnectionError):
        cause = error.__cause__ or error
        problem = f"the connection failed: {type(cause).__name__}: {_line(redact(str(cause)))}"
        return Fault("transport", problem.rstrip(": "), again=True, paid=not _unsent(error))
    if isinstance(error, ValueError):  # raised by `read_reply`
        return Fault("transport", _line(redact(str(error))), again=True, paid=True)
    if isinstance(error, openai.OpenAIError):
        return Fault("transport", f"{type(error).__name__}: {_line(redact(str(error)))}", paid=True)
    return None


def retry_after(headers: Mapping[str, str], now: datetime) -> float | None:
    """Seconds that a reply asks to wait, from a number or a date."""
    told = headers.get("retry-after", "").strip()
    if not told:
        return None
    try:
        return max(0.0, float(told)) if told.lower() not in ("nan", "inf") else None
    except ValueError:
        pass
    try:
        date = parsedate_to_datetime(told)
    except ValueError:
        return None
    aware = date if date.tzinfo else date.replace(tzinfo=UTC)
    return max(0.0, (aware - now).total_seconds())


def _of_status(
    status: int, told: str, headers: Mapping[str, str], now: datetime, body: object
) -> Fault:
    problem = f"the endpoint answered {status}: {told}"
    code = body.get("code") if isinstance(body, Mapping) else None
    if code == "insufficient_quota":  # comes with 429, but no waiting helps
        return Fault("refused", problem, everywhere=True)
    if status in _LATER or status >= 500:
        return Fault("transport", problem, again=True, wait_s=retry_after(headers, now))
    if status in _REFUSED or status < 400:
        # A 403 may be about one text, after moderation; the others are about key, model or address.
        return Fault("refused", problem, everywhere=status != 403)
    return Fault("input", problem)


def _complains_of(model: str, body: object) -> bool:
    """Whether an error is about the name of the model."""
    if not isinstance(body, Mapping):
        return False
    told = str(body.get("message") or body.get("detail"))
    return body.get("param") == "model" or any(q + model + q in told for q in "'\"`")


def _unsent(error: Exception) -> bool:
    """Whether no connection came about, so that nothing can have been paid for."""
    cause = type(error.__cause__ or error).__name__
    return cause in ("ConnectError", "ConnectTimeout", "PoolTimeout", "UnsupportedProtocol")


def _told(error: Exception, redact: Callable[[str], str]) -> str:
    body = getattr(error, "body", None)
    message = body
    if isinstance(body, Mapping):
        message = body.get("message") or body.get("detail") or body
    return _line(redact(str(message or error)))


def _line(text: str, width: int = 300) -> str:
    line = " ".join(text.split())
    return line if len(line) <= width else f"{line[:width]}..."
