"""What a training run leaves behind of each step: metrics, records, rollouts, times.

    with StepLog(run, out) as log:
        log.begin(offset)
        with log.timed("generate"):
            ...
        log.step(step, metrics, data)

Only the first process has a run and a folder; in the others a log takes times and writes nothing.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from pydantic import JsonValue

from papercore.records import Record, read_lines
from papercore.runs import Run
from r3.dump import FILE, Dumped, DumpWriter, truncate

__all__ = ["StepLog"]


class StepLog:
    """Writes a run folder step by step; a step that is there already is not written again."""

    def __init__(self, run: Run | None, out: Path | None) -> None:
        """Opens nothing yet.

        Args:
            run: The open run folder.
            out: Where the dump of rollouts goes; None writes none.
        """
        self._run, self._out = run, out
        lines = [] if run is None else read_lines(run.folder / "metrics.jsonl")
        self._logged = {line.get("step") for line in lines}
        self._dump: DumpWriter | None = None
        self._spent: dict[str, float] = {}

    def begin(self, offset: int) -> None:
        """Opens the dump of rollouts, without what a killed session wrote after its checkpoint."""
        if self._out is not None:
            truncate(self._out / FILE, offset)
            self._dump = DumpWriter(self._out / FILE)

    @property
    def offset(self) -> int:
        """Bytes of the dump; for the checkpoint."""
        return 0 if self._dump is None else self._dump.offset

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Adds a block to the time of the step, and to the run's."""
        started = time.perf_counter()
        try:
            if self._run is None:
                yield
            else:
                with self._run.timed(name):
                    yield
        finally:
            self._spent[name] = self._spent.get(name, 0.0) + time.perf_counter() - started

    def times(self, parts: Collection[str] | None = None) -> dict[str, float]:
        """Seconds of each part since this was last asked, as `<part>_s`.

        Args:
            parts: Only these.
        """
        found, self._spent = self._spent, {}
        return {
            f"{name}_s": round(seconds, 4)
            for name, seconds in found.items()
            if parts is None or name in parts
        }

    def step(
        self, step: int, metrics: Mapping[str, float], data: Mapping[str, JsonValue], *, tokens: int
    ) -> None:
        """Writes the metrics and the record of a step."""
        if self._run is None:
            return
        if step not in self._logged:  # its times differ from those of a killed session
            self._run.log(step, **metrics)
        self._run.count(tokens=tokens)
        self._append(Record(id=f"step/{step}", data=dict(data)))

    def failed(self, step: int, errors: Mapping[str, int]) -> None:
        """Notes rollouts that have no reward."""
        if errors and self._run is not None:
            first = next(iter(errors))
            reasons: dict[str, JsonValue] = {**errors}
            data: dict[str, JsonValue] = {"step": step, "reasons": reasons}
            self._append(Record(id=f"excluded/{step}", status="error", error=first, data=data))

    def look(self, step: int, correct: Sequence[bool]) -> None:
        """Notes which dev questions were solved after a step."""
        marks: list[JsonValue] = [int(one) for one in correct]
        self._append(Record(id=f"dev/{step}", data={"step": step, "correct": marks}))

    def dump(self, step: int, rows: Iterable[Dumped]) -> None:
        """Writes rollouts."""
        if self._dump is not None:
            self._dump.append(step, rows)

    def note(self, **facts: str | float | bool | None) -> None:
        """Puts facts into `env.json`."""
        if self._run is not None:
            self._run.note(**facts)

    def _append(self, record: Record) -> None:
        if self._run is not None and record.id not in self._run.done:
            self._run.append(record)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._dump is not None:
            self._dump.close()
