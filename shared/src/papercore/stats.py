"""Intervals and tests: every number of a report carries one.

    accuracy = wilson(successes=180, n=200)
    gain = paired_difference(ours, theirs)          # 0/1 arrays over the same examples
    reward = bootstrap_mean(rewards, groups=prompts)

Edge cases, the same everywhere: without data the value is NaN; with a single independent unit the
value is known and its bounds are NaN, so that `excludes_zero` cannot hold. Values that are all
equal give a bootstrap interval of width zero; Wilson and the paired 0/1 interval keep a width.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from papercore.claims import Estimate, Method
from papercore.errors import DataError

__all__ = [
    "Test",
    "bootstrap",
    "bootstrap_mean",
    "cochran_q",
    "exact",
    "holm",
    "mcnemar",
    "paired_difference",
    "wilson",
]

Floats: TypeAlias = NDArray[np.float64]

CONFIDENCE = 0.95
RESAMPLES = 2000
_CELLS = 4_000_000  # numbers drawn at once: bounds the memory of a bootstrap


@dataclass(frozen=True)
class Test:
    """The outcome of a significance test."""

    statistic: float
    p_value: float
    n: int
    """Examples that the test compared."""


def exact(value: float, n: int) -> Estimate:
    """A number without sampling error, such as a count or a maximum over everything there is."""
    return Estimate(value=float(value), lo=float(value), hi=float(value), n=n, method="exact")


def wilson(successes: int, n: int, *, confidence: float = CONFIDENCE) -> Estimate:
    """A proportion with its Wilson score interval; `n=0` gives NaN within [0, 1].

    Raises:
        DataError: `successes` is not between 0 and `n`.
    """
    if not 0 <= successes <= n:
        raise DataError(f"successes={successes} is not between 0 and n={n}: check the counts")
    if n == 0:
        return Estimate(math.nan, 0.0, 1.0, 0, "wilson")
    z, share = _normal_quantile(confidence), successes / n
    centre = share + z**2 / (2 * n)
    half = z * math.sqrt(share * (1 - share) / n + (z / (2 * n)) ** 2)
    shrink = 1 + z**2 / n
    # At 0 and at n the bound is the share itself, which rounding would miss.
    lo = (centre - half) / shrink if successes > 0 else 0.0
    hi = (centre + half) / shrink if successes < n else 1.0
    return Estimate(share, lo, hi, n, "wilson")


def bootstrap_mean(
    values: ArrayLike,
    *,
    groups: Sequence[object] | None = None,
    seed: int = 0,
    resamples: int = RESAMPLES,
    confidence: float = CONFIDENCE,
) -> Estimate:
    """The mean with a percentile bootstrap interval.

    Args:
        values: One number per example.
        groups: One label per example; whole groups are then drawn, and `n` counts groups.
        seed: Seed of the draws.
        resamples: How many draws.
        confidence: Coverage of the interval.

    Raises:
        DataError: `groups` has another length than `values`.
    """
    numbers = _column(values)
    sums, sizes = _totals(numbers, groups)
    num_units = len(sums)
    method: Method = "bootstrap" if groups is None else "clustered"
    value = float(numbers.mean()) if len(numbers) else math.nan
    if num_units < 2 or math.isnan(value):
        return Estimate(value, math.nan, math.nan, num_units, method)
    rng = np.random.default_rng(seed)
    means = [
        sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1)
        for drawn in _draws(rng, num_units, resamples)
    ]
    lo, hi = _percentiles(np.concatenate(means), confidence)
    return Estimate(value, lo, hi, num_units, method)


def bootstrap(
    statistic: Callable[..., float],
    *columns: ArrayLike,
    groups: Sequence[object] | None = None,
    seed: int = 0,
    resamples: int = RESAMPLES,
    confidence: float = CONFIDENCE,
) -> Estimate:
    """Any statistic with a percentile bootstrap interval.

    Args:
        statistic: Called as `statistic(*columns)` on drawn rows; draws that give NaN are left out.
        columns: Arrays of equal length; rows are drawn together.
        groups: One label per row; whole groups are then drawn, and `n` counts groups.
        seed: Seed of the draws.
        resamples: How many draws.
        confidence: Coverage of the interval.

    Raises:
        DataError: The lengths differ.
    """
    arrays = [np.asarray(column) for column in columns]
    num_rows = len(arrays[0])
    if any(len(array) != num_rows for array in arrays):
        raise DataError(f"columns have lengths {[len(array) for array in arrays]}: make them equal")
    units = _units(num_rows, groups)
    method: Method = "bootstrap" if groups is None else "clustered"
    value = float(statistic(*arrays)) if num_rows else math.nan
    if len(units) < 2:
        return Estimate(value, math.nan, math.nan, len(units), method)
    rng = np.random.default_rng(seed)
    drawn = np.empty(resamples)
    for index in range(resamples):
        chosen = rng.integers(0, len(units), len(units))
        rows = np.concatenate([units[unit] for unit in chosen])
        drawn[index] = statistic(*(array[rows] for array in arrays))
    lo, hi = _percentiles(drawn, confidence)
    return Estimate(value, lo, hi, len(units), method)


def paired_difference(
    ours: ArrayLike,
    theirs: ArrayLike,
    *,
    groups: Sequence[object] | None = None,
    seed: int = 0,
    resamples: int = RESAMPLES,
    confidence: float = CONFIDENCE,
) -> Estimate:
    """The mean of `ours - theirs` over the same examples.

    For outcomes 0 and 1 the interval is the adjusted Wald interval of Bonett and Price, which has a
    sensible width even if every pair agrees; for other values, and with groups, it is a bootstrap.

    Source: Bonett and Price (2012), Adjusted Wald confidence interval for a difference of binomial
    proportions based on paired data.

    Raises:
        DataError: The lengths differ.
    """
    a, b = _column(ours), _column(theirs)
    if len(a) != len(b):
        raise DataError(f"paired arrays have {len(a)} and {len(b)} values: pair them by example")
    if groups is None and len(a) >= 2 and _binary(a) and _binary(b):
        return _adjusted_wald(a, b, confidence)
    mean = bootstrap_mean(
        a - b, groups=groups, seed=seed, resamples=resamples, confidence=confidence
    )
    method: Method = "paired" if groups is None else "clustered"
    return Estimate(mean.value, mean.lo, mean.hi, mean.n, method)


def mcnemar(ours: ArrayLike, theirs: ArrayLike) -> Test:
    """McNemar's exact test on two 0/1 arrays; without discordant pairs p is 1.

    Raises:
        DataError: The lengths differ or values are not 0 and 1.
    """
    a, b = _outcomes(ours), _outcomes(theirs)
    if len(a) != len(b):
        raise DataError(f"paired arrays have {len(a)} and {len(b)} values: pair them by example")
    only_a, only_b = int(np.sum(a > b)), int(np.sum(a < b))
    if only_a + only_b == 0:
        return Test(0.0, 1.0, len(a))
    from statsmodels.stats.contingency_tables import mcnemar as exact_mcnemar

    result = exact_mcnemar([[0, only_a], [only_b, 0]], exact=True)
    return Test(float(result.statistic), float(result.pvalue), len(a))


def cochran_q(*systems: ArrayLike) -> Test:
    """Cochran's Q over 0/1 arrays of several systems; if no example tells them apart, p is 1.

    Raises:
        DataError: There are fewer than two systems, lengths differ or values are not 0 and 1.
    """
    columns = [_outcomes(system) for system in systems]
    if len(columns) < 2 or len({len(column) for column in columns}) != 1:
        lengths = [len(column) for column in columns]
        raise DataError(f"needs two or more systems over the same examples, got lengths {lengths}")
    table = np.stack(columns, axis=1)
    if np.all(table == table[:, :1]):
        return Test(0.0, 1.0, len(table))
    from statsmodels.stats.contingency_tables import cochrans_q

    result = cochrans_q(table)
    return Test(float(result.statistic), float(result.pvalue), len(table))


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values adjusted by Holm's method, in the given order.

    Our own, because statsmodels takes seconds to import and every report adjusts some.
    """
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = largest
    return adjusted


