import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from papercore.agreement import krippendorff_alpha
from papercore.errors import DataError

GAP = None
# Krippendorff (2011), "Computing Krippendorff's Alpha-Reliability": four observers, twelve units.
FOUR_OBSERVERS = [
    [1, 2, 3, 3, 2, 1, 4, 1, 2, GAP, GAP, GAP],
    [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, GAP, 3],
    [GAP, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, GAP],
    [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, GAP],
]


@pytest.mark.parametrize(
    ("level", "published"),
    [("nominal", 0.743), ("ordinal", 0.815), ("interval", 0.849), ("ratio", 0.797)],
)
def test_the_published_example_with_gaps(level, published):
    assert krippendorff_alpha(FOUR_OBSERVERS, level=level) == pytest.approx(published, abs=5e-4)


def test_the_published_binary_example():
    ratings = [list("0100000010"), list("1110010000")]
    assert krippendorff_alpha(ratings) == pytest.approx(0.095, abs=5e-4)


def test_the_published_nominal_example():
    ratings = [list("aabbdcccedda"), list("babbbccceddd")]
    assert krippendorff_alpha(ratings) == pytest.approx(0.692, abs=5e-4)


def brute_force(ratings, distance):
    """Disagreement within units against disagreement between all pairable values."""
    units = [[v for v in unit if v is not None] for unit in zip(*ratings, strict=True)]
    units = [unit for unit in units if len(unit) > 1]
    values = [v for unit in units for v in unit]
    observed = sum(
        distance(a, b) / (len(unit) - 1)
        for unit in units
        for i, a in enumerate(unit)
        for j, b in enumerate(unit)
        if i != j
    ) / len(values)
    expected = sum(
        distance(a, b) for i, a in enumerate(values) for j, b in enumerate(values) if i != j
    ) / (len(values) * (len(values) - 1))
    return 1 - observed / expected


tables = st.integers(2, 6).flatmap(
    lambda units: st.lists(
        st.lists(st.none() | st.integers(0, 4), min_size=units, max_size=units),
        min_size=2,
        max_size=4,
    )
)


@given(tables)
def test_alpha_is_one_minus_observed_over_expected(ratings):
    for level, distance in (
        ("nominal", lambda a, b: float(a != b)),
        ("interval", lambda a, b: float((a - b) ** 2)),
        ("ratio", lambda a, b: ((a - b) / (a + b)) ** 2 if a + b else 0.0),
    ):
        alpha = krippendorff_alpha(ratings, level=level)
        if not math.isnan(alpha):
            assert alpha == pytest.approx(brute_force(ratings, distance))


def test_perfect_agreement_is_one_and_no_variation_is_undefined():
    assert krippendorff_alpha([[1, 2, 3], [1, 2, 3]]) == 1.0
    assert math.isnan(krippendorff_alpha([[1, 1], [1, 1]]))
    assert math.isnan(krippendorff_alpha([[1, None], [None, 2]]))
    assert math.isnan(krippendorff_alpha([]))
    assert math.isnan(krippendorff_alpha([[1, math.nan], [math.nan, 2]]))


def test_words_have_no_distance():
    with pytest.raises(DataError, match="needs numbers"):
        krippendorff_alpha([["a", "b"], ["a", "b"]], level="interval")
    with pytest.raises(DataError, match="fill gaps"):
        krippendorff_alpha([[1, 2], [1]])
