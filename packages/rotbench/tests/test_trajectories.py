"""Reading files of trajectories: row by row, with every problem named by its place and field."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from papercore.errors import DataError
from rotbench import trajectories
from rotbench.layouts import row
from rotbench.trajectories import digest, read_rows

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "Weather of a town.",
            "parameters": {"type": "object", "properties": {"town": {"type": "string"}}},
        },
    }
]


def entry(town="Oslo", **more):
    call = {"name": "get_weather", "arguments": json.dumps({"town": town})}
    messages = [
        {"role": "user", "content": f"Weather in {town}?"},
        {"role": "assistant", "content": "", "tool_calls": [{"id": "a", "function": call}]},
        {"role": "tool", "tool_call_id": "a", "content": "rain"},
        {"role": "assistant", "content": "It rains."},
    ]
    return {"id": town, "tools": TOOLS, "messages": messages, **more}


def lines_of(path, items):
    path.write_text("".join(json.dumps(item) + "\n" for item in items), "utf-8")
    return path


def towns(rows):
    return [r.trajectory.calls[0].arguments["town"] for r in rows]


@pytest.mark.parametrize("indent", [None, 1])
@pytest.mark.parametrize("chunk", [1, 7, 64, 1 << 20])
def test_a_list_reads_like_lines_whatever_the_chunks(tmp_path, monkeypatch, indent, chunk):
    monkeypatch.setattr(trajectories, "_CHUNK", chunk)
    names = ["Oslo", "Bergen", "Tromsø ]},{", '"quoted"', "\\ back"]
    lines = list(read_rows(lines_of(tmp_path / "a.jsonl", [entry(name) for name in names])))
    (tmp_path / "b.json").write_text(
        "\n " + json.dumps([entry(name) for name in names], indent=indent), "utf-8"
    )
    items = list(read_rows(tmp_path / "b.json"))
    assert towns(lines) == towns(items) == names
    assert [one.place for one in lines] == [f"line {i}" for i in range(1, 6)]
    assert [one.place for one in items] == [f"item {i}" for i in range(1, 6)]
    assert [one.trajectory for one in lines] == [one.trajectory for one in items]


def test_empty_lines_and_a_byte_order_mark_are_no_rows(tmp_path):
    text = "\n" + json.dumps(entry()) + "\n\n  \n" + json.dumps(entry("Rome"))
    (tmp_path / "a.jsonl").write_bytes(b"\xef\xbb\xbf" + text.encode())
    rows = list(read_rows(tmp_path / "a.jsonl"))
    assert towns(rows) == ["Oslo", "Rome"]
    assert [one.place for one in rows] == ["line 2", "line 5"]


BAD = {
    "not-json": (b'{"id": ', "is not JSON"),
    "not-utf8": (b'{"id": "\xff"}', "is not UTF-8 text: byte 8 is 0xff"),
    "two-values": (b"{} {}", "follows the object"),
    "a-number": (b"17", "the row: should be an object"),
    "nan": (b'{"x": NaN}', "NaN is no number of JSON"),
    "huge-number": (b'{"x": ' + b"9" * 5000 + b"}", "is not JSON"),
    "deep": (b"[" * 100_000, "is nested too deeply"),
    "neither": (b"{}", "the row: has neither conversations nor messages"),
}


@pytest.mark.parametrize(("line", "reason"), BAD.values(), ids=BAD)
def test_a_bad_line_is_named_and_the_next_is_read(tmp_path, line, reason):
    good = json.dumps(entry()).encode()
    (tmp_path / "a.jsonl").write_bytes(good + b"\n" + line + b"\n" + good + b"\n")
    first, bad, last = read_rows(tmp_path / "a.jsonl")
    assert (bad.place, bad.trajectory) == ("line 2", None)
    assert reason in bad.problem
    assert first.trajectory == last.trajectory is not None


def test_a_line_that_is_too_long_is_one_problem(tmp_path, monkeypatch):
    monkeypatch.setattr(trajectories, "MAX_ROW", 2000)
    items = [entry(), entry("x" * 7000), entry("Rome"), entry("y" * 2500)]
    first, long, last, end = read_rows(lines_of(tmp_path / "a.jsonl", items))
    assert "is longer than" in long.problem
    assert "is longer than" in end.problem
    assert towns([first, last]) == ["Oslo", "Rome"]
    assert (last.place, end.place) == ("line 3", "line 4")


@pytest.mark.parametrize(
    ("tail", "reason"),
    [
        ("", "is not JSON"),
        (", {", "is not JSON"),
        (", nonsense]", "is not JSON"),
        (',{"a":NaN}]', "NaN"),
    ],
)
def test_a_broken_list_gives_what_stands_before(tmp_path, tail, reason):
    (tmp_path / "a.json").write_text("[" + json.dumps(entry()) + tail)
    good, bad = read_rows(tmp_path / "a.json")
    assert towns([good]) == ["Oslo"]
    assert bad.place == "item 2"
    assert reason in bad.problem
    assert "not read" in bad.problem


def test_a_list_that_is_not_utf8(tmp_path):
    (tmp_path / "a.json").write_bytes(b'[{"id": "\xff\xff"}]')
    (bad,) = read_rows(tmp_path / "a.json")
    assert "UTF-8" in bad.problem


def test_an_item_without_end_is_not_sought_to_the_end_of_the_file(tmp_path, monkeypatch):
    monkeypatch.setattr(trajectories, "MAX_ROW", 1000)
    monkeypatch.setattr(trajectories, "_CHUNK", 100)
    (tmp_path / "a.json").write_text('[{"id": "' + "x" * 1_000_000)
    (bad,) = read_rows(tmp_path / "a.json")
    assert "not read" in bad.problem


def test_an_empty_list_and_an_empty_file_have_no_rows(tmp_path):
    for text in ("[]", "[ \n ]", "", "\n"):
        (tmp_path / "a.json").write_text(text)
        assert list(read_rows(tmp_path / "a.json")) == []


def test_limit(tmp_path):
    path = lines_of(tmp_path / "a.jsonl", [entry(str(i)) for i in range(5)])
    assert towns(read_rows(path, limit=2)) == ["0", "1"]


def test_a_missing_file(tmp_path):
    with pytest.raises(DataError, match="nonesuch"):
        list(read_rows(tmp_path / "nonesuch.jsonl"))


def test_halves_of_characters_become_replacement_characters(tmp_path):
    (tmp_path / "a.jsonl").write_text(json.dumps(entry("a")).replace("in a?", "in \\ud800?"))
    (one,) = read_rows(tmp_path / "a.jsonl")
    assert one.trajectory.moves[0].text == "Weather in �?"
    json.dumps(row(one.trajectory), ensure_ascii=False).encode()


def test_the_digest_knows_the_content_only(tmp_path):
    items = [entry(), entry(id="other", scenario="TG"), entry("Rome")]
    first, same, other = read_rows(lines_of(tmp_path / "a.jsonl", items))
    assert digest(first.trajectory) == digest(same.trajectory) != digest(other.trajectory)


@settings(max_examples=200)
@given(st.binary(max_size=200))
def test_no_bytes_make_it_crash(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "fuzz"
    path.write_bytes(content)
    for one in read_rows(path):
        assert one.trajectory is None
        assert one.problem
