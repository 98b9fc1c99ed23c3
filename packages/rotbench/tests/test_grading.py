"""One call that says all of an answer."""

import json
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from papercore.records import decode, encode
from rotbench.cases import Call, Case, CaseKey, Tool
from rotbench.grading import Answer, grade
from rotbench.official import react_text
from rotbench.taxonomy import KINDS

TOOLS = (
    Tool("add", "", {"a": {"type": "string"}, "b": {"type": "string"}}),
    Tool("ask_to_user", "", {"question": {"type": "string"}}),
    Tool("finish", "", {"answer": {"type": "string"}}),
)
GOLD = Call("add", {"a": "1", "b": "2"})
CASE = Case(
    CaseKey("first", "clean", "whole", 3),
    "?",
    "TG",
    "Tools:\n",
    TOOLS,
    "\n\nStart now!\n",
    (),
    (GOLD,),
)
NOTHING, ALL = (False, False, False), (True, True, True)


def react(arguments, name="add"):
    return Answer(react_text(name, json.dumps(arguments)))


def test_a_right_answer_is_right_in_every_way():
    found = grade(CASE, react({"a": "1", "b": "2"}))
    assert found.fixed == found.official == found.fixed_strict == found.fixed_alike == ALL
    assert (found.error, found.corrected, found.official_only, found.crash) == (
        ("correct", False, False, None)
    )
    assert found.prediction == found.strict


def test_strict_reading_stands_beside_the_lenient_one():
    found = grade(CASE, Answer(react({"a": "1", "b": "2"}).text + "\nDone."))
    assert (found.fixed, found.fixed_strict, found.official) == (ALL, NOTHING, NOTHING)
    assert found.official_only
    assert (found.prediction.problem, found.strict.problem) == (None, "not_as_asked")
    assert found.to_json()["repairs"] == ["trailing_text"]


def test_loosely_compared_values_stand_beside_the_scores():
    found = grade(CASE, react({"a": 1, "b": " 2"}))
    assert (found.fixed.cf, found.fixed_alike, found.error) == (False, ALL, "wrong_value")
    assert grade(CASE, react({"a": 3, "b": "2"})).fixed_alike.cf is False
    assert grade(CASE, react({"a": 1})).fixed_alike == (True, False, False)


def test_what_the_official_run_would_die_of_is_told():
    found = grade(CASE, Answer(react_text("add", "[1]")))
    assert (found.crash, found.official, found.error) == ("AttributeError", NOTHING, "format")
    assert grade(CASE, Answer("")).to_json()["crash"] == "IndexError"


def test_native_calls():
    found = grade(CASE, Answer("", (("add", '{"a": "1", "b": "2"}'),)), "native")
    assert (found.fixed, found.official, found.fixed_strict) == (ALL, ALL, ALL)
    two = Answer("", (("add", '{"a": "1", "b": "2"}'), ("add", "{}")))
    assert grade(CASE, two, "native").to_json()["extra_calls"] == 1
    silent = grade(CASE, Answer("I cannot."), "native")
    assert (silent.fixed, silent.official, silent.error) == (NOTHING, NOTHING, "format")


@pytest.mark.parametrize(
    ("mode", "text"),
    [
        ("raven1", "Initial Answer: add(a='1', b='2')\nReflection: ok"),
        ("raven2", "Call: add(a='1', b='2') \nThought: ok"),
    ],
)
def test_raven_calls(mode, text):
    found = grade(CASE, Answer(text), mode)
    assert (found.fixed, found.official) == (ALL, ALL)
    assert grade(CASE, Answer(text), "react").error == "format"


def test_json_has_what_a_record_needs():
    found = grade(CASE, react({"a": "1", "b": "3"})).to_json()
    assert found["fixed"] == {"ts": True, "pi": True, "cf": False}
    assert found["official"] == found["strict"] == found["lenient"] == found["fixed"]
    assert (found["error"], found["name"], found["problem"]) == ("wrong_value", "add", None)
    assert (found["extra_calls"], found["corrected_name"]) == (0, False)


PIECES = st.sampled_from(
    [
        *("Thought: x\n", "Action: add\n", "Action Input: ", '{"a": "1", "b": "2"}', "{}", "[1]"),
        *("```", "\n", "</script>", "\ud800", "\0", "x" * 1000, "{", '{"a": 1, "a": 2}', "finish"),
        *("Call: ", "add(a='1')", " \nThought:", "Initial Answer: ", "\nReflection: ", "add(1, 2)"),
    ]
)
MODES = st.sampled_from(["react", "native", "raven1", "raven2"])


@given(st.lists(PIECES, max_size=8).map("".join), MODES, st.booleans())
def test_any_answer_has_a_grade_that_can_be_written_down(text, mode, called):
    answer = Answer(text, (("add", text),) if called else ())
    found = grade(CASE, answer, mode)
    written = found.to_json()
    assert decode(encode(written)) == written
    assert found.error in KINDS
    assert (found.error == "correct") == found.fixed.cf
    for scores in (found.fixed, found.official, found.fixed_strict, found.fixed_alike):
        assert scores.ts >= scores.pi >= scores.cf
    assert found.fixed >= found.fixed_strict
    assert found.fixed_alike >= found.fixed
    assert len(written["name"] or "") <= 200


def test_the_kinds_of_many_answers_sum_to_their_number(released_cases):
    kinds = Counter()
    for case in released_cases:
        arguments = dict(case.clean.golds[0].arguments)
        kinds[grade(case, react(arguments, case.clean.golds[0].name)).error] += 1
    assert sum(kinds.values()) == len(released_cases) == 1400
    assert kinds["corrected_tool"] > 300
    assert kinds["corrected_key"] > 200
    assert kinds["correct"] >= 175, "the clean level is answered right"
    assert kinds["format"] == kinds["invented_tool"] == 0
