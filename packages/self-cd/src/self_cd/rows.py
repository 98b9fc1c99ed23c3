"""Rows of the files that data sets come in: bytes to text, text to cells, cells to checked rows.

    rows = [row(1, "harmless", {"prompt": "How do I kill a process?"}, "prompt")]

The files are untrusted: sizes are limited, text is strict UTF-8, and a message names file, row and
remedy and never quotes a question. No torch here.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from papercore.errors import DataError
from self_cd.items import Side

__all__ = [
    "MAX_FILE_BYTES",
    "MAX_QUERY_CHARS",
    "Cells",
    "Row",
    "decoded",
    "json_document",
    "json_lines",
    "read_bytes",
    "row",
    "table_rows",
    "text_lines",
]

MAX_FILE_BYTES = 64 << 20
MAX_QUERY_CHARS = 20_000
MAX_LABEL_CHARS = 1_000
"""Of a type or a focus."""
MAX_SHOWN_COLUMNS = 20

Cells: TypeAlias = Mapping[str, str]


@dataclass(frozen=True)
class Row:
    """One row of a file: a question, or what is wrong with it.

    Attributes:
        number: Counted from 1, without header and blank lines.
        problem: What is wrong and the remedy, for a person; None for a question.
    """

    number: int
    side: Side
    query: str = ""
    kind: str | None = None
    focus: str | None = None
    problem: str | None = None


def read_bytes(path: Path) -> bytes:
    """Reads a file of at most `MAX_FILE_BYTES`.

    Raises:
        DataError: It is missing, unreadable or too large.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    if len(content) > MAX_FILE_BYTES:
        raise DataError(f"{path}: is larger than {MAX_FILE_BYTES >> 20} MiB: split it")
    return content


def decoded(content: bytes, where: str) -> str:
    """The text of a file, which is UTF-8 with or without a byte order mark.

    Raises:
        DataError: It is something else.
    """
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise DataError(f"{where}: line {line} is not UTF-8: save the file as UTF-8") from None


def row(
    number: int, side: Side, cells: Cells, query: str, *, kind: str | None = None, focus: str = ""
) -> Row:
    """Checks a row and makes it a question.

    Args:
        number: Of the row.
        side: Of the question.
        cells: Column -> text.
        query: The column of the question.
        kind: The column of its type.
        focus: The column of its focus.
    """
    text = cells[query].strip("\r\n")
    kind_text = cells.get(kind or "", "").strip()
    focus_text = cells.get(focus, "").strip()
    found = Row(number, side, text, kind_text or None, focus_text or None)
    problem = _problem(text, (kind_text, focus_text))
    return found if problem is None else Row(number, side, problem=problem)


def _problem(query: str, labels: Sequence[str]) -> str | None:
    if not query.strip():
        return "the question is empty: fill it in or delete the row"
    if len(query) > MAX_QUERY_CHARS:
        return f"the question has {len(query)} characters: cut it to {MAX_QUERY_CHARS}"
    if any(len(label) > MAX_LABEL_CHARS for label in labels):
        return f"type or focus is longer than {MAX_LABEL_CHARS} characters: shorten it"
    text = "".join((query, *labels))
    if "\0" in text:
        return "holds a NUL character: delete it"
    if any("\ud800" <= letter <= "\udfff" for letter in text):
        return "holds half of a surrogate pair, which is no character: delete it"
    return None


def table_rows(
    text: str, where: str, needed: Sequence[str]
) -> tuple[tuple[str, ...], Iterator[tuple[int, Cells | str]]]:
    """The columns of a CSV text and its rows: number and cells, or what is wrong with the row.

    Blank lines are passed over and not counted.

    Raises:
        DataError: A needed column is missing, or the quoting is broken.
    """
    records = _records(text, where)
    first = next(records, None)
    if first is None:
        raise DataError(f"{where}: is empty: the first line should name the columns")
    header = tuple(cell.strip() for cell in first)
    shown = ", ".join(_column(name) for name in header[:MAX_SHOWN_COLUMNS])
    for name in needed:
        if name not in header:
            raise DataError(f"{where}: has no column {name!r} (there are: {shown})")
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise DataError(f"{where}: has the column {twice[0]!r} more than once: rename one")
    return header, _cells(records, header)


def _column(name: str) -> str:
    """A name for a message; a file without names has a question there, which stays unsaid."""
    return name if len(name.split()) <= 3 and len(name) <= 40 else f"a text of {len(name)} letters"


def _cells(
    records: Iterator[list[str]], header: Sequence[str]
) -> Iterator[tuple[int, Cells | str]]:
    for number, record in enumerate(records, start=1):
        if len(record) == len(header):
            yield number, dict(zip(header, record, strict=True))
        else:
            problem = f"has {len(record)} cells, but there are {len(header)} columns: "
            yield number, f"{problem}put quotes around cells with commas"


def _records(text: str, where: str) -> Iterator[list[str]]:
    """All records that are not blank."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    # A long cell is a bad row, not a bad file; the size of the file bounds it.
    before = csv.field_size_limit(MAX_FILE_BYTES)
    try:
        records = [record for record in reader if record]
    except csv.Error as error:
        raise DataError(
            f"{where}: line {reader.line_num}: the quotes of the CSV are broken: {error}"
        ) from None
    finally:
        csv.field_size_limit(before)
    return iter(records)


def json_document(text: str, where: str) -> object:
    """A JSON document.

    Raises:
        DataError: It is none.
    """
    try:
        document: object = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: is not JSON: {error}") from None
    return document


def json_lines(text: str) -> Iterator[tuple[int, dict[str, object] | str]]:
    """Number and object of each line that is not blank, or what is wrong with it."""
    lines = (line for line in text.split("\n") if line.strip())
    for number, line in enumerate(lines, start=1):
        try:
            document: object = json.loads(line)
        except (ValueError, RecursionError):
            yield number, "is not JSON: write one object in each line"
            continue
        if isinstance(document, dict):
            yield number, document
        else:
            yield number, f"is a JSON {type(document).__name__}, not an object: write {{...}}"


def text_lines(text: str) -> Iterator[tuple[int, str]]:
    """Number and text of each line that is not blank."""
    lines = (line.rstrip("\r") for line in text.split("\n"))
    return enumerate((line for line in lines if line.strip()), start=1)
