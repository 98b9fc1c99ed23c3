"""Reading answers: what is taken, what is refused, and that nothing hurts."""

import ast
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rotbench import predictions
from rotbench.literals import MAX_DEPTH, MAX_DIGITS, MAX_KEYS, Refused, read_python
from rotbench.predictions import MAX_ANSWER, MAX_TEXT, Prediction, read_native, read_react

PARTS = {"a": "1", "b": "x"}
OBJECT = json.dumps(PARTS)
ASKED = f"Thought: easy\nAction: add\nAction Input: {OBJECT}"
CALLED = Prediction("add", PARTS)


BEHIND_PYTHON = ("python_literal", "trailing_text")


def told(text, *repairs, extra=0):
    """The call was read, with these repairs; strictly it is none."""
    read = read_react(text)
    assert (read.name, read.arguments, read.problem) == ("add", PARTS, None)
    assert (set(read.repairs), read.extra_calls) == (set(repairs), extra)
    strict = read_react(text, strict=True)
    assert (strict.name, strict.arguments, strict.problem) == (None, None, "not_as_asked")
    return True


def problem(given, name="add"):
    read = read_react(f"Thought: x\nAction: add\nAction Input: {given}")
    assert (read.name, read.arguments) == (name, None)
    return read.problem


@pytest.mark.parametrize("strict", [False, True])
def test_the_asked_format_needs_no_repair(strict):
    assert read_react(ASKED, strict=strict) == CALLED
    assert read_react(ASKED + " \n\n", strict=strict) == CALLED
    assert read_react(ASKED.replace("easy", ""), strict=strict) == CALLED
    pretty = json.dumps(PARTS, indent=2)
    assert read_react(f"Thought:\nAction: add\nAction Input: {pretty}", strict=strict) == CALLED


def test_an_empty_object_is_a_call():
    assert read_react("Thought: x\nAction: add\nAction Input: {}") == Prediction("add", {})


@pytest.mark.parametrize("fence", ["```json\n{}\n```", "```\n{}```", "```JSON {}\n```", "`{}`"])
def test_fenced_json(fence):
    assert told(ASKED.replace(OBJECT, fence.format(OBJECT)), "fenced")


def test_text_behind_the_object():
    assert told(ASKED + "\nI hope this helps!", "trailing_text")
    assert told(ASKED + "}", "trailing_text")


def test_a_python_dict():
    assert told(ASKED.replace(OBJECT, "{'a': '1', 'b': \"x\"}"), "python_literal")
    assert told(ASKED.replace(OBJECT, "{'a': '1', 'b': 'x',}"), "python_literal")
    read = read_react("Thought:\nAction: f\nAction Input: {'a': True, 'b': None, 'c': (1, -2.5,)}")
    assert read.arguments == {"a": True, "b": None, "c": [1, -2.5]}


def test_line_ends_of_other_systems():
    assert told(ASKED.replace("\n", "\r\n"), "line_ends")
    assert told(ASKED.replace("\n", "\r"), "line_ends")


def test_full_width_colons():
    assert told(ASKED.replace("Action: ", "Action： "), "full_width_colon")
    assert told(ASKED.replace("Input: ", "Input： "), "full_width_colon")


@pytest.mark.parametrize("tag", ["think", "thinking", "reasoning"])
def test_reasoning_before_the_call_is_no_call(tag):
    draft = ASKED.replace("add", "sub")
    assert told(f"<{tag}>\n{draft}\n</{tag}>\n{ASKED}", "reasoning")
    assert told(f"{draft}\n</{tag}>\n{ASKED}", "reasoning")
    assert told(f"<{tag}>a</{tag}>\n<{tag}>b</{tag}>\n{ASKED}", "reasoning")


def test_reasoning_without_an_end_is_no_call():
    read = read_react(f"<think>\n{ASKED}")
    assert (read.problem, read.repairs) == ("empty", ("unfinished_reasoning",))


def test_markup_inside_a_value_is_no_reasoning():
    value = {"a": "<think>x</think> Action: sub <script>alert(1)</script>"}
    text = f"Thought: x\nAction: add\nAction Input: {json.dumps(value)}"
    assert read_react(text, strict=True) == Prediction("add", value)


