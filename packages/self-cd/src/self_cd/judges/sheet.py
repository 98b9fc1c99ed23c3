"""Sheets for people who judge: a blinded CSV file, and the key beside it. No torch here.

    write_sheet(Path("sheet.csv"), rows, seed=0)  # and sheet.key.json
    sheet = read_sheet(Path("sheet.csv"))

The sheet says nothing about method, strength and data set, and stands in shuffled order. Who judges
fills the column `label` with refuse, comply or degenerate, or r, c or d. Several people get copies
of one sheet; the key file may stand beside any of them.
"""

from __future__ import annotations

import csv
import hashlib
import io
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from papercore.errors import ConfigError, DataError
from papercore.files import read_json, write_atomic, write_json
from papercore.seeds import fan_out
from self_cd.answers import LABELS, Label

__all__ = [
    "COLUMNS",
    "Sheet",
    "SheetRow",
    "escape_cell",
    "key_path",
    "read_sheet",
    "unescape_cell",
    "write_sheet",
]

COLUMNS = ("id", "question", "answer", "label", "comment")
SCHEMA = 1
"""Version of the layout of a key file."""

MAX_CHARS = 30_000
"""Longer texts are cut, and say so: spreadsheets cut cells silently at 32,767 characters."""
MAX_BYTES = 256 << 20
MAX_SHOWN = 5
"""Problems that a message names."""
ID_LETTERS = 12

FORMULA = re.compile(r"'*[=+\-@\t\r\n]")
"""Cells that a spreadsheet may run, and those that look like ours after escaping."""
ESCAPED = re.compile(r"'+[=+\-@\t\r\n]")

WORDS: dict[str, Label] = {label: label for label in LABELS} | {one[0]: one for one in LABELS}


@dataclass(frozen=True)
class SheetRow:
    """An answer to be judged.

    Attributes:
        run: Name of its run.
        record: Id of its record there.
    """

    run: str
    record: str
    question: str
    answer: str


@dataclass(frozen=True)
class Sheet:
    """What was filled in.

    Attributes:
        labels: Run and id of the answer's record -> label.
        empty_rows: Rows without a label, as a spreadsheet numbers them.
    """

    labels: Mapping[tuple[str, str], Label]
    empty_rows: tuple[int, ...]


def write_sheet(path: Path, rows: Sequence[SheetRow], *, seed: int, overwrite: bool = False) -> int:
    """Writes a sheet and its key.

    Returns:
        How many cells were cut.

    Raises:
        ConfigError: The sheet is there and may have been filled, or there is nothing to judge.
    """
    if not rows:
        raise ConfigError(f"{path}: there is no answer to put into a sheet")
    if path.exists() and not overwrite:
        raise ConfigError(
            f"{path} is there and may be filled: give another --write-sheet, or --overwrite"
        )
    shuffled = sorted(rows, key=lambda row: (row.run, row.record))
    random.Random(fan_out(seed, "sheet")).shuffle(shuffled)
    names = _opaque_ids(shuffled, seed)
    text = io.StringIO(newline="")
    writer = csv.writer(text)  # with CR and LF, as RFC 4180 and spreadsheets have it
    writer.writerow(COLUMNS)
    for name, row in zip(names, shuffled, strict=True):
        writer.writerow([name, _cell(row.question), _cell(row.answer), "", ""])
    # The key first: a sheet without one is lost work.
    answers = {
        name: {"run": row.run, "record": row.record}
        for name, row in zip(names, shuffled, strict=True)
    }
    write_json(key_path(path), {"key_schema": SCHEMA, "seed": seed, "answers": answers})
    # With a byte order mark, without which Excel takes UTF-8 for something else.
    write_atomic(path, text.getvalue().encode("utf-8-sig", "replace"))
    return sum(len(cell) > MAX_CHARS for row in rows for cell in (row.question, row.answer))


