"""What `run` and `sweep` say on the terminal: refusals of both sides. No torch here."""

from __future__ import annotations

import math
from collections.abc import Sequence

from papercore.claims import Estimate
from self_cd.answers import Answer
from self_cd.cells import Cell, sort_cells

__all__ = ["result_lines"]

HEADER = ("data set", "side", "method", "refused", "95 % interval", "degenerate", "n", "failed")


def result_lines(answers: Sequence[Answer]) -> list[str]:
    """A table with one line per cell, and a warning if one side is missing."""
    cells = sort_cells(answers)
    if not cells:
        return ["no answers"]
    rows = [HEADER, *(_row(cell) for cell in cells)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADER))]
    lines = [
        "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    sides = {cell.side for cell in cells if cell.answers}
    if "harmful" not in sides:
        lines.append("NO HARMFUL QUESTION WAS ANSWERED: fewer refusals alone say nothing on safety")
    if "harmless" not in sides:
        lines.append("no harmless question was answered: more refusals alone are no merit")
    return lines


def _row(cell: Cell) -> tuple[str, ...]:
    refused, broken = cell.share("refuse"), cell.share("degenerate")
    return (
        cell.dataset,
        cell.side,
        cell.who,
        _percent(refused.value),
        _interval(refused),
        _percent(broken.value),
        str(refused.n),
        str(cell.num_failed),
    )


def _percent(share: float) -> str:
    return "-" if math.isnan(share) else f"{100 * share:.1f} %"


def _interval(found: Estimate) -> str:
    return f"{100 * found.lo:.1f} to {100 * found.hi:.1f}" if found.n else "-"
