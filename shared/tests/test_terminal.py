"""Lines for a person at a terminal."""

import pytest

from papercore.claims import Estimate
from papercore.stats import exact, wilson
from papercore.terminal import percent, say, shown, table_lines


def test_a_line_goes_to_stdout(capsys):
    say("done")
    assert capsys.readouterr() == ("done\n", "")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain \u4f60", "plain \u4f60"),
        ("a\x1b[2Jb", "a\\x1b[2Jb"),
        ("a\nb\tc", "a\\nb\\tc"),
        ("right\u202eleft", "right\\u202eleft"),
    ],
)
def test_text_of_others_cannot_steer_the_terminal(text, expected):
    assert shown(text) == expected


def test_a_cut_text_has_the_width_and_a_whole_one_is_not_cut():
    assert shown("x" * 20, 10) == "xxxxxxx..."
    assert shown("x" * 10, 10) == "x" * 10
    assert len(shown("\x1b" * 9, 10)) == 10


def test_shares_come_with_their_interval_if_there_is_one():
    found = wilson(412, 1000)
    assert percent(found) == f"41.2 % [{100 * found.lo:.1f}, {100 * found.hi:.1f}]"
    assert percent(exact(0.5, 10)) == "50.0 %"
    assert percent(wilson(0, 0)) == "-"
    assert isinstance(found, Estimate)


def test_a_table_has_its_numbers_on_the_right():
    assert table_lines(["name", "n"], [["a", "10"], ["long name", "7"]]) == [
        "name        n",
        "a          10",
        "long name   7",
    ]
