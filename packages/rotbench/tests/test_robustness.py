"""Statistics over records: the paper's numbers, tests against libraries, and odd inputs."""

import itertools
import json
import math
import random
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import permutation_test

from papercore.records import Record
from papercore.stats import cochran_q, holm, mcnemar
from rotbench.cases import HALVES, LEVELS, SCENARIOS, CaseKey
from rotbench.grading import Answer, grade
from rotbench.official import react_text
from rotbench.robustness import (
    corrections,
    level_anova,
    level_cochran,
    level_tests,
    model_tests,
    scenario_score,
    sign_flip,
    spread,
)


def record(key, right, **more):
    scores = dict.fromkeys(("ts", "pi", "cf"), right)
    data = {
        "turn": key.turn,
        "level": key.level,
        "half": key.half,
        "index": key.index,
        "query": key.query,
        "scenario": list(SCENARIOS)[key.index % 7],
        "fixed": scores,
        "official": scores,
        "error": "correct" if right else "wrong_value",
        "corrected": False,
        "near_clean": False,
        **more,
    }
    return Record(id=str(key), data=data)


def run(right, queries=21, levels=LEVELS):
    """Records of a run; `right(key)` says which."""
    keys = [
        CaseKey("first", level, half, index)
        for level in levels
        for half in HALVES[level]
        for index in range(queries)
    ]
    return [record(key, right(key)) for key in keys]


def drawn(seed, chances):
    rng = random.Random(seed)
    return lambda key: rng.random() < chances[key.level]


FALLING = dict(zip(LEVELS, (0.9, 0.8, 0.7, 0.4, 0.2), strict=True))


def test_levels_are_compared_with_clean_by_query():
    """By hand: query 0 falls in both halves of slight, query 1 in one, query 2 rises in one."""
    rights = {
        ("clean", "whole"): (1, 1, 0, 1),
        ("slight", "tool"): (0, 0, 1, 1),
        ("slight", "parameter"): (0, 1, 0, 1),
    }
    found = level_tests(
        run(lambda k: bool(rights[k.level, k.half][k.index]), 4, ("clean", "slight")), "fixed", "ts"
    )
    assert [test.name for test in found] == ["slight - clean"]
    assert found[0].difference.value == pytest.approx((-1 - 0.5 + 0.5 + 0) / 4)
    assert (found[0].difference.n, found[0].unpaired) == (4, 0)
    # sums of +-2 +-1 +-1: of eight patterns six reach |2| (all but +2-1-1 and -2+1+1)
    assert found[0].p_value == pytest.approx(6 / 8)
    assert found[0].holm == found[0].p_value


def test_pooled_differences_are_those_of_the_level_scores():
    records = run(drawn(0, FALLING), 105)
    for test in level_tests(records, "fixed", "cf"):
        level = test.name.partition(" ")[0]
        means = {
            name: [r.data["fixed"]["cf"] for r in records if r.data["level"] == name]
            for name in ("clean", level)
        }
        expected = sum(means[level]) / len(means[level]) - sum(means["clean"]) / 105
        assert test.difference.value == pytest.approx(expected)
        assert test.difference.lo <= test.difference.value <= test.difference.hi


def test_levels_are_a_family():
    found = level_tests(run(drawn(1, FALLING), 40), "fixed", "ts")
    assert [test.name.partition(" ")[0] for test in found] == list(LEVELS[1:])
    assert [test.holm for test in found] == holm([test.p_value for test in found])
    assert found[-1].holm < 0.01


def test_the_order_of_records_does_not_matter():
    records = run(drawn(2, FALLING), 30)
    shuffled = random.Random(0).sample(records, len(records))
    assert level_tests(shuffled, "fixed", "ts") == level_tests(records, "fixed", "ts")
    assert level_cochran(shuffled, "fixed", "ts") == level_cochran(records, "fixed", "ts")
    assert level_anova(shuffled, "fixed", "ts") == level_anova(records, "fixed", "ts")


def test_failed_requests_are_left_out_everywhere():
    records = run(drawn(3, FALLING), 30)
    failed = [
        Record(id=f"first/clean/whole/{i}", status="error", error="down") for i in range(900, 905)
    ]
    assert level_tests(records + failed, "fixed", "ts") == level_tests(records, "fixed", "ts")
    assert corrections(records + failed) == corrections(records)


def test_a_level_alone_or_without_clean_is_not_compared():
    assert level_tests(run(lambda key: True, 3, ("clean",)), "fixed", "ts") == []
    assert level_tests(run(lambda key: True, 3, ("slight", "heavy")), "fixed", "ts") == []
    assert level_tests([], "fixed", "ts") == []
    assert level_cochran([], "fixed", "ts") is None
    assert level_cochran(run(lambda key: True, 3, ("clean",)), "fixed", "ts") is None
    assert level_anova([], "fixed", "ts") is None
    assert model_tests([], [], "fixed") == []


