"""One-way analysis of variance: do groups have the same mean? The classical one and Welch's.

    anova([clean, slight, medium, heavy, union]).welch.p_value

Source: the paper names Welch's ANOVA over its five levels; the table of its sister paper turned out
    to be the classical one, so both are here. Welch (1951), On the comparison of several mean
    values: an alternative approach.
Deviation: both tests take scores as independent, but levels ask the same queries, and two halves
    of a level ask them twice. The paired tests of `robustness` do not; use those.

Without spread inside the groups the formulas divide by zero. Their limit is taken: equal means give
F = 0 and p = 1, others F = infinity and p = 0.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["Anova", "FTest", "anova"]

_NO_SPREAD = 1e-12
"""Variance of a group without any: small beside that of 0/1 scores, large beside rounding."""


@dataclass(frozen=True, slots=True)
class FTest:
    """An F statistic, its degrees of freedom, and its p-value."""

    f: float
    df_between: float
    df_within: float
    p_value: float


@dataclass(frozen=True, slots=True)
class Anova:
    """Both analyses of the same groups."""

    classical: FTest
    """Takes the groups to have one variance."""
    welch: FTest


def anova(groups: Sequence[ArrayLike]) -> Anova | None:
    """Tests whether all groups have the same mean; None with fewer than two groups of two.

    Groups of fewer than two values say nothing of their spread and are left out.
    """
    arrays = [np.asarray(group, dtype=np.float64) for group in groups]
    usable = [array for array in arrays if len(array) > 1]
    if len(usable) < 2:
        return None
    return Anova(_classical(usable), _welch(usable))


def _classical(groups: Sequence[NDArray[np.float64]]) -> FTest:
    everything = np.concatenate(groups)
    between = sum(len(g) * (g.mean() - everything.mean()) ** 2 for g in groups)
    within = sum(((g - g.mean()) ** 2).sum() for g in groups)
    df_between, df_within = len(groups) - 1, len(everything) - len(groups)
    if within <= _NO_SPREAD * len(everything):
        return _without_spread(groups, df_between, df_within)
    return _test(float(between / df_between / (within / df_within)), df_between, df_within)


def _welch(groups: Sequence[NDArray[np.float64]]) -> FTest:
    if max(np.ptp(group) for group in groups) == 0:
        return _without_spread(groups, len(groups) - 1, min(map(len, groups)) - 1)
    sizes = np.array([len(group) for group in groups])
    means = np.array([group.mean() for group in groups])
    variances = np.array([max(group.var(ddof=1), _NO_SPREAD) for group in groups])
    weights = sizes / variances
    shares = weights / weights.sum()
    k = len(groups)
    between = (weights * (means - (shares * means).sum()) ** 2).sum() / (k - 1)
    spread = ((1 - shares) ** 2 / (sizes - 1)).sum()
    f = between / (1 + 2 * (k - 2) / (k**2 - 1) * spread)
    return _test(float(f), k - 1, float((k**2 - 1) / (3 * spread)))


def _without_spread(
    groups: Sequence[NDArray[np.float64]], df_between: float, df_within: float
) -> FTest:
    if all(group[0] == groups[0][0] for group in groups):
        return FTest(0.0, df_between, df_within, 1.0)
    return FTest(math.inf, df_between, df_within, 0.0)


def _test(f: float, df_between: float, df_within: float) -> FTest:
    from scipy.special import fdtrc  # `scipy.stats` takes seconds to import

    return FTest(f, df_between, df_within, float(fdtrc(df_between, df_within, f)))
