"""Figures for reports: a PNG that is the same bytes for the same numbers, and the numbers as CSV.

    frame = Frame("accuracy", "Accuracy against length", "Bands: 95 %.", x="tokens", y="accuracy")
    figure = lines_with_intervals(into, frame, {"ours": {512: wilson(9, 10)}})

Colours are those of Okabe and Ito; series also differ in marker and line, for readers who see none.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from papercore.claims import Estimate
from papercore.errors import DataError
from papercore.files import write_atomic

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

__all__ = ["Figure", "Frame", "bars", "heatmap", "lines_with_intervals", "stacked_bars"]

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8C564B")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "h")
DASHES = ("-", "--", "-.", ":")
HATCHES = ("", "///", "...")


@dataclass(frozen=True)
class Figure:
    """A figure on disk."""

    name: str
    title: str
    caption: str
    png: Path
    csv: Path


@dataclass(frozen=True)
class Frame:
    """What stands around the data of a figure."""

    name: str
    """File name without extension."""
    title: str
    caption: str
    x: str = ""
    """Label of the horizontal axis."""
    y: str = ""
    """Label of the vertical axis."""
    log_x: bool = False
    x_names: Sequence[str] = ()
    """Names of the places 0, 1, 2 and so on of the horizontal axis, where these are no amounts."""
    y_range: tuple[float, float] | None = None
    """Limits of the vertical axis, or of the colours of a heat map."""


def lines_with_intervals(
    into: Path, frame: Frame, series: Mapping[str, Mapping[float, Estimate]]
) -> Figure:
    """One line per series with its interval as a band.

    Args:
        into: Folder of the files.
        frame: Title, caption and axes.
        series: Name -> x -> estimate.
    """
    with _canvas(frame) as (canvas, axes):
        for index, (label, points) in enumerate(series.items()):
            _line(axes, index, label, points)
        if frame.log_x:
            _log_axis(axes, sorted({x for points in series.values() for x in points}))
        if frame.x_names:
            axes.set_xticks(range(len(frame.x_names)), list(frame.x_names))
        _limits(axes, frame)
        if len(series) > 1:
            axes.legend(frameon=False)
        rows = [
            (label, x, *_numbers(estimate))
            for label, points in series.items()
            for x, estimate in points.items()
        ]
        header = ("series", frame.x or "x", "value", "lo", "hi", "n")
        return _save(into, frame, canvas, header, rows)


def bars(into: Path, frame: Frame, groups: Mapping[str, Mapping[str, Estimate]]) -> Figure:
    """Bars with their intervals, grouped.

    Args:
        into: Folder of the files.
        frame: Title, caption and axes.
        groups: Group on the axis -> series -> estimate.
    """
    labels = list(dict.fromkeys(label for members in groups.values() for label in members))
    width = 0.8 / max(1, len(labels))
    with _canvas(frame) as (canvas, axes):
        for index, label in enumerate(labels):
            at = [place for place, members in enumerate(groups.values()) if label in members]
            found = [members[label] for members in groups.values() if label in members]
            axes.bar(
                [place + (index - (len(labels) - 1) / 2) * width for place in at],
                [estimate.value for estimate in found],
                width * 0.92,
                yerr=_error_bars(found),
                label=label,
                color=COLOURS[index % len(COLOURS)],
                capsize=3,
                ecolor="#333333",
            )
        axes.set_xticks(range(len(groups)), list(groups))
        axes.set_xlim(-0.6, len(groups) - 0.4)
        axes.grid(visible=False, axis="x")
        _limits(axes, frame)
        if len(labels) > 1:
            axes.legend(frameon=False)
        rows = [
            (group, label, *_numbers(estimate))
            for group, members in groups.items()
            for label, estimate in members.items()
        ]
        header = (frame.x or "group", "series", "value", "lo", "hi", "n")
        return _save(into, frame, canvas, header, rows)


MANY_GROUPS = 7
"""With more of them, their names are written smaller, so that they stand apart."""


def stacked_bars(into: Path, frame: Frame, groups: Mapping[str, Mapping[str, float]]) -> Figure:
    """One bar per group, made of parts.

    Args:
        into: Folder of the files.
        frame: Title, caption and axes.
        groups: Group on the axis -> part, from the bottom up -> its height.
    """
    labels = list(dict.fromkeys(label for parts in groups.values() for label in parts))
    with _canvas(frame) as (canvas, axes):
        bottoms = [0.0] * len(groups)
        for index, label in enumerate(labels):
            heights = [parts.get(label, 0.0) for parts in groups.values()]
            axes.bar(
                range(len(groups)),
                heights,
                0.75,
                bottom=bottoms,
                label=label,
                color=COLOURS[index % len(COLOURS)],
                hatch=HATCHES[index // len(COLOURS) % len(HATCHES)],
                edgecolor="white",
                linewidth=0.5,
            )
            bottoms = [low + height for low, height in zip(bottoms, heights, strict=True)]
        axes.set_xticks(range(len(groups)), list(groups))
        if len(groups) > MANY_GROUPS:
            axes.tick_params(axis="x", labelsize="small")
        axes.grid(visible=False, axis="x")
        _limits(axes, frame)
        if labels:
            axes.legend(frameon=False, reverse=True, bbox_to_anchor=(1.0, 1.0), loc="upper left")
        rows = [
            (group, label, height)
            for group, parts in groups.items()
            for label, height in parts.items()
        ]
        return _save(into, frame, canvas, (frame.x or "group", "part", "value"), rows)


def heatmap(
    into: Path,
    frame: Frame,
    *,
    rows: Sequence[str],
    columns: Sequence[str],
    values: Sequence[Sequence[float]],
) -> Figure:
    """A grid of numbers as colours, each number written into its cell.

    Args:
        into: Folder of the files.
        frame: Title, caption and axes; `y_range` fixes the ends of the colour scale.
        rows: Labels from top to bottom.
        columns: Labels from left to right.
        values: One list per row; NaN leaves a cell blank.

    Raises:
        DataError: The grid does not fit its labels.
    """
    if [len(row) for row in values] != [len(columns)] * len(rows):
        raise DataError(
            f"figure {frame.name!r}: the grid is not {len(rows)} x {len(columns)} as its labels are"
        )
    numbers = [number for row in values for number in row if math.isfinite(number)]
    low, high = frame.y_range or (min(numbers, default=0.0), max(numbers, default=1.0))
    with _canvas(frame) as (canvas, axes):
        image = axes.imshow(values, cmap="cividis", vmin=low, vmax=high, aspect="auto")
        canvas.colorbar(image, ax=axes)
        axes.set_xticks(range(len(columns)), list(columns))
        axes.set_yticks(range(len(rows)), list(rows))
        axes.grid(visible=False)
        for y, row in enumerate(values):
            for x, number in enumerate(row):
                _cell(axes, x, y, number, bright=number > (low + high) / 2)
        table = [(label, *row) for label, row in zip(rows, values, strict=True)]
        return _save(into, frame, canvas, (frame.y or "row", *columns), table)


def _line(axes: Axes, index: int, label: str, points: Mapping[float, Estimate]) -> None:
    colour = COLOURS[index % len(COLOURS)]
    xs = list(points)
    axes.plot(
        xs,
        [points[x].value for x in xs],
        label=label,
        color=colour,
        marker=MARKERS[index % len(MARKERS)],
        linestyle=DASHES[index % len(DASHES)],
    )
    axes.fill_between(
        xs, [points[x].lo for x in xs], [points[x].hi for x in xs], color=colour, alpha=0.15, lw=0
    )


def _log_axis(axes: Axes, xs: Sequence[float]) -> None:
    axes.set_xscale("log", base=2)
    axes.set_xticks(xs, [f"{x:g}" for x in xs])
    axes.minorticks_off()


def _limits(axes: Axes, frame: Frame) -> None:
    if frame.y_range is not None:
        low, high = frame.y_range
        margin = 0.03 * (high - low)
        axes.set_ylim(low - margin, high + margin)


def _cell(axes: Axes, x: int, y: int, number: float, *, bright: bool) -> None:
    if math.isfinite(number):
        colour = "black" if bright else "white"
        axes.text(x, y, f"{number:.2g}", ha="center", va="center", color=colour, fontsize=8)


def _error_bars(estimates: Iterable[Estimate]) -> list[list[float]]:
    down, up = [], []
    for estimate in estimates:
        down.append(_gap(estimate.value - estimate.lo))
        up.append(_gap(estimate.hi - estimate.value))
    return [down, up]


def _gap(length: float) -> float:
    return max(0.0, length) if math.isfinite(length) else 0.0


def _numbers(estimate: Estimate) -> tuple[float, float, float, int]:
    return estimate.value, estimate.lo, estimate.hi, estimate.n


@contextmanager
def _canvas(frame: Frame) -> Iterator[tuple[Canvas, Axes]]:
    """An empty figure in our style, independent of the user's own settings."""
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure as Canvas

    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(
            {
                "axes.spines.top": False,
                "axes.spines.right": False,
                "axes.grid": True,
                "grid.alpha": 0.3,
                "font.family": "DejaVu Sans",
                "font.size": 10,
            }
        )
        canvas = Canvas(figsize=(7.0, 4.2), dpi=130, layout="constrained")
        FigureCanvasAgg(canvas)
        axes = canvas.add_subplot()
        axes.set_title(frame.title, loc="left", fontsize=11)
        axes.set_xlabel(frame.x)
        axes.set_ylabel(frame.y)
        yield canvas, axes


def _save(
    into: Path,
    frame: Frame,
    canvas: Canvas,
    header: Sequence[str],
    rows: Iterable[Sequence[object]],
) -> Figure:
    image = io.BytesIO()
    canvas.savefig(image, format="png", metadata={"Software": None})
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    png, table = into / f"{frame.name}.png", into / f"{frame.name}.csv"
    write_atomic(png, image.getvalue())
    write_atomic(table, text.getvalue())
    return Figure(frame.name, frame.title, frame.caption, png, table)