def test_a_level_that_shares_no_query_with_clean_is_no_comparison():
    """Its difference would be no number, and its p of 1 would make Holm's others larger."""
    falls = run(lambda key: key.level == "clean", 12, ("clean", "medium"))
    failed = [one for one in run(lambda _: True, 24, ("slight",)) if one.data["index"] >= 12]
    found = level_tests([*falls, *failed], "fixed", "ts")
    assert [test.name for test in found] == ["medium - clean"]
    assert found[0].holm == found[0].p_value


def test_equal_levels_are_not_different():
    for test in level_tests(run(lambda key: True, 10), "fixed", "ts"):
        assert (test.difference.value, test.p_value, test.holm) == (0.0, 1.0, 1.0)
    assert level_cochran(run(lambda key: True, 10), "fixed", "ts").p_value == 1.0
    assert level_anova(run(lambda key: True, 10), "fixed", "ts").welch.p_value == 1.0


def test_models_are_compared_on_the_cases_of_both():
    ours = run(lambda key: key.index % 2 == 0, 12)
    theirs = run(lambda key: key.index % 3 == 0, 12)
    found = {test.name: test for test in model_tests(ours[1:], theirs[:-2], "fixed")}
    assert len(found) == 15
    assert found["ts clean"].difference.n == 11
    assert found["ts union"].difference.n == 10
    a, b = [i % 2 == 0 for i in range(1, 12)], [i % 3 == 0 for i in range(1, 12)]
    assert found["ts clean"].p_value == pytest.approx(mcnemar(a, b).p_value)
    assert found["ts clean"].difference.value == pytest.approx((sum(a) - sum(b)) / 11)
    both = [test.holm for test in found.values()]
    assert both == holm([test.p_value for test in found.values()])


def test_a_half_that_one_model_lacks_does_not_count_for_the_other():
    ours = run(lambda key: key.half == "tool", 4, ("slight",))
    theirs = [r for r in run(lambda key: False, 4, ("slight",)) if r.data["half"] == "parameter"]
    for test in model_tests(ours, theirs, "fixed"):
        assert (test.difference.value, test.difference.n) == (0.0, 4)


def test_a_model_is_not_different_from_itself():
    records = run(drawn(4, FALLING), 20)
    assert all(test.p_value == 1.0 for test in model_tests(records, records, "official"))
    assert all(test.difference.value == 0.0 for test in model_tests(records, records, "official"))


def test_cochran_takes_one_half():
    records = run(lambda key: key.half != "parameter" and key.index % 3 != len(key.level) % 3, 21)
    columns = [[i % 3 != len(level) % 3 for i in range(21)] for level in LEVELS]
    assert level_cochran(records, "fixed", "ts", "tool") == cochran_q(*columns)
    with_parameters = [
        [c and HALVES[lv] == ("whole",) for c in column]
        for lv, column in zip(LEVELS, columns, strict=True)
    ]
    assert level_cochran(records, "fixed", "ts", "parameter") == cochran_q(*with_parameters)


def test_cochran_leaves_out_queries_that_come_up_twice():
    records = run(lambda key: key.level == "clean" or key.index == 0, 8)
    again = records[0].model_copy(update={"id": "first/clean/whole/000/n1"})
    assert level_cochran(records, "fixed", "ts").n == 8
    assert level_cochran([*records, again], "fixed", "ts").n == 7


def test_anova_over_levels_takes_every_case():
    found = level_anova(run(drawn(5, FALLING), 105), "fixed", "ts")
    assert (found.classical.df_between, found.classical.df_within) == (4, 105 * 8 - 5)
    assert found.welch.p_value < 1e-6


def test_the_paper_s_spread_is_the_sample_standard_deviation():
    gpt4 = dict(zip(LEVELS, (40.00, 35.71, 46.19, 25.24, 30.48), strict=True))
    found = spread(gpt4)
    assert f"{found.sd:.2f}" == "8.14"
    assert found.span == pytest.approx(20.95)
    assert found.drop == pytest.approx(14.76)
    assert found.worst == "heavy"


@pytest.mark.parametrize(
    ("scores", "span"),
    [
        ((76.19, 72.38, 70.48, 65.24, 63.81), 12.38),
        ((55.24, 50.00, 50.48, 39.05, 44.76), 16.19),
        ((42.86, 36.19, 34.29, 28.10, 28.57), 14.76),
    ],
    ids=["ts", "pi", "cf"],
)
def test_the_spans_of_rotllama(scores, span):
    assert spread(dict(zip(LEVELS, scores, strict=True))).span == pytest.approx(span)


