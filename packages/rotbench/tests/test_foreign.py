"""Noise for tools of one's own: every format keeps its form, and calls find their way back."""

import copy
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import rotbench
from papercore.errors import DataError
from papercore.testing import run_cli
from rotbench.cases import HALVES, NOISY_LEVELS, Call
from rotbench.changes import Changes
from rotbench.config import NoiseRules
from rotbench.foreign import disturb_tools, illegal_names, read_environment
from rotbench.noise_command import read_tool_file
from rotbench.rewrite import restore

COMBINATIONS = [(level, half) for level in NOISY_LEVELS for half in HALVES[level]]

SCHEMA = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "enum": ["Oslo", "Bergen"], "default": "Oslo"},
        "options": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
        },
        "days": {"type": ["integer", "null"], "minimum": 1},
    },
    "required": ["city", "days"],
    "dependentRequired": {"days": ["options"]},
    "additionalProperties": False,
}
OTHER = {"type": "object", "properties": {"to": {"type": "string"}, "text": True}, "required": []}

CHAT = [
    {
        "type": "function",
        "function": {
            "name": "get_forecast",
            "description": "The weather to come.",
            "strict": True,
            "parameters": SCHEMA,
        },
    },
    {"type": "function", "function": {"name": "send_mail", "parameters": OTHER}},
    {"type": "function", "function": {"name": "ping"}},
]
RESPONSES = [
    {"type": "function", "name": "get_forecast", "parameters": SCHEMA, "strict": False},
    {"type": "web_search"},
    {"type": "function", "name": "send_mail", "description": None, "parameters": OTHER},
    {"type": "function", "name": "ping", "parameters": None},
]
MCP_TOOLS = [
    {"name": "get_forecast", "title": "Forecast", "inputSchema": SCHEMA, "annotations": {"a": 1}},
    {"name": "send_mail", "inputSchema": OTHER},
    {"name": "ping", "inputSchema": {"type": "object"}},
]
BFCL = {
    "id": "simple_0",
    "question": [[{"role": "user", "content": "Oslo?"}]],
    "function": [
        {"name": "get_forecast", "description": "d", "parameters": {**SCHEMA, "type": "dict"}},
        {"name": "send_mail", "parameters": {**OTHER, "type": "dict"}},
        {"name": "math.sum", "parameters": {"type": "dict", "properties": {}}},
    ],
    "ground_truth": [{"get_forecast": {"city": ["Oslo", ""], "days": [3]}}],
}
FORMATS = {
    "chat": CHAT,
    "responses": RESPONSES,
    "bare": [tool["function"] for tool in CHAT],
    "object": {"model": "m", "tools": CHAT},
    "functions": {"functions": [tool["function"] for tool in CHAT]},
    "one": CHAT[0],
    "mcp": {"tools": MCP_TOOLS, "nextCursor": "x"},
    "json-rpc": {"jsonrpc": "2.0", "id": 1, "result": {"tools": MCP_TOOLS}},
    "anthropic": [{"name": "get_forecast", "input_schema": SCHEMA}, {"name": "ping"}],
    "bfcl": BFCL,
}


def undone(value, changes):
    """The document with all names put back, written from the description of the map alone."""
    if isinstance(value, list):
        return [undone(one, changes) for one in value]
    if not isinstance(value, dict):
        return value
    tool = next((one for one in changes.tools if one.new == value.get("name")), None)
    new = {key: undone(one, changes) for key, one in value.items()}
    if tool is None:
        return new
    new["name"] = tool.old
    back = {one.new: one.old for one in tool.parameters}
    for field in ("parameters", "inputSchema", "input_schema"):
        if not isinstance(value.get(field), dict):
            continue
        schema = dict(value[field])
        if "properties" in schema:
            schema["properties"] = {back.get(k, k): v for k, v in schema["properties"].items()}
        if "required" in schema:
            schema["required"] = [back.get(key, key) for key in schema["required"]]
        if "dependentRequired" in schema:
            schema["dependentRequired"] = {
                back.get(k, k): [back.get(key, key) for key in keys]
                for k, keys in schema["dependentRequired"].items()
            }
        if tool.addendum:
            schema["properties"].pop(tool.addendum.name)
            schema["required"].remove(tool.addendum.name)
        new[field] = schema
    return new


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize(("level", "half"), COMBINATIONS)
def test_only_names_change_and_the_map_undoes_it(name, level, half):
    document = FORMATS[name]
    before = copy.deepcopy(document)
    new, changes = disturb_tools(document, level, half, seed=2)
    assert document == before, "the caller's tools stay as they are"
    back = undone(new, changes)
    if name == "bfcl":
        back.pop("ground_truth")
        document = {key: value for key, value in document.items() if key != "ground_truth"}
    # A tool without a schema may have got one for its added parameter.
    assert strip_empty(back) == strip_empty(document)
    assert Changes.from_json(json.loads(json.dumps(changes.to_json()))) == changes


