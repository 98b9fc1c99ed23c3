"""The official scorer: each rule on a case by hand, then against the plain re-statement."""

import json
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rotbench.cases import Call, Case, CaseKey, Tool
from rotbench.official import react_text, score_text
from rotbench.official_reference import passes
from rotbench.predictions import MAX_TEXT
from rotbench.raven_official import MAX_CALL
from rotbench.released import entry

NOTHING = (False, False, False)
TOOL = (True, False, False)
KEYS = (True, True, False)
ALL = (True, True, True)


def tool(name, *parameters):
    return Tool(name, "does something", {key: {"type": "string"} for key in parameters})


def case_of(*golds, names=("add", "sub", "ask", "end")):
    add, sub, ask, end = names
    tools = (tool(add, "a", "b"), tool(sub, "a", "b"), tool(ask, "question"), tool(end, "answer"))
    key = CaseKey("first", "clean", "whole", 0)
    return Case(key, "1 + 2?", "TG", "Tools:\n", tools, "\n\nStart now!\n", (), golds)


PLAIN = case_of(Call("add", {"a": "1", "b": "2"}))
PARTS = {"a": "1", "b": "2"}


def react(name, arguments):
    return react_text(name, arguments if isinstance(arguments, str) else json.dumps(arguments))


def scores(case, text, version=0):
    return score_text(case, text, version).scores


def test_a_right_answer_scores_everything():
    assert scores(PLAIN, react("add", PARTS)) == ALL


def test_keys_and_values_are_scored_one_after_the_other():
    assert scores(PLAIN, react("sub", PARTS)) == NOTHING
    assert scores(PLAIN, react("add", {"a": "1"})) == TOOL
    assert scores(PLAIN, react("add", {**PARTS, "c": "3"})) == TOOL
    assert scores(PLAIN, react("add", {"a": "1", "b": "3"})) == KEYS


@pytest.mark.parametrize("name", ["add ", " add", "add\n", '"add"', "Add"])
def test_the_name_is_not_stripped(name):
    assert scores(PLAIN, react(name, PARTS)) == NOTHING


def test_one_line_break_behind_the_name_goes():
    answer = f"Action: add\n\nAction Input: {json.dumps(PARTS)}"
    assert scores(PLAIN, answer) == NOTHING
    assert scores(PLAIN, answer.replace("\n\n", "")) == ALL


def test_a_label_in_the_thought_breaks_the_name():
    assert scores(PLAIN, "Thought: my Action: is clear\n" + react("add", PARTS)) == NOTHING


def test_exactly_one_character_stands_behind_each_label():
    assert scores(PLAIN, f"Action:\nadd\nAction Input:\n{json.dumps(PARTS)}") == ALL
    assert scores(PLAIN, f"Action:add\nAction Input: {json.dumps(PARTS)}") == NOTHING
    assert scores(PLAIN, f"Action: add\nAction Input:{json.dumps(PARTS)}") == NOTHING


@pytest.mark.parametrize(
    "given",
    [
        '```json\n{"a": "1", "b": "2"}\n```',
        "{'a': '1', 'b': '2'}",
        '{"a": "1", "b": "2"} and so on',
        '"text"',
        "",
        "{}",
        "null",
        "0",
        "[]",
        "false",
    ],
)
def test_what_cannot_be_parsed_or_is_empty_scores_nothing(given):
    assert score_text(PLAIN, react("add", given)) == score_text(PLAIN, "Action: x\n")
    assert score_text(PLAIN, react("add", given)).crash is None


def test_an_empty_object_is_wrong_even_where_it_is_right():
    assert scores(case_of(Call("add", {})), react("add", {})) == NOTHING


@pytest.mark.parametrize("given", ["[1]", "5", "true", "NaN", "1.5"])
def test_other_values_crash_it_if_the_tool_is_right(given):
    outcome = score_text(PLAIN, react("add", given))
    assert (outcome.scores, outcome.crash) == (NOTHING, "AttributeError")
    assert score_text(PLAIN, react("sub", given)).crash is None


@pytest.mark.parametrize("text", ["", "hello", "Action: Action Input: {}", "Action:Action Input:"])
def test_an_empty_name_crashes_it(text):
    outcome = score_text(PLAIN, text)
    assert (outcome.scores, outcome.crash) == (NOTHING, "IndexError")


def test_huge_numbers_and_deep_nesting_crash_it():
    assert score_text(PLAIN, react("add", f'{{"a": {"9" * 5000}}}')).crash == "ValueError"
    deep = "[" * 5000 + "]" * 5000
    assert score_text(PLAIN, react("add", f'{{"a": {deep}}}')).crash == "RecursionError"
    assert score_text(PLAIN, "x" * (MAX_TEXT + 1)).crash == "too_long"


def test_duplicate_keys_count_with_the_last_value():
    assert scores(PLAIN, react("add", '{"a": "9", "a": "1", "b": "2"}')) == ALL


