import pytest

from longheads.claims import CLAIMS
from papercore.claims import Estimate, judge_all

# The bars of the issue that ordered this package, written down once more.
ORDERED = {
    ("full_1x", ">=", 0.95),
    ("full_16x", "<=", 0.30),
    ("longheads_1x", ">=", 0.95),
    ("same_words_1x", ">=", 1.0),
    ("longheads_8x", ">=", 0.80),
    ("longheads_16x", ">=", 0.75),
    ("longheads_minus_full_16x", ">=", 0.45),
    ("longheads_minus_random_16x", ">=", 0.30),
    ("longheads_32x", ">=", 0.65),
    ("full_32x", "<=", 0.25),
    ("oracle_8x", ">=", 0.90),
}


def estimates(values):
    return {
        name: Estimate(value, value - 0.05, value + 0.05, 200, "wilson")
        for name, value in values.items()
    }


def statuses(values):
    return {v.claim.id: v.status for v in judge_all(CLAIMS, estimates(values))}


def test_the_bars_are_those_that_were_ordered():
    assert {(bar.metric, bar.op, bar.value) for claim in CLAIMS for bar in claim.bars} == ORDERED


def test_all_claims_hold_exactly_at_their_bars():
    assert set(statuses({metric: value for metric, _, value in ORDERED}).values()) == {"held"}


@pytest.mark.parametrize("bar", sorted(ORDERED), ids=lambda bar: bar[0])
def test_each_bar_can_be_missed(bar):
    metric, op, value = bar
    values = {name: at for name, _, at in ORDERED} | {
        metric: value + (0.01 if op == "<=" else -0.01)
    }
    assert list(statuses(values).values()).count("missed") == 1


def test_with_chunks_drawn_at_random_exactly_the_effects_are_missed():
    random = {"longheads_8x": 0.35, "longheads_16x": 0.2, "longheads_32x": 0.1}
    none = {"longheads_minus_full_16x": 0.1, "longheads_minus_random_16x": 0.0}
    found = statuses({metric: value for metric, _, value in ORDERED} | random | none)
    effects = {claim.id for claim in CLAIMS if claim.kind == "effect"}
    assert {name for name, status in found.items() if status == "missed"} == effects