def strip_empty(value):
    if isinstance(value, list):
        return [strip_empty(one) for one in value]
    if not isinstance(value, dict):
        return value
    empty = ({"type": "object"}, {}, [], None, {"type": "object", "properties": {}})
    new = {key: strip_empty(one) for key, one in value.items()}
    return {key: one for key, one in new.items() if one not in empty}


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize(("level", "half"), COMBINATIONS)
def test_a_call_of_the_disturbed_tools_comes_back(name, level, half):
    new, changes = disturb_tools(FORMATS[name], level, half, seed=4)
    shown = read_environment(new).case.tools
    clean = read_environment(FORMATS[name]).case.tools
    for before, after in zip(clean, shown, strict=True):
        call = Call(after.name, dict.fromkeys(after.parameters, "x"))
        assert restore(call, changes) == Call(before.name, dict.fromkeys(before.parameters, "x"))


@pytest.mark.parametrize(("level", "half"), COMBINATIONS)
def test_accepted_calls_of_bfcl_follow_and_are_always_changed(level, half):
    for seed in range(20):
        new, changes = disturb_tools(BFCL, level, half, seed=seed)
        ((name, arguments),) = new["ground_truth"][0].items()
        back = restore(Call(name, arguments), changes)
        assert back == Call("get_forecast", {"city": ["Oslo", ""], "days": [3]})
        assert (name, list(arguments)) != ("get_forecast", ["city", "days"])
        added = next(one.addendum for one in changes.tools if one.old == "get_forecast")
        if added:
            assert arguments[added.name] == [added.value]


def test_names_within_a_nested_object_stay():
    new, _ = disturb_tools(CHAT, "medium", "parameter", rules=NoiseRules(share=1.0))
    schema = new[0]["function"]["parameters"]
    assert "city" not in schema["properties"]
    assert SCHEMA["properties"]["options"] in schema["properties"].values()
    assert set(schema["required"]) < set(schema["properties"])
    assert set(schema["dependentRequired"]) < set(schema["properties"])


def test_conditions_follow_the_names_that_they_are_about():
    schema = {
        "type": "object",
        "properties": {"alpha": {"anyOf": [{"required": ["beta"]}]}, "beta": {}},
        "anyOf": [{"required": ["alpha"]}, {"not": {"required": ["beta"]}}],
        "if": {"properties": {"alpha": {"const": 1}}},
        "then": {"required": ["beta"]},
        "else": False,
        "dependentSchemas": {"alpha": {"required": ["beta"]}},
        "dependencies": {"alpha": ["beta"], "beta": {"required": ["alpha"]}},
    }
    new, changes = disturb_tools(
        [{"name": "f", "inputSchema": schema}], "medium", "parameter", rules=NoiseRules(share=1.0)
    )
    alpha, beta = (rename.new for rename in changes.tools[0].parameters)
    assert new[0]["inputSchema"] == {
        "type": "object",
        "properties": {alpha: {"anyOf": [{"required": ["beta"]}]}, beta: {}},
        "anyOf": [{"required": [alpha]}, {"not": {"required": [beta]}}],
        "if": {"properties": {alpha: {"const": 1}}},
        "then": {"required": [beta]},
        "else": False,
        "dependentSchemas": {alpha: {"required": [beta]}},
        "dependencies": {alpha: [beta], beta: {"required": [alpha]}},
    }


def test_properties_that_are_null_are_none():
    tool = {"name": "f", "inputSchema": {"type": "object", "properties": None}}
    assert disturb_tools([tool], "slight", "parameter")[0] == [tool]
    new, changes = disturb_tools([tool], "heavy", "parameter", rules=NoiseRules(share=1.0))
    assert list(new[0]["inputSchema"]["properties"]) == [changes.tools[0].addendum.name]


def test_the_public_way_to_wrap_an_agent():
    tools, changes = rotbench.disturb_tools(CHAT, "heavy", "tool", seed=1)
    call = rotbench.Call(tools[0]["function"]["name"], {"city": "Oslo"})
    assert rotbench.restore(call, changes) == rotbench.Call("get_forecast", {"city": "Oslo"})
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        rotbench.nothing  # noqa: B018


@pytest.mark.parametrize(("level", "half"), [("slight", "tool"), ("slight", "parameter"),
                                             ("heavy", "tool")])  # fmt: skip
