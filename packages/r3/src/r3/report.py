"""What a run of this package comes to, from its records alone. No torch here.

Each part looks at its own records and finds nothing in the runs of others.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from papercore.claims import Estimate
from papercore.plots import Figure
from papercore.records import Record
from papercore.tables import Table
from r3 import eval_report, mini_report, sft_report, train_report

__all__ = ["figures", "summarise", "tables"]


class _Part(Protocol):
    """A module that reports on its own kinds of records."""

    def summarise(self, records: Sequence[Record], /) -> dict[str, Estimate]: ...

    def figures(self, records: Sequence[Record], into: Path, /) -> list[Figure]: ...

    def tables(self, records: Sequence[Record], /) -> list[Table]: ...


_PARTS: tuple[_Part, ...] = (mini_report, train_report, eval_report, sft_report)


def summarise(records: Sequence[Record]) -> dict[str, Estimate]:
    """Every metric of a run."""
    found: dict[str, Estimate] = {}
    for part in _PARTS:
        found |= part.summarise(records)
    return found


def figures(records: Sequence[Record], into: Path) -> list[Figure]:
    """Every figure of a run."""
    return [figure for part in _PARTS for figure in part.figures(records, into)]


def tables(records: Sequence[Record]) -> list[Table]:
    """Every table of a run."""
    return [table for part in _PARTS for table in part.tables(records)]
