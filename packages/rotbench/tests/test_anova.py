"""Analyses of variance: the paper's table, the libraries', and groups without spread."""

import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy.stats import f_oneway
from statsmodels.stats.oneway import anova_oneway

from rotbench.anova import anova

SIZES = (105, 210, 210, 210, 105)
CF = {
    "GPT-4": (40.00, 35.71, 46.19, 25.24, 30.48),
    "GPT-3.5": (30.48, 20.00, 30.48, 16.19, 18.10),
    "TL-v1": (28.57, 24.29, 22.38, 14.29, 16.19),
    "TL-v2": (25.71, 23.81, 20.95, 14.76, 16.19),
    "NR-v1": (1.90, 3.33, 1.90, 0.95, 1.90),
    "NR-v2": (37.14, 39.05, 33.81, 30.00, 22.86),
    "human": (74.29, 74.29, 71.43, 68.57, 71.43),
}
"""Content filling of the paper's main table, in percent, from clean to union."""


def outcomes(percents):
    """The 0/1 scores behind a column of the table: every cell is a whole count."""
    groups = []
    for percent, size in zip(percents, SIZES, strict=True):
        right = round(percent * size / 100)
        assert f"{100 * right / size:.2f}" == f"{percent:.2f}"
        groups.append([1.0] * right + [0.0] * (size - right))
    return groups


@pytest.mark.parametrize(
    ("model", "f", "p"),
    [
        ("GPT-4", "5.77", "1.7e-04"),
        ("GPT-3.5", "4.31", "2.0e-03"),
        ("TL-v1", "3.28", "1.2e-02"),
        ("TL-v2", "2.26", "6.3e-02"),
        ("NR-v1", "0.76", "5.5e-01"),
        ("NR-v2", "2.73", "2.9e-02"),
        ("human", "0.51", "7.3e-01"),
    ],
)
def test_welch_on_the_paper_s_table(model, f, p):
    found = anova(outcomes(CF[model])).welch
    assert (f"{found.f:.2f}", f"{found.p_value:.1e}") == (f, p)


@pytest.mark.parametrize("model", CF)
def test_both_agree_with_the_libraries_on_the_paper_s_table(model):
    groups = outcomes(CF[model])
    agrees_with_libraries(groups)
    assert anova(groups).classical.p_value == pytest.approx(f_oneway(*groups).pvalue)


def agrees_with_libraries(groups):
    found = anova(groups)
    classical = anova_oneway(groups, use_var="equal")
    assert found.classical.f == pytest.approx(classical.statistic, rel=1e-6, abs=1e-9)
    assert found.classical.p_value == pytest.approx(classical.pvalue, rel=1e-6, abs=1e-12)
    welch = anova_oneway(groups, use_var="unequal", welch_correction=True)
    assert found.welch.f == pytest.approx(welch.statistic, rel=1e-6, abs=1e-9)
    assert found.welch.p_value == pytest.approx(welch.pvalue, rel=1e-6, abs=1e-12)
    assert found.welch.df_within == pytest.approx(welch.df[1], rel=1e-6)


GROUP = st.lists(st.sampled_from([0.0, 1.0]) | st.floats(-3, 3), min_size=3, max_size=12)


@given(st.lists(GROUP, min_size=2, max_size=5))
def test_both_agree_with_the_libraries(groups):
    assume(min(np.var(group) for group in groups) > 1e-3)
    agrees_with_libraries(groups)


def test_groups_that_are_all_equal():
    found = anova([[1.0] * 5, [1.0] * 7])
    assert (found.classical.f, found.classical.p_value) == (0.0, 1.0)
    assert (found.welch.f, found.welch.p_value) == (0.0, 1.0)


def test_groups_without_spread_and_with_other_means():
    found = anova([[1.0] * 5, [0.0] * 7])
    assert (found.classical.f, found.classical.p_value) == (math.inf, 0.0)
    assert (found.welch.f, found.welch.p_value) == (math.inf, 0.0)


def test_one_group_without_spread_is_the_limit():
    """Between it and groups of ever less spread there is no jump."""
    mixed = [[0.0, 1.0] * 20, [1.0, 1.0, 0.0] * 10]
    limit = anova([*mixed, [1.0] * 30]).welch
    near = anova([*mixed, [1.0 + 1e-5 * (-1) ** i for i in range(30)]]).welch
    assert limit.p_value == pytest.approx(near.p_value, rel=1e-4)
    assert math.isfinite(limit.f)


def test_too_little_data_is_no_test():
    assert anova([]) is None
    assert anova([[1.0, 0.0]]) is None
    assert anova([[1.0, 0.0], [1.0], []]) is None
    assert anova([[1.0, 0.0], [1.0], [0.0, 1.0, 1.0]]) == anova([[1.0, 0.0], [0.0, 1.0, 1.0]])