def _adjusted_wald(a: Floats, b: Floats, confidence: float) -> Estimate:
    n = len(a)
    only_a = (float(np.sum(a > b)) + 1) / (n + 2)
    only_b = (float(np.sum(a < b)) + 1) / (n + 2)
    centre = only_a - only_b
    spread = math.sqrt((only_a + only_b - centre**2) / (n + 2))
    half = _normal_quantile(confidence) * spread
    value = float((a - b).mean())
    # The centre is pulled towards 0, so the bounds are also made to contain the value itself.
    lo, hi = min(value, max(-1.0, centre - half)), max(value, min(1.0, centre + half))
    return Estimate(value, lo, hi, n, "paired")


def _normal_quantile(confidence: float) -> float:
    """From the standard library, since `scipy.stats` takes seconds to import."""
    return NormalDist().inv_cdf((1 + confidence) / 2)


def _column(values: ArrayLike) -> Floats:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1:
        raise DataError(f"needs one number per example, got an array of shape {array.shape}")
    return array


def _outcomes(values: ArrayLike) -> Floats:
    array = _column(values)
    if not _binary(array):
        raise DataError("outcomes should be 0 and 1: threshold the scores first")
    return array


def _binary(array: Floats) -> bool:
    return bool(np.isin(array, (0.0, 1.0)).all())


def _units(num_rows: int, groups: Sequence[object] | None) -> list[NDArray[np.intp]]:
    """The rows of each unit that is drawn as a whole."""
    if groups is None:
        return [np.array([row], dtype=np.intp) for row in range(num_rows)]
    codes = _codes(num_rows, groups)
    return [np.flatnonzero(codes == code) for code in range(int(codes.max(initial=-1)) + 1)]


def _totals(numbers: Floats, groups: Sequence[object] | None) -> tuple[Floats, Floats]:
    """Sum and size of each unit that is drawn as a whole."""
    if groups is None:
        return numbers, np.ones_like(numbers)
    codes = _codes(len(numbers), groups)
    sums = np.bincount(codes, weights=numbers).astype(np.float64)
    return sums, np.bincount(codes).astype(np.float64)


def _codes(num_rows: int, groups: Sequence[object]) -> NDArray[np.intp]:
    """Group labels as 0, 1, 2 in order of appearance."""
    if len(groups) != num_rows:
        raise DataError(f"{len(groups)} group labels for {num_rows} examples: give one each")
    code_of: dict[object, int] = {}
    return np.array([code_of.setdefault(g, len(code_of)) for g in groups], dtype=np.intp)


def _draws(rng: np.random.Generator, num_units: int, resamples: int) -> Iterator[NDArray[np.int64]]:
    """Indices of the drawn units, a few resamples at a time."""
    rows = max(1, _CELLS // num_units)
    for start in range(0, resamples, rows):
        yield rng.integers(0, num_units, (min(rows, resamples - start), num_units))


def _percentiles(drawn: Floats, confidence: float) -> tuple[float, float]:
    finite = drawn[~np.isnan(drawn)]
    if not len(finite):
        return math.nan, math.nan
    tail = (1 - confidence) / 2
    lo, hi = np.quantile(finite, (tail, 1 - tail))
    return float(lo), float(hi)
