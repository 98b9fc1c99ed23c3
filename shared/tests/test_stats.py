import math
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from papercore.errors import DataError
from papercore.stats import (
    bootstrap,
    bootstrap_mean,
    cochran_q,
    exact,
    holm,
    mcnemar,
    paired_difference,
    wilson,
)

outcomes = st.lists(st.integers(0, 1), min_size=2, max_size=30)


def test_wilson_by_hand():
    # p = 8/10, z = 1.96: centre (0.8 + z^2/20) / (1 + z^2/10), half-width from the score equation.
    z = 1.959963984540054
    centre = (0.8 + z**2 / 20) / (1 + z**2 / 10)
    half = z * math.sqrt(0.8 * 0.2 / 10 + z**2 / 400) / (1 + z**2 / 10)
    estimate = wilson(8, 10)
    assert estimate.value == 0.8
    assert (estimate.lo, estimate.hi) == pytest.approx((centre - half, centre + half))
    assert (estimate.n, estimate.method) == (10, "wilson")


def test_wilson_at_the_ends_keeps_a_width():
    assert wilson(0, 20).hi > 0.1
    assert wilson(20, 20).lo < 0.9
    nothing = wilson(0, 0)
    assert math.isnan(nothing.value)
    assert (nothing.lo, nothing.hi, nothing.n) == (0.0, 1.0, 0)
    with pytest.raises(DataError, match="successes=3"):
        wilson(3, 2)


@given(st.integers(0, 50), st.integers(0, 50))
def test_wilson_mirrors(successes, failures):
    if successes + failures == 0:
        return
    one = wilson(successes, successes + failures)
    other = wilson(failures, successes + failures)
    assert one.lo <= one.value <= one.hi
    assert (one.lo, one.hi) == pytest.approx((1 - other.hi, 1 - other.lo))


@given(st.integers(0, 40), st.integers(1, 40), st.sampled_from([0.5, 0.9, 0.95, 0.999]))
def test_wilson_agrees_with_scipy(successes, more, confidence):
    n = successes + more
    reference = binomtest(successes, n).proportion_ci(confidence, method="wilson")
    estimate = wilson(successes, n, confidence=confidence)
    assert (estimate.lo, estimate.hi) == pytest.approx((reference.low, reference.high), abs=1e-12)


def test_bootstrap_of_the_mean_agrees_with_all_possible_draws():
    values = [0.0, 1.0, 4.0, 5.0, 20.0]
    means = [np.mean(draw) for draw in product(values, repeat=5)]
    estimate = bootstrap_mean(values, resamples=20_000)
    assert estimate.value == 6.0
    bounds = np.quantile(means, (0.025, 0.975))
    assert (estimate.lo, estimate.hi) == pytest.approx(tuple(bounds), rel=0.05)


def test_bootstrap_of_the_mean_covers_as_often_as_it_says():
    rng = np.random.default_rng(0)
    intervals = [
        bootstrap_mean(rng.normal(size=60), seed=trial, resamples=400) for trial in range(300)
    ]
    covered = sum(estimate.lo <= 0 <= estimate.hi for estimate in intervals)
    assert 0.90 <= covered / 300 <= 0.98


def test_clusters_widen_the_interval_of_correlated_values():
    rng = np.random.default_rng(1)
    groups = [group for group in range(15) for _ in range(20)]
    values = np.repeat(rng.normal(size=15), 20) + rng.normal(scale=0.1, size=300)
    plain, clustered = bootstrap_mean(values), bootstrap_mean(values, groups=groups)
    assert (clustered.n, clustered.method) == (15, "clustered")
    assert clustered.hi - clustered.lo > 3 * (plain.hi - plain.lo)
    assert clustered.value == plain.value


def test_clusters_of_one_are_no_clusters():
    values = [3.0, 1.0, 4.0, 1.0, 5.0]
    alone, plain = bootstrap_mean(values, groups=list("abcde")), bootstrap_mean(values)
    assert (alone.lo, alone.hi) == (plain.lo, plain.hi)


