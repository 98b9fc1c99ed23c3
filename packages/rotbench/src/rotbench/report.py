"""What a run of this package comes to, from its records alone. No torch here.

This is the part of `eval` and `score`; the miniature's is in `mini_report`, that of `augment`,
`expand` and `train` in `training_report`. Metrics of the first turn have no prefix, those of the
third turn begin with `third_`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

from papercore.claims import Estimate
from papercore.records import Record
from papercore.stats import exact
from rotbench import mini_report, report_figures, report_tables, training_report
from rotbench.cases import HALVES, LEVELS, TURNS, Level, Turn
from rotbench.rates import METRICS, SCORERS, grouped, rate, share
from rotbench.spread import spread_of_levels

if TYPE_CHECKING:
    from papercore.plots import Figure
    from papercore.tables import Table

__all__ = ["figures", "summarise", "tables"]

PREFIX = {"first": "", "third": "third_"}


def summarise(records: Sequence[Record]) -> dict[str, Estimate]:
    """Every metric of a run, as shares from 0 to 1.

    `<metric>_<level>` for `ts`, `pi`, `cf` and each level, halves pooled; `official_...` by the
    official scorer, and `best_...` what a perfect answer would reach there. `..._tool` and
    `..._parameter` are the halves. `..._sd`, `..._span` and `..._worst` are over the levels.
    `corrected_<level>` is the share of noise corrections among all cases, `format_<level>` that of
    answers without a readable call. `failed` counts requests without an answer.
    """
    if mini_report.is_miniature(records):
        return mini_report.summarise(records)
    if training_report.is_training(records):
        return training_report.summarise(records)
    found: dict[str, Estimate] = {}
    for turn, of_turn in _turns(records).items():
        prefix = PREFIX[turn]
        found |= {f"{prefix}{name}": estimate for name, estimate in _of_turn(of_turn)}
    failed = sum(record.status == "error" for record in records)
    if failed:
        found["failed"] = exact(failed, len(records))
    return found


def figures(records: Sequence[Record], into: Path) -> list[Figure]:
    """Scores by level, kinds of errors by level, and scores by scenario, for each turn."""
    if mini_report.is_miniature(records):
        return mini_report.figures(records, into)
    if training_report.is_training(records):
        return []
    return [
        figure
        for turn, of_turn in _turns(records).items()
        for figure in report_figures.draw(turn, of_turn, into)
    ]


def tables(records: Sequence[Record]) -> list[Table]:
    """Scores, errors and tests as tables, each over both turns."""
    if mini_report.is_miniature(records):
        return mini_report.tables(records)
    if training_report.is_training(records):
        return training_report.tables(records)
    return report_tables.make(_turns(records))


def _turns(records: Sequence[Record]) -> dict[Turn, list[Record]]:
    """Scored records by turn, in the order of their names, whatever order they came in."""
    scored = sorted((r for r in records if r.status == "ok"), key=lambda record: record.id)
    turns = grouped(scored, lambda record: cast("Turn", record.data["turn"]))
    return {turn: turns[turn] for turn in TURNS if turn in turns}


def _of_turn(records: Sequence[Record]) -> Iterator[tuple[str, Estimate]]:
    levels = grouped(records, lambda record: cast("Level", record.data["level"]))
    for level in LEVELS:
        if level in levels:
            yield from _of_level(level, levels[level])
    for scorer in SCORERS:
        prefix = "" if scorer == "fixed" else "official_"
        for metric in METRICS:
            for name, estimate in spread_of_levels(records, scorer, metric).items():
                yield f"{prefix}{metric}_{name}", estimate


def _of_level(level: Level, records: Sequence[Record]) -> Iterator[tuple[str, Estimate]]:
    for metric in METRICS:
        yield f"{metric}_{level}", rate(records, "fixed", metric)
    for metric in METRICS:
        yield f"official_{metric}_{level}", rate(records, "official", metric)
    best = [r for r in records if cast("dict[str, bool]", r.data["best"])["official"]]
    yield f"official_best_{level}", exact(len(best) / len(records), len(records))
    for half in HALVES[level] if len(HALVES[level]) > 1 else ():
        part = [record for record in records if record.data["half"] == half]
        for metric in METRICS if part else ():
            yield f"{metric}_{level}_{half}", rate(part, "fixed", metric)
    yield f"corrected_{level}", share(records, lambda record: bool(record.data["corrected"]))
    yield f"format_{level}", share(records, lambda record: record.data["error"] == "format")
