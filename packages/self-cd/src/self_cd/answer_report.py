"""What the answers of `run` and `sweep` come to, from their records alone. No torch here."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from papercore.claims import Estimate
from papercore.plots import Figure, Frame, bars, lines_with_intervals
from papercore.records import Record
from papercore.tables import Table
from self_cd.answers import read_answers
from self_cd.cells import PLAIN_ALPHA, Cell, difference, sort_cells

__all__ = ["figures", "summarise", "tables"]

MINI = "mini"
"""Data sets of the miniature begin so; they have a report of their own."""


def summarise(records: Sequence[Record]) -> dict[str, Estimate]:
    """Per cell the shares of refusals and of degenerate answers, each with its interval.

    In a sweep also `refusal_minus_plain_<cell>`: against alpha 1, paired over questions.
    """
    cells = _cells(records)
    found: dict[str, Estimate] = {}
    for cell in cells:
        if cell.answers:
            found[f"refusal_{cell.name}"] = cell.share("refuse")
            found[f"degenerate_{cell.name}"] = cell.share("degenerate")
    for cell in cells:
        plain = _plain_of(cell, cells)
        against = None if plain is None else difference(cell, plain)
        if against is not None:
            found[f"refusal_minus_plain_{cell.name}"] = against
    return found


def figures(records: Sequence[Record], into: Path) -> list[Figure]:
    """Refusals by strength, or by data set and side."""
    cells = [cell for cell in _cells(records) if cell.answers]
    if not cells:
        return []
    if len({cell.alpha for cell in cells}) > 1:
        return [_sweep_figure(cells, into)]
    return [_run_figure(cells, into)]


def tables(records: Sequence[Record]) -> list[Table]:
    """Counts of the three classes per cell."""
    cells = _cells(records)
    if not cells:
        return []
    header = ("data set", "side", "method", "refuse", "comply", "degenerate", "failed", "tokens")
    return [
        Table(
            name="answers",
            title="Answers by class",
            caption=(
                "Verdicts of the keyword judge. Degenerate answers are empty, endless or no "
                "language; failed questions have no answer and count nowhere."
            ),
            header=header,
            rows=tuple(_row(cell) for cell in cells),
        )
    ]


def _cells(records: Sequence[Record]) -> list[Cell]:
    answers = read_answers(records)
    return sort_cells([one for one in answers if not one.item.dataset.startswith(MINI)])


def _plain_of(cell: Cell, cells: Sequence[Cell]) -> Cell | None:
    if cell.alpha is None or cell.alpha == PLAIN_ALPHA:
        return None
    same = (cell.method, PLAIN_ALPHA, cell.dataset, cell.side)
    return next((c for c in cells if (c.method, c.alpha, c.dataset, c.side) == same), None)


def _row(cell: Cell) -> tuple[str, ...]:
    labels = [answer.label for answer in cell.answers]
    counts = (str(labels.count(label)) for label in ("refuse", "comply", "degenerate"))
    tokens = sum(answer.new_tok for answer in cell.answers)
    return (cell.dataset, cell.side, cell.who, *counts, str(cell.num_failed), str(tokens))


def _run_figure(cells: Sequence[Cell], into: Path) -> Figure:
    frame = Frame(
        "refusals",
        "Refusals by data set and side",
        "Keyword judge. Harmful questions should be refused, the others not. "
        "Bars: 95 % Wilson intervals.",
        y="share refused",
        y_range=(0.0, 1.0),
    )
    groups: dict[str, dict[str, Estimate]] = {}
    for cell in cells:
        groups.setdefault(cell.dataset, {})[cell.side] = cell.share("refuse")
    return bars(into, frame, groups)


def _sweep_figure(cells: Sequence[Cell], into: Path) -> Figure:
    frame = Frame(
        "alphas",
        "Refusals by strength of the contrast",
        "0 is the safety prompt alone, 1 no system prompt. Keyword judge. "
        "Bands: 95 % Wilson intervals.",
        x="alpha",
        y="share refused",
        y_range=(0.0, 1.0),
    )
    series: dict[str, dict[float, Estimate]] = {}
    for cell in cells:
        if cell.alpha is not None:
            name = f"{cell.dataset}, {cell.side}"
            series.setdefault(name, {})[cell.alpha] = cell.share("refuse")
    return lines_with_intervals(into, frame, series)
