"""Tables of a report: on its page, and as CSV beside it.

    Table("counts", "Counts", "Of all cases.", ("level", "right"), [("clean", 0.8)])

A package whose `report.py` has `tables(records) -> list[Table]` gets them into `report.html`.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from papercore.files import write_atomic

__all__ = ["Table", "write_table"]


@dataclass(frozen=True)
class Table:
    """A table of texts and numbers; a float is rounded on the page, not in the CSV."""

    name: str
    """File name without extension."""
    title: str
    caption: str
    header: Sequence[str]
    rows: Sequence[Sequence[str | int | float]]


def write_table(table: Table, into: Path) -> Path:
    """Write a table as CSV."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(table.header)
    writer.writerows(table.rows)
    path = into / f"{table.name}.csv"
    write_atomic(path, text.getvalue())
    return path
