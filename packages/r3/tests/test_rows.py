"""Rows of files: every kind, packed or not, and what is wrong with bad ones."""

import contextlib
import gzip
import json
import re

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from papercore.errors import DataError
from r3 import rows
from r3.rows import is_table, kind_of, read_rows

ROWS = [{"question": "Ä?", "answer": "1,5"}, {"question": 'say "x"\nnow', "answer": "2"}]


def read(path):
    return [row.problem or dict(row.fields) for row in read_rows(path)]


def as_lines(found):
    return "\n".join(json.dumps(row, ensure_ascii=False) for row in found)


CSV = 'question,answer\nÄ?,"1,5"\n"say ""x""\nnow",2\n'

WRITTEN = {
    "a.jsonl": as_lines(ROWS),
    "b.jsonl": f"\ufeff{as_lines(ROWS)}\n\n",
    "c.ndjson": as_lines(ROWS).replace("\n{", "\r\n{"),
    "d.json": json.dumps(ROWS),
    "e.json": json.dumps(ROWS, indent=2),
    "f.json": as_lines(ROWS),
    "g.json": json.dumps({"0": ROWS[0], "1": ROWS[1]}),
    "h.json": json.dumps({"version": "1", "data": ROWS}),
    "i.csv": CSV,
    "j.csv": f"\ufeff{CSV}\n\n",
    "l.csv": 'question;answer\nÄ?;1,5\n"say ""x""\nnow";2\n',
    "m.json": f"\ufeff \n{json.dumps(ROWS)}\n",
}


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "packed"])
@pytest.mark.parametrize("name", WRITTEN)
def test_every_way_to_write_rows_is_read(tmp_path, name, packed):
    content = WRITTEN[name].encode()
    path = tmp_path / (f"{name}.gz" if packed else name)
    path.write_bytes(gzip.compress(content) if packed else content)
    assert read(path) == ROWS


def test_windows_line_ends_stay_in_cells_until_fields_are_read(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes(CSV.replace("\n", "\r\n").encode())
    assert read(path)[1] == {"question": 'say "x"\r\nnow', "answer": "2"}


def test_parquet(tmp_path):
    path = tmp_path / "a.parquet"
    parquet.write_table(pa.Table.from_pylist([*ROWS, {"options": ["a", "b"]}]), path)
    assert [row["question"] for row in read(path)] == ["Ä?", 'say "x"\nnow', None]


def test_one_object_is_one_row(tmp_path):
    path = tmp_path / "high1.txt"
    path.write_text(json.dumps({"article": "A", "questions": ["Q"], "answers": ["A"]}, indent=1))
    assert read(path) == [{"article": "A", "questions": ["Q"], "answers": ["A"]}]


def test_a_document_of_many_pieces_is_read_as_a_small_one(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    many = [{"question": f"{number} ü\n", "n": number, "f": -1.5e3} for number in range(200)]
    path.write_text(json.dumps(many, indent=1, ensure_ascii=False))
    for size in (1, 7, 64):
        monkeypatch.setattr(rows, "_CHUNK", size)
        assert read(path) == many


@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_a_number_at_the_end_of_a_piece_is_read_to_its_end(tmp_path, monkeypatch, size):
    path = tmp_path / "a.json"
    path.write_text('{"a": 1234567, "b": -8.25e3, "c": "x"}')
    monkeypatch.setattr(rows, "_CHUNK", size)
    assert read(path) == [{"a": 1234567, "b": -8250.0, "c": "x"}]


def test_places_of_rows_are_told(tmp_path):
    lines = tmp_path / "a.jsonl"
    lines.write_text('{"a": 1}\n\n{"a": 2}\n')
    assert [row.where for row in read_rows(lines, shown="x")] == ["x:1", "x:3"]
    listed = tmp_path / "a.json"
    listed.write_text('[{"a": 1}, {"a": 2}]')
    assert [row.where for row in read_rows(listed, shown="x")] == ["x[1]", "x[2]"]
    table = tmp_path / "a.csv"
    table.write_text('a,b\n"1\n1",2\n3,4\n')
    assert [row.where for row in read_rows(table, shown="x")] == ["x:2", "x:4"]


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ('{"question": "Q', "cut off"),
        ("nothing", "cut off"),
        ("[1, 2]", "is a list"),
        ("3", "is a int"),
        ("[" * 100_000, "too many layers|cut off"),
        ('{"a": "' + "x" * 5_000_000 + '"}', "characters"),
    ],
)
def test_a_bad_line_is_one_bad_row(tmp_path, line, problem):
    path = tmp_path / "a.jsonl"
    path.write_text(f'{{"a": 1}}\n{line}\n{{"a": 2}}\n')
    first, bad, last = read_rows(path)
    assert (first.fields, last.fields) == ({"a": 1}, {"a": 2})
    assert re.search(problem, bad.problem)
    assert last.where.endswith(":3")


