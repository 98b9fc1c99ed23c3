import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from papercore.claims import (
    Bar,
    Claim,
    Estimate,
    claims_document,
    judge,
    verdict_from_json,
    verdict_to_json,
)
from papercore.errors import DataError


def claim(*bars, paper=0.5, origin="read", planted=False):
    return Claim("id", "It works", "Table 1", paper, origin, "effect", planted, bars)


def estimate(value, lo=None, hi=None):
    return Estimate(value, value if lo is None else lo, value if hi is None else hi, 100, "wilson")


@pytest.mark.parametrize(
    ("bar", "measured", "status"),
    [
        (Bar("m", ">=", 0.5), estimate(0.5), "held"),
        (Bar("m", ">=", 0.5), estimate(0.49), "missed"),
        (Bar("m", "<=", 0.5), estimate(0.5), "held"),
        (Bar("m", "<=", 0.5), estimate(0.51), "missed"),
        (Bar("m", ">=", 0.1, excludes_zero=True), estimate(0.2, 0.1, 0.3), "held"),
        (Bar("m", ">=", 0.1, excludes_zero=True), estimate(0.2, 0.0, 0.4), "missed"),
        (Bar("m", ">=", 0.1, excludes_zero=True), estimate(0.2, -0.1, 0.5), "missed"),
        (Bar("m", "<=", -0.1, excludes_zero=True), estimate(-0.2, -0.3, -0.1), "held"),
        (Bar("m", ">=", 0.1, excludes_zero=True), estimate(0.2, math.nan, math.nan), "missed"),
        (Bar("m", ">=", -math.inf), estimate(math.nan), "missed"),
        (Bar("m", "<=", math.inf), estimate(math.nan), "missed"),
        (Bar("other", ">=", 0.0), estimate(1.0), "not_measured"),
    ],
)
def test_a_bar(bar, measured, status):
    assert judge(claim(bar), {"m": measured}).status == status


def test_every_bar_must_hold():
    both = claim(Bar("a", ">=", 0.5), Bar("b", "<=", 0.5))
    assert judge(both, {"a": estimate(0.6), "b": estimate(0.4)}).status == "held"
    assert judge(both, {"a": estimate(0.6), "b": estimate(0.6)}).status == "missed"
    assert judge(both, {"a": estimate(0.6)}).status == "not_measured"


def test_a_claim_without_bars_never_holds():
    assert judge(claim(), {}).status == "not_measured"


def test_a_quick_run_measures_nothing_but_keeps_its_numbers():
    verdict = judge(claim(Bar("m", ">=", 0.0)), {"m": estimate(1.0), "x": estimate(1)}, quick=True)
    assert verdict.status == "not_measured"
    assert verdict.estimates == {"m": estimate(1.0)}


@pytest.mark.parametrize(
    ("origin", "shown"), [("read", 0.5), ("second_hand", 0.5), ("unread", None)]
)
def test_a_value_that_nobody_read_is_no_comparison(origin, shown):
    assert claim(origin=origin).comparable == shown


numbers = st.floats(allow_infinity=False)
estimates = st.builds(Estimate, numbers, numbers, numbers, st.integers(0, 99), st.just("paired"))


@given(estimates, st.floats(allow_nan=False), st.sampled_from([">=", "<="]), st.booleans())
def test_verdicts_survive_strict_json(measured, bar, op, excludes_zero):
    verdict = judge(claim(Bar("m", op, bar, excludes_zero)), {"m": measured})
    if math.isinf(bar):
        return
    text = json.dumps(verdict_to_json(verdict), allow_nan=False)
    again = verdict_from_json(json.loads(text))
    assert again.claim == verdict.claim
    assert again.status == verdict.status
    assert repr(again.estimates) == repr(verdict.estimates)


def test_no_number_holds_against_the_opposite_bar():
    for value in (-1.0, 0.0, 1.0):
        above = judge(claim(Bar("m", ">=", 0.5)), {"m": estimate(value)}).status
        below = judge(claim(Bar("m", "<=", 0.4)), {"m": estimate(value)}).status
        assert [above, below].count("held") <= 1


def test_the_document_has_its_schema():
    verdicts = [judge(claim(Bar("m", ">=", 0.5)), {"m": estimate(0.6)})]
    document = claims_document(verdicts, package="toy", version="1.0.0", seed=2, quick=False)
    assert {key: document[key] for key in ("schema", "package", "version", "seed", "mode")} == {
        "schema": 1,
        "package": "toy",
        "version": "1.0.0",
        "seed": 2,
        "mode": "full",
    }
    assert [entry["status"] for entry in document["claims"]] == ["held"]


@pytest.mark.parametrize("document", [{}, {"claim": {}, "estimates": {}, "status": "held"}])
def test_what_is_no_verdict_is_refused(document):
    with pytest.raises(DataError, match="not a verdict"):
        verdict_from_json(document)
