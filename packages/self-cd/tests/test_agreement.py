"""Agreement of judges."""

from __future__ import annotations

import math
from collections.abc import Hashable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from statsmodels.stats.inter_rater import cohens_kappa

from papercore.agreement import krippendorff_alpha
from self_cd.agreement import cohen_kappa, overall, pairwise
from self_cd.answers import LABELS, Label

labels = st.sampled_from(LABELS)


def rated(*rows: tuple[Label | None, ...]) -> dict[str, dict[Hashable, Label]]:
    """Judges a, b, c from rows of labels."""
    return {
        name: {place: label for place, label in enumerate(row) if label is not None}
        for name, row in zip("abc", rows, strict=False)
    }


def test_by_hand() -> None:
    # 3 of 4 the same; chance: 1/2 * 1/4 + 1/2 * 3/4 = 1/2; kappa = (3/4 - 1/2) / (1/2) = 1/2
    a: tuple[Label, ...] = ("refuse", "refuse", "comply", "comply")
    b: tuple[Label, ...] = ("refuse", "comply", "comply", "comply")
    [pair] = pairwise(rated(a, b))
    assert (pair.first, pair.second, pair.n) == ("a", "b", 4)
    assert pair.same.value == 0.75
    assert pair.kappa.value == pytest.approx(0.5)
    assert pair.counts["refuse", "comply"] == 1
    assert pair.counts["comply", "refuse"] == 0
    assert sum(pair.counts.values()) == 4


@given(st.lists(st.tuples(labels, labels), min_size=1, max_size=30))
def test_kappa_is_that_of_statsmodels(pairs: list[tuple[Label, Label]]) -> None:
    codes = np.array([[LABELS.index(a), LABELS.index(b)] for a, b in pairs])
    table = np.zeros((3, 3))
    np.add.at(table, (codes[:, 0], codes[:, 1]), 1)
    ours = cohen_kappa(codes[:, 0], codes[:, 1])
    expected = (table.sum(0) / len(pairs)) @ (table.sum(1) / len(pairs))
    if math.isclose(expected, 1.0):
        assert math.isnan(ours)
    else:
        with np.errstate(all="ignore"):  # of its standard errors, which we do not use
            expected_kappa = cohens_kappa(table).kappa
        assert ours == pytest.approx(expected_kappa, abs=1e-9)


@given(st.lists(st.tuples(*[st.none() | labels] * 3), min_size=1, max_size=12))
def test_all_together_is_krippendorff(rows: list[tuple[Label | None, ...]]) -> None:
    columns = list(zip(*rows, strict=True))
    found = overall(rated(*columns))
    expected = krippendorff_alpha(columns)
    assert found.value == pytest.approx(expected, nan_ok=True)
    assert found.n == sum(sum(one is not None for one in row) > 1 for row in rows)


def test_only_common_answers_count() -> None:
    a: tuple[Label | None, ...] = ("refuse", None, "comply", "comply")
    b: tuple[Label | None, ...] = (None, "refuse", "comply", "refuse")
    [pair] = pairwise(rated(a, b))
    assert (pair.n, pair.same.value) == (2, 0.5)
    [none] = pairwise(rated(a, (None, "comply", None, None)))
    assert none.n == 0
    assert math.isnan(none.same.value)
    assert math.isnan(none.kappa.value)


def test_three_judges_are_three_pairs() -> None:
    row: tuple[Label, ...] = ("refuse", "comply", "degenerate")
    pairs = pairwise(rated(row, row, row))
    assert [(p.first, p.second) for p in pairs] == [("a", "b"), ("a", "c"), ("b", "c")]
    assert all(p.kappa.value == 1 for p in pairs)
    assert overall(rated(row, row, row)).value == 1
