"""Is a model robust, and is another one more so? Tests over the records of evaluations.

    for test in level_tests(records, "fixed", "ts"): print(test.name, test.difference, test.holm)
    for test in model_tests(ours, theirs, "fixed"): ...

All functions are pure, take records in any order, and leave out those without scores. What is
compared is paired by query: a query's cases (two halves of a level, or several seeds of noise) are
averaged first, so queries are the units and levels of 105 and of 210 cases compare rightly.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import cast

import numpy as np

from papercore.claims import Estimate
from papercore.records import Record
from papercore.stats import Test, cochran_q, holm, paired_difference
from rotbench.anova import Anova, anova
from rotbench.cases import LEVELS, NOISY_LEVELS, SCENARIOS, Half, Level
from rotbench.rates import METRICS, flag, grouped, share
from rotbench.spread import sample_sd, span

__all__ = [
    "Comparison",
    "Corrections",
    "Spread",
    "corrections",
    "level_anova",
    "level_cochran",
    "level_tests",
    "model_tests",
    "scenario_score",
    "sign_flip",
    "spread",
]

MAX_UNITS = 1_000_000
"""Steps of the exact distribution of `sign_flip`; beyond it a normal one is taken."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two mean scores over the same queries."""

    name: str
    difference: Estimate
    """First minus second; its `n` counts queries."""
    p_value: float
    """Two-sided, exact; of McNemar's test where each query is there once on both sides."""
    holm: float
    """Adjusted for the family of comparisons that this one was made with."""
    unpaired: int
    """Queries that only one side has; they are left out."""


@dataclass(frozen=True, slots=True)
class Spread:
    """How far one score moves between levels."""

    sd: float
    """Sample standard deviation over levels; NaN for a single one. Source: the paper's 8.14."""
    span: float
    """Highest minus lowest."""
    drop: float
    """Clean minus the lowest; NaN without a clean level."""
    worst: Level


@dataclass(frozen=True, slots=True)
class Corrections:
    """How often the model wrote the name that the noise had replaced."""

    num_cases: int
    num_errors: int
    of_errors: Estimate
    """NaN without errors."""
    of_cases: Estimate
    of_errors_near: Estimate
    """With names that are no clean name but nearer to it than to the disturbed one."""


def level_tests(records: Iterable[Record], scorer: str, metric: str) -> list[Comparison]:
    """Each noisy level against clean, by query; Holm over the levels that are there."""
    levels = _by_level(records)
    if "clean" not in levels:
        return []
    clean = _per_query(levels["clean"], scorer, metric)
    pairs = {
        f"{level} - clean": (_per_query(levels[level], scorer, metric), clean)
        for level in NOISY_LEVELS
        if level in levels
    }
    return _compared(pairs)


def model_tests(ours: Iterable[Record], theirs: Iterable[Record], scorer: str) -> list[Comparison]:
    """Two models on the same cases, for each level and metric; Holm over all of them.

    Cases are paired by their ids; one that either side lacks or failed on is left out.
    """
    a, b = _by_level(ours), _by_level(theirs)
    pairs = {}
    for level in LEVELS:
        common = {r.id for r in a.get(level, ())} & {r.id for r in b.get(level, ())}
        for metric in METRICS if common else ():
            pairs[f"{metric} {level}"] = (
                _per_query(a[level], scorer, metric, only=common),
                _per_query(b[level], scorer, metric, only=common),
            )
    return _compared(pairs)


def level_cochran(
    records: Iterable[Record], scorer: str, metric: str, half: Half = "tool"
) -> Test | None:
    """Cochran's Q over clean, one half of slight, medium and heavy, and union.

    Over the queries that all have exactly one case at each of the levels that are there; None with
    fewer than two levels or no such query.
    """
    levels = _by_level(r for r in records if r.data["half"] in (half, "whole"))
    scores: list[dict[str, bool]] = []
    for of_level in levels.values():
        queries = grouped(of_level, _query)
        scores.append({q: flag(r[0], scorer, metric) for q, r in queries.items() if len(r) == 1})
    common = sorted(set.intersection(*map(set, scores))) if len(scores) > 1 else []
    if not common:
        return None
    return cochran_q(*([float(of_level[query]) for query in common] for of_level in scores))


def level_anova(records: Iterable[Record], scorer: str, metric: str) -> Anova | None:
    """Analyses of variance over the levels, each with all its cases; as the paper has it."""
    return anova(
        [
            [float(flag(record, scorer, metric)) for record in of_level]
            for of_level in _by_level(records).values()
        ]
    )


