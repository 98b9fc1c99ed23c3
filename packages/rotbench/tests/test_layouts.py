"""What rows look like, and what a bad one is told."""

import copy
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from papercore.errors import DataError
from rotbench.cases import Call
from rotbench.layouts import parse, row
from rotbench.released import entry
from rotbench.rotbench_layout import as_rotbench, system_text

SCHEMA = {"type": "object", "properties": {"q": {"type": "string"}}, "required": ["q"]}
SEARCH = {"name": "search", "description": "Searches.", "parameters": SCHEMA}
FINISH = {"name": "finish", "description": "Ends.", "parameters": {}}


def conversation(*turns, tools=(SEARCH, FINISH)):
    said = [{"from": "system", "value": f"Do it.\n{json.dumps(list(tools))}\n\nGo."}]
    said += [{"from": who, "value": text} for who, text in turns]
    return {"id": "x", "conversations": said, "scenario": "TG"}


def react(name, arguments, thought=""):
    return f"Thought:{thought and ' '}{thought}\nAction: {name}\nAction Input: {arguments}"


SIMPLE = conversation(
    ("user", "Who?\nBegin!\n"),
    ("assistant", react("search", '{"q": "who"}', "I look.")),
    ("function", "nobody"),
    ("assistant", react("finish", '{"answer": "nobody"}')),
)


def test_the_released_layout_by_hand():
    read = parse(SIMPLE)
    assert [tool.name for tool in read.tools] == ["search", "finish"]
    assert (read.preamble, read.closing) == ("Do it.\n", "\n\nGo.")
    assert read.calls == (Call("search", {"q": "who"}), Call("finish", {"answer": "nobody"}))
    assert [move.text for move in read.moves] == ["Who?\nBegin!\n", "I look.", "nobody", ""]
    assert read.moves[2].called == "search"


def test_what_was_read_is_written_again():
    written = row(parse(SIMPLE))
    assert written["conversations"][1:] == SIMPLE["conversations"][1:]
    assert parse(written) == parse(SIMPLE)


def test_the_sample_reads_as_trajectories(sample_cases):
    for case in sample_cases:
        read = parse(entry(case))
        assert read.tools == case.tools
        assert read.calls[-1] == case.golds[0]
        again = row(read)
        assert again["conversations"][:-1] == entry(case)["conversations"][:-1]


def test_the_released_files_keep_their_system_text_byte_for_byte(released_cases):
    problems = set()
    for case in released_cases:
        original = entry(case)
        try:
            read = parse(original)
        except DataError as error:
            problems.add(str(error))
            continue
        assert system_text(read) == original["conversations"][0]["value"]
    # the history of one query has a call that the model made up
    (problem,) = problems
    assert "not among its tools" in problem


def test_other_names_for_who_speaks():
    turns = [("human", "Who?"), ("gpt", react("search", "{}")), ("observation", "nobody")]
    assert [move.role for move in parse(conversation(*turns)).moves] == [
        "user",
        "assistant",
        "function",
    ]


def test_tools_as_a_python_literal_as_in_toolbench():
    item = copy.deepcopy(SIMPLE)
    item["conversations"][0]["value"] = (
        "You can use many tools [see below].\nSpecifically, you have access to these APIs: "
        "[{'name': 'search', 'description': \"it's a search\", 'parameters': {'type': 'object', "
        "'properties': {'q': {'type': 'string', 'example': None}}, 'required': ['q'], "
        "'optional': []}}, {'name': 'finish', 'description': 'Ends.', 'parameters': {}}]"
    )
    read = parse(item)
    assert read.tools[0].description == "it's a search"
    assert read.extras[0] == {"optional": []}
    assert parse(row(read)) == read


def test_tools_in_a_field_of_their_own():
    item = copy.deepcopy(SIMPLE) | {"tools": [SEARCH, FINISH]}
    item["conversations"][0]["value"] = "Do it."
    assert parse(item).tools == parse(SIMPLE).tools


def test_a_list_of_answers_means_the_first():
    item = copy.deepcopy(SIMPLE)
    item["conversations"][-1]["value"] = [react("finish", "{}"), react("search", "{}")]
    assert parse(item).calls[-1] == Call("finish", {})


def messages(*calls, replies=None, arguments=json.dumps):
    written = [
        {
            "id": f"id{i}",
            "type": "function",
            "function": {"name": c.name, "arguments": arguments(c.arguments)},
        }
        for i, c in enumerate(calls)
    ]
    said = [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": [{"type": "text", "text": "Who?"}]},
        {"role": "assistant", "content": None, "tool_calls": written},
    ]
    for call_id, text in replies or [(f"id{i}", f"reply {i}") for i in range(len(calls))]:
        said.append({"role": "tool", "tool_call_id": call_id, "content": text})
    return {
        "id": "y",
        "tools": [{"type": "function", "function": SEARCH}, FINISH],
        "messages": said,
    }


ONE = Call("search", {"q": "who"})
TWO = Call("finish", {"answer": "nobody"})


@pytest.mark.parametrize("arguments", [json.dumps, dict])
def test_the_openai_layout_by_hand(arguments):
    read = parse(messages(ONE, arguments=arguments))
    assert (read.preamble, read.calls, read.layout) == ("Be kind.", (ONE,), "openai")
    assert [move.text for move in read.moves] == ["Who?", "", "reply 0"]
    assert parse(row(read)) == read


