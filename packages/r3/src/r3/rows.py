"""Rows of the files that data sets come in: JSON, JSON lines, tables and parquet, packed or not.

    for row in read_rows(Path("train.jsonl")):
        print(row.where, row.problem or row.fields)

Files are read piece by piece, since some are larger than memory. They are untrusted: a row that is
torn, too long or not UTF-8 is handed on with its problem and the rest is read; what cannot be read
at all is one DataError. No torch here.

In a table of commas or semicolons, quotes may stand around a cell. In one of tabs, a quote is a
letter as any other and each line is a row: so SNLI, MultiNLI and GLUE were released, with quotes in
their sentences that nothing closes.
"""

from __future__ import annotations

import csv
import gzip
import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO, cast

from papercore.errors import DataError

__all__ = ["SUFFIXES", "Row", "is_table", "kind_of", "read_rows"]

SUFFIXES = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet", ".txt")
"""Kinds of files that are read; all but parquet may end in `.gz` as well."""

MAX_ROW_CHARS = 4_000_000
"""Of one row; a longer one is a bad row."""
_TOO_LONG = f"has more than {MAX_ROW_CHARS:,} characters"
_CHUNK = 1 << 20
_NUMBER = "-0123456789"
"""How a number begins."""


def _int(digits: str) -> int | str:
    """A whole number; one that Python would not convert stays a text and is a bad value later."""
    return int(digits) if len(digits) < 1000 else digits


_DECODER = json.JSONDecoder(parse_int=_int)


@dataclass(frozen=True)
class Row:
    """One row of a file.

    Attributes:
        where: File and place in it, for a person.
        fields: Name -> value; empty if there is a problem.
        problem: Why the row cannot be read.
    """

    where: str
    fields: Mapping[str, object] = field(default_factory=dict)
    problem: str | None = None


def kind_of(path: Path) -> str | None:
    """Which of `SUFFIXES` a file is, or None."""
    name = path.name.lower().removesuffix(".gz")
    found = next((suffix for suffix in SUFFIXES if name.endswith(suffix)), None)
    return None if found == ".parquet" and path.name.lower().endswith(".gz") else found


def read_rows(path: Path, *, shown: str | None = None) -> Iterator[Row]:
    """The rows of a file, in order.

    A JSON document may be a list of objects, an object of objects, or one object. A `.txt` is a
    table if its first line holds tabs, as in the original SNLI and MultiNLI, and else JSON.

    Args:
        path: The file; how its name ends says what it is.
        shown: What to call it in messages.

    Raises:
        DataError: It is missing, damaged, or of a kind that is not read.
    """
    name = shown or str(path)
    kind = kind_of(path)
    if kind is None:
        raise DataError(f"{name}: is of no kind that is read ({', '.join(SUFFIXES)}): convert it")
    if kind == ".parquet":
        yield from _parquet(path, name)
        return
    with _text(path, name) as file:
        start = file.read(4096)
        if "\0" in start:
            raise DataError(f"{name}: is not UTF-8 text (UTF-16?): save it as UTF-8")
        file.seek(0)
        head = start.partition("\n")[0]
        if kind in (".csv", ".tsv") or (kind == ".txt" and _names_columns(head)):
            delimiter = _delimiter(head, kind)
            yield from _tabbed(file, name) if delimiter == "\t" else _table(file, name, delimiter)
        elif kind in (".jsonl", ".ndjson") or _is_lines(start):
            yield from _lines(file, name)
        else:
            yield from _document(file, name)


def is_table(path: Path) -> bool:
    """Whether the rows of a file are lines of a table, by its name or, of a `.txt`, its first line.

    Raises:
        DataError: It cannot be read.
    """
    kind = kind_of(path)
    if kind != ".txt":
        return kind in (".csv", ".tsv")
    with _text(path, str(path)) as file:
        return _names_columns(file.readline(4096))


@contextmanager
def _text(path: Path, name: str) -> Iterator[TextIO]:
    """A file as text; bytes that are no UTF-8 become surrogates, which make a bad row later."""
    try:
        opened = gzip.open if path.name.lower().endswith(".gz") else open
        with opened(path, "rt", encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
            yield cast("TextIO", file)
    except FileNotFoundError:
        raise DataError(f"{name}: no such file") from None
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"{name}: is a damaged gzip file: {error}") from None
    except OSError as error:
        raise DataError(f"{name}: cannot be read: {error.strerror}") from None


