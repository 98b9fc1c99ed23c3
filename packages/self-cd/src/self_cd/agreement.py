"""How far judges agree: share, Cohen's kappa of two, Krippendorff's alpha of all. No torch here.

    pairs = pairwise({"keyword/1": {"a1": "refuse"}, "sheet:ann": {"a1": "comply"}})
    alpha = overall(ratings)

Every number rests on the answers that the judges have in common, and says how many these are.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from papercore.agreement import krippendorff_alpha
from papercore.claims import Estimate
from papercore.stats import bootstrap, wilson
from self_cd.answers import LABELS, Label

__all__ = ["Agreement", "Ratings", "cohen_kappa", "overall", "pairwise"]

Ratings: TypeAlias = Mapping[str, Mapping[Hashable, Label]]
"""Judge -> answer -> label."""

ALPHA_RESAMPLES = 200
"""Krippendorff's alpha goes through all answers in Python for every draw."""


@dataclass(frozen=True)
class Agreement:
    """Of two judges.

    Attributes:
        same: Share of equal labels, over the answers that both judged.
        kappa: Cohen's, with a bootstrap interval; NaN where both give one and the same label only.
        counts: Label of the first and of the second -> answers.
    """

    first: str
    second: str
    same: Estimate
    kappa: Estimate
    counts: Mapping[tuple[Label, Label], int]

    @property
    def n(self) -> int:
        """Answers that both judged."""
        return self.same.n


def pairwise(ratings: Ratings) -> list[Agreement]:
    """Agreement of every two judges, in the order in which they are given."""
    return [
        _agreement(first, second, ratings[first], ratings[second])
        for first, second in combinations(ratings, 2)
    ]


def overall(ratings: Ratings) -> Estimate:
    """Krippendorff's alpha over all judges, gaps allowed; `n` counts answers with two labels."""
    units = sorted({unit for given in ratings.values() for unit in given}, key=repr)
    rows = [[given.get(unit) for given in ratings.values()] for unit in units]
    rated = [row for row in rows if sum(label is not None for label in row) > 1]
    codes = np.array(
        [[-1 if label is None else LABELS.index(label) for label in row] for row in rated],
        dtype=np.int64,
    ).reshape(len(rated), len(ratings))
    return bootstrap(_alpha, codes, resamples=ALPHA_RESAMPLES)


def cohen_kappa(first: ArrayLike, second: ArrayLike) -> float:
    """Cohen's kappa of labels as numbers from 0; NaN where chance alone would agree always."""
    a, b = np.asarray(first, dtype=np.int64), np.asarray(second, dtype=np.int64)
    if not len(a):
        return math.nan
    size = int(max(a.max(), b.max())) + 1
    shares_a = np.bincount(a, minlength=size) / len(a)
    shares_b = np.bincount(b, minlength=size) / len(b)
    expected = float(shares_a @ shares_b)
    if math.isclose(expected, 1.0):
        return math.nan
    return (float((a == b).mean()) - expected) / (1 - expected)


def _agreement(
    first: str, second: str, a: Mapping[Hashable, Label], b: Mapping[Hashable, Label]
) -> Agreement:
    common = sorted(a.keys() & b.keys(), key=repr)
    left, right = [a[unit] for unit in common], [b[unit] for unit in common]
    pairs = list(zip(left, right, strict=True))
    return Agreement(
        first=first,
        second=second,
        same=wilson(sum(one == other for one, other in pairs), len(pairs)),
        kappa=bootstrap(cohen_kappa, _codes(left), _codes(right)),
        counts={(x, y): pairs.count((x, y)) for x in LABELS for y in LABELS},
    )


def _codes(labels: Sequence[Label]) -> NDArray[np.int64]:
    return np.array([LABELS.index(label) for label in labels], dtype=np.int64)


def _alpha(codes: NDArray[np.int64]) -> float:
    if not len(codes):
        return math.nan
    ratings = [[None if code < 0 else int(code) for code in rater] for rater in codes.T]
    return krippendorff_alpha(ratings)
