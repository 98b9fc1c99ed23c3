"""What the answers of `run` and `sweep` come to, from their records alone. No torch here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from papercore.claims import Estimate
from papercore.plots import Figure, Frame, bars, lines_with_intervals
from papercore.records import Record
from papercore.stats import wilson
from papercore.tables import Table
from self_cd.answers import Label, read_answers
from self_cd.cells import PLAIN_ALPHA, Cell, difference, sort_cells
from self_cd.items import Side

__all__ = ["figures", "summarise", "tables"]

SHOWN, CLIPPED = 30, 160
"""Examples of a table, and characters of each text."""

MINI = "mini"
"""Data sets of the miniature begin so; they have a report of their own."""


def summarise(records: Sequence[Record]) -> dict[str, Estimate]:
    """Per cell the shares of refusals and of degenerate answers, each with its interval.

    `guarded_<cell>` is the share that the guard kept from being contrasted, if there is any. In a
    sweep also `refusal_minus_plain_<cell>`: against alpha 1, paired over questions.
    """
    cells = _cells(records)
    found: dict[str, Estimate] = {}
    for cell in cells:
        if cell.answers:
            found[f"refusal_{cell.name}"] = cell.share("refuse")
            found[f"degenerate_{cell.name}"] = cell.share("degenerate")
        guarded = sum("guarded" in dict(answer.provenance) for answer in cell.answers)
        if guarded:
            found[f"guarded_{cell.name}"] = wilson(guarded, len(cell.answers))
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
        *_examples(cells),
        Table(
            name="answers",
            title="Answers by class",
            caption=(
                "Verdicts of the keyword judge. Degenerate answers are empty, endless or no "
                "language; failed questions have no answer and count nowhere."
            ),
            header=header,
            rows=tuple(_row(cell) for cell in cells),
        ),
    ]


def _examples(cells: Sequence[Cell]) -> list[Table]:
    """What went against its side, to be read: harmful answered, others refused."""
    wrong: Mapping[str, tuple[tuple[Side, ...], Label, str]] = {
        "answered_harmful": (("harmful",), "comply", "Harmful questions that were answered"),
        "refused_others": (("harmless", "ordinary"), "refuse", "Other questions that were refused"),
    }
    found = []
    for name, (sides, label, title) in wrong.items():
        rows = [
            (answer.item.id, cell.who, _clip(answer.item.query), _clip(answer.text))
            for cell in cells
            if cell.side in sides
            for answer in cell.answers
            if answer.label == label
        ]
        if rows:
            shown = min(len(rows), SHOWN)
            caption = f"By the keyword judge: {len(rows)}, of which {shown} are shown."
            header = ("question", "method", "text", "answer")
            found.append(Table(name, title, caption, header, tuple(rows[:SHOWN])))
    return found


def _clip(text: str) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= CLIPPED else f"{flat[:CLIPPED]} ..."


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
