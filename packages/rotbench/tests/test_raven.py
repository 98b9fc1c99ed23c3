"""Reading the Python calls of NexusRaven."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rotbench.cases import Call, Tool
from rotbench.predictions import MAX_ANSWER
from rotbench.raven import read_raven
from rotbench.scoring import score

TOOLS = (
    Tool("add", "", {"a": {}, "b": {}}),
    Tool("odd", "", {"x=y": {}, "": {}, "code:": {}}),
    Tool("none", "", {}),
)


def read(call, version=2, **options):
    text = (
        f"Call: {call}<bot_end>\nThought: done"
        if version == 2
        else (f"Initial Answer: {call}\nReflection: fine")
    )
    return read_raven(text, version, TOOLS, **options)


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize(
    ("call", "arguments"),
    [
        ("add(a='1', b=2)", {"a": "1", "b": 2}),
        ("add('1', b=2)", {"a": "1", "b": 2}),
        ("add('1', 2)", {"a": "1", "b": 2}),
        (
            "add( a = [1, {'k': None}] , b = (True, -1.5) )",
            {"a": [1, {"k": None}], "b": [True, -1.5]},
        ),
        ("add(a='x, y', b='f(z=1)')", {"a": "x, y", "b": "f(z=1)"}),
        ("add(a='it\\'s', b=\"\")", {"a": "it's", "b": ""}),
        ("none()", {}),
        ("odd(x=y='1', ='2', code:=3)", {"x=y": "1", "": "2", "code:": 3}),
        ("unknown(q='1')", {"q": "1"}),
    ],
)
def test_plain_calls_need_no_repair(version, call, arguments):
    found = read(call, version, strict=True)
    assert (found.name, found.arguments, found.problem) == (call[: call.find("(")], arguments, None)


def test_the_innermost_of_nested_calls_counts():
    found = read("none(x=add(a=add(a=1, b=2), b=3))")
    assert (found.name, found.arguments) == ("add", {"a": 1, "b": 2})
    assert found.repairs == ("nested_calls",)
    assert read("none(x=add(a=1))", strict=True).problem == "not_as_asked"


def test_the_first_of_several_calls_counts():
    found = read("add(a=1); none(); add(b=2)")
    assert (found.arguments, found.extra_calls, found.repairs) == ({"a": 1}, 2, ("several_calls",))
    assert read("add(a=1) since it fits").repairs == ("trailing_text",)


def test_words_without_quotes():
    found = read("add(Rome, b=next week)")
    assert (found.arguments, found.repairs) == ({"a": "Rome", "b": "next week"}, ("bare_words",))
    assert read("add(3 days, 4)").arguments == {"a": "3 days", "b": 4}


def test_a_missing_label():
    found = read_raven("add(a=1)", 2, TOOLS)
    assert (found.arguments, found.repairs) == ({"a": 1}, ("label_style",))


@pytest.mark.parametrize(
    ("call", "problem"),
    [
        ("I cannot", "not_call"),
        ("add", "not_call"),
        ("add(", "not_call"),
        ("add(a='1'", "not_call"),
        ("add(a=1 b=2)", "not_call"),
        ("add(1, 2, 3)", "not_call"),
        ("unknown(1)", "not_call"),
        ("add(a=1, a=2)", "duplicate_keys"),
        ("add(1, a=2)", "duplicate_keys"),
        ("add(a={'k': 1, 'k': 2})", "duplicate_keys"),
        ("add(a=nan)", "not_finite"),
        (f"add(a={'9' * 5000})", "too_large_number"),
        (f"add(a={'[' * 60})", "too_deep"),
        ("f(" * 60, "too_deep"),
        ("add(" + "1, " * 300 + ")", "too_many_keys"),
    ],
    ids=lambda text: text[:16],
)
def test_what_is_refused(call, problem):
    found = read(call)
    assert (found.arguments, found.problem) == (None, problem)


def test_empty_and_long_answers():
    assert read_raven("", 1, TOOLS).problem == "empty"
    assert read_raven("x" * (MAX_ANSWER + 1), 2, TOOLS).problem == "too_long"
    assert read("").problem == "not_call"


@pytest.mark.timeout(60)  # each takes milliseconds; quadratic time would be minutes
@pytest.mark.parametrize(
    "call",
    [
        *("(" * 60_000, "a" * 60_000, "f(" + " " * 60_000, "f(" + "'" * 60_000, "f();" * 15_000),
        *("f('" + "\\'" * 30_000, "f([" + "1," * 30_000, "f(" + "[1," * 20_000),
        *("f(" + "{'a':" * 12_000, "f(" + "[1 " * 20_000, "f(" + "a=" * 30_000),
    ],
    ids=lambda text: f"{text[:5]}-{len(text)}",
)
def test_hostile_texts_take_linear_time(call):
    assert read(call).arguments in (None, {})


PIECES = st.sampled_from(
    [
        *(
            "Call: ",
            "Initial Answer: ",
            "\nThought:",
            "\nReflection:",
            "add(",
            ")",
            "(",
            "a=",
            ", ",
        ),
        *("'", '"', "\\", "[", "]", "{", "}", "1", "None", ";", "\n", "add(a='1')", "\ud800", "é"),
    ]
)


@given(st.lists(PIECES, max_size=14).map("".join) | st.text(), st.sampled_from([1, 2]))
def test_any_text_is_read_or_has_a_problem(text, version):
    found = read_raven(text, version, TOOLS)
    assert (found.arguments is None) == (found.problem is not None)
    json.dumps([found.name, found.arguments], allow_nan=False)
    assert "\ud800" not in f"{found.name}{found.arguments}"


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=5,
)


@given(st.dictionaries(st.sampled_from(["a", "b", "p_3"]), VALUES), st.sampled_from([1, 2]))
def test_every_call_comes_back(arguments, version):
    call = f"add({', '.join(f'{key}={value!r}' for key, value in arguments.items())})"
    if any(mark in call for mark in ("\nReflection:", "\nThought:", "_end>")):
        return
    assert read(call, version, strict=True).arguments == arguments


@pytest.mark.parametrize("version", [1, 2])
def test_an_oracle_that_writes_python_is_right_on_all_released_cases(released_cases, version):
    label = {1: "Initial Answer: {}\nReflection: ok", 2: "Call: {}\nThought: ok"}[version]
    for case in released_cases:
        for gold in case.golds:
            text = label.format(python(gold))
            found = read_raven(text, version, case.tools, strict=True)
            assert score(case, found) == (True, True, True), (case.key, text, found)


def python(call: Call) -> str:
    return f"{call.name}({', '.join(f'{key}={value!r}' for key, value in call.arguments.items())})"
