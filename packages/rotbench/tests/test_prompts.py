import itertools
import json
from dataclasses import replace

import pytest

from rotbench.cases import TURNS, Step
from rotbench.prompts import prefix_order, prompt_hash, write_prompt
from rotbench.raven_prompts import python_call, raven_prompt
from rotbench.released import FOLDERS


@pytest.fixture(scope="module")
def conversations(released_folder):
    """The raw conversations by turn and level, read with nothing of ours."""
    return {
        (turn, level): [
            entry["conversations"]
            for entry in json.loads((released_folder / FOLDERS[turn] / f"{level}.json").read_text())
        ]
        for turn in TURNS
        for level in ("clean", "slight", "medium", "heavy", "union")
    }


def raw_of(conversations, case):
    """The released conversation of a case; second halves begin after the first."""
    rows = conversations[case.key.turn, case.key.level]
    place = case.key.index + (len(rows) // 2 if case.key.half == "parameter" else 0)
    return rows[place]


def case_of(cases, name):
    return next(case for case in cases if str(case.key) == name)


def test_react_shows_the_released_texts_byte_for_byte(released_cases, conversations):
    for case in released_cases:
        raw = raw_of(conversations, case)[:-1]
        messages = write_prompt(case).request.messages
        assert [m.role for m in messages] == [
            "user" if turn["from"] == "function" else turn["from"] for turn in raw
        ]
        for message, turn in zip(messages, raw, strict=True):
            label = "Function: " if turn["from"] == "function" else ""
            assert message.content == label + turn["value"]


def test_plain_lines_are_those_of_the_official_code(released_cases, conversations):
    for case in released_cases[::7]:
        expected = ""
        for turn in raw_of(conversations, case)[:-1]:
            expected += turn["from"].capitalize() + ": " + turn["value"] + "\n"
        assert write_prompt(case, style="plain").request.prompt == expected + "Assistant:"


def test_chats_alternate_as_strict_templates_want_it(released_cases):
    for case in released_cases:
        roles = [message.role for message in write_prompt(case).request.messages[1:]]
        assert roles == ["user", "assistant"] * (len(roles) // 2) + ["user"]


def test_the_id_is_the_key_unless_a_name_is_given(sample_cases):
    assert write_prompt(sample_cases[0]).request.id == str(sample_cases[0].key)
    assert write_prompt(sample_cases[0], name="x").request.id == "x"


def test_native_puts_calls_and_results_of_the_third_turn_into_the_apis_form(sample_cases):
    case = next(c for c in sample_cases if c.key.turn == "third" and c.key.level == "clean")
    prompt = write_prompt(case, mode="native")
    system, user, first, result, second, answer = prompt.request.messages
    assert (system.role, user.role, user.content) == ("system", "user", case.query)
    assert "Begin!" not in user.content
    for call, reply in ((first, result), (second, answer)):
        assert call.role == "assistant"
        assert call.tool_calls[0].name in prompt.toolbox.tools
        assert isinstance(json.loads(call.tool_calls[0].arguments), dict)
        assert (reply.role, reply.tool_call_id) == ("tool", call.tool_calls[0].id)
        assert len(reply.tool_call_id) == 9
        assert reply.tool_call_id.isalnum()
    for tool in case.tools:
        assert tool.name not in system.content, "the system text must not name what noise renames"


def test_native_history_without_a_readable_call_stays_text(sample_cases):
    case = next(c for c in sample_cases if c.key.turn == "third")
    steps = (case.steps[0], Step("assistant", "Let me think."), Step("function", "42"))
    messages = write_prompt(replace(case, steps=steps), mode="native").request.messages
    assert [m.role for m in messages] == ["system", "user", "assistant", "user"]
    assert messages[2].content == "Let me think."
    assert messages[3].content == "Function: 42"


def test_every_released_case_has_a_native_prompt_with_its_history(released_cases):
    for case in released_cases:
        messages = write_prompt(case, mode="native").request.messages
        open_calls = [call.id for m in messages for call in m.tool_calls]
        assert open_calls == [m.tool_call_id for m in messages if m.role == "tool"]
        if case.key.turn == "third":
            assert len(open_calls) == 2


@pytest.mark.parametrize("version", [1, 2])
def test_raven_prompts_hold_every_tool_and_parameter_once(sample_cases, version):
    case = sample_cases[0]
    text = raven_prompt(case, version)
    for tool in case.tools:
        given = ", ".join(f"{name} : {s['type']}" for name, s in tool.parameters.items())
        assert text.count(f"def {tool.name}({given})") == 1
        assert tool.description in text
        for name, schema in tool.parameters.items():
            assert f"{schema['description']}\n" in text
            if version == 2:
                optional = "" if name in tool.required else " (Optional)"
                assert f"\n{name}{optional}: {schema['description']}\n" in text
    assert case.query in text
    marks = {1: ("<human>:\nOPTION:\n<func_start>def ", "<human_end>"), 2: ("Function:\ndef ", "")}
    assert text.startswith(marks[version][0])
    assert text.rstrip().endswith("<human_end>")
    assert "Begin!" not in text


def test_raven_prompts_of_the_third_turn_tell_the_steps_so_far(sample_cases):
    case = next(c for c in sample_cases if c.key.turn == "third" and c.key.level == "slight")
    for version in (1, 2):
        text = raven_prompt(case, version)
        history = text[text.index("Steps so far:") :]
        assert history.count("\nCall: ") == 2
        assert history.index(case.query) if case.query in history else True
        results = [s.text.strip() for s in case.steps if s.role == "function"]
        assert all(f"\nResult: {result}" in history for result in results)


def test_python_calls_quote_what_they_hold():
    from rotbench.cases import Call

    call = Call("f", {"a": "it's", "b": 3, "c": [True, None]})
    assert python_call(call) == """f(a="it's", b=3, c=[True, None])"""


@pytest.mark.parametrize("mode", ["react", "native", "raven1", "raven2"])
def test_the_hash_tells_every_change_of_a_prompt(sample_cases, mode):
    cases = sample_cases[:4]

    def digest(cases, **how):
        return prompt_hash([write_prompt(case, mode=mode, **how) for case in cases])

    whole = digest(cases)
    assert digest(cases[::-1]) == whole, "the order does not matter"
    assert digest(cases[:3]) != whole
    tool = replace(cases[0].tools[0], description="another")
    changed = replace(cases[0], tools=(tool, *cases[0].tools[1:]))
    assert digest([changed, *cases[1:]]) != whole
    assert digest([replace(cases[0], query="another?"), *cases[1:]]) != whole or mode == "react"


def test_equal_system_texts_stand_side_by_side(released_cases):
    clean = [case for case in released_cases if case.key.level == "clean"][:105]
    starts = [p.request.messages[0].content for p in prefix_order(map(write_prompt, clean))]
    runs = 1 + sum(a != b for a, b in itertools.pairwise(starts))
    assert runs == len(set(starts)) == 50
