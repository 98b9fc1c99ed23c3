import pytest

from papercore.claims import Estimate, judge_all
from rotbench.claims import CLAIMS

# The bars of the issue that ordered this package, written down once more, as shares.
ORDERED = {
    ("clean_only_ts_clean", ">=", 0.75),
    ("clean_only_ts_clean_minus_slight", ">=", 0.15),
    ("clean_only_ts_clean_minus_medium", ">=", 0.15),
    ("clean_only_ts_clean_minus_heavy", ">=", 0.10),
    ("clean_only_ts_clean_minus_union", ">=", 0.30),
    ("rottuned_minus_clean_only_ts_noisy", ">=", 0.15),
    ("rottuned_ts_span", "<=", 0.20),
    ("rottuned_ts_clean", ">=", 0.70),
    ("rottuned_minus_clean_only_pi_noisy", ">=", 0.0),
    ("clean_only_corrected_share_slight_tool", ">=", 0.50),
    ("clean_only_corrected_is_largest_slight_tool", ">=", 1.0),
}


def estimates(values, half=0.02):
    return {
        name: Estimate(value, value - half, value + half, 200, "wilson")
        for name, value in values.items()
    }


def statuses(values, half=0.02):
    return {v.claim.id: v.status for v in judge_all(CLAIMS, estimates(values, half))}


AT_BARS = {metric: value for metric, _, value in ORDERED} | {
    "rottuned_minus_clean_only_pi_noisy": 0.05
}


def test_the_bars_are_those_that_were_ordered():
    assert {(bar.metric, bar.op, bar.value) for claim in CLAIMS for bar in claim.bars} == ORDERED


def test_all_claims_hold_exactly_at_their_bars():
    assert set(statuses(AT_BARS).values()) == {"held"}


@pytest.mark.parametrize("bar", sorted(ORDERED), ids=lambda bar: bar[0])
def test_each_bar_can_be_missed(bar):
    metric, op, value = bar
    values = AT_BARS | {metric: value + (0.01 if op == "<=" else -0.01)}
    assert list(statuses(values).values()).count("missed") == 1


def test_a_gain_of_parameters_within_its_noise_is_none():
    found = statuses(AT_BARS, half=0.06)
    assert found.pop("rottuning-finds-parameters") == "missed"
    assert set(found.values()) == {"held"}


def test_without_augmentation_exactly_the_effects_are_missed():
    same = {
        "rottuned_minus_clean_only_ts_noisy": 0.0,
        "rottuned_minus_clean_only_pi_noisy": 0.0,
        "rottuned_ts_span": 0.45,
    }
    found = statuses(AT_BARS | same)
    effects = {claim.id for claim in CLAIMS if claim.kind == "effect"}
    assert {name for name, status in found.items() if status == "missed"} == effects