def test_the_first_of_several_calls_counts():
    more = ASKED.replace("add", "sub")
    assert told(f"{ASKED}\n{more}\n{more}", "several_calls", "trailing_text", extra=2)
    said = f"{ASKED}\nObservation: 3\n{more}"
    assert told(said, "several_calls", "trailing_text", extra=1)


def test_a_broken_first_call_is_not_passed_over():
    read = read_react(f'Thought: x\nAction: sub\nAction Input: {{"a": \n{ASKED}')
    assert (read.name, read.problem) == ("sub", "not_json")


def test_a_thought_may_hold_the_labels():
    assert told(ASKED.replace("easy", "the Action: must be add"), "label_in_thought")
    assert told(ASKED.replace("easy", "\nAction: is sub good?"), "label_in_thought")
    both = "\nAction: is sub good?\nAction Input: is it needed?"
    assert told(ASKED.replace("easy", both), "label_in_thought")


def test_spaces_and_a_missing_thought():
    assert told(ASKED.replace("add", " add "), "spaces")
    assert told("  \n" + ASKED, "spaces")
    assert told(ASKED.replace("Input: ", "Input:\n  "), "spaces")
    assert told(ASKED.replace("Input: ", "Input:"), "spaces")
    assert told(ASKED.partition("\n")[2], "no_thought")
    assert told("Sure!\n" + ASKED, "leading_text")


def test_labels_in_another_style():
    assert told(ASKED.replace("Action:", "**Action:**"), "label_style")
    assert told(ASKED.replace("Action Input:", "action_input:"), "label_style")
    assert told(ASKED.replace("\n", " "), "inline_labels", "spaces")


@pytest.mark.parametrize("name", ["`add`", '"add"', "**add**", "[add]", "<add>"])
def test_a_name_in_quotes(name):
    assert told(ASKED.replace("add", name), "quoted_name")


def test_a_name_with_more_lines():
    assert told(ASKED.replace("add", "add\nsince it is right"), "name_lines")


def test_line_breaks_inside_a_value():
    read = read_react('Thought:\nAction: f\nAction Input: {"a": "1\n2"}')
    assert (read.arguments, read.repairs) == ({"a": "1\n2"}, ("control_characters",))


def test_half_characters_are_replaced():
    read = read_react("Thought: \ud800\nAction: f\nAction Input: {}")
    assert (read.name, read.repairs) == ("f", ("broken_characters",))
    assert read_react('Thought:\nAction: f\nAction Input: {"a": "\\ud800"}').arguments == {"a": "�"}
    assert read_react('Thought:\nAction: f\nAction Input: {"a": "\\ud83d\\ude00"}').arguments == {
        "a": "😀"
    }


def test_nul_bytes_are_characters_like_others():
    assert read_react('Thought:\nAction: f\0\nAction Input: {"a": "\\u0000"}').name == "f\0"


@pytest.mark.parametrize("text", ["", " \n\t", "\r\n"])
def test_an_empty_answer(text):
    assert read_react(text).problem == read_react(text, strict=True).problem == "empty"


@pytest.mark.parametrize(
    "text",
    ["I cannot do that.", OBJECT, f"Action Input: {OBJECT}", f"Action: \nAction Input: {OBJECT}"],
)
def test_an_answer_without_an_action(text):
    read = read_react(text)
    assert (read.name, read.arguments, read.problem) == (None, None, "no_action")


@pytest.mark.parametrize("text", ["Thought: x\nAction: add", "Action: add\nAction Input: "])
def test_an_action_without_input(text):
    assert (read_react(text).name, read_react(text).problem) == ("add", "no_input")


@pytest.mark.parametrize("given", ["[1]", "5", "null", '"{}"', "true", "None", "[{}]", "(1,)"])
def test_other_values_than_an_object(given):
    assert problem(given) == "not_object"


@pytest.mark.parametrize(
    "given",
    [
        *("{", '{"a"', '{"a": }', "{a: 1}", '{"a": 1 "b": 2}', "the usual", "{'a': f(1)}"),
        *("__import__('os').system('true')", "{'a': '\\u12'}", "{1: 2}", '{"a": "x', "{'a' 1}"),
        *("{'a': [1 2]}", "{'a': (1}", "{'a': 1"),
    ],
)
def test_what_is_no_json(given):
    assert problem(given) == "not_json"