def test_the_general_bootstrap_agrees_with_the_one_of_the_mean():
    values = np.arange(20.0) ** 2
    for groups in (None, [i // 3 for i in range(20)]):
        fast = bootstrap_mean(values, groups=groups, resamples=4000)
        slow = bootstrap(np.mean, values, groups=groups, resamples=4000)
        assert slow.value == fast.value
        assert (slow.lo, slow.hi) == pytest.approx((fast.lo, fast.hi), rel=0.08)


def test_rows_are_drawn_together():
    x = np.arange(10.0)

    def ratio(a, b):
        return float(a.sum() / b.sum())

    estimate = bootstrap(ratio, x + 1, 2 * (x + 1))
    assert (estimate.value, estimate.lo, estimate.hi) == pytest.approx((0.5, 0.5, 0.5))


def test_the_same_seed_gives_the_same_interval():
    values = np.random.default_rng(0).normal(size=50)
    assert bootstrap_mean(values, seed=3) == bootstrap_mean(values, seed=3)
    assert bootstrap_mean(values, seed=3) != bootstrap_mean(values, seed=4)


def test_drawing_in_pieces_changes_nothing(monkeypatch):
    values = np.random.default_rng(0).normal(size=50)
    whole = bootstrap_mean(values)
    monkeypatch.setattr("papercore.stats._CELLS", 777)
    assert bootstrap_mean(values) == whole


@pytest.mark.parametrize("values", [[], [1.0]])
def test_too_little_data_has_no_interval(values):
    for estimate in (
        bootstrap_mean(values),
        bootstrap_mean(values * 5, groups=["one"] * len(values) * 5),
        bootstrap(np.mean, values),
        paired_difference(values, values),
    ):
        assert math.isnan(estimate.lo)
        assert math.isnan(estimate.hi)
        assert math.isnan(estimate.value) == (values == [])


def test_equal_values_give_a_point():
    estimate = bootstrap_mean([2.0] * 5)
    assert (estimate.value, estimate.lo, estimate.hi) == (2.0, 2.0, 2.0)


def test_not_a_number_spreads():
    estimate = bootstrap_mean([1.0, math.nan, 2.0])
    assert all(map(math.isnan, (estimate.value, estimate.lo, estimate.hi)))


def test_paired_difference_by_hand():
    # 10 pairs, 5 only ours, 1 only theirs: adjusted shares 6/12 and 2/12.
    ours = [1, 1, 1, 1, 1, 0, 1, 1, 0, 0]
    theirs = [0, 0, 0, 0, 0, 1, 1, 1, 0, 0]
    half = 1.959963984540054 * math.sqrt((8 / 12 - (4 / 12) ** 2) / 12)
    estimate = paired_difference(ours, theirs)
    assert estimate.value == pytest.approx(0.4)
    assert (estimate.lo, estimate.hi) == pytest.approx((4 / 12 - half, 4 / 12 + half))
    assert (estimate.n, estimate.method) == (10, "paired")


@given(outcomes, st.randoms())
def test_paired_difference_is_antisymmetric_and_holds_its_value(ours, rng):
    theirs = [rng.randrange(2) for _ in ours]
    one, other = paired_difference(ours, theirs), paired_difference(theirs, ours)
    assert -1 <= one.lo <= one.value <= one.hi <= 1
    assert one.lo < one.hi
    assert (one.value, one.lo, one.hi) == pytest.approx((-other.value, -other.hi, -other.lo))


def test_pairing_narrows_the_interval_of_scores_that_move_together():
    rng = np.random.default_rng(0)
    base = rng.normal(size=100)
    ours, theirs = base + 0.2, base + rng.normal(scale=0.05, size=100)
    paired = paired_difference(ours, theirs)
    assert paired.method == "paired"
    assert paired.hi - paired.lo < 0.1 * (bootstrap_mean(ours).hi - bootstrap_mean(ours).lo)


def test_lengths_must_agree():
    with pytest.raises(DataError, match="pair them"):
        paired_difference([1, 0], [1])
    with pytest.raises(DataError, match="give one each"):
        bootstrap_mean([1, 0], groups=["a"])
    with pytest.raises(DataError, match="make them equal"):
        bootstrap(np.mean, [1, 0], [1])


def test_mcnemar_is_the_binomial_test_of_the_discordant_pairs():
    ours, theirs = [1] * 9 + [0] * 1 + [1] * 5, [0] * 9 + [1] * 1 + [1] * 5
    expected = 2 * sum(math.comb(10, k) for k in (0, 1)) / 2**10
    assert mcnemar(ours, theirs).p_value == pytest.approx(expected)
    assert mcnemar([1, 0], [1, 0]).p_value == 1.0
    with pytest.raises(DataError, match="0 and 1"):
        mcnemar([0.5, 1], [1, 1])


def test_cochran_q_by_hand():
    # Three systems, four examples; column sums 4, 2, 1, row sums 3, 2, 1, 1.
    systems = [1, 1, 1, 1], [1, 1, 0, 0], [1, 0, 0, 0]
    total, squares = 7, 16 + 4 + 1
    expected = 2 * (3 * squares - total**2) / (3 * total - (9 + 4 + 1 + 1))
    result = cochran_q(*systems)
    assert result.statistic == pytest.approx(expected)
    assert result.p_value == pytest.approx(math.exp(-expected / 2))
    assert cochran_q([1, 0], [1, 0], [1, 0]).p_value == 1.0
    with pytest.raises(DataError, match="two or more systems"):
        cochran_q([1, 0])


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([]) == []


def test_holm_is_that_of_statsmodels():
    from statsmodels.stats.multitest import multipletests

    for seed in range(50):
        p_values = np.random.default_rng(seed).uniform(size=seed % 9 + 1).round(1) / 4
        expected = multipletests(p_values, method="holm")[1]
        assert holm(list(p_values)) == pytest.approx(list(expected))


def test_an_exact_number_is_its_own_interval():
    estimate = exact(3, 7)
    assert (estimate.value, estimate.lo, estimate.hi, estimate.n) == (3.0, 3.0, 3.0, 7)
