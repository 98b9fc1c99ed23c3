"""Records: one line of JSON per example, appended as it is done and never changed.

    with RecordWriter(folder / "records.jsonl") as writer:
        writer.append(Record(id="q1", data={"correct": True}))
    records = read_records(folder / "records.jsonl")

The file is strictly valid JSON: numbers that JSON lacks are written as `{"$float": "nan"}` (or
`"inf"`, `"-inf"`) and come back as floats. A process that dies leaves at most one torn line, the
last.
"""

from __future__ import annotations

import json
import logging
import math
import os
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from pydantic import Field, JsonValue, ValidationError, model_validator

from papercore.config import Config, one_line
from papercore.errors import DataError
from papercore.files import writing

__all__ = [
    "Record",
    "RecordWriter",
    "count_by_status",
    "decode",
    "encode",
    "read_lines",
    "read_records",
]

logger = logging.getLogger(__name__)

FLOAT_TAG = "$float"
"""The key of the object that stands for a float that JSON lacks."""


class Record(Config):
    """What happened to one example."""

    id: str
    """Unique within the run."""
    status: Literal["ok", "error", "skipped"] = "ok"
    error: str | None = None
    """Why it failed or was skipped."""
    data: dict[str, JsonValue] = Field(default_factory=dict)
    """Everything that the summary needs."""

    @model_validator(mode="after")
    def _error_says_why(self) -> Record:
        if self.status == "error" and not self.error:
            raise ValueError(f"record {self.id!r} has status 'error' but does not say why")
        return self


class RecordWriter:
    """Appends JSON lines; every line is handed to the system at once and synced in batches."""

    def __init__(self, path: Path, *, batch: int = 32, interval_s: float = 1.0) -> None:
        """Open a file for appending; a torn last line is cut off first.

        Args:
            path: The file; it is made if it does not exist.
            batch: Sync to disk after so many lines,
            interval_s: or with the first line after so many seconds.
        """
        self._path = path
        self._batch = batch
        self._interval_s = interval_s
        self._unsynced = 0
        self._synced_at = time.monotonic()
        _cut_torn_line(path)
        self._file = path.open("ab")

    def append(self, record: Record) -> None:
        """Write one record."""
        self.append_line(record.model_dump())

    def append_line(self, line: Mapping[str, object]) -> None:
        """Write one JSON object.

        Raises:
            DataError: It cannot be written as JSON, or not at all.
        """
        content = encode(line).encode() + b"\n"
        with writing(self._path):
            self._file.write(content)
            self._file.flush()
            self._unsynced += 1
            waited = time.monotonic() - self._synced_at
            if self._unsynced >= self._batch or waited >= self._interval_s:
                self.sync()

    def sync(self) -> None:
        """Force what was written onto the disk."""
        os.fsync(self._file.fileno())
        self._unsynced = 0
        self._synced_at = time.monotonic()

    def close(self) -> None:
        """Sync and close; a second call does nothing."""
        if not self._file.closed:
            with writing(self._path):
                self.sync()
                self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def read_records(path: Path) -> list[Record]:
    """All records of a file, in order; a missing file has none.

    A record of an example that was tried again stands where the failure stood that it supersedes.

    Raises:
        DataError: A line is not a record, or an id occurs again after a record that is no error.
    """
    records: list[Record] = []
    places: dict[str, int] = {}
    for number, line in enumerate(read_lines(path), 1):
        try:
            record = Record.model_validate(line)
        except ValidationError as error:
            raise DataError(f"{path}:{number}: is not a record: {one_line(error)}") from None
        place = places.setdefault(record.id, len(records))
        if place == len(records):
            records.append(record)
        elif records[place].status == "error":
            records[place] = record
        else:
            raise DataError(f"{path}:{number}: the id {record.id!r} occurs twice")
    return records


def read_lines(path: Path) -> list[dict[str, object]]:
    """The JSON objects of a file, in order, without a torn last line.

    Raises:
        DataError: A line that is not the last is not a JSON object.
    """
    if not path.exists():
        return []
    whole, torn = _split_torn(path.read_bytes())
    if torn:
        logger.warning("%s: dropped a torn last line of %d bytes", path, len(torn))
    return [_parse(path, number, line) for number, line in enumerate(whole.splitlines(), 1)]


def encode(value: Mapping[str, object]) -> str:
    """One line of strict JSON.

    Raises:
        DataError: Something in it has no place in JSON, or uses the reserved key `$float`.
    """
    try:
        return json.dumps(_tag(value), ensure_ascii=True, allow_nan=False)
    except TypeError as error:
        raise DataError(f"cannot be written as JSON: {error}") from None


def decode(text: str | bytes) -> object:
    """The value of a line that `encode` wrote.

    Raises:
        ValueError: It is not strict JSON.
    """
    return json.loads(text, object_hook=_untag, parse_constant=_refuse_constant)


def _tag(value: object) -> object:
    if isinstance(value, float) and not math.isfinite(value):
        return {FLOAT_TAG: str(float(value))}
    if isinstance(value, Mapping):
        if FLOAT_TAG in value:
            raise DataError(f"the key {FLOAT_TAG!r} is reserved: rename it")
        return {str(key): _tag(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_tag(item) for item in value]
    return value


def _untag(item: dict[str, object]) -> object:
    tagged = item.get(FLOAT_TAG)
    return float(tagged) if isinstance(tagged, str) and len(item) == 1 else item


def _refuse_constant(name: str) -> object:
    raise ValueError(f"{name} is not JSON")


def _parse(path: Path, number: int, line: bytes) -> dict[str, object]:
    try:
        value = decode(line)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        shown = line[:40].decode(errors="replace")
        raise DataError(
            f"{path}:{number}: is not a JSON object: {shown!r}; restore the line or delete it"
        )
    return value


def _split_torn(content: bytes) -> tuple[bytes, bytes]:
    """Whole lines, and what follows the last newline."""
    end = content.rfind(b"\n") + 1
    return content[:end], content[end:]


def _cut_torn_line(path: Path) -> None:
    if not path.exists():
        return
    whole, torn = _split_torn(path.read_bytes())
    if torn:
        logger.warning("%s: cut off a torn last line of %d bytes", path, len(torn))
        os.truncate(path, len(whole))


def count_by_status(records: Iterable[Record]) -> dict[str, int]:
    """How many records are ok, failed and skipped."""
    counts = {"ok": 0, "error": 0, "skipped": 0}
    for record in records:
        counts[record.status] += 1
    return counts
