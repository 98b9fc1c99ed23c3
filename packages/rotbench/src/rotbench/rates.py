"""Shares of right answers with their intervals, from records.

    rate(records, "fixed", "ts")      # pooled over whatever the records are

A query stands in both halves of a level, and once per seed of fresh noise, so whole queries are
drawn wherever one comes up more than once.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Literal, TypeVar, cast

from papercore.claims import Estimate
from papercore.records import Record
from papercore.stats import bootstrap_mean, wilson

__all__ = ["METRICS", "SCORERS", "Metric", "Scorer", "flag", "grouped", "rate", "share"]

Scorer = Literal["fixed", "official"]
Metric = Literal["ts", "pi", "cf"]
SCORERS: tuple[Scorer, ...] = ("fixed", "official")
METRICS: tuple[Metric, ...] = ("ts", "pi", "cf")

G = TypeVar("G", bound=Hashable)


def flag(record: Record, scorer: str, metric: str) -> bool:
    """One score of a record."""
    return bool(cast("Mapping[str, object]", record.data[scorer])[metric])


def rate(records: Sequence[Record], scorer: str, metric: str) -> Estimate:
    """Share of the records that a scorer calls right."""
    return share(records, lambda record: flag(record, scorer, metric))


def share(records: Sequence[Record], right: Callable[[Record], bool]) -> Estimate:
    """Share of records for which something holds.

    Wilson's interval where every query is there once, and where all agree: a bootstrap of equal
    values has no width, which would say more than they do. Else whole queries are drawn.
    """
    values = [float(right(record)) for record in records]
    queries = [str(record.data["query"]) for record in records]
    distinct = len(set(queries))
    if distinct == len(queries):
        return wilson(round(sum(values)), len(values))
    if len(set(values)) == 1:
        return wilson(round(values[0] * distinct), distinct)
    return bootstrap_mean(values, groups=queries)


def grouped(records: Iterable[Record], by: Callable[[Record], G]) -> dict[G, list[Record]]:
    """Records by something, in order of appearance."""
    groups: dict[G, list[Record]] = {}
    for record in records:
        groups.setdefault(by(record), []).append(record)
    return groups
