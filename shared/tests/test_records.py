import json
import logging
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from papercore.errors import DataError
from papercore.records import Record, RecordWriter, decode, encode, read_lines, read_records

scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)
objects = st.dictionaries(st.text(), values, max_size=3)


def same(a, b):
    if isinstance(a, float) and isinstance(b, float):
        return a == b or (math.isnan(a) and math.isnan(b))
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b and type(a) is type(b)


def strict(text):
    def refuse(name):
        raise AssertionError(name)

    return json.loads(text, parse_constant=refuse)


@given(objects)
def test_what_is_written_is_one_line_of_strict_json_and_comes_back(data):
    if "$float" in repr(data):
        return
    line = encode(data)
    strict(line)
    assert len(line.splitlines()) == 1
    assert same(decode(line), data)


def test_not_a_number_has_a_place():
    assert encode({"x": [math.nan, -math.inf]}) == (
        '{"x": [{"$float": "nan"}, {"$float": "-inf"}]}'
    )


@pytest.mark.parametrize("data", [{"x": {"$float": 1}}, {"x": object()}])
def test_what_has_no_place_in_json_is_refused(data):
    with pytest.raises(DataError, match=r"reserved|cannot be written"):
        encode(data)


def test_records_come_back_in_order(tmp_path):
    path = tmp_path / "r.jsonl"
    records = [
        Record(id="b", data={"x": 1.5, "text": "é\u2028\n"}),
        Record(id="a", status="error", error="out of memory"),
        Record(id="c", status="skipped"),
    ]
    with RecordWriter(path) as writer:
        for record in records:
            writer.append(record)
    assert read_records(path) == records


def test_a_line_is_readable_as_soon_as_it_is_appended(tmp_path):
    path = tmp_path / "r.jsonl"
    with RecordWriter(path) as writer:
        writer.append(Record(id="a"))
        assert [record.id for record in read_records(path)] == ["a"]


@given(cut=st.integers(1, 40))
def test_a_torn_last_line_costs_one_record_wherever_it_is_torn(tmp_path_factory, cut):
    path = tmp_path_factory.mktemp("torn") / "r.jsonl"
    lines = [encode(Record(id=name).model_dump()) + "\n" for name in ("a", "b")]
    path.write_text("".join(lines)[:-cut])
    assert [record.id for record in read_records(path)] == ["a"]
    with RecordWriter(path) as writer:
        writer.append(Record(id="b"))
    assert path.read_text() == "".join(lines)


def test_a_torn_last_line_is_warned_about(tmp_path, caplog):
    path = tmp_path / "r.jsonl"
    path.write_text('{"id": "a"}\n{"id": "b')
    with caplog.at_level(logging.WARNING):
        read_records(path)
    assert "torn last line of 9 bytes" in caplog.text


def test_a_broken_line_in_the_middle_is_an_error_with_its_number(tmp_path):
    path = tmp_path / "r.jsonl"
    path.write_text('{"id": "a"}\n{"id": "b\n{"id": "c"}\n')
    with pytest.raises(DataError, match=r"r\.jsonl:2: is not a JSON object"):
        read_records(path)


@pytest.mark.parametrize("line", ['{"id": "a", "x": NaN}', "3", '"text"', "[]", ""])
def test_a_line_must_be_a_strict_json_object(tmp_path, line):
    path = tmp_path / "r.jsonl"
    path.write_text(f"{line}\n")
    with pytest.raises(DataError, match=":1:"):
        read_lines(path)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"id": "a", "extra": 1}', "extra"),
        ('{"id": "a", "status": "fine"}', "status"),
        ('{"id": "a", "status": "error"}', "does not say why"),
        ('{"id": "a"}\n{"id": "a"}', "occurs twice"),
    ],
)
def test_a_line_that_is_no_record_is_an_error(tmp_path, text, reason):
    path = tmp_path / "r.jsonl"
    path.write_text(f"{text}\n")
    with pytest.raises(DataError, match=reason):
        read_records(path)


def test_a_missing_file_has_no_records(tmp_path):
    assert read_records(tmp_path / "none.jsonl") == []
