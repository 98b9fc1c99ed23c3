import csv
import math

import matplotlib as mpl
import pytest

from papercore.errors import DataError
from papercore.plots import Frame, bars, heatmap, lines_with_intervals, stacked_bars
from papercore.stats import wilson

LINES = {"ours": {512: wilson(9, 10), 1024: wilson(7, 10)}, "full": {512: wilson(9, 10)}}


def draw_lines(into):
    frame = Frame("l", "Lines", "c", x="tokens", y="accuracy", log_x=True, y_range=(0, 1))
    return lines_with_intervals(into, frame, LINES)


def draw_bars(into):
    groups = {"easy": {"ours": wilson(9, 10), "full": wilson(0, 0)}, "hard": {"ours": wilson(1, 9)}}
    return bars(into, Frame("b", "Bars", "c"), groups)


def draw_heatmap(into):
    frame = Frame("h", "Heat", "c", x="length", y="depth")
    values = [[0.0, math.nan], [0.5, 1.0]]
    return heatmap(into, frame, rows=["top", "end"], columns=["1x", "2x"], values=values)


def draw_names(into):
    frame = Frame("n", "Names", "c", x="level", x_names=("clean", "union"))
    return lines_with_intervals(into, frame, {"ours": {0: wilson(9, 10), 1: wilson(7, 10)}})


def draw_parts(into):
    groups = {"clean": {"right": 0.8, "format": 0.2}, "union": {"right": 0.5, "name": 0.5}}
    return stacked_bars(into, Frame("p", "Parts", "c", x="level", y_range=(0, 1)), groups)


@pytest.mark.parametrize("draw", [draw_lines, draw_bars, draw_heatmap, draw_names, draw_parts])
def test_a_figure_is_the_same_bytes_whatever_the_users_settings(draw, tmp_path):
    first = draw(tmp_path / "a")
    with mpl.rc_context({"font.size": 30, "axes.facecolor": "red"}):
        second = draw(tmp_path / "b")
        assert mpl.rcParams["font.size"] == 30, "the user's settings must come back"
    assert first.png.read_bytes().startswith(b"\x89PNG")
    assert first.png.read_bytes() == second.png.read_bytes()
    assert first.csv.read_bytes() == second.csv.read_bytes()
    assert b"Matplotlib" not in first.png.read_bytes()


def test_other_numbers_give_another_figure(tmp_path):
    first = draw_lines(tmp_path / "a")
    frame = Frame("l", "Lines", "c", x="tokens", y="accuracy", log_x=True, y_range=(0, 1))
    other = lines_with_intervals(tmp_path / "b", frame, {**LINES, "full": {512: wilson(1, 10)}})
    assert first.png.read_bytes() != other.png.read_bytes()


def rows(figure):
    with figure.csv.open(newline="") as file:
        return list(csv.reader(file))


def test_the_numbers_stand_beside_the_figure(tmp_path):
    table = rows(draw_lines(tmp_path))
    assert table[0] == ["series", "tokens", "value", "lo", "hi", "n"]
    assert [row[:3] for row in table[1:]] == [
        ["ours", "512", "0.9"],
        ["ours", "1024", "0.7"],
        ["full", "512", "0.9"],
    ]
    assert rows(draw_heatmap(tmp_path)) == [
        ["depth", "1x", "2x"],
        ["top", "0.0", "nan"],
        ["end", "0.5", "1.0"],
    ]
    assert [row[:2] for row in rows(draw_bars(tmp_path))[1:]] == [
        ["easy", "ours"],
        ["easy", "full"],
        ["hard", "ours"],
    ]


def test_parts_of_a_bar_stand_beside_it(tmp_path):
    assert rows(draw_parts(tmp_path)) == [
        ["level", "part", "value"],
        ["clean", "right", "0.8"],
        ["clean", "format", "0.2"],
        ["union", "right", "0.5"],
        ["union", "name", "0.5"],
    ]


def test_a_grid_must_fit_its_labels(tmp_path):
    with pytest.raises(DataError, match="figure 'h': the grid is not 1 x 2"):
        heatmap(tmp_path, Frame("h", "", ""), rows=["a"], columns=["b", "c"], values=[[1.0]])
    assert not list(tmp_path.iterdir())