def _is_lines(start: str) -> bool:
    """Whether a text that may be a document is an object in each line instead."""
    first, _, rest = start.lstrip().partition("\n")
    if not first.startswith("{") or not rest.lstrip().startswith("{"):
        return False
    try:
        return isinstance(json.loads(first), dict)
    except (ValueError, RecursionError):
        return False


def _numbered(file: TextIO) -> Iterator[tuple[int, str | None]]:
    """The lines, from 1 on; None is one that is too long."""
    number = 0
    while line := file.readline(MAX_ROW_CHARS):
        number += 1
        if len(line) == MAX_ROW_CHARS and not line.endswith("\n"):
            while (rest := file.readline(MAX_ROW_CHARS)) and not rest.endswith("\n"):
                pass
            yield number, None
        else:
            yield number, line


def _lines(file: TextIO, name: str) -> Iterator[Row]:
    for number, line in _numbered(file):
        where = f"{name}:{number}"
        if line is None:
            yield Row(where, problem=_TOO_LONG)
        elif line.strip():
            yield _json_row(where, line)


def _json_row(where: str, line: str) -> Row:
    try:
        return _row(where, _DECODER.decode(line))
    except RecursionError:
        return Row(where, problem="is JSON of too many layers")
    except ValueError as error:
        return Row(where, problem=f"is not JSON, or cut off: {getattr(error, 'msg', error)}")


def _row(where: str, value: object) -> Row:
    if not isinstance(value, dict):
        return Row(where, problem=f"is a {type(value).__name__}, not an object")
    return Row(where, value)


class _Scanner:
    """Reads a JSON document value by value."""

    def __init__(self, file: TextIO, name: str) -> None:
        self._file, self._name = file, name
        self._buffer, self._at, self._line, self._ended = "", 0, 1, False

    def peek(self) -> str:
        """The next character that is no blank; empty at the end."""
        while True:
            while self._at < len(self._buffer) and self._buffer[self._at] in " \t\r\n":
                self._line += self._buffer[self._at] == "\n"
                self._at += 1
            if self._at < len(self._buffer) or self._ended:
                return self._buffer[self._at : self._at + 1]
            self._more()

    def take(self, allowed: str) -> str:
        """The next character, which must be one of these."""
        found = self.peek()
        if not found or found not in allowed:
            raise self.error(f"{found or 'the end'!r} where {' or '.join(allowed)} should be")
        self._at += 1
        return found

    def value(self) -> object:
        """The next value."""
        self.peek()
        while True:
            try:
                found, end = _DECODER.raw_decode(self._buffer, self._at)
            except RecursionError:
                raise self.error("too many layers") from None
            except ValueError as error:
                if self._ended or len(self._buffer) - self._at > MAX_ROW_CHARS:
                    raise self.error(getattr(error, "msg", str(error))) from None
            else:
                # a number at the end of a piece may go on, even behind a dot or an "e-"
                whole = len(self._buffer) - end > 2 or self._buffer[self._at] not in _NUMBER
                if whole or self._ended:
                    self._line += self._buffer.count("\n", self._at, end)
                    self._at = end
                    return cast("object", found)
            self._more()

    def error(self, reason: str) -> DataError:
        """What is wrong near here."""
        return DataError(
            f"{self._name}: is not JSON, or cut off, near line {self._line}: {reason}; restore it, "
            "or write one object in each line of a .jsonl file"
        )

    def _more(self) -> None:
        chunk = self._file.read(_CHUNK)
        self._ended = not chunk
        self._buffer, self._at = self._buffer[self._at :] + chunk, 0


def _document(file: TextIO, name: str) -> Iterator[Row]:
    scanner = _Scanner(file, name)
    opening = scanner.peek()
    if opening == "[":
        yield from _list(scanner, name)
    elif opening == "{":
        yield from _object(scanner, name)
    elif opening:
        raise DataError(f"{name}: should hold a list of objects or one object in each line")
    else:
        raise DataError(f"{name}: is empty")


def _list(scanner: _Scanner, name: str) -> Iterator[Row]:
    scanner.take("[")
    number = 0
    if scanner.peek() == "]":
        scanner.take("]")
    else:
        while True:
            number += 1
            yield _row(f"{name}[{number}]", scanner.value())
            if scanner.take(",]") == "]":
                break
    if scanner.peek():
        raise scanner.error("something stands behind the list")


