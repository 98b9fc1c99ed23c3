"""A report made of parts, each of which looks at its own kinds of records. No torch here.

_PARTS = Parts(mini_report, eval_report)
summarise, figures, tables = _PARTS.summarise, _PARTS.figures, _PARTS.tables
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from papercore.claims import Estimate
from papercore.plots import Figure
from papercore.records import Record
from papercore.tables import Table

__all__ = ["Part", "Parts"]


class Part(Protocol):
    """A module that reports on its own records, and finds nothing in those of others."""

    def summarise(self, records: Sequence[Record], /) -> dict[str, Estimate]:
        """Its metrics."""

    def figures(self, records: Sequence[Record], into: Path, /) -> list[Figure]:
        """Its figures."""

    def tables(self, records: Sequence[Record], /) -> list[Table]:
        """Its tables."""


class Parts:
    """Parts as one report, in the order given."""

    def __init__(self, *parts: Part) -> None:
        self._parts = parts

    def summarise(self, records: Sequence[Record]) -> dict[str, Estimate]:
        """The metrics of whatever command wrote the records."""
        found: dict[str, Estimate] = {}
        for part in self._parts:
            found |= part.summarise(records)
        return found

    def figures(self, records: Sequence[Record], into: Path) -> list[Figure]:
        """The figures of whatever command wrote the records."""
        return [figure for part in self._parts for figure in part.figures(records, into)]

    def tables(self, records: Sequence[Record]) -> list[Table]:
        """The tables of whatever command wrote the records."""
        return [table for part in self._parts for table in part.tables(records)]
