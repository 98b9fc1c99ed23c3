"""Tables of an evaluation: scores, errors, scenarios, operators."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import TypeAlias, cast

from papercore.claims import Estimate
from papercore.records import Record
from papercore.tables import Table
from rotbench.cases import HALVES, LEVELS, SCENARIOS, Level, Turn
from rotbench.operators import OPERATORS
from rotbench.rates import METRICS, SCORERS, flag, grouped, rate
from rotbench.report_tests import tests
from rotbench.taxonomy import ERROR_KINDS

__all__ = ["make"]

Turns: TypeAlias = Mapping[Turn, Sequence[Record]]
Row: TypeAlias = list[str | int | float]


def make(turns: Turns) -> list[Table]:
    """All tables of a run."""
    if not turns:
        return []
    found = [_scores(turns), _errors(turns), *tests(turns), _scenarios(turns), _operators(turns)]
    return [table for table in found if table.rows]


def _cells(turns: Turns) -> Iterator[tuple[Turn, Level, list[Record]]]:
    for turn, records in turns.items():
        levels = grouped(records, lambda record: cast("Level", record.data["level"]))
        yield from ((turn, level, levels[level]) for level in LEVELS if level in levels)


def _scores(turns: Turns) -> Table:
    rows: list[Row] = []
    for turn, level, records in _cells(turns):
        parts = {"both": records}
        if len(HALVES[level]) > 1:
            parts |= grouped(records, lambda record: str(record.data["half"]))
        for half, part in parts.items():
            for scorer in SCORERS:
                cells = [_shown(rate(part, scorer, metric)) for metric in METRICS]
                where = "whole" if len(parts) == 1 else half
                rows.append([turn, level, where, scorer, len(part), *cells])
    return Table(
        "scores",
        "Scores",
        "Percent right with 95 % intervals; whole queries are drawn where one comes up more than "
        "once. A level pools its halves.",
        ("turn", "level", "half", "scorer", "cases", "TS", "PI", "CF"),
        rows,
    )


def _errors(turns: Turns) -> Table:
    rows: list[Row] = []
    for turn, level, records in _cells(turns):
        kinds = Counter(str(record.data["error"]) for record in records)
        wrong = len(records) - kinds["correct"]
        corrected = sum(bool(record.data["corrected"]) for record in records)
        counts = [kinds[kind] for kind in ERROR_KINDS]
        share = corrected / wrong if wrong else 0.0
        strict = sum(flag(record, "strict", "cf") for record in records)
        rows.append([turn, level, len(records), kinds["correct"], *counts, share, strict])
    return Table(
        "errors",
        "Errors",
        "How many cases are right and how many have each kind of error; they add up to the cases. "
        "Noise correction: share of the wrong ones in which a name was written that the noise had "
        "replaced. Right as asked: the answer needed no repair to be read.",
        (
            "turn",
            "level",
            "cases",
            "correct",
            *ERROR_KINDS,
            "noise correction",
            "right as asked",
        ),
        rows,
    )


def _scenarios(turns: Turns) -> Table:
    rows: list[Row] = []
    for turn, level, records in _cells(turns):
        scenarios = grouped(records, lambda record: str(record.data["scenario"]))
        for name in sorted(scenarios):
            part = scenarios[name]
            cells = [_shown(rate(part, scorer, m)) for scorer in SCORERS for m in METRICS]
            rows.append([turn, level, SCENARIOS.get(name, name), len(part), *cells])
    heads = [f"{m.upper()}, {scorer}" for scorer in SCORERS for m in METRICS]
    return Table(
        "scenarios",
        "Scenarios",
        "Percent right with 95 % intervals.",
        ("turn", "level", "scenario", "cases", *heads),
        rows,
    )


def _operators(turns: Turns) -> Table:
    rows: list[Row] = []
    for turn, records in turns.items():
        for operator in OPERATORS:
            part = [r for r in records if operator in cast("list[str]", r.data["operators"])]
            if part:
                cells = [_shown(rate(part, "fixed", metric)) for metric in METRICS]
                rows.append([turn, operator, len(part), *cells])
    return Table(
        "operators",
        "Operators",
        "Percent right by what was done to a name in the first accepted call, fixed scorer; a case "
        "may be in several rows.",
        ("turn", "operator", "cases", "TS", "PI", "CF"),
        rows,
    )


def _shown(estimate: Estimate) -> str:
    return f"{100 * estimate.value:.2f} [{100 * estimate.lo:.1f}, {100 * estimate.hi:.1f}]"
