"""Trajectories: an environment of tools, and a conversation that uses them.

    for row in read_rows(Path("trajectories.jsonl")):
        if row.trajectory is None:
            print(row.place, row.problem)          # line 12 conversations[3].value: ...

Files are JSON Lines or a JSON list, of any size: one row is in memory at a time. What a row looks
like is in `layouts`; rows of different layouts may stand in one file. Nothing in a row is trusted.
"""

from __future__ import annotations

import codecs
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal, NoReturn, TypeAlias

from pydantic import JsonValue

from papercore.errors import DataError
from rotbench.cases import Call, Level, Tool
from rotbench.literals import without_surrogates

__all__ = [
    "Layout",
    "Move",
    "NoiseTag",
    "Row",
    "Trajectory",
    "digest",
    "read_rows",
]

Layout: TypeAlias = Literal["rotbench", "openai"]

MAX_ROW = 16 << 20
"""Longest row in bytes, or in characters of a list: a broken one is not read to the file's end."""
_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class Move:
    """One turn of the conversation."""

    role: Literal["user", "assistant", "function"]
    text: str
    """Of an assistant that calls: the thought before the call."""
    calls: tuple[Call, ...] = ()
    called: str | None = None
    """Of a function: the tool whose reply this is."""


@dataclass(frozen=True, slots=True)
class NoiseTag:
    """How a trajectory was disturbed, as `augment` stores it."""

    level: Level
    data: Mapping[str, JsonValue]


@dataclass(frozen=True, slots=True)
class Trajectory:
    """An environment and a conversation that uses it."""

    id: str
    scenario: str
    preamble: str
    """The system's text before the list of tools, and `closing` behind it."""
    tools: tuple[Tool, ...]
    closing: str
    moves: tuple[Move, ...]
    layout: Layout
    extras: tuple[Mapping[str, JsonValue], ...] = ()
    """Per tool, what its schema has beside properties and required; empty if there is none."""
    noise: NoiseTag | None = None
    """None for a trajectory that `augment` did not write."""

    @property
    def calls(self) -> tuple[Call, ...]:
        """All calls, in order."""
        return tuple(call for move in self.moves for call in move.calls)

    @property
    def level(self) -> Level:
        """The level of its environment."""
        return "clean" if self.noise is None else self.noise.level


@dataclass(frozen=True, slots=True)
class Row:
    """A row of a file: a trajectory, or the reason why it is none."""

    place: str
    """`line 12`, or `item 12` of a list; both count from 1."""
    trajectory: Trajectory | None
    problem: str | None = None


def read_rows(path: Path, *, limit: int | None = None) -> Iterator[Row]:
    """Reads a file of trajectories; a bad row is handed on with its problem.

    Args:
        path: `.jsonl` or `.json`; which of the two is seen from the first character.
        limit: Stop after so many rows.

    Raises:
        DataError: The file cannot be opened, or is no list of rows at all.
    """
    from rotbench.layouts import parse  # it needs the types above

    for count, (place, value) in enumerate(_values(path)):
        if count == limit:
            return
        try:
            if isinstance(value, DataError):
                raise value
            yield Row(place, parse(value))
        except DataError as error:
            yield Row(place, None, str(error))


def digest(trajectory: Trajectory) -> bytes:
    """16 bytes of hash over everything but id, scenario and layout of the file."""
    content = [
        trajectory.preamble,
        trajectory.closing,
        [[t.name, t.description, t.parameters, t.required] for t in trajectory.tools],
        [
            [m.role, m.text, [[call.name, call.arguments] for call in m.calls]]
            for m in trajectory.moves
        ],
    ]
    text = json.dumps(content, ensure_ascii=True, separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=16).digest()


def _values(path: Path) -> Iterator[tuple[str, object]]:
    """Place and JSON value of every row; an error in place of a value that cannot be had."""
    try:
        with path.open("rb") as file:
            if file.peek(3)[:3] == codecs.BOM_UTF8:
                file.read(3)
            yield from _items(file) if _is_list(file) else _lines(file)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None