def test_spread_of_few_levels():
    assert spread({}) is None
    alone = spread({"slight": 50.0})
    assert math.isnan(alone.sd)
    assert math.isnan(alone.drop)
    assert (alone.span, alone.worst) == (0.0, "slight")
    equal = spread(dict.fromkeys(LEVELS, 1.0))
    assert (equal.sd, equal.span, equal.drop, equal.worst) == (0.0, 0.0, 0.0, "clean")


def test_noise_corrections_are_counted_over_errors_and_over_cases():
    keys = [CaseKey("first", "slight", "tool", index) for index in range(8)]
    records = [
        *(record(key, True) for key in keys[:4]),
        record(keys[4], False, error="corrected_tool", corrected=True),
        record(keys[5], False, error="corrected_key", corrected=True),
        record(keys[6], False, error="invented_tool", near_clean=True),
        record(keys[7], False),
    ]
    found = corrections(records)
    assert (found.num_cases, found.num_errors) == (8, 4)
    assert (found.of_errors.value, found.of_cases.value) == (0.5, 0.25)
    assert found.of_errors_near.value == 0.75


def test_without_errors_there_is_no_rate_among_them():
    found = corrections(run(lambda key: True, 3))
    assert math.isnan(found.of_errors.value)
    assert found.of_cases.value == 0.0
    assert math.isnan(corrections([]).of_cases.value)


def test_scenario_scores_are_over_a_seventh_of_all():
    records = run(lambda key: key.index % 7 == 2, 21)
    scores = [scenario_score(records, name, "fixed", "ts") for name in SCENARIOS]
    assert scores == [0, 0, 1, 0, 0, 0, 0]
    assert math.isnan(scenario_score([], "TG", "fixed", "ts"))
    uneven = run(lambda key: True, 10, ("clean",))
    assert scenario_score(uneven, "TG", "fixed", "ts") == pytest.approx(2 / (10 / 7))


def test_on_released_cases_a_seventh_of_all_is_the_scenario(released_cases):
    for level in LEVELS:
        cases = [c for c in released_cases if c.key.turn == "first" and c.key.level == level]
        for scenario in SCENARIOS:
            assert sum(c.scenario == scenario for c in cases) * 7 == len(cases)


def test_a_run_of_the_official_oracle_is_not_perfect_but_even(released_cases):
    """Ceilings are the scorer's own: nothing of them is the noise's doing, but in heavy."""
    records = []
    for case in released_cases:
        if case.key.turn == "first":
            gold = case.golds[0]
            text = react_text(gold.name, json.dumps(gold.arguments))
            made = record(case.key, True)
            records.append(
                made.model_copy(update={"data": made.data | grade(case, Answer(text)).to_json()})
            )
    official = {test.name: test for test in level_tests(records, "official", "ts")}
    assert official["slight - clean"].difference.value == 0.0
    assert official["heavy - clean"].difference.value == pytest.approx((0.9524 - 0.9238), abs=1e-4)
    assert all(test.difference.value == 0 for test in level_tests(records, "fixed", "cf"))
    assert corrections(records).num_errors == 0


def by_brute_force(differences):
    """All patterns of signs."""
    observed = abs(sum(differences))
    patterns = itertools.product((1, -1), repeat=len(differences))
    sums = [abs(sum(s * d for s, d in zip(p, differences, strict=True))) for p in patterns]
    return sum(value >= observed for value in sums) / len(sums)


HALVED = st.sampled_from([Fraction(n, 2) for n in range(-2, 3)])
ANY = st.fractions(-1, 1, max_denominator=6)


@given(st.lists(HALVED, max_size=9) | st.lists(ANY, max_size=7))
def test_sign_flips_are_counted_exactly(differences):
    assert sign_flip(differences) == pytest.approx(by_brute_force(differences))


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60))
def test_on_single_cases_it_is_mcnemar_s_test(pairs):
    ours, theirs = zip(*pairs, strict=True)
    differences = [Fraction(int(a) - int(b)) for a, b in pairs]
    assert sign_flip(differences) == pytest.approx(mcnemar(ours, theirs).p_value)


def test_it_is_scipy_s_permutation_test():
    differences = [Fraction(n, 2) for n in (2, 1, 1, -1, 2, 0, 1, -2, 1, 1)]
    found = permutation_test(
        ([float(d) for d in differences],),
        lambda x, axis: x.mean(axis=axis),
        permutation_type="samples",
        vectorized=True,
    )
    assert sign_flip(differences) == pytest.approx(found.pvalue)


def test_very_many_differences_have_a_normal_sum():
    rng = random.Random(0)
    many = [Fraction(rng.choice((-1, 1, 1))) for _ in range(900)]
    more = [*many, *([Fraction(1, 7919), Fraction(-1, 7919)] * 2)]
    assert sign_flip(more) == pytest.approx(sign_flip(many), rel=0.3)