def test_bad_rows_of_a_table(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text('a,b\n1,2\n1,2,3\n"x"y,2\n3,4\n')
    found = list(read_rows(path))
    assert [row.problem is None for row in found] == [True, False, False, True]
    assert "3 cells" in found[1].problem
    assert "quotes" in found[2].problem
    assert found[3].fields == {"a": "3", "b": "4"}


def test_a_quote_that_is_never_closed_does_not_take_the_file_along(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text('a,b\n1,2\n"open,2\n' + "x,y\n" * 100_000)
    found = list(read_rows(path))
    assert found[0].fields == {"a": "1", "b": "2"}
    assert found[1].problem
    assert sum(row.problem is None for row in found) > 10_000


def test_every_line_that_a_quote_took_along_is_counted(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text('a,b\n1,2\n"open,2\n3,4\n5,6\nx,"quoted"\n7,8\n')
    found = list(read_rows(path, shown="x"))
    assert [(row.where, row.problem is None) for row in found] == [
        *(("x:2", True), ("x:3", False), ("x:4", False), ("x:5", False), ("x:6", False)),
        ("x:7", True),
    ]
    assert found[1].problem.endswith("a quote that it opens took the lines up to 6 along")
    assert {row.problem for row in found[2:5]} == {"was taken along by a quote opened in line 3"}


@pytest.mark.parametrize("end", ["", "x,y\n" * 20, "x,y\n" * 100_000, '8,9",0\n'])
def test_no_line_behind_an_open_quote_vanishes(tmp_path, end):
    path = tmp_path / "a.csv"
    content = f'a,b\n1,2\n3,"open\n5,6\n{end}'
    path.write_text(content)
    found = list(read_rows(path, shown="x"))
    assert [row.where for row in found] == [f"x:{n}" for n in range(2, content.count("\n") + 1)]
    assert found[1].problem


TABS = """\
gold_label\tsentence1_parse\tsentence1\tsentence2\tpairID\tlabel1\tlabel2
neutral\t(ROOT (X ))\t"Well, he said.\tHe spoke" up.\t1n\tneutral\t
-\t(ROOT (X ))\tA "dog" runs.\t"It moves.\t2e\tentailment\tneutral
entailment\t(ROOT (X ))\tA cut row
entailment\t(ROOT (X ))\tA tab\ttoo\tmany\t3e\tentailment\t

contradiction\t(ROOT (X ))\tIt's {\t[a\t4c\tcontradiction\t
"""


@pytest.mark.parametrize("name", ["a.tsv", "a.txt", "a.csv", "a.txt.gz", "b.tsv"])
def test_in_a_table_of_tabs_a_quote_is_a_letter(tmp_path, name):
    path = tmp_path / name
    content = (TABS.replace("\n", "\r\n") if name == "b.tsv" else TABS).encode()
    path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    found = list(read_rows(path, shown="x"))
    assert [row.where for row in found] == ["x:2", "x:3", "x:4", "x:5", "x:7"]
    good = [row.fields for row in found if row.problem is None]
    assert [(row["sentence1"], row["sentence2"], row["gold_label"]) for row in good] == [
        ('"Well, he said.', 'He spoke" up.', "neutral"),
        ('A "dog" runs.', '"It moves.', "-"),
        ("It's {", "[a", "contradiction"),
    ]
    assert good[0]["label2"] == ""
    assert [row.problem for row in found if row.problem] == [
        "has 3 cells, but there are 7 columns",
        "has 8 cells, but there are 7 columns",
    ]


def test_a_cell_of_tabs_may_be_long_and_a_row_too_long(tmp_path, monkeypatch):
    path = tmp_path / "a.tsv"
    path.write_text(f"a\tb\n1\t{'x' * 200_000}\n")
    assert len(read(path)[0]["b"]) == 200_000
    monkeypatch.setattr(rows, "MAX_ROW_CHARS", 50)
    path.write_text(f"a\tb\n1\t{'x' * 120}\n3\t4\n")
    bad, good = read_rows(path, shown="x")
    assert (bad.where, good.where, good.fields) == ("x:2", "x:3", {"a": "3", "b": "4"})
    assert "characters" in bad.problem
    path.write_text("a\t" * 100)
    with pytest.raises(DataError, match="should name the columns"):
        read(path)


@pytest.mark.parametrize(
    ("name", "content", "table"),
    [
        ("a.txt", "a\tb\n1\t2\n", True),
        ("a.txt", '{"a":\t1}', False),
        ("a.txt", '\t{"a": 1}', False),
        ("a.txt", "[\t]", False),
        ("a.txt", "", False),
        ("a.txt", "a b\n1\t2\n", False),
        ("a.csv", "a,b", True),
        ("a.tsv.gz", "", True),
        ("a.jsonl", "a\tb", False),
    ],
)
def test_which_files_are_tables(tmp_path, name, content, table):
    path = tmp_path / name
    path.write_text(content)
    assert is_table(path) is table


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("a.json", "", "is empty"),
        ("a.json", "{}", "is empty"),
        ("a.json", "3", "should hold a list"),
        ("a.json", '[{"a": 1}, {"a": 2', "cut off, near line 1"),
        ("a.json", '[\n{"a": 1}\n{"a": 2}]', "near line 3"),
        ("a.json", '[{"a": 1}] x', "behind the list"),
        ("a.json", '{"a": {"b": 1}} x', "behind the object"),
        ("a.json", '{"a" 1}', "where : should be"),
        ("a.json", "[" * 100_000, "not JSON"),
        ("a.csv", "", "first line should name"),
        ("a.csv", "a,b,a\n", "column 'a' more than once"),
        ("a.txt", "a\tb\ta\n", "column 'a' more than once"),
        ("a.csv", '"a"b,c\n', "quotes of its first line"),
        ("a.jsonl", "{\0}", "UTF-8"),
        ("a.jsonl.gz", "no gzip", "gzip|read"),
        ("a.parquet", "no parquet", "parquet"),
        ("a.xlsx", "", "of no kind"),
        ("a.parquet.gz", "", "of no kind"),
    ],
)
def test_files_that_cannot_be_read_are_one_line(tmp_path, name, content, problem):
    path = tmp_path / name
    path.write_text(content)
    with pytest.raises(DataError, match=problem) as caught:
        list(read_rows(path))
    assert "\n" not in str(caught.value)
    assert name in str(caught.value)


@pytest.mark.parametrize("name", ["a.jsonl", "a.parquet", "a.csv.gz"])
def test_a_missing_file(tmp_path, name):
    with pytest.raises(DataError, match="no such file"):
        list(read_rows(tmp_path / name))


def test_a_cut_off_gzip_file(tmp_path):
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress(as_lines(ROWS * 1000).encode())[:-20])
    with pytest.raises(DataError, match="damaged gzip"):
        list(read_rows(path))