def _is_list(file: BinaryIO) -> bool:
    """Whether the first character that counts opens a list; the file is where it was then."""
    start = file.tell()
    while (mark := file.read(1)).isspace():
        pass
    file.seek(start)
    return mark == b"["


def _lines(file: BinaryIO) -> Iterator[tuple[str, object]]:
    number = 0
    while line := file.readline(MAX_ROW):
        number += 1
        if _is_cut(line):
            while _is_cut(file.readline(MAX_ROW)):  # its rest is no row of its own
                pass
            yield f"line {number}", DataError(f"is longer than {MAX_ROW >> 20} MiB")
        elif not line.isspace():
            yield f"line {number}", _decode(line)


def _is_cut(line: bytes) -> bool:
    return len(line) == MAX_ROW and not line.endswith(b"\n")


def _decode(line: bytes) -> object:
    try:
        text = line.decode()
    except UnicodeDecodeError as error:
        return DataError(f"is not UTF-8 text: byte {error.start} is {line[error.start]:#04x}")
    try:
        value, end = _DECODER.raw_decode(text.strip())
    except (ValueError, RecursionError) as error:
        return _not_json(error)
    rest = text.strip()[end:]
    if rest:
        return DataError(f"is not JSON: {rest[:20]!r} follows the object")
    return _whole(value, text)


def _items(file: BinaryIO) -> Iterator[tuple[str, object]]:
    """The items of a JSON list, read as they come; behind one that is broken no other is found."""
    text = codecs.getreader("utf-8")(file)
    buffer, at, number, ended = "", 0, 0, False
    while True:
        at = _next_item(buffer, at, opened=number > 0)
        if buffer[at : at + 1] == "]":
            return
        problem: Exception | None = None
        value, end = None, len(buffer)
        try:
            value, end = _DECODER.raw_decode(buffer, at)
        except (ValueError, RecursionError) as error:
            problem = error
        if problem is None and (end < len(buffer) or ended):  # else it may go on in the next chunk
            number, start, at = number + 1, at, end
            yield f"item {number}", _whole(value, buffer[start:end])
            continue
        hopeless = problem is not None and not isinstance(problem, json.JSONDecodeError)
        if ended or hopeless or len(buffer) - at > MAX_ROW:
            yield f"item {number + 1}", _broken(problem, at)
            return
        try:
            more = text.read(_CHUNK)
        except UnicodeDecodeError:
            yield f"item {number + 1}", DataError("is not UTF-8 text; the rest is not read")
            return
        buffer, at, ended = buffer[at:] + more, 0, not more


def _next_item(buffer: str, at: int, *, opened: bool) -> int:
    """Behind the spaces, and the bracket or comma, before an item."""
    mark = "," if opened else "["
    while buffer[at : at + 1].isspace() or buffer[at : at + 1] == mark:
        at += 1
    return at


def _broken(problem: Exception | None, at: int) -> DataError:
    """The error of an item of a list, whose end is therefore unknown."""
    if problem is None:
        return DataError(f"is longer than {MAX_ROW} characters; the rest is not read")
    return DataError(f"{_not_json(problem, at)}; the rest of the list is not read")


def _not_json(problem: Exception, at: int = 0) -> DataError:
    if isinstance(problem, json.JSONDecodeError):
        return DataError(f"is not JSON: {problem.msg} at character {problem.pos - at + 1}")
    if isinstance(problem, RecursionError):
        return DataError("is nested too deeply")
    return DataError(f"is not JSON: {problem}")  # a huge number, or one that JSON lacks


def _whole(value: JsonValue, text: str) -> object:
    """The value without halves of characters, which only an escape can bring in."""
    return without_surrogates(value) if "\\ud" in text or "\\uD" in text else value


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON")


_DECODER = json.JSONDecoder(parse_constant=_refuse)
