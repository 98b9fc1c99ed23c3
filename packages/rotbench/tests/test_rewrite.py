"""Renaming calls and turns: short names and ordinary words must not corrupt other text."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rotbench.cases import Call, Step
from rotbench.changes import Addendum, Changes, Rename, ToolChange
from rotbench.rewrite import call_in, call_text, rename_call, rename_step, rename_steps, restore

CHANGES = Changes(
    "union",
    "whole",
    (
        ToolChange(
            "get_news",
            "gEt_nws",
            "substitution",
            (Rename("topic", "cipot", "reversal"), Rename("limit", "xY", "nonsense")),
        ),
        ToolChange("search", "hcraes", "reversal", (), Addendum("qq", "Zap")),
        ToolChange("finish", "get_time", "exchange"),
        ToolChange("get_time", "finish", "exchange"),
        ToolChange("same", "same"),
    ),
)


def test_calls_are_renamed_and_restored():
    call = Call("get_news", {"topic": "finish", "limit": 3, "other": None})
    renamed = rename_call(call, CHANGES)
    assert renamed == Call("gEt_nws", {"cipot": "finish", "xY": 3, "other": None})
    assert restore(renamed, CHANGES) == call
    assert rename_call(Call("search", {}), CHANGES) == Call("hcraes", {"qq": "Zap"})
    assert restore(Call("hcraes", {"qq": "anything"}), CHANGES) == Call("search", {})
    assert rename_call(Call("finish", {}), CHANGES).name == "get_time"
    unknown = Call("nobody", {"topic": 1})
    assert rename_call(unknown, CHANGES) is unknown
    assert restore(unknown, CHANGES) is unknown


@pytest.mark.parametrize(
    ("text", "called", "strict", "plain"),
    [
        # An identifier as a whole word; only plain mode reaches into other words.
        ("get_news says so", None, "gEt_nws says so", "gEt_nws says so"),
        ("my_get_news_2", None, "my_get_news_2", "my_gEt_nws_2"),
        # An ordinary word only where it is called.
        ("I search the finish", None, "I search the finish", "I hcraes the get_time"),
        ("search() failed", None, "hcraes() failed", "hcraes() failed"),
        # Exchanged names do not chain.
        ("get_time and finish(x)", None, "finish and get_time(x)", "finish and get_time(x)"),
        # Parameters: of the called tool, in quotes, in a complaint.
        (
            "get_news() got an unexpected keyword argument 'topic'",
            "get_news",
            "gEt_nws() got an unexpected keyword argument 'cipot'",
            "gEt_nws() got an unexpected keyword argument 'cipot'",
        ),
        ("{'topic': 'sports'}", "get_news", "{'topic': 'sports'}", "{'topic': 'sports'}"),
        ("bad argument 'topic'", None, "bad argument 'topic'", "bad argument 'topic'"),
        ("bad argument topic", "get_news", "bad argument topic", "bad argument topic"),
    ],
)
def test_replies(text, called, strict, plain):
    step = Step("function", text)
    assert rename_step(step, CHANGES, called=called).text == strict
    assert rename_step(step, CHANGES, called=called, plain=True).text == plain


def test_thoughts_follow_in_strict_mode_only():
    step = Step("assistant", 'Thought: get_news it is\nAction: get_news\nAction Input: {"topic":1}')
    after = '\nAction: gEt_nws\nAction Input: {"cipot": 1}'
    assert rename_step(step, CHANGES).text == "Thought: gEt_nws it is" + after
    assert rename_step(step, CHANGES, plain=True).text == "Thought: get_news it is" + after


def test_a_conversation_keeps_its_query_and_knows_the_tool_of_a_reply():
    steps = (
        Step("user", "get_news about argument 'topic'"),
        Step("assistant", 'Thought:\nAction: get_news\nAction Input: {"topic": 1}'),
        Step("function", "missing argument 'limit'"),
        Step("assistant", 'Thought:\nAction: same\nAction Input: {"topic": 1}'),
        Step("function", "missing argument 'limit'"),
        Step("user", "use get_news"),
    )
    renamed = rename_steps(steps, CHANGES)
    assert renamed[0] == steps[0]
    assert renamed[2].text == "missing argument 'xY'"
    assert renamed[4] == steps[4]
    assert renamed[5].text == "use gEt_nws"


@given(st.text())
def test_any_text_of_an_assistant_is_harmless(text):
    for body in (text, f"Action: {text}\nAction Input: {{{text}}}"):
        step = rename_step(Step("assistant", body), CHANGES)
        assert step.role == "assistant"
        call_in(body)


@given(st.text(st.characters(exclude_characters="\n")), st.dictionaries(st.text(), st.text()))
def test_calls_are_read_as_they_are_written(name, arguments):
    call = Call(name, arguments)
    assert call_in(f"Thought:\n{call_text(call)}") == call


def test_deep_nesting_is_no_call():
    assert call_in("Action: a\nAction Input: {" + '"a":[' * 100_000 + "}") is None