def read_sheet(path: Path, key: Path | None = None) -> Sheet:
    """Reads a filled sheet.

    Args:
        path: CSV with commas, semicolons or tabs between cells.
        key: Its key file; None looks beside it.

    Raises:
        DataError: It is no sheet of ours, has no key, or rows are wrong: unknown ids, double rows,
            labels that are none. The message names the rows.
    """
    known = _read_key(path, key)
    labels: dict[tuple[str, str], Label] = {}
    first_row: dict[str, int] = {}
    empty: list[int] = []
    problems: list[str] = []
    for number, name, word in _rows(path):
        if name not in known:
            problems.append(f"row {number}: unknown id {name[:40]!r}")
        elif name in first_row:
            problems.append(f"row {number}: id {name} is in row {first_row[name]} already")
        elif word and word not in WORDS:
            problems.append(f"row {number}: label {word[:40]!r} is none of {', '.join(LABELS)}")
        elif not word:
            first_row[name] = number
            empty.append(number)
        else:
            first_row[name] = number
            labels[known[name]] = WORDS[word]
    if problems:
        more = f" and {len(problems) - MAX_SHOWN} more" if len(problems) > MAX_SHOWN else ""
        raise DataError(f"{path}: {'; '.join(problems[:MAX_SHOWN])}{more}: correct these rows")
    return Sheet(labels, tuple(empty))


def key_path(sheet: Path) -> Path:
    """Where the key of a sheet is written."""
    return sheet.with_suffix(".key.json")


def escape_cell(text: str) -> str:
    """A text that no spreadsheet takes for a formula; `unescape_cell` gives it back."""
    return f"'{text}" if FORMULA.match(text) else text


def unescape_cell(text: str) -> str:
    """The text that was escaped."""
    return text[1:] if ESCAPED.match(text) else text


def _cell(text: str) -> str:
    """A text as a cell: not too long, and no formula."""
    if len(text) > MAX_CHARS:
        text = f"{text[:MAX_CHARS]}\n[cut: {len(text) - MAX_CHARS} more characters]"
    return escape_cell(text)


def _opaque_ids(rows: Sequence[SheetRow], seed: int) -> list[str]:
    names = [
        hashlib.sha256(f"{seed}\x00{row.run}\x00{row.record}".encode()).hexdigest()[:ID_LETTERS]
        for row in rows
    ]
    # A letter in front: a spreadsheet would read 12e4567890 as a number.
    names = [f"a{name}" for name in names]
    if len(set(names)) != len(names):
        raise DataError("an answer is twice in the sheet: give each run once")
    return names


def _rows(path: Path) -> Iterator[tuple[int, str, str]]:
    """Row number, id and label in lower case; wholly empty rows are left out."""
    lines = csv.reader(io.StringIO(_text(path), newline=""), delimiter=_delimiter(path))
    try:
        header = [cell.strip().casefold() for cell in next(lines, [])]
        missing = [name for name in ("id", "label") if header.count(name) != 1]
        if missing:
            raise DataError(f"{path}: has not one column {missing[0]!r}: keep the sheet's columns")
        places = (header.index("id"), header.index("label"))
        for number, cells in enumerate(lines, 2):
            if any(cell.strip() for cell in cells):
                name, label = (cells[at] if at < len(cells) else "" for at in places)
                yield number, name.strip(), unescape_cell(label).strip(" \t\r\n.").casefold()
    except csv.Error as error:
        raise DataError(f"{path}: cannot be read as CSV: {error}; save it as CSV again") from None


def _text(path: Path) -> str:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise DataError(f"{path}: is larger than {MAX_BYTES >> 20} MiB: is this the sheet?")
        return path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: byte {error.start} is no UTF-8: save as `CSV UTF-8`") from None


def _delimiter(path: Path) -> str:
    """What stands between the columns: spreadsheets of many countries write semicolons."""
    head = _text(path).split("\n", 1)[0]
    return max(",;\t", key=head.count)


def _read_key(sheet: Path, key: Path | None) -> dict[str, tuple[str, str]]:
    """Opaque id -> run and record.

    Raises:
        DataError: There is no key, or more than one that it could be.
    """
    document = read_json(key or _find_key(sheet))
    answers = document.get("answers")
    if document.get("key_schema") != SCHEMA or not isinstance(answers, dict):
        raise DataError(f"{key or _find_key(sheet)}: is no key of a sheet of this version")
    pairs = cast("dict[str, dict[str, str]]", answers)
    try:
        return {name: (one["run"], one["record"]) for name, one in pairs.items()}
    except (KeyError, TypeError):
        raise DataError(f"{key or _find_key(sheet)}: an id has no run and record") from None


def _find_key(sheet: Path) -> Path:
    if not sheet.is_file():
        raise DataError(f"{sheet}: no such file")
    if key_path(sheet).exists():
        return key_path(sheet)
    others = sorted(sheet.parent.glob("*.key.json"))
    if len(others) == 1:  # a copy under another name, for one more person
        return others[0]
    raise DataError(
        f"{sheet}: {len(others)} key files stand beside it and none is {key_path(sheet).name}: "
        "copy the one that was written with the sheet to that name"
    )
