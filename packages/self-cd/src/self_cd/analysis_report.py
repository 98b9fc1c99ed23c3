"""What the records of `calibrate`, `attribute` and `trace` come to. No torch here.

The miniature writes records of flow and trace, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from papercore.claims import Estimate
from papercore.plots import Figure
from papercore.records import Record
from papercore.tables import Table
from self_cd import calibrate_report, flow_report, trace_report

__all__ = ["figures", "summarise", "tables"]

_PARTS = (calibrate_report, flow_report, trace_report)


def summarise(records: Sequence[Record]) -> dict[str, Estimate]:
    """The metrics of whatever analysis wrote the records; nothing for records of others."""
    found: dict[str, Estimate] = {}
    for part in _PARTS:
        found |= part.summarise(records)
    return found


def figures(records: Sequence[Record], into: Path) -> list[Figure]:
    """The figures of whatever analysis wrote the records."""
    return [figure for part in _PARTS for figure in part.figures(records, into)]


def tables(records: Sequence[Record]) -> list[Table]:
    """The tables of whatever analysis wrote the records."""
    return [table for part in _PARTS for table in part.tables(records)]