def test_ambiguous_and_excessive_objects():
    assert problem('{"a": 1, "a": 1}') == "duplicate_keys"
    assert problem("{'a': 1, 'a': 2}") == "duplicate_keys"
    assert problem('{"b": {"a": 1, "a": 1}}') == "duplicate_keys"
    assert problem('{"a": NaN}') == problem('{"a": -Infinity}') == "not_finite"
    assert problem('{"a": 1e999}') == problem("{'a': nan}") == "not_finite"
    assert problem(f'{{"a": {"9" * (MAX_DIGITS + 1)}}}') == "too_large_number"
    assert problem(f"{{'a': {'9' * 5000}}}") == "too_large_number"
    assert problem(f'{{"a": 0.{"9" * 5000}}}') == "too_large_number"
    assert problem(json.dumps({str(n): n for n in range(MAX_KEYS + 1)})) == "too_many_keys"


def test_the_limits_themselves_are_allowed():
    depth = "[" * (MAX_DEPTH - 1) + "]" * (MAX_DEPTH - 1)
    assert problem_free(f'{{"a": {depth}}}')
    assert problem_free(f"{{'a': {depth}}}")
    assert problem_free(f'{{"a": {"9" * MAX_DIGITS}}}')
    assert problem_free(json.dumps({str(n): n for n in range(MAX_KEYS)}))


def problem_free(given):
    return read_react(f"Thought:\nAction: add\nAction Input: {given}").problem is None


@pytest.mark.parametrize("quote", ['"', "'"])
@pytest.mark.parametrize("deep", ["[" * 40 + "]" * 40, "[" * 30_000, '{"a":' * 9000])
def test_deep_nesting(quote, deep):
    assert problem(f"{{{quote}a{quote}: {deep}}}") == "too_deep"


def test_brackets_inside_strings_are_not_nesting():
    assert problem_free(json.dumps({"a": "[{" * 500}))
    assert problem_free(json.dumps({"a": '\\"[{' * 500, "b": [{}]}))


def test_nesting_behind_the_object_is_not_its_own():
    assert told(ASKED + "\n" + "[" * 100, "trailing_text")
    assert told(ASKED.replace(OBJECT, "{'a': '1', 'b': 'x'}" + "[" * 100), *BEHIND_PYTHON)


def test_long_answers():
    long = ASKED.replace('"x"', json.dumps("x" * MAX_ANSWER))
    assert read_react(long).problem == "too_long"
    assert read_react("x" * (MAX_TEXT + 1)).problem == "too_long"
    assert told(f"<think>{'x' * MAX_ANSWER}</think>\n{ASKED}", "reasoning")


HOSTILE = [
    "Action:" * 9000,
    "Action:\n" * 8000,
    "Action: a\nAction Input: \n" * 2500,
    "Action: a\nAction Input: {\n" * 2500,
    'Action: a\nAction Input: {"a":\n' * 2000,
    "Action: a\nAction Input:" + " " * 60_000,
    "Action: a\nAction Input: {" + '"' * 60_000,
    'Action: a\nAction Input: {"' + '\\"' * 30_000,
    "Action: a\nAction Input: {'" + "\\'" * 30_000,
    "Action: a\nAction Input: {'a': [" + "1," * 30_000,
    "Action: a\nAction Input: " + "9" * 60_000,
    "Action: a\nAction Input: {'a': " + "-" * 60_000,
    "Action: a\nAction Input: " + "`" * 60_000,
    "        ****    x\n" * 3500,
    "<think>" * 9000,
    "\n<think>" * 100_000,
    "</think>" * 100_000,
    "<think></think>\n" * 50_000,
    "\r" * 60_000,
    "\ud800" * 60_000,
    "[" * 60_000,
    "Action: " + "[" * 30_000 + "]" * 30_000 + "\nAction Input: {}",
]


@pytest.mark.timeout(60)  # each takes milliseconds; quadratic time would be minutes
@pytest.mark.parametrize("text", HOSTILE, ids=lambda text: f"{text[:12]!a}-{text[-30:-20]!a}")
def test_hostile_texts_take_linear_time(text):
    assert read_react(text).arguments in (None, {})
    assert read_native([("f", text[text.find("{") :])]).arguments in (None, {})


