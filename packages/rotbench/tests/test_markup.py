import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rotbench.markup import MAX_CALLS, calls_in

PIECES = [
    "<tool_call>",
    "</tool_call>",
    "[TOOL_CALLS]",
    "[ARGS]",
    '{"name":"f"',
    "}",
    '"arguments":{',
    "<|python_tag|>",
    "[",
    "]",
    ",",
    ":",
    "NaN",
    "1e999",
    "\ud800",
]
ONE = [("f", '{"x": 1}')]


@pytest.mark.parametrize(
    "text",
    [
        '<tool_call>{"name": "f", "arguments": {"x": 1}}</tool_call>',
        'Sure.\n<tool_call>\n{"name": "f", "arguments": {"x": 1}}\n</tool_call>\nDone.',
        '<tool_call>{"name": "f", "arguments": {"x": 1}}',  # cut off before the end mark
        '<tool_call>{"name": "f", "arguments": "{\\"x\\": 1}"}</tool_call>',
        '[TOOL_CALLS] [{"name": "f", "arguments": {"x": 1}, "id": "123456789"}]',
        '[TOOL_CALLS][{"name": "f", "arguments": {"x": 1}}]</s>',
        '[TOOL_CALLS]f{"x": 1}',
        '[TOOL_CALLS]f[ARGS]{"x": 1}',
        '[TOOL_CALLS]f[CALL_ID]abc123def[ARGS]{"x": 1}',
        '{"name": "f", "parameters": {"x": 1}}',
        '  <|python_tag|>{"type": "function", "name": "f", "parameters": {"x": 1}}<|eom_id|>',
    ],
)
def test_calls_of_known_models_are_read(text):
    assert calls_in(text) == ONE


@pytest.mark.parametrize(
    "text",
    [
        "",
        "I cannot help with that.",
        'Use {"name": "f"} like this.',
        "<tool_call>f(x=1)</tool_call>",
        '<tool_call>{"name": 3, "arguments": {}}</tool_call>',
        '<tool_call>{"name": "f", "arguments": {"x": 1}',  # cut off within the object
        "[TOOL_CALLS] nothing",
        '"text"',
        "[1, 2]",
        "<tool_call>" + "[" * 50_000,
    ],
)
def test_other_text_holds_no_call(text):
    assert calls_in(text) == []


def test_several_calls_come_in_their_order():
    hermes = "".join(f'<tool_call>{{"name": "f{n}"}}</tool_call>' for n in range(3))
    llama = '{"name": "f0"}; {"name": "f1"};{"name": "f2"}'
    mistral = '[TOOL_CALLS][{"name": "f0"}, {"name": "f1"}, {"name": "f2"}]'
    named = "".join(f"[TOOL_CALLS]f{n}{{}}" for n in range(3))
    for text in (hermes, llama, mistral, named):
        assert calls_in(text) == [("f0", "{}"), ("f1", "{}"), ("f2", "{}")]


def test_a_call_that_was_only_thought_of_does_not_count():
    thought = '<think>or <tool_call>{"name": "g", "arguments": {}}</tool_call>?</think>\n'
    for call in (
        '<tool_call>{"name": "f", "arguments": {"x": 1}}</tool_call>',
        '{"name": "f", "parameters": {"x": 1}}',
    ):
        assert calls_in(thought + call) == ONE
    assert calls_in('{"name": "f", "parameters": {"x": "</think>"}}') == [
        ("f", '{"x": "</think>"}')
    ]


def test_many_calls_are_cut_off():
    for text in (
        '<tool_call>{"name": "f"}</tool_call>' * 500,
        '{"name": "f"};' * 500,
        f"[TOOL_CALLS]{json.dumps([{'name': 'f'}] * 500)}",
    ):
        assert len(calls_in(text)) == MAX_CALLS


def test_a_key_that_is_there_twice_reaches_the_grader():
    text = '<tool_call>{"name": "f", "arguments": {"x": 1, "x": {"y": [2]}}}</tool_call>'
    assert calls_in(text) == [("f", '{"x": 1, "x": {"y": [2]}}')]


@settings(max_examples=300)
@given(
    st.lists(
        st.one_of(
            st.text(max_size=20),
            st.sampled_from(PIECES),
        ),
        max_size=30,
    ).map("".join)
)
def test_no_text_breaks_the_reader(text):
    for name, arguments in calls_in(text):
        assert isinstance(name, str)
        assert isinstance(arguments, str)
