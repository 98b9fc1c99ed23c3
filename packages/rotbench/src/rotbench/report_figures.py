"""Figures of an evaluation: scores and kinds of errors by level, scores by scenario."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

from papercore.plots import Frame, heatmap, lines_with_intervals, stacked_bars
from papercore.records import Record
from rotbench.cases import LEVELS, SCENARIOS, Level, Turn
from rotbench.rates import METRICS, SCORERS, grouped, rate
from rotbench.taxonomy import KINDS

if TYPE_CHECKING:
    from papercore.plots import Figure

__all__ = ["draw"]

INTERVALS = "95 % intervals; whole queries are drawn where a level holds a query more than once."


def draw(turn: Turn, records: Sequence[Record], into: Path) -> list[Figure]:
    """All figures of one turn."""
    levels = grouped(records, lambda record: cast("Level", record.data["level"]))
    present = {level: levels[level] for level in LEVELS if level in levels}
    return [
        _levels(turn, present, into),
        _errors(turn, present, into),
        _scenarios(turn, present, into),
    ]


def _levels(turn: Turn, levels: dict[Level, list[Record]], into: Path) -> Figure:
    frame = Frame(
        f"levels_{turn}",
        f"Scores by level of noise, {turn} turn",
        f"Tool selection (ts), parameter identification (pi), content filling (cf). {INTERVALS} "
        "The official scorer counts a call without arguments as wrong.",
        x="level",
        y="share right",
        x_names=tuple(levels),
        y_range=(0.0, 1.0),
    )
    lines = {
        f"{metric}, {scorer}": {
            float(place): rate(of_level, scorer, metric)
            for place, of_level in enumerate(levels.values())
        }
        for scorer in SCORERS
        for metric in METRICS
    }
    return lines_with_intervals(into, frame, lines)


def _errors(turn: Turn, levels: dict[Level, list[Record]], into: Path) -> Figure:
    frame = Frame(
        f"errors_{turn}",
        f"What came of the cases, {turn} turn",
        "Each case has one kind. corrected_tool: the name that the noise had replaced was written; "
        "corrected_other: the same for another tool; addendum_missed: a parameter that the noise "
        "added and ordered to set was not.",
        x="level",
        y="share of cases",
        y_range=(0.0, 1.0),
    )
    counts = {level: Counter(r.data["error"] for r in rows) for level, rows in levels.items()}
    seen = [kind for kind in KINDS if any(count[kind] for count in counts.values())]
    return stacked_bars(
        into,
        frame,
        {
            level: {kind: count[kind] / len(levels[level]) for kind in seen}
            for level, count in counts.items()
        },
    )


def _scenarios(turn: Turn, levels: dict[Level, list[Record]], into: Path) -> Figure:
    frame = Frame(
        f"scenarios_{turn}",
        f"Tool selection by scenario, {turn} turn",
        "Share right, fixed scorer. Few cases are behind each number: see the table of scenarios.",
        x="level",
        y="scenario",
        y_range=(0.0, 1.0),
    )
    found = {str(r.data["scenario"]) for rows in levels.values() for r in rows}
    scenarios = [name for name in SCENARIOS if name in found] + sorted(found - SCENARIOS.keys())
    return heatmap(
        into,
        frame,
        rows=[SCENARIOS.get(name, name) for name in scenarios],
        columns=list(levels),
        values=[[_ts(rows, name) for rows in levels.values()] for name in scenarios],
    )


def _ts(records: Sequence[Record], scenario: str) -> float:
    rows = [record for record in records if record.data["scenario"] == scenario]
    return rate(rows, "fixed", "ts").value if rows else math.nan