def test_replies_find_their_calls_by_id():
    read = parse(messages(ONE, TWO, replies=[("id1", "b"), ("id0", "a")]))
    assert [move.called for move in read.moves[2:]] == ["finish", "search"]
    assert parse(row(read)) == read


def test_several_calls_in_one_turn_become_turns_of_the_released_layout():
    written = row(parse(messages(ONE, TWO)), "rotbench")
    turns = [(turn["from"], turn["value"]) for turn in written["conversations"][1:]]
    assert turns == [
        ("user", "Who?\nBegin!\n"),
        ("assistant", react("search", '{"q": "who"}')),
        ("function", "reply 0"),
        ("assistant", react("finish", '{"answer": "nobody"}')),
        ("function", "reply 1"),
    ]
    assert parse(written).calls == (ONE, TWO)
    assert written["conversations"][0]["value"].startswith("Be kind.\n\n")


def test_without_a_reply_to_each_they_do_not():
    item = messages(ONE, TWO)
    item["messages"].pop()
    with pytest.raises(DataError, match="several calls in one turn"):
        as_rotbench(parse(item))


def test_the_released_layout_as_messages():
    written = row(parse(SIMPLE), "openai")
    assert [m["role"] for m in written["messages"]] == ["user", "assistant", "tool", "assistant"]
    assert written["messages"][0]["content"] == "Who?"
    assert written["messages"][1]["tool_calls"][0]["id"] == written["messages"][2]["tool_call_id"]
    read = parse(written)
    assert (read.calls, read.tools) == (parse(SIMPLE).calls, parse(SIMPLE).tools)


def at(item, path):
    for key in path[:-1]:
        item = item[key]
    return item, path[-1]


WRONG = {
    "conversations: should be a list": (SIMPLE, ["conversations"], 3),
    "conversations: should have a system's": (SIMPLE, ["conversations"], []),
    "conversations[0].from: should be system": (SIMPLE, ["conversations", 0, "from"], "user"),
    "conversations[0].value: holds no list": (SIMPLE, ["conversations", 0, "value"], "[{1}] [{}]"),
    "conversations[2]: should be an object, not a text": (SIMPLE, ["conversations", 2], "text"),
    "conversations[2].from: 'who'": (SIMPLE, ["conversations", 2, "from"], "who"),
    "conversations[2].value: should be a text, not 5": (SIMPLE, ["conversations", 2, "value"], 5),
    "conversations[2].value: its Action Input is not JSON": (
        SIMPLE,
        ["conversations", 2, "value"],
        react("search", "{'q': 1}"),
    ),
    "conversations[2].value: Action Input: should be an object": (
        SIMPLE,
        ["conversations", 2, "value"],
        react("search", "[1]"),
    ),
    "the row: calls 'invented', which is not among": (
        SIMPLE,
        ["conversations", 2, "value"],
        react("invented", "{}"),
    ),
    "tools: should hold 1 to 512 tools, not 0": (messages(ONE), ["tools"], []),
    "tools: should be a list, not nothing": (messages(ONE), ["tools"], None),
    "tools[0].function.name: should be a text": (
        messages(ONE),
        ["tools", 0, "function", "name"],
        None,
    ),
    "tools[1].parameters: should be an object": (messages(ONE), ["tools", 1, "parameters"], "x"),
    "tools[1].parameters.required: should be a list": (
        messages(ONE),
        ["tools", 1, "parameters"],
        {"required": "q"},
    ),
    "tools[1].parameters.properties.q: should be an object": (
        messages(ONE),
        ["tools", 1, "parameters"],
        {"properties": {"q": "string"}},
    ),
    "messages[1].role: 'me'": (messages(ONE), ["messages", 1, "role"], "me"),
    "messages[1].role: only the first": (messages(ONE), ["messages", 1, "role"], "system"),
    "messages[2].tool_calls: should be a list": (
        messages(ONE),
        ["messages", 2, "tool_calls"],
        {"a": 1},
    ),
    "messages[2].tool_calls[0].function: should be an object": (
        messages(ONE),
        ["messages", 2, "tool_calls", 0, "function"],
        None,
    ),
    "messages[2].tool_calls[0].function.arguments: is not JSON": (
        messages(ONE),
        ["messages", 2, "tool_calls", 0, "function", "arguments"],
        "{",
    ),
    "messages[1].content[0].text: should be a text": (
        messages(ONE),
        ["messages", 1, "content", 0],
        {"type": "image_url"},
    ),
    "the row: calls no tool": (messages(ONE), ["messages", 2, "tool_calls"], []),
    "rotbench.level: should be one of": (messages(ONE), ["rotbench"], {"level": "harsh"}),
    "rotbench: should be an object": (messages(ONE), ["rotbench"], "x"),
}


@pytest.mark.parametrize("message", WRONG)
def test_a_bad_row_is_told_its_field(message):
    item, path, value = WRONG[message]
    item = copy.deepcopy(item)
    holder, key = at(item, path)
    holder[key] = value
    with pytest.raises(DataError) as caught:
        parse(item)
    assert str(caught.value).startswith(message)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=5,
)


@given(st.sampled_from(list(WRONG.values())), VALUES)
def test_any_value_anywhere_is_read_or_refused(chosen, value):
    item, path, _ = copy.deepcopy(chosen)
    holder, key = at(item, path)
    holder[key] = value
    try:
        read = parse(item)
    except DataError:
        return
    assert parse(row(read)) == read