def spread(scores: Mapping[Level, float]) -> Spread | None:
    """Measures of spread of one score (in whatever unit) over its levels; None without any."""
    if not scores:
        return None
    values = [scores[level] for level in LEVELS if level in scores]
    worst = min((level for level in LEVELS if level in scores), key=lambda level: scores[level])
    drop = scores["clean"] - scores[worst] if "clean" in scores else math.nan
    return Spread(sample_sd(values), span(values), drop, worst)


def corrections(records: Iterable[Record]) -> Corrections:
    """Rates of noise correction over cases with scores; the errors are those of the taxonomy."""
    scored = _scored(records)
    errors = [record for record in scored if record.data["error"] != "correct"]
    return Corrections(
        len(scored),
        len(errors),
        share(errors, _is_corrected),
        share(scored, _is_corrected),
        share(errors, lambda record: _is_corrected(record) or bool(record.data["near_clean"])),
    )


def scenario_score(records: Iterable[Record], scenario: str, scorer: str, metric: str) -> float:
    """Right answers of a scenario over a seventh of all cases; NaN without cases.

    Source: official evaluation script. The same as the scenario's mean while all seven have
    equally many cases, as the released files do.
    """
    scored = _scored(records)
    right = sum(flag(r, scorer, metric) for r in scored if r.data["scenario"] == scenario)
    return right * len(SCENARIOS) / len(scored) if scored else math.nan


def sign_flip(differences: Sequence[Fraction]) -> float:
    """P-value of the paired permutation test: if it made no difference, each sign is a coin.

    Two-sided and exact, by counting all sign patterns; with differences of -1, 0 and 1 this is
    McNemar's exact test. Without any difference it is 1.
    """
    scale = math.lcm(*(difference.denominator for difference in differences))
    steps = [int(abs(difference) * scale) for difference in differences if difference]
    observed = abs(sum(int(difference * scale) for difference in differences))
    if sum(steps) * len(steps) > MAX_UNITS:
        deviation = math.sqrt(sum(step**2 for step in steps))
        return math.erfc(observed / deviation / math.sqrt(2))
    # chances[i]: chance that the sum is i - total, over the steps so far
    chances = np.ones(1)
    for step in steps:
        wider = np.zeros(len(chances) + 2 * step)
        wider[: len(chances)] += chances / 2
        wider[2 * step :] += chances / 2
        chances = wider
    total = sum(steps)
    tail = chances[np.abs(np.arange(-total, total + 1)) >= observed].sum()
    return float(min(1.0, tail))


def _compared(
    pairs: Mapping[str, tuple[Mapping[str, Fraction], Mapping[str, Fraction]]],
) -> list[Comparison]:
    """One family of comparisons, in the given order; without those that share no query."""
    found: list[tuple[str, Estimate, float, int]] = []
    for name, (a, b) in pairs.items():
        common = sorted(a.keys() & b.keys())
        if not common:
            continue
        difference = paired_difference(
            [float(a[query]) for query in common], [float(b[query]) for query in common]
        )
        p_value = sign_flip([a[query] - b[query] for query in common])
        found.append((name, difference, p_value, len(a.keys() ^ b.keys())))
    adjusted = holm([p_value for _, _, p_value, _ in found])
    return [
        Comparison(name, difference, p_value, p_holm, unpaired)
        for (name, difference, p_value, unpaired), p_holm in zip(found, adjusted, strict=True)
    ]


def _per_query(
    records: Sequence[Record], scorer: str, metric: str, *, only: set[str] | None = None
) -> dict[str, Fraction]:
    """Mean score of each query."""
    kept = [record for record in records if only is None or record.id in only]
    return {
        query: Fraction(sum(flag(r, scorer, metric) for r in of_query), len(of_query))
        for query, of_query in grouped(kept, _query).items()
    }


def _by_level(records: Iterable[Record]) -> dict[Level, list[Record]]:
    """Scored records by level, mildest first, in the order of their ids."""
    found = grouped(_scored(records), lambda record: cast("Level", record.data["level"]))
    return {level: found[level] for level in LEVELS if level in found}


def _scored(records: Iterable[Record]) -> list[Record]:
    return sorted((r for r in records if r.status == "ok"), key=lambda record: record.id)


def _query(record: Record) -> str:
    return str(record.data["query"])


def _is_corrected(record: Record) -> bool:
    return bool(record.data["corrected"])
