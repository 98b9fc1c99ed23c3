"""Tables of the tests over an evaluation: levels against each other, noise correction, seeds."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeAlias, cast

from papercore.claims import Estimate
from papercore.records import Record
from papercore.tables import Table
from rotbench.cases import LEVELS, Level, Turn
from rotbench.rates import METRICS, SCORERS, grouped, rate
from rotbench.robustness import Comparison, corrections, level_anova, level_tests

__all__ = ["comparison_rows", "tests"]

Turns: TypeAlias = Mapping[Turn, Sequence[Record]]
Row: TypeAlias = list[str | int | float]

COMPARISON_HEAD = ("difference", "points [95 %]", "queries", "p", "p, Holm")


def tests(turns: Turns) -> list[Table]:
    """All tables of tests; those for which there is nothing to test are left out."""
    found = [_levels(turns), _anova(turns), _corrections(turns), _seeds(turns)]
    return [table for table in found if table.rows]


def comparison_rows(comparisons: Iterable[Comparison]) -> list[Row]:
    """One row per comparison, as `COMPARISON_HEAD` has it."""
    return [
        [
            comparison.name,
            _points(comparison.difference),
            comparison.difference.n,
            comparison.p_value,
            comparison.holm,
        ]
        for comparison in comparisons
    ]


def _levels(turns: Turns) -> Table:
    rows: list[Row] = []
    for turn, records in turns.items():
        for scorer in SCORERS:
            for metric in METRICS:
                compared = comparison_rows(level_tests(records, scorer, metric))
                rows += [[turn, scorer, metric.upper(), *row] for row in compared]
    return Table(
        "level_tests",
        "Levels against clean",
        "Paired by query: a query's cases of one level are averaged. p is that of the exact paired "
        "permutation test; Holm's adjustment is over the levels of a row's score.",
        ("turn", "scorer", "score", *COMPARISON_HEAD),
        rows,
    )


def _anova(turns: Turns) -> Table:
    rows: list[Row] = []
    for turn, records in turns.items():
        for scorer in SCORERS:
            for metric in METRICS:
                found = level_anova(records, scorer, metric)
                if found is not None:
                    tests = (found.classical, found.welch)
                    cells: Row = [number for test in tests for number in (test.f, test.p_value)]
                    rows.append([turn, scorer, metric.upper(), *cells])
    return Table(
        "anova",
        "Analysis of variance over the levels",
        "As the paper has it, although its cases are not independent: the same queries are asked "
        "at every level. The tests above take that into account.",
        ("turn", "scorer", "score", "F, classical", "p, classical", "F, Welch", "p, Welch"),
        rows,
    )


def _corrections(turns: Turns) -> Table:
    rows: list[Row] = []
    for turn, records in turns.items():
        levels = grouped(records, lambda record: cast("Level", record.data["level"]))
        for level in LEVELS:
            found = corrections(levels.get(level, []))
            if found.num_errors and level != "clean":
                shares = (found.of_errors, found.of_cases, found.of_errors_near)
                rows.append([turn, level, found.num_errors, *map(_percent, shares)])
    return Table(
        "corrections",
        "Noise correction",
        "The model wrote the name that the noise had replaced. Nearly: or a wrong name that is "
        "nearer to it than to the disturbed one. Percent with 95 % intervals.",
        ("turn", "level", "errors", "of errors", "of cases", "of errors, or nearly"),
        rows,
    )


def _seeds(turns: Turns) -> Table:
    """Scores seed by seed, where the noise was made more than once."""
    rows: list[Row] = []
    for turn, records in turns.items():
        seeds = grouped(records, lambda record: record.data["noise_seed"] is not None)
        by_seed = grouped(seeds.get(True, []), lambda r: cast("int", r.data["noise_seed"]))
        for seed in sorted(by_seed) if len(by_seed) > 1 else ():
            levels = grouped(by_seed[seed], lambda r: cast("Level", r.data["level"]))
            for level in LEVELS:
                if level in levels:
                    cells = [_percent(rate(levels[level], "fixed", m)) for m in METRICS]
                    rows.append([turn, level, seed, len(levels[level]), *cells])
    return Table(
        "seeds",
        "Seeds of the noise",
        "Percent right with 95 % intervals, fixed scorer: how much of a difference is the draw of "
        "the noise.",
        ("turn", "level", "seed", "cases", "TS", "PI", "CF"),
        rows,
    )


def _points(estimate: Estimate) -> str:
    return f"{100 * estimate.value:+.2f} [{100 * estimate.lo:+.1f}, {100 * estimate.hi:+.1f}]"


def _percent(estimate: Estimate) -> str:
    if math.isnan(estimate.value):
        return "none"
    return f"{100 * estimate.value:.2f} [{100 * estimate.lo:.1f}, {100 * estimate.hi:.1f}]"