def _object(scanner: _Scanner, name: str) -> Iterator[Row]:
    """The objects within an object, those of lists within it, or else the object itself."""
    scanner.take("{")
    own: dict[str, object] = {}
    inner = False
    while scanner.peek() != "}":
        key = scanner.value()
        if not isinstance(key, str):
            raise scanner.error(f"{key!r} where a name in quotes should be")
        scanner.take(":")
        value = scanner.value()
        if isinstance(value, dict):
            inner = True
            yield _row(f"{name}[{key!r}]", value)
        else:
            own[key] = value
        if scanner.take(",}") == "}":
            break
    else:
        scanner.take("}")
    if scanner.peek():
        raise scanner.error("something stands behind the object")
    if not inner:
        yield from _own(own, name)


def _own(own: Mapping[str, object], name: str) -> Iterator[Row]:
    lists = {key: value for key, value in own.items() if _holds_objects(value)}
    if len(lists) == 1:
        ((key, rows),) = lists.items()
        for number, value in enumerate(cast("list[object]", rows), 1):
            yield _row(f"{name}[{key!r}][{number}]", value)
    elif own:
        yield Row(name, own)
    else:
        raise DataError(f"{name}: is empty")


def _holds_objects(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(one, dict) for one in value)


def _names_columns(head: str) -> bool:
    """Whether the first line of a text that may be JSON instead begins a table of tabs."""
    return "\t" in head and head.lstrip()[:1] not in ("", "{", "[")


def _delimiter(head: str, kind: str) -> str:
    """What stands between the cells, by the first line; in a `.csv` it may be a tab as well."""
    if kind != ".csv" and "\t" in head:
        return "\t"
    return max(",\t;", key=head.count)


def _tabbed(file: TextIO, name: str) -> Iterator[Row]:
    """A table of tabs, read as csv.QUOTE_NONE does, but without its limit on a cell."""
    lines = _numbered(file)
    _, first = next(lines)
    if first is None:
        raise DataError(f"{name}: its first line {_TOO_LONG}: it should name the columns")
    header = _header(first.split("\t"), name)
    for number, line in lines:
        where = f"{name}:{number}"
        if line is None:
            yield Row(where, problem=_TOO_LONG)
            continue
        cells = line.rstrip("\r\n").split("\t")
        if len(cells) == len(header):
            yield Row(where, dict(zip(header, cells, strict=True)))
        elif line.strip():
            yield Row(where, problem=_miscounted(cells, header))


def _table(file: TextIO, name: str, delimiter: str) -> Iterator[Row]:
    """A table whose cells may be quoted; a row of several lines that cannot be read is as many."""
    reader = csv.reader(file, delimiter=delimiter, strict=True)
    try:
        header = _header(next(reader), name)
    except StopIteration:
        raise DataError(f"{name}: is empty: the first line should name the columns") from None
    except csv.Error as error:
        raise DataError(f"{name}: the quotes of its first line are broken: {error}") from None
    while True:
        line = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield from _lost(name, line, reader.line_num, f"the quotes are broken: {error}")
            continue
        if len(cells) == len(header):
            yield Row(f"{name}:{line}", dict(zip(header, cells, strict=True)))
        elif any(cell.strip() for cell in cells):
            yield from _lost(name, line, reader.line_num, _miscounted(cells, header))


def _header(cells: Sequence[str], name: str) -> list[str]:
    header = [cell.strip() for cell in cells]
    twice = sorted({cell for cell in header if header.count(cell) > 1})
    if twice:
        raise DataError(f"{name}: has the column {twice[0]!r} more than once: rename one")
    return header


def _miscounted(cells: Sequence[str], header: Sequence[str]) -> str:
    return f"has {len(cells)} cells, but there are {len(header)} columns"


def _lost(name: str, first: int, last: int, problem: str) -> Iterator[Row]:
    """Each line of a row that cannot be read: a quote that is not closed takes others along."""
    if last > first:
        problem += f"; a quote that it opens took the lines up to {last} along"
    yield Row(f"{name}:{first}", problem=problem)
    for line in range(first + 1, last + 1):
        yield Row(f"{name}:{line}", problem=f"was taken along by a quote opened in line {first}")


def _parquet(path: Path, name: str) -> Iterator[Row]:
    import pyarrow as pa  # type: ignore[import-untyped]
    from pyarrow import parquet

    number = 0
    try:
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=1000):
                for value in batch.to_pylist():
                    number += 1
                    yield Row(f"{name}[{number}]", value)
    except FileNotFoundError:
        raise DataError(f"{name}: no such file") from None
    except (pa.ArrowException, OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise DataError(f"{name}: cannot be read as parquet: {reason}") from None
