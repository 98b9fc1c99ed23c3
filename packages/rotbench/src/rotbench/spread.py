"""How far a score moves between levels.

Source: the paper's spread is the sample standard deviation over the five levels: GPT-4's CF gives
    its 8.14; the span, highest minus lowest, is in its ablation table.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

import numpy as np

from papercore.claims import Estimate
from papercore.records import Record
from rotbench.cases import LEVELS
from rotbench.rates import flag

__all__ = ["sample_sd", "span", "spread_of_levels"]

RESAMPLES = 2000


def sample_sd(values: Sequence[float]) -> float:
    """Sample standard deviation, n - 1 below; NaN for a single value."""
    return statistics.stdev(values) if len(values) > 1 else math.nan


def span(values: Sequence[float]) -> float:
    """Highest minus lowest."""
    return max(values) - min(values)


def spread_of_levels(
    records: Sequence[Record], scorer: str, metric: str, *, seed: int = 0
) -> dict[str, Estimate]:
    """`sd`, `span` and `worst` over the levels that are there; none if there is one level only.

    Whole queries are drawn, each with all its levels. A drawn sample spreads a little more than
    what it is drawn from, so the intervals of `sd` and `span` lie rather too high than too low.
    """
    levels = [level for level in LEVELS if any(r.data["level"] == level for r in records)]
    queries = sorted({str(record.data["query"]) for record in records})
    if len(levels) < 2:
        return {}
    row = {query: place for place, query in enumerate(queries)}
    column = {level: place for place, level in enumerate(levels)}
    right_QL = np.zeros((len(queries), len(levels)))
    cases_QL = np.zeros_like(right_QL)
    for record in records:
        place = row[str(record.data["query"])], column[record.data["level"]]  # type: ignore[index]
        cases_QL[place] += 1
        right_QL[place] += flag(record, scorer, metric)
    num = len(queries)
    drawn_RQ = np.random.default_rng(seed).multinomial(num, [1 / num] * num, size=RESAMPLES)
    whole_L = right_QL.sum(axis=0) / cases_QL.sum(axis=0)
    with np.errstate(invalid="ignore"):  # a level of which no query was drawn
        means_RL = (drawn_RQ @ right_QL) / (drawn_RQ @ cases_QL)
    measures = {
        "sd": (sample_sd(list(whole_L)), means_RL.std(axis=1, ddof=1)),
        "span": (span(list(whole_L)), means_RL.max(axis=1) - means_RL.min(axis=1)),
        "worst": (min(whole_L), means_RL.min(axis=1)),
    }
    found = {}
    for name, (value, draws_R) in measures.items():
        lo, hi = np.nanquantile(draws_R, [0.025, 0.975])
        found[name] = Estimate(
            float(value),
            min(float(lo), float(value)),
            max(float(hi), float(value)),
            num,
            "clustered",
        )
    return found
