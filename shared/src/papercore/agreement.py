"""Krippendorff's alpha: agreement of any number of raters, with gaps, on four levels.

    krippendorff_alpha([[1, 2, None], [1, 3, 3]], level="ordinal")

Source: K. Krippendorff (2011), Computing Krippendorff's Alpha-Reliability.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from papercore.errors import DataError

__all__ = ["Level", "krippendorff_alpha"]

Level: TypeAlias = Literal["nominal", "ordinal", "interval", "ratio"]
Matrix: TypeAlias = NDArray[np.float64]


def krippendorff_alpha(ratings: Sequence[Sequence[Hashable]], *, level: Level = "nominal") -> float:
    """Agreement: 1 is perfect, 0 is what chance gives.

    Args:
        ratings: One row per rater, one entry per unit; None or NaN where a rater gave none.
        level: How far apart two values are. All but `nominal` need numbers.

    Returns:
        Alpha; NaN if no unit has two ratings or all ratings are the same, where it is undefined.

    Raises:
        DataError: Rows differ in length, or values are not numbers where they must be.
    """
    if len({len(row) for row in ratings}) > 1:
        raise DataError(f"raters have {[len(row) for row in ratings]} units: fill gaps with None")
    units = [[v for v in unit if not _absent(v)] for unit in zip(*ratings, strict=True)]
    pairable = [unit for unit in units if len(unit) >= 2]
    values = _values({value for unit in pairable for value in unit}, level)
    coincidences = _coincidences(pairable, values)
    distance = _distances(values, coincidences.sum(axis=1), level)
    totals = coincidences.sum(axis=1)
    num = totals.sum()
    expected = (np.outer(totals, totals) * distance).sum()
    if num < 2 or expected == 0:
        return math.nan
    return float(1 - (num - 1) * (coincidences * distance).sum() / expected)


def _absent(value: Hashable) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def _values(found: set[Hashable], level: Level) -> list[Hashable]:
    if level == "nominal":
        return sorted(found, key=repr)
    numbers = [value for value in found if isinstance(value, int | float | np.number)]
    if len(numbers) != len(found):
        raise DataError(f"level {level!r} needs numbers: use 'nominal' for other values")
    return list[Hashable](sorted(numbers))


def _coincidences(units: list[list[Hashable]], values: list[Hashable]) -> Matrix:
    """How often two values meet within a unit, each unit weighing as many ratings as it has."""
    index = {value: position for position, value in enumerate(values)}
    matrix = np.zeros((len(values), len(values)))
    for unit in units:
        counts = np.bincount([index[value] for value in unit], minlength=len(values))
        matrix += (np.outer(counts, counts) - np.diag(counts)) / (len(unit) - 1)
    return matrix


def _distances(values: list[Hashable], totals: Matrix, level: Level) -> Matrix:
    """Squared distance of every pair of values."""
    size = len(values)
    if level == "nominal":
        return 1.0 - np.eye(size)
    if level == "ordinal":
        below = np.cumsum(totals) - totals / 2
        return np.asarray((below[:, None] - below[None, :]) ** 2)
    numbers = np.array(values, dtype=np.float64)
    difference = numbers[:, None] - numbers[None, :]
    if level == "interval":
        return np.asarray(difference**2)
    total = numbers[:, None] + numbers[None, :]
    ratio = np.divide(difference, total, out=np.zeros((size, size)), where=total != 0)
    return np.asarray(ratio**2)