def test_own_tools_are_never_left_as_they_were(level, half):
    """No call of theirs is known that would have to change, and half of the names may draw 0."""
    names = {"city": {"type": "string"}, "to": {"type": "string"}}
    tools = [
        {"name": name, "description": name, "parameters": {"type": "object", "properties": names}}
        for name in ("get_weather", "send_email")
    ]
    assert all(disturb_tools(tools, level, half, seed=seed)[0] != tools for seed in range(40))
    alone, _ = disturb_tools(tools[:1], "heavy", "tool")
    assert alone == tools[:1], "there is nothing to exchange"


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ([], "holds no list of tools"),
        ({}, "holds no tools with a name"),
        ("text", "holds no list of tools"),
        (None, "holds no list of tools"),
        ([{"type": "web_search"}], "no tools with a name"),
        ([1], "tool 1: should be an object, not int"),
        ([{"name": ""}], "tool 1: has no name"),
        ([{"name": 3}], "tool 1: has no name"),
        ([{"name": "x" * 600}], "longer than 512"),
        ([{"type": "function", "function": "f"}], "should be an object, not str"),
        ([{"name": "a", "parameters": []}], r"tool 1 \('a'\): its parameters should be"),
        ([{"name": "a", "parameters": {"properties": []}}], "its properties should be an object"),
        ([{"name": "a", "parameters": {"required": "b"}}], "its required should be a list"),
        ([{"name": "a", "parameters": {"required": [1]}}], "its required should be a list"),
        ([{"name": "a"}] * 600, "at most 512"),
        ({**BFCL, "ground_truth": ["f(a=1)"]}, "leave calls written as text out"),
        ({**BFCL, "ground_truth": {}}, "its accepted calls: should be a list"),
        ({"tools": {}}, "no name|no list"),
    ],
    ids=range(18),
)
def test_bad_tools_are_named(document, message):
    with pytest.raises(DataError, match=message):
        disturb_tools(document, "slight", "tool")


KEYS = (
    *("tools", "function", "functions", "result", "name", "parameters", "inputSchema"),
    *("properties", "required", "type", "ground_truth", "x"),
)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(KEYS),
            inner,
            max_size=4,
        )
    ),
    max_leaves=25,
)


@settings(max_examples=200, deadline=None)
@given(json_values, st.sampled_from(COMBINATIONS))
def test_any_json_is_disturbed_or_refused(document, where):
    before = copy.deepcopy(document)
    try:
        new, _ = disturb_tools(document, *where)
    except DataError:
        new = document
    json.dumps(new)
    assert document == before


def test_illegal_names():
    names = ["ok-1", "", "a b", "x" * 65, "é", "twice", "twice", "a\n"]
    assert illegal_names(names) == ["", "a b", "x" * 65, "é", "twice", "a\n"]


# The verb.


@pytest.fixture
def written(tmp_path):
    def write(content, name="tools.json"):
        path = tmp_path / name
        path.write_text(content if isinstance(content, str) else json.dumps(content), "utf-8")
        return path

    return write


def test_the_verb_writes_the_same_format_and_the_map(written, tmp_path):
    path = written({"tools": MCP_TOOLS, "nextCursor": "é"})
    done = run_cli(["rotbench", "noise", path, "--copies", "2", "--out", tmp_path / "out"])
    assert done.returncode == 0, done.stderr
    summary = json.loads((tmp_path / "out" / "noise.json").read_text())
    assert len(summary["variants"]) == 14
    for row in summary["variants"]:
        folder = tmp_path / "out" / row["variant"]
        document = json.loads((folder / "tools.json").read_text("utf-8"))
        assert document["nextCursor"] == "é"
        names = json.loads((folder / "names.json").read_text())
        changes = Changes.from_json(names["environments"][0])
        assert strip_empty(undone(document, changes))["tools"] == strip_empty(MCP_TOOLS)
        assert row["illegal"] == 0
        assert row["tools_renamed"] == sum(one.old != one.new for one in changes.tools)
    assert "slight-tool-001" in done.stdout
    first = (tmp_path / "out" / "union-whole-000" / "tools.json").read_text()
    assert first != (tmp_path / "out" / "union-whole-001" / "tools.json").read_text()
    again = run_cli(["rotbench", "noise", path, "--out", tmp_path / "out"])
    assert again.returncode == 2
    assert "--overwrite" in again.stderr
    again = run_cli(
        ["rotbench", "noise", path, "--out", tmp_path / "out", "--overwrite", "--level", "union"]
    )
    assert again.returncode == 0
    assert (tmp_path / "out" / "union-whole-000" / "tools.json").read_text() == first
    assert not (tmp_path / "out" / "slight-tool-000").exists()