def test_finish_is_the_last_tool_whatever_its_name():
    case = case_of(Call("end", {"answer": "3"}))
    assert scores(case, react("finish", {"answer": "other"})) == ALL
    assert scores(case, react("end", {"answer": "other"})) == ALL
    assert scores(case, react("finish", {"question": "?"})) == TOOL
    assert scores(PLAIN, react("finish", PARTS)) == NOTHING


def test_finish_stays_renamed_for_the_golds_that_follow():
    names = ("finish", "sub", "ask", "end")
    golds = (Call("end", {"answer": "3"}), Call("finish", {"a": "1"}))
    assert scores(case_of(*golds, names=names), react("finish", {"a": "1"})) == TOOL
    assert scores(case_of(*golds[::-1], names=names), react("finish", {"a": "1"})) == ALL


def test_values_of_the_special_tools_are_free():
    case = case_of(Call("ask", {"question": "which?"}))
    assert scores(case, react("ask", {"question": "what?"})) == ALL


@pytest.mark.parametrize("name", ["finish", "ask_to_user"])
def test_a_tool_that_noise_gave_a_special_name_has_free_values_too(name):
    case = case_of(Call(name, PARTS), names=(name, "sub", "ask", "end"))
    assert scores(case, react(name, {"a": "x", "b": "y"})) == ALL


def test_a_wildcard_key_must_be_there_and_its_value_is_free():
    case = case_of(Call("add", {"a": "1", "b": "None"}))
    assert scores(case, react("add", {"a": "1", "b": "whatever"})) == ALL
    assert scores(case, react("add", {"a": "1"})) == TOOL


def test_wildcards_are_dropped_from_the_prediction_so_that_the_order_of_golds_matters():
    loose, exact = Call("add", {"a": "9", "b": "None"}), Call("add", {"a": "1", "b": "2"})
    assert scores(case_of(loose, exact), react("add", PARTS)) == KEYS
    assert scores(case_of(exact, loose), react("add", PARTS)) == ALL


def test_a_prediction_without_its_wildcards_may_fit_a_smaller_gold():
    case = case_of(Call("add", {"a": "9", "b": "None"}), Call("add", {"a": "1"}))
    assert scores(case, react("add", PARTS)) == ALL


@pytest.mark.parametrize(
    ("wanted", "given", "right"),
    [
        (1, "1", False),
        (1, 1.0, True),
        (1, True, True),
        (0, False, True),
        ("a", "A", False),
        ("a", "a ", False),
        ([1], [True], True),
        ("1", True, False),
    ],
)
def test_equality_is_that_of_python(wanted, given, right):
    answer = react("add", {"a": given})
    assert scores(case_of(Call("add", {"a": wanted})), answer).cf is right


def test_an_environment_without_special_tools_has_no_free_values():
    case = replace(case_of(Call("end", {"answer": "3"})), num_special=0)
    assert scores(case, react("end", {"answer": "4"})) == KEYS
    assert scores(case, react("finish", {"answer": "3"})) == NOTHING


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Call: add(a='1', b='2') \nThought: x", ALL),
        ("Call: add(a='1', b='2');sub(a='1') \nThought: x", ALL),
        ("Call: end(answer=add(a='1', b='2')) \nThought: x", ALL),
        ("Call: add('1', '2') \nThought: x", NOTHING),
        ("Call: add(a='1', b='') \nThought: x", TOOL),
        ("Call: add(a='1', b=2) \nThought: x", KEYS),
        ("Call: add(a='1', b='x, y') \nThought: x", KEYS),
        ("Call: add() \nThought: x", NOTHING),
    ],
)
def test_raven_v2(text, expected):
    assert scores(PLAIN, text, 2) == expected == passes(entry(PLAIN), text, 2)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Initial Answer: add(a='1', b='2')\nReflection: ok", ALL),
        ("Initial Answer: add(1, 2)\nReflection: ok", ALL),
        ("Initial Answer: add('1', 2)\nReflection: ok", KEYS),
        ("Initial Answer: add(1)\nReflection: ok", TOOL),
        ("Initial Answer: add(1, 2, 3)\nReflection: ok", NOTHING),
        ("Initial Answer: sub(1, 2)\nReflection: ok", NOTHING),
        ("Initial Answer: add(, 2)\nReflection: ok", TOOL),
        ("Initial Answer: add\nReflection: ok", NOTHING),
    ],
)
def test_raven_v1(text, expected):
    assert scores(PLAIN, text, 1) == expected == passes(entry(PLAIN), text, 1)


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize(
    "inside",
    [
        *("-" * 8000, "not " * 2000, "lambda:" * 1100, "1+" * 4000, "a." * 4000, "[" * 8000),
        *("(" * 8000, "await " * 1300, "x if " * 1600, "**" * 4000, "'\\" * 4000, "~" * 8000),
        *("\0", "9" * 8000, "0x" + "f" * 8000, "f'{" * 2000, "\ud800"),
    ],
    ids=lambda text: f"{text[:3]!a}",
)
def test_no_text_hurts_python_s_reader(version, inside):
    text = f"Initial Answer: add(a={inside})\nReflection: "
    if version == 2:
        text = f"Call: add(a={inside}) \nThought: "
    assert score_text(PLAIN, text, version).scores[2] is False