def test_utf_16_is_refused(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text(CSV, encoding="utf-16")
    with pytest.raises(DataError, match="save it as UTF-8"):
        list(read_rows(path))


def test_a_byte_that_is_no_utf_8_spoils_its_row_alone(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"a": "\xff"}\n{"a": "b"}\n')
    first, second = read_rows(path)
    assert first.fields["a"] == "\udcff"
    assert second.fields == {"a": "b"}


def test_kinds_of_files(tmp_path):
    assert kind_of(tmp_path / "A.JSONL.GZ") == ".jsonl"
    assert kind_of(tmp_path / "a.md") is None


def test_a_number_of_very_many_digits_is_a_text(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text(f'{{"a": {"9" * 5000}}}\n{{"a": 99}}\n')
    assert read(path) == [{"a": "9" * 5000}, {"a": 99}]


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    st.lists,
    max_leaves=4,
)


@given(st.lists(st.dictionaries(st.text(), VALUES, max_size=3), max_size=5), st.booleans())
def test_any_list_of_objects_is_read(tmp_path_factory, found, plain):
    path = tmp_path_factory.mktemp("any") / "a.json"
    path.write_text(json.dumps(found, ensure_ascii=True, indent=None if plain else 1))
    assert read(path) == found


@given(
    st.binary(max_size=200) | st.text('ab\t\n\r",{', max_size=60).map(str.encode),
    st.sampled_from([".json", ".jsonl", ".csv", ".tsv", ".txt", ".jsonl.gz", ".parquet"]),
)
def test_any_bytes_are_rows_or_one_error(tmp_path_factory, content, suffix):
    path = tmp_path_factory.mktemp("any") / f"a{suffix}"
    path.write_bytes(content)
    with contextlib.suppress(DataError):
        for row in read_rows(path):
            assert row.problem is None or row.fields == {}
