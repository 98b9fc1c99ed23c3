"""The dump of rollouts: lines, offsets, torn lines, and what a resumed run cuts off."""

import json
import math

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from papercore.errors import DataError
from r3.dump import Dumped, DumpWriter, append_dump, grade, read_dumps, truncate

TEXT = st.text(st.characters(exclude_categories=("Cs",)), max_size=40)
NUMBER = st.none() | st.floats(allow_nan=False)


def dumped(step=1, **changes):
    usual = {
        "step": step,
        "demo": "gsm8k_0",
        "depth": 1,
        "share": 0.5,
        "cut_tok": 3,
        "prompt": "Two and two?",
        "prefix": "Two and",
        "response": " two is four.\n#### 4",
        "gold": "4",
        "reward": 1.0,
        "correct": True,
        "parsed": "4",
        "length": 9,
    }
    return Dumped(**(usual | changes))


def test_what_was_written_is_read_back_in_order(tmp_path):
    rows = [dumped(), dumped(response="\u2028</script>\x00\u202e"), dumped(kl=math.inf, value=-0.5)]
    with DumpWriter(tmp_path / "rollouts.jsonl") as writer:
        writer.append(1, rows[:2])
        writer.append(1, rows[2:])
    assert list(read_dumps(tmp_path / "rollouts.jsonl")) == rows


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(prompt=TEXT, response=TEXT, parsed=st.none() | TEXT, reward=NUMBER, kl=NUMBER)
def test_any_text_and_number_comes_back(tmp_path, prompt, response, parsed, reward, kl):
    path = tmp_path / "rollouts.jsonl"
    path.unlink(missing_ok=True)
    row = dumped(prompt=prompt, response=response, parsed=parsed, reward=reward, kl=kl)
    append_dump(path, 1, [row, row])
    assert list(read_dumps(path)) == [row, row]
    assert path.read_bytes().count(b"\n") == 2


def test_a_number_that_json_lacks_is_strict_json_all_the_same(tmp_path):
    append_dump(tmp_path / "a", 1, [dumped(reward=math.nan)])
    line = json.loads((tmp_path / "a").read_text(), parse_constant=pytest.fail)
    assert line["reward"] == {"$float": "nan"}
    assert math.isnan(next(read_dumps(tmp_path / "a")).reward)


def test_a_run_that_goes_on_from_an_offset_writes_the_same_file(tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    for path in (whole, killed):
        with DumpWriter(path) as writer:
            assert writer.offset == 0
            offset = writer.append(1, [dumped(1), dumped(1, correct=False)])
            assert offset == writer.offset == path.stat().st_size
            writer.append(2, [dumped(2)])
    truncate(killed, offset)
    assert [row.step for row in read_dumps(killed)] == [1, 1]
    assert append_dump(killed, 2, [dumped(2)]) == whole.stat().st_size
    assert killed.read_bytes() == whole.read_bytes()


def test_a_torn_last_line_is_left_out_and_cut_off(tmp_path, caplog):
    path = tmp_path / "rollouts.jsonl"
    append_dump(path, 1, [dumped(), dumped(prompt="x" * 200_000)])
    path.write_bytes(path.read_bytes()[:-5])
    assert len(list(read_dumps(path))) == 1
    assert "dropped a torn last line of 200" in caplog.text
    with DumpWriter(path) as writer:
        assert "cut off a torn last line" in caplog.text
        assert writer.append(2, [dumped(2)]) == path.stat().st_size
    assert [row.step for row in read_dumps(path)] == [1, 2]


def test_a_file_of_one_torn_line_starts_anew(tmp_path):
    path = tmp_path / "rollouts.jsonl"
    path.write_text('{"step": 1')
    with DumpWriter(path) as writer:
        assert writer.offset == 0


def test_a_dump_that_was_deleted_or_shortened_does_not_stop_a_resumed_run(tmp_path, caplog):
    truncate(tmp_path / "none", 0)
    assert not caplog.text
    truncate(tmp_path / "none", 10)
    assert "has 10 bytes less than when it was saved" in caplog.text
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{}\n", ":1: is no rollout: "),
        ('{"step": 1\n', ":1: is not JSON"),
        ("[1]\n", ":1: is no rollout"),
    ],
)
def test_a_damaged_line_is_named(tmp_path, line, reason):
    (tmp_path / "a").write_text(line)
    with pytest.raises(DataError, match=reason):
        list(read_dumps(tmp_path / "a"))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match=r"none cannot be read: No such file"):
        list(read_dumps(tmp_path / "none"))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, "right"),
        ({"correct": False, "reward": 0.2}, "partial"),
        ({"correct": False, "reward": 0.0}, "wrong"),
        ({"correct": False, "reward": None}, "failed"),
        ({"reward": 0.0, "error": "ZeroDivisionError"}, "failed"),
    ],
)
def test_grades(changes, expected):
    assert grade(dumped(**changes)) == expected