def test_native_calls():
    assert read_native([("add", OBJECT)], strict=True) == CALLED
    assert read_native([("", OBJECT)]) == Prediction("", PARTS)
    assert read_native([]).problem == "empty"
    assert read_native([], "I cannot.").problem == "no_action"


def test_of_several_native_calls_the_first_counts():
    read = read_native([("add", OBJECT), ("sub", "{}"), ("sub", "{}")])
    assert (read.name, read.arguments, read.extra_calls) == ("add", PARTS, 2)
    strict = read_native([("add", OBJECT), ("sub", "{}")], strict=True)
    assert strict.problem == "not_as_asked"


def test_native_arguments_are_read_with_the_same_care():
    assert read_native([("f", "")]) == Prediction("f", {}, None, ("empty_arguments",))
    assert read_native([("f", "[1]")]).problem == "not_object"
    assert read_native([("f", '{"a": 1, "a": 2}')]).problem == "duplicate_keys"
    assert read_native([("f", "x" * (MAX_ANSWER + 1))]).problem == "too_long"
    assert read_native([("f\ud800", "{}")]).name == "f�"
    assert read_native([("\ud800", '{"a": "\ud800"}')]).repairs == ("broken_characters",)
    assert read_native([("f", "{'a': 1}")]).repairs == ("python_literal",)
    assert read_native([("f", '{"a": 1} x')]).repairs == ("trailing_text",)


CHARACTERS = st.characters(exclude_categories=["Cs"])
FLOATS = st.floats(allow_nan=False, allow_infinity=False)
LEAVES = st.none() | st.booleans() | st.integers() | FLOATS | st.text(CHARACTERS)
JSON = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(CHARACTERS), inner),
    max_leaves=8,
)
OBJECTS = st.dictionaries(st.text(CHARACTERS, max_size=8), JSON)
NAMES = st.text("abcXYZ_09.-", min_size=1, max_size=12)


@given(NAMES, OBJECTS, st.booleans())
def test_every_object_comes_back(name, arguments, ascii_only):
    written = json.dumps(arguments, ensure_ascii=ascii_only)
    read = read_react(f"Thought: x\nAction: {name}\nAction Input: {written}", strict=True)
    assert read == Prediction(name, arguments)


@given(OBJECTS)
def test_every_python_literal_comes_back(arguments):
    assert read_python(repr(arguments), 0) == (arguments, len(repr(arguments)))


PIECES = st.sampled_from(
    [
        *("Thought:", "Action:", "Action Input:", "Action： ", " ", "\n", "\n\n", "\r\n", "add"),
        *("{}", OBJECT, "{'a': '1'}", "```", "```json", "<think>", "</think>", "Observation:"),
        *("[1]", '{"a": 1, "a": 2}', "{", "}", '"', "'", "\\", "**", "\ud800", "\0", "é", "NaN"),
        *("\nAction: add", "\nAction Input: ", "Thought: x\nAction: add\nAction Input: {}"),
    ]
)
TEXTS = st.lists(PIECES, max_size=14).map("".join) | st.text()


@given(TEXTS)
def test_any_text_is_read_or_has_a_problem(text):
    read, strict = read_react(text), read_react(text, strict=True)
    assert (read.arguments is None) == (read.problem is not None)
    assert read.arguments is None or read.name is not None
    assert strict.arguments is None or (strict == read and not strict.repairs)
    assert len(set(read.repairs)) == len(read.repairs)
    json.dumps([read.name, read.arguments], allow_nan=False).encode()
    assert "\ud800" not in f"{read.name}{read.arguments}"


@given(TEXTS)
def test_the_short_way_reads_what_the_long_one_does(text):
    quick = predictions._as_asked(text)
    assert quick is None or quick == predictions._mended(text)


@given(st.text("{}[]()'\":, 1eE.-+aNone\\nu") | st.text())
def test_a_python_literal_is_what_python_makes_of_it(text):
    try:
        value, end = read_python(text, 0)
    except Refused:
        return
    if "\\" in text or not text[:end].isascii():
        return  # unknown escapes are taken as they stand, JSON's \/ among them
    if any(word in text[:end] for word in ("true", "false", "null")):
        return
    try:
        expected = ast.literal_eval(text[:end])
    except (SyntaxError, ValueError):
        return  # trailing separators and such: more is taken than Python would
    assert json.dumps(value) == json.dumps(expected)