def test_a_long_raven_call_is_refused():
    text = f"Call: add(a='{'x' * MAX_CALL}') \nThought: "
    assert score_text(PLAIN, text, 2).crash == "too_long"


NAMES = st.sampled_from(["add", "sub", "ask", "end", "finish", "ask_to_user", "Action:", "other"])
VALUES = st.sampled_from(["1", "2", "None", "", 1, 1.0, True, None, [1], {"a": 1}, "x, y", "a=b"])
ARGUMENTS = st.dictionaries(st.sampled_from(["a", "b", "c", "answer", "question"]), VALUES)
GOLDS = st.lists(st.builds(Call, NAMES.filter(lambda n: ":" not in n), ARGUMENTS), max_size=4)
PIECES = st.sampled_from(
    [
        *("Thought:", "Action:", "Action Input:", " ", "\n", "add", "finish", "{}", '{"a": "1"}'),
        *("[1]", "Call: ", "Initial Answer: ", "\nReflection: ", "\nThought:", "(", ")", "=", "'"),
        *(", ", ";", "a='1'", "b=2", "add(a='1', b='2')", "\u00e9", "\0", "NaN", "{", "}", '"'),
    ]
)
RAVEN_VALUES = st.sampled_from(["'1'", '"2"', "2", "''", "None", "[1, 2]", "'x, y'", "sub(a='1')"])
RAVEN_CALLS = st.builds(
    lambda name, pairs, values: f"{name}({', '.join([*values, *(f'{k}={v}' for k, v in pairs)])})",
    NAMES,
    st.lists(st.tuples(st.sampled_from(["a", "b", "c"]), RAVEN_VALUES), max_size=3),
    st.lists(RAVEN_VALUES, max_size=2),
)


def answers(version):
    written = {
        0: st.builds(react, NAMES, ARGUMENTS),
        1: RAVEN_CALLS.map("Initial Answer: {}\nReflection: x".format),
        2: RAVEN_CALLS.map("Call: {} \nThought: x".format),
    }[version]
    return st.one_of(written, st.lists(PIECES, max_size=12).map("".join), st.text(max_size=30))


def outcome_by_reference(case, text, version):
    try:
        return passes(entry(case), text, version), False
    except Exception:  # noqa: BLE001 - whatever it dies of
        return NOTHING, True


@pytest.mark.parametrize("version", [0, 1, 2])
@settings(max_examples=600, deadline=None)
@given(data=st.data())
def test_it_is_the_plain_re_statement(version, data):
    names = data.draw(st.permutations(["add", "sub", "ask", "end"]) | st.permutations(NAMED))
    case = case_of(*data.draw(GOLDS), names=names)
    text = data.draw(answers(version))
    ours = score_text(case, text, version)
    assert (ours.scores, ours.crash is not None) == outcome_by_reference(case, text, version)


NAMED = ["add", "finish", "ask_to_user", "end"]


@pytest.mark.parametrize(
    ("turn", "level", "ceiling"),
    [
        ("first", "clean", "92.38"),
        ("first", "slight", "92.38"),
        ("first", "medium", "92.38"),
        ("first", "heavy", "95.24"),
        ("first", "union", "92.38"),
        ("third", "clean", "95.71"),
        ("third", "slight", "95.71"),
        ("third", "medium", "95.71"),
        ("third", "heavy", "97.86"),
        ("third", "union", "98.57"),
    ],
)
def test_an_oracle_reaches_the_known_ceilings(released_cases, turn, level, ceiling):
    cases = [c for c in released_cases if (c.key.turn, c.key.level) == (turn, level)]
    assert len(cases) == (105 if turn == "first" else 70) * (
        1 if level in ("clean", "union") else 2
    )
    found = [scores(c, react(c.golds[0].name, dict(c.golds[0].arguments))) for c in cases]
    for column in zip(*found, strict=True):
        assert f"{100 * sum(column) / len(cases):.2f}" == ceiling


def test_it_is_the_plain_re_statement_on_every_released_gold_and_its_faults(released_cases):
    compared = 0
    for case in released_cases[::3]:
        written = entry(case)
        for gold in case.golds:
            for text in variants(gold):
                assert score_text(case, text).scores == passes(written, text)
                compared += 1
    assert compared > 2000


def variants(gold):
    yield react(gold.name, dict(gold.arguments))
    yield react("finish", dict(gold.arguments))
    yield react(gold.name, {**gold.arguments, "more": "x"})
    yield react(gold.name, dict.fromkeys(gold.arguments, "x"))
