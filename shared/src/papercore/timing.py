"""Time, memory and tokens of a run, added up over its resumes and kept apart from its results.

The totals live in `timing.json`, which is rewritten every few seconds while the run makes progress,
so that a killed session loses no more than those. They also say whether the last session ended by
itself: one that was killed, interrupted or failed could not write that it did.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeAlias, cast

from papercore.files import read_json, write_json

__all__ = ["Timing", "has_ended", "peak_memory_gib", "timing_block"]

Clock: TypeAlias = tuple[float, float]
Phases: TypeAlias = dict[str, dict[str, float]]

SAVE_INTERVAL_S = 2.0
"""Seconds of progress that a killed session can lose from its timing."""


class Timing:
    """The clock of one run folder."""

    def __init__(self, path: Path) -> None:
        """Start a session; earlier sessions are read from `path` if it exists."""
        self._path = path
        before = read_json(path) if path.exists() else {}
        self._wall_s = _number(before, "wall_s")
        self._cpu_s = _number(before, "cpu_s")
        self._peak_gib = _number(before, "peak_memory_gib")
        self._sessions = int(_number(before, "sessions")) + 1
        self._phases: Phases = cast("Phases", before.get("phases", {}))
        self._counts: Counter[str] = Counter(cast("dict[str, int]", before.get("counts", {})))
        self._started = _now()
        self._open: list[tuple[str, Clock]] = []
        self.save()

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Add the wall and CPU seconds of a block to a named phase."""
        running = (name, _now())
        self._open.append(running)
        try:
            yield
        finally:
            self._open.remove(running)
            self._phases = _with_phase(self._phases, *running)
            self.save()

    def count(self, **amounts: int) -> None:
        """Add to named counts, such as `tokens`."""
        self._counts.update(amounts)

    def tick(self) -> None:
        """Write the totals so far, if that was not done lately."""
        if time.perf_counter() - self._saved_at >= SAVE_INTERVAL_S:
            self.save()

    def save(self) -> None:
        """Write the totals so far, unfinished phases included."""
        write_json(self._path, self._document())
        self._saved_at = time.perf_counter()

    def end(self) -> None:
        """Note that the session ended by itself; the totals stay as they were saved last."""
        write_json(self._path, {**read_json(self._path), "ended": True})

    def _document(self) -> dict[str, object]:
        wall_s, cpu_s = _now()
        phases = self._phases
        for running in self._open:
            phases = _with_phase(phases, *running)
        return {
            "wall_s": self._wall_s + wall_s - self._started[0],
            "cpu_s": self._cpu_s + cpu_s - self._started[1],
            "peak_memory_gib": max(self._peak_gib, peak_memory_gib()),
            "sessions": self._sessions,
            "ended": False,
            "phases": phases,
            "counts": dict(self._counts),
        }


def timing_block(path: Path) -> dict[str, object]:
    """The `timing` block of a summary: the stored totals, rounded, and tokens per second."""
    if not path.exists():
        return {}
    stored = read_json(path)
    block: dict[str, object] = {
        key: round(_number(stored, key), 3) for key in ("wall_s", "cpu_s", "peak_memory_gib")
    }
    block["sessions"] = stored.get("sessions", 1)
    phases = cast("Phases", stored.get("phases", {}))
    block["phases"] = {
        name: {key: round(seconds, 3) for key, seconds in spent.items()}
        for name, spent in phases.items()
    }
    counts = cast("dict[str, int]", stored.get("counts", {}))
    block["counts"] = counts
    wall_s = _number(stored, "wall_s")
    if "tokens" in counts and wall_s > 0:
        block["tokens_per_s"] = round(counts["tokens"] / wall_s, 1)
    return block


def has_ended(path: Path) -> bool:
    """Whether the last session ended by itself, as far as the stored totals tell."""
    return not path.exists() or read_json(path).get("ended") is not False


def peak_memory_gib() -> float:
    """The most memory that this process has held."""
    try:
        import resource
    except ImportError:  # Windows
        return 0.0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**30 if sys.platform == "darwin" else 2**20)


def _with_phase(phases: Phases, name: str, start: Clock) -> Phases:
    """The phases with the time since `start` added to one of them."""
    wall_s, cpu_s = _now()
    spent = phases.get(name, {"wall_s": 0.0, "cpu_s": 0.0})
    added = {
        "wall_s": spent["wall_s"] + wall_s - start[0],
        "cpu_s": spent["cpu_s"] + cpu_s - start[1],
    }
    return {**phases, name: added}


def _now() -> Clock:
    return time.perf_counter(), time.process_time()


def _number(document: dict[str, object], key: str) -> float:
    value = document.get(key, 0.0)
    return float(value) if isinstance(value, int | float) else 0.0
