"""The default scorer: rules by hand, a slow re-statement of the formulas, the oracle's 100."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rotbench.cases import Call, Case, CaseKey, Tool
from rotbench.predictions import Prediction
from rotbench.scoring import alike, same, score, score_call

NOTHING = (False, False, False)
TOOL = (True, False, False)
KEYS = (True, True, False)
ALL = (True, True, True)


def case_of(*golds, names=("add", "sub", "ask", "end")):
    parameters = (("a", "b"), ("a", "b"), ("question",), ("answer",))
    tools = tuple(
        Tool(name, "", {key: {"type": "string"} for key in keys})
        for name, keys in zip(names, parameters, strict=True)
    )
    key = CaseKey("first", "clean", "whole", 0)
    return Case(key, "1 + 2?", "TG", "Tools:\n", tools, "\n\nStart now!\n", (), golds)


PLAIN = case_of(Call("add", {"a": "1", "b": "2"}))


def test_each_score_builds_on_the_one_before():
    assert score_call(PLAIN, Call("add", {"b": "2", "a": "1"})) == ALL
    assert score_call(PLAIN, Call("add", {"a": "1", "b": "3"})) == KEYS
    assert score_call(PLAIN, Call("add", {"a": "1"})) == TOOL
    assert score_call(PLAIN, Call("add", {"a": "1", "b": "2", "c": "3"})) == TOOL
    assert score_call(PLAIN, Call("sub", {"a": "1", "b": "2"})) == NOTHING


def test_an_empty_object_is_right_where_the_gold_is_empty():
    assert score_call(case_of(Call("add", {})), Call("add", {})) == ALL
    assert score_call(PLAIN, Call("add", {})) == TOOL


def test_without_readable_arguments_the_tool_alone_is_scored():
    assert score(PLAIN, Prediction("add", None, "not_json")) == (True, False, False)
    assert score(PLAIN, Prediction("sub", None, "not_json")) == NOTHING
    assert score(PLAIN, Prediction(None, None, "no_action")) == NOTHING


def test_a_wildcard_needs_its_key_and_takes_every_value():
    case = case_of(Call("add", {"a": "1", "b": "None"}))
    assert score_call(case, Call("add", {"a": "1", "b": ["?"]})) == ALL
    assert score_call(case, Call("add", {"a": "1", "b": None})) == ALL
    assert score_call(case, Call("add", {"a": "2", "b": "?"})) == KEYS
    assert score_call(case, Call("add", {"a": "1"})) == TOOL


def test_wildcards_leave_the_prediction_as_it_is():
    golds = (Call("add", {"a": "9", "b": "None"}), Call("add", {"a": "1", "b": "2"}))
    given_arguments = {"a": "1", "b": "2"}
    assert score_call(case_of(*golds), Call("add", given_arguments)) == ALL
    assert score_call(case_of(*golds[::-1]), Call("add", given_arguments)) == ALL
    assert given_arguments == {"a": "1", "b": "2"}
    smaller = case_of(golds[0], Call("add", {"a": "1"}))
    assert score_call(smaller, Call("add", given_arguments)) == KEYS


def test_the_best_gold_counts_for_each_score():
    golds = (Call("sub", {"a": "1"}), Call("add", {"a": "9"}), Call("add", {"b": "2"}))
    assert score_call(case_of(*golds), Call("add", {"a": "1"})) == KEYS
    assert score_call(case_of(*golds), Call("add", {"b": "2"})) == ALL


def test_finish_is_the_last_tool_by_whatever_name():
    case = case_of(Call("end", {"answer": "3"}))
    assert score_call(case, Call("finish", {"answer": "?"})) == ALL
    assert score_call(case, Call("finish", {"a": "?"})) == TOOL
    assert score_call(PLAIN, Call("finish", {"a": "1", "b": "2"})) == NOTHING


def test_finish_stays_itself_for_the_golds_that_follow():
    golds = (Call("end", {"answer": "3"}), Call("finish", {"a": "1"}))
    case = case_of(*golds, names=("finish", "sub", "ask", "end"))
    assert score_call(case, Call("finish", {"a": "1"})) == ALL


def test_special_tools_are_known_by_their_place():
    asked = case_of(Call("ask", {"question": "which?"}))
    assert score_call(asked, Call("ask", {"question": "what?"})) == ALL
    moved = case_of(Call("ask_to_user", {"a": "1"}), names=("ask_to_user", "sub", "x", "y"))
    assert score_call(moved, Call("ask_to_user", {"a": "2"})) == KEYS
    own = replace(asked, num_special=0)
    assert score_call(own, Call("ask", {"question": "what?"})) == KEYS
    assert score_call(own, Call("finish", {"question": "what?"})) == NOTHING


def test_a_case_without_golds_is_never_right():
    assert score_call(case_of(), Call("add", {})) == NOTHING


@pytest.mark.parametrize(
    ("given_value", "wanted", "strictly", "loosely"),
    [
        ("1", "1", True, True),
        (1, "1", False, True),
        (1.0, 1, True, True),
        ("1.0", 1, False, True),
        ("1.50", 1.5, False, True),
        (True, 1, False, False),
        (1, True, False, False),
        ([True], [1], False, False),
        ("true", True, False, True),
        (True, True, True, True),
        ("Rome", "rome", False, True),
        (" Rome ", "Rome", False, True),
        ("007", "7", False, False),
        ("1e3", "1000", False, False),
        (None, None, True, True),
        (None, "null", False, False),
        ([1, "a"], ["1", "A"], False, True),
        ([1], [1, 2], False, False),
        ({"a": 1}, {"a": "1"}, False, True),
        ({"a": 1}, {"b": 1}, False, False),
        ({"a": 1}, [1], False, False),
        (10**30, str(10**30), False, True),
        ("Straße", "STRASSE", False, True),
    ],
    ids=lambda value: f"{value!r:.16}",
)
def test_equality(given_value, wanted, strictly, loosely):
    assert same(given_value, wanted) is same(wanted, given_value) is strictly
    assert alike(given_value, wanted) is alike(wanted, given_value) is loosely
    case, call = case_of(Call("add", {"a": wanted})), Call("add", {"a": given_value})
    assert score_call(case, call).cf is strictly
    assert score_call(case, call, match=alike).cf is loosely


def formulas(case, call):
    """TS, PI, CF of each gold by the formulas, then the maximum over golds."""
    special = {tool.name for tool in case.tools[len(case.tools) - case.num_special :]}
    best = [0, 0, 0]
    for gold in case.golds:
        last = bool(case.num_special) and gold.name == case.tools[-1].name
        ts = int(call.name == gold.name or (call.name == "finish" and last))
        pi = ts * int(set(call.arguments) == set(gold.arguments))
        cf = pi
        for key in gold.arguments if pi else ():
            free = gold.name in special or gold.arguments[key] == "None"
            cf *= int(free or call.arguments[key] == gold.arguments[key])
        best = [max(a, b) for a, b in zip(best, (ts, pi, cf), strict=True)]
    return tuple(map(bool, best))


NAMES = st.sampled_from(["add", "sub", "ask", "end", "finish", "other"])
ARGUMENTS = st.dictionaries(st.sampled_from(["a", "b", "c"]), st.sampled_from(["1", "2", "None"]))
CALLS = st.builds(Call, NAMES, ARGUMENTS)


@given(st.lists(CALLS, max_size=5), CALLS, st.sampled_from([0, 2]))
def test_it_is_the_formulas(golds, call, num_special):
    case = replace(case_of(*golds), num_special=num_special)
    assert score_call(case, call) == formulas(case, call)


@given(st.lists(CALLS, min_size=1, max_size=5), CALLS)
def test_the_order_of_golds_does_not_matter(golds, call):
    assert score_call(case_of(*golds), call) == score_call(case_of(*golds[::-1]), call)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.floats(-2, 2) | st.text("aA1 ", max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text("ab", max_size=1), inner),
    max_leaves=4,
)


@given(JSON, JSON)
def test_what_is_the_same_is_alike(one, other):
    assert same(one, one)
    assert alike(one, one)
    assert same(one, other) == same(other, one)
    assert alike(one, other) or not same(one, other)


def test_the_oracle_is_right_on_all_released_cases(released_cases):
    assert len(released_cases) == 1400
    for case in released_cases:
        assert all(score_call(case, gold) == ALL for gold in case.golds), case.key