def test_bfcl_files_with_their_answers(written, tmp_path):
    rows = [
        {k: v for k, v in BFCL.items() if k != "ground_truth"} | {"id": f"s_{i}"} for i in (0, 1)
    ]
    golds = [{"id": f"s_{i}", "ground_truth": BFCL["ground_truth"]} for i in (0, 1)]
    text = "\n".join(map(json.dumps, rows)).replace("Oslo?", "a\u2028b") + "\n\n"
    path = written(text, "BFCL.json")
    answers = written("\n".join(map(json.dumps, golds)), "possible.json")
    out = tmp_path / "out"
    command = ["rotbench", "noise", path, "--answers", answers, "--level", "slight", "--out", out]
    done = run_cli(command)
    assert done.returncode == 0, done.stderr
    folder = out / "slight-tool-000"
    new = [
        json.loads(line) for line in (folder / "BFCL.json").read_text("utf-8").split("\n") if line
    ]
    found = [json.loads(line) for line in (folder / "answers-BFCL.json").read_text().splitlines()]
    names = json.loads((folder / "names.json").read_text())["environments"]
    assert len(new) == len(found) == len(names) == 2
    for row, gold, map_ in zip(new, found, names, strict=True):
        ((name, arguments),) = gold["ground_truth"][0].items()
        assert name in [tool["name"] for tool in row["function"]]
        assert name != "get_forecast"
        call = restore(Call(name, arguments), Changes.from_json(map_))
        assert call == Call("get_forecast", BFCL["ground_truth"][0]["get_forecast"])
    assert new[0]["function"] != new[1]["function"], "each row has noise of its own"
    with pytest.raises(DataError, match=r"possible\.json: row 1: its id is not that of"):
        read_tool_file(written("\n".join(map(json.dumps, rows[::-1])), "b.json"), answers=answers)
    with pytest.raises(DataError, match="has 1 rows"):
        read_tool_file(path, answers=written(json.dumps(golds[0]), "one.json"))


def test_one_row_stays_one_line(written, tmp_path):
    path = written(json.dumps(BFCL), "one.jsonl")
    done = run_cli(["rotbench", "noise", path, "--level", "union", "--out", tmp_path / "out"])
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "out" / "union-whole-000" / "one.jsonl").read_text("utf-8")
    assert len(text.splitlines()) == 1


def test_tools_are_not_replaced_by_the_map_of_their_names(written, tmp_path):
    path = written({"tools": MCP_TOOLS}, "names.json")
    done = run_cli(["rotbench", "noise", path, "--out", tmp_path / "out"])
    assert done.returncode == 2
    assert "rename it" in done.stderr


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is not JSON"),
        ("[{]", "is not JSON"),
        ('[{"name": NaN}]', "NaN is no JSON"),
        ('[{"name": "a", "name": "b"}]', "'name' stands twice"),
        ("[" * 100_000, "is not JSON"),
        ('{"function": [{"name": "a"}]}\n{"function": 3}', "row 2: tool 1"),
        ('{"function": [{"name": "a"}]}\n{"function": ', "row 2: is not JSON"),
        ('[{"name": "\\u001b[31m\\u0007", "parameters": 3}]', r"\x1b[31m\x07"),
        ("[]", "holds no list of tools"),
    ],
    ids=range(9),
)
def test_bad_files_exit_2_with_one_line(written, tmp_path, content, message):
    done = run_cli(["rotbench", "noise", written(content), "--out", tmp_path / "out"])
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert "\x1b[31m" not in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_half_that_a_level_lacks_and_a_folder_in_use(written, tmp_path):
    path = written(CHAT)
    done = run_cli(["rotbench", "noise", path, "--level", "slight", "--half", "whole"])
    assert done.returncode == 2
    assert "level slight has no half whole: it has tool, parameter" in done.stderr
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("x")
    done = run_cli(["rotbench", "noise", path, "--out", tmp_path / "mine", "--overwrite"])
    assert done.returncode == 2
    assert (tmp_path / "mine" / "thesis.txt").exists()


def test_what_utf8_cannot_write_is_escaped(written, tmp_path):
    path = written('[{"name": "a", "description": "\\ud800"}, {"name": "b"}]')
    done = run_cli(["rotbench", "noise", path, "--level", "heavy", "--out", tmp_path / "out"])
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "out" / "heavy-tool-000" / "tools.json").read_text()
    assert json.loads(text)[0]["description"] == "\ud800"
