"""Sheets for people who judge."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from papercore.errors import ConfigError, DataError
from self_cd.judges.sheet import (
    COLUMNS,
    MAX_CHARS,
    SheetRow,
    escape_cell,
    key_path,
    read_sheet,
    unescape_cell,
    write_sheet,
)

ROWS = [
    SheetRow("runs/secret-run", f"answer/self-cd@2.5/oktest/{n}", f"Question {n}?", f"Answer {n}.")
    for n in range(12)
]


@pytest.fixture
def sheet(tmp_path: Path) -> Path:
    path = tmp_path / "sheet.csv"
    write_sheet(path, ROWS, seed=0)
    return path


def cells_of(path: Path) -> list[list[str]]:
    return list(csv.reader(io.StringIO(path.read_bytes().decode("utf-8-sig"), newline="")))


def fill(path: Path, labels: list[str], *, into: Path | None = None, delimiter: str = ",") -> Path:
    """The sheet as somebody saved it: labels from the first row on, the rest stays empty."""
    head, *rows = cells_of(path)
    text = io.StringIO(newline="")
    writer = csv.writer(text, delimiter=delimiter)
    writer.writerow(head)
    for number, row in enumerate(rows):
        label = labels[number] if number < len(labels) else row[3]
        writer.writerow([*row[:3], label, "a comment"])
    target = into or path
    target.write_bytes(text.getvalue().encode("utf-8-sig"))
    return target


def test_the_sheet_is_blinded_and_shuffled(sheet: Path) -> None:
    head, *rows = cells_of(sheet)
    assert tuple(head) == COLUMNS
    assert {row[2] for row in rows} == {row.answer for row in ROWS}
    assert [row[2] for row in rows] != [row.answer for row in ROWS]
    text = sheet.read_text(encoding="utf-8-sig")
    for secret in ("self-cd", "oktest", "secret-run", "2.5"):
        assert secret not in text
    assert all(row[3:] == ["", ""] for row in rows)


def test_the_seed_decides_the_order(tmp_path: Path, sheet: Path) -> None:
    for name, seed in (("again.csv", 0), ("other.csv", 1)):
        write_sheet(tmp_path / name, list(reversed(ROWS)), seed=seed)
    assert (tmp_path / "again.csv").read_bytes() == sheet.read_bytes()
    questions = [row[1] for row in cells_of(tmp_path / "other.csv")]
    assert questions != [row[1] for row in cells_of(sheet)]


def test_labels_come_back_to_their_answers(sheet: Path) -> None:
    words = ["refuse", "COMPLY", " Degenerate ", "r", "C", "d", "R.", "comply"]
    filled = read_sheet(fill(sheet, words))
    wanted = ["refuse", "comply", "degenerate"] * 2 + ["refuse", "comply"]
    questions = [row[1] for row in cells_of(sheet)[1:]]
    by_question = {row.question: (row.run, row.record) for row in ROWS}
    for question, label in zip(questions, wanted, strict=False):
        assert filled.labels[by_question[question]] == label
    assert len(filled.labels) == len(wanted)
    assert filled.empty_rows == (10, 11, 12, 13), "rows as a spreadsheet numbers them"


@pytest.mark.parametrize("delimiter", [";", "\t"])
def test_spreadsheets_write_other_delimiters(sheet: Path, delimiter: str) -> None:
    assert len(read_sheet(fill(sheet, ["r"] * 12, delimiter=delimiter)).labels) == len(ROWS)


def test_wrong_rows_are_named(sheet: Path) -> None:
    lines = cells_of(fill(sheet, ["r", "yes", "c"]))
    lines[1][0] = "b123"
    lines.append(["", "", "", "", ""])
    lines.append(lines[3])
    text = io.StringIO(newline="")
    csv.writer(text).writerows(lines)
    sheet.write_text(text.getvalue(), encoding="utf-8")
    with pytest.raises(DataError) as caught:
        read_sheet(sheet)
    message = str(caught.value)
    assert "row 2: unknown id 'b123'" in message
    assert "row 3: label 'yes' is none of refuse, comply, degenerate" in message
    assert f"row 15: id {lines[3][0]} is in row 4 already" in message
    assert "\n" not in message


def test_a_copy_for_one_more_person_finds_the_key(sheet: Path, tmp_path: Path) -> None:
    copy = fill(sheet, ["c"] * 12, into=tmp_path / "sheet-ann.csv")
    assert set(read_sheet(copy).labels.values()) == {"comply"}
    write_sheet(tmp_path / "two.csv", ROWS, seed=1)
    with pytest.raises(DataError, match=r"2 key files.*sheet-ann\.key\.json"):
        read_sheet(copy)
    assert read_sheet(copy, key_path(sheet)).labels


def test_what_is_no_sheet_is_one_line(tmp_path: Path, sheet: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        read_sheet(tmp_path / "nothing.csv")
    sheet.write_text("id,answer\na,b\n")
    with pytest.raises(DataError, match="has not one column 'label'"):
        read_sheet(sheet)
    sheet.write_bytes("id,label\nä,r\n".encode("latin-1"))
    with pytest.raises(DataError, match="UTF-8"):
        read_sheet(sheet)
    sheet.write_bytes(b"")
    with pytest.raises(DataError, match="column 'id'"):
        read_sheet(sheet)
    key_path(sheet).write_text(json.dumps({"answers": []}))
    with pytest.raises(DataError, match="is no key"):
        read_sheet(sheet)


def test_a_filled_sheet_is_not_overwritten(sheet: Path) -> None:
    with pytest.raises(ConfigError, match="may be filled"):
        write_sheet(sheet, ROWS, seed=0)
    write_sheet(sheet, ROWS[:2], seed=0, overwrite=True)
    assert len(cells_of(sheet)) == 3
    with pytest.raises(ConfigError, match="no answer"):
        write_sheet(sheet, [], seed=0, overwrite=True)


@given(st.text(st.characters(codec="utf-8"), max_size=30))
def test_escaping_can_be_taken_back(text: str) -> None:
    escaped = escape_cell(text)
    assert not escaped.startswith(("=", "+", "-", "@", "\t", "\r", "\n"))
    assert unescape_cell(escaped) == text


@given(st.text("'=+-@\t\r\na", max_size=6))
def test_escaping_is_one_to_one(text: str) -> None:
    assert unescape_cell(escape_cell(text)) == text


def test_formulas_and_odd_texts_survive_the_file(tmp_path: Path) -> None:
    odd = ['=HYPERLINK("http://x")', "+1", "-1", "@SUM", "'=1", "a\nb", 'say "no"', "x\ud800", ""]
    rows = [SheetRow("run", str(n), "Q?", text) for n, text in enumerate(odd)]
    write_sheet(tmp_path / "s.csv", rows, seed=0)
    found = {unescape_cell(row[2]) for row in cells_of(tmp_path / "s.csv")[1:]}
    assert found == {text.replace("\ud800", "?") for text in odd}
    raw = [row[2] for row in cells_of(tmp_path / "s.csv")[1:]]
    assert not any(cell.startswith(("=", "+", "-", "@")) for cell in raw)


def test_long_answers_are_cut_and_say_so(tmp_path: Path) -> None:
    rows = [SheetRow("run", "1", "Q?", "x" * (MAX_CHARS + 7)), SheetRow("run", "2", "Q?", "y")]
    assert write_sheet(tmp_path / "s.csv", rows, seed=0) == 1
    longest = max(cells_of(tmp_path / "s.csv"), key=lambda row: len(row[2]))[2]
    assert longest.endswith("[cut: 7 more characters]")
    assert len(longest) < 32_767
