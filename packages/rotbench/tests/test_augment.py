"""Augmented trajectories: every reference to a tool is renamed, and everything else stays."""

import json
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from papercore.errors import DataError
from rotbench.augment import augment, augment_all, survey
from rotbench.cases import HALVES, NOISY_LEVELS, Call
from rotbench.changes import Changes
from rotbench.config import NoiseRules, Quota
from rotbench.layouts import parse, row
from rotbench.quotas import Place, cells
from rotbench.rewrite import restore
from rotbench.trajectories import digest

STRICT, OFFICIAL = NoiseRules(), NoiseRules(mode="official")
QUOTA = Quota(clean=30, slight=20, medium=19, heavy=18, union=7)
PLACES = [
    Place(level, half, repetition)
    for level in NOISY_LEVELS
    for half in HALVES[level]
    for repetition in (0, 1)
]


def tool(name, *parameters):
    properties = {key: {"type": "string", "description": f"The {key}."} for key in parameters}
    schema = {"type": "object", "properties": properties, "required": list(parameters)[:1]}
    return {"name": name, "description": f"Does {name}.", "parameters": schema}


def trajectory(seed=0):
    """Thoughts, replies and messages that mention tools, and a call that is made twice."""
    tools = [
        tool("get_weather", "town", "day"),
        tool("search_web", "query", "num_results", "lang"),
        tool("convert_units", "value", "unit"),
        tool("list_files"),
        tool("ask_to_user", "question"),
        tool("finish", "answer"),
    ]
    said = [
        ("system", f"Do it.\n{json.dumps(tools)}\n\nGo."),
        ("user", f"Weather in Oslo, please use get_weather. {seed}\nBegin!\n"),
        ("assistant", react("get_weather", {"town": "Oslo"}, "I use get_weather, not search_web.")),
        ("function", "get_weather() missing 1 required positional argument: 'day'"),
        ("assistant", react("get_weather", {"town": "Oslo", "day": "today"})),
        ("function", "rain. The weather finish_line is near; town is not a word to change"),
        ("assistant", react("search_web", {"query": "umbrella"}, "search_web may know.")),
        ("function", "get_weathering is something else than get_weather"),
        ("user", "Why not convert_units?"),
        ("assistant", react("finish", {"answer": "rain"})),
    ]
    turns = [{"from": who, "value": text} for who, text in said]
    return {"id": str(seed), "conversations": turns, "scenario": "RS"}


def react(name, arguments, thought=""):
    return f"Thought: {thought}\nAction: {name}\nAction Input: {json.dumps(arguments)}"


@pytest.fixture
def files(tmp_path):
    path = tmp_path / "in.jsonl"
    path.write_text("".join(json.dumps(trajectory(i)) + "\n" for i in range(12)))
    return [path]


def changes_of(noisy):
    return Changes.from_json(noisy.noise.data["changes"])


@pytest.mark.parametrize("place", PLACES, ids=str)
@pytest.mark.parametrize("layout", ["rotbench", "openai"])
def test_calls_fit_the_tools_and_can_be_undone(place, layout):
    clean = parse(row(parse(trajectory()), layout))
    noisy = augment(clean, place, seed=0, rules=STRICT)
    changes = changes_of(noisy)
    assert noisy != clean
    assert [restore(call, changes) for call in noisy.calls] == list(clean.calls)
    known = {one.name: one for one in noisy.tools}
    for call in noisy.calls:
        assert call.arguments.keys() <= known[call.name].parameters.keys()
    assert [one.description for one in noisy.tools] == [one.description for one in clean.tools]
    assert noisy.moves[0] == clean.moves[0]


def test_texts_follow_the_tools_names():
    clean = parse(trajectory())
    noisy = augment(clean, Place("medium", "tool", 0), seed=3, rules=STRICT)
    new = {change.old: change.new for change in changes_of(noisy).tools}
    thought, error, reply, question = (noisy.moves[i].text for i in (1, 2, 6, 7))
    assert thought == f"I use {new['get_weather']}, not {new['search_web']}."
    assert error == f"{new['get_weather']}() missing 1 required positional argument: 'day'"
    assert reply == f"get_weathering is something else than {new['get_weather']}"
    assert question == f"Why not {new['convert_units']}?"
    assert noisy.moves[4].text == clean.moves[4].text


def test_a_complaint_follows_the_parameters_names():
    noisy = augment(parse(trajectory()), Place("medium", "parameter", 0), seed=0, rules=STRICT)
    day = changes_of(noisy).forward["get_weather"].forward["day"]
    assert noisy.moves[2].text == f"get_weather() missing 1 required positional argument: '{day}'"
    assert "town is not a word to change" in noisy.moves[4].text


def test_an_added_parameter_is_in_every_call_of_its_tool():
    added = 0
    for seed in range(20):
        noisy = augment(
            parse(trajectory()), Place("heavy", "parameter", 0), seed=seed, rules=STRICT
        )
        for change in changes_of(noisy).tools:
            calls = [call for call in noisy.calls if call.name == change.new]
            if change.addendum is not None:
                added += len(calls)
                assert all(
                    c.arguments[change.addendum.name] == change.addendum.value for c in calls
                )
    assert added


def test_the_special_tools_keep_their_parameters():
    for seed in range(10):
        noisy = augment(parse(trajectory()), Place("union", "whole", 0), seed=seed, rules=OFFICIAL)
        assert [list(one.parameters) for one in noisy.tools[-2:]] == [["question"], ["answer"]]


def test_clean_stays_as_it_is():
    clean = parse(trajectory())
    same = augment(clean, Place("clean", "whole", 1), seed=0, rules=STRICT)
    assert digest(same) == digest(clean)
    assert (same.level, same.noise.data["repetition"]) == ("clean", 1)


@pytest.mark.parametrize("place", PLACES, ids=str)
def test_what_is_stored_makes_it_again(place):
    clean = parse(trajectory())
    noisy = augment(clean, place, seed=7, rules=OFFICIAL)
    data = noisy.noise.data
    again = augment(
        clean,
        Place(noisy.level, data["half"], data["repetition"]),
        seed=data["seed"],
        rules=OFFICIAL,
    )
    assert again == noisy
    assert data["source"] == digest(clean).hex()
    assert data["content"] == digest(noisy).hex() != data["source"]


def test_repetitions_and_seeds_differ():
    clean = parse(trajectory())
    variants = {
        digest(augment(clean, Place("slight", "tool", repetition), seed=seed, rules=STRICT))
        for repetition in range(5)
        for seed in range(5)
    }
    assert len(variants) == 25


@settings(max_examples=60)
@given(st.sampled_from(PLACES), st.integers(0, 10_000), st.sampled_from([STRICT, OFFICIAL]))
def test_a_written_row_reads_back(place, seed, rules):
    for layout in ("rotbench", "openai"):
        clean = parse(row(parse(trajectory()), layout))
        noisy = augment(clean, place, seed=seed, rules=rules)
        assert parse(json.loads(json.dumps(row(noisy)))) == noisy


@pytest.mark.parametrize("rules", [STRICT, OFFICIAL], ids=["strict", "official"])
def test_quotas_are_met_exactly(files, rules):
    made = list(augment_all(survey(files), QUOTA, seed=0, rules=rules))
    assert Counter((one.level, one.noise.data["half"]) for one in made) == Counter(cells(QUOTA))
    noisy = [one.noise.data["content"] for one in made if one.level != "clean"]
    assert len(set(noisy)) == len(noisy)


def test_the_order_of_the_rows_changes_nothing_but_the_order(files, tmp_path):
    lines = files[0].read_text().splitlines(keepends=True)
    turned = tmp_path / "turned.jsonl"
    turned.write_text("".join(reversed(lines)))
    usual = augment_all(survey(files), QUOTA, seed=0, rules=STRICT)
    other = augment_all(survey([turned]), QUOTA, seed=0, rules=STRICT)
    assert sorted(json.dumps(row(one)) for one in usual) == sorted(
        json.dumps(row(one)) for one in other
    )


def test_several_files_are_read_as_one(files, tmp_path):
    lines = files[0].read_text().splitlines(keepends=True)
    parts = [tmp_path / "a.jsonl", tmp_path / "b.jsonl"]
    for part, own in zip(parts, (lines[:5], lines[5:]), strict=True):
        part.write_text("".join(own))
    usual = list(augment_all(survey(files), QUOTA, seed=0, rules=STRICT))
    assert list(augment_all(survey(parts), QUOTA, seed=0, rules=STRICT)) == usual
    assert survey(parts).data_hash == survey(files).data_hash
    assert len(survey(parts, limit=7).keys) == 7


def test_a_trajectory_that_is_there_twice_gets_different_noise(tmp_path):
    path = tmp_path / "twice.jsonl"
    path.write_text((json.dumps(trajectory()) + "\n") * 2)
    quota = Quota(clean=0, slight=0, medium=2, heavy=0, union=4)
    made = list(augment_all(survey([path]), quota, seed=0, rules=STRICT))
    assert len({one.noise.data["content"] for one in made}) == 6


def test_bad_rows_are_named_and_left_out(files):
    good = files[0].read_text()
    disturbed = row(augment(parse(trajectory()), PLACES[0], seed=0, rules=STRICT))
    files[0].write_text(f"{good}nonsense\n{json.dumps(disturbed)}\n")
    found = survey(files)
    assert len(found.keys) == 12
    assert [problem.place for problem in found.problems] == [
        "in.jsonl: line 13",
        "in.jsonl: line 14",
    ]
    assert "not JSON" in found.problems[0].reason
    assert "disturbed already (slight)" in found.problems[1].reason
    assert len(list(augment_all(found, QUOTA, seed=0, rules=STRICT))) == QUOTA.total


def test_a_row_that_the_layout_cannot_hold_is_a_problem(tmp_path):
    calls = [{"id": i, "function": {"name": "f", "arguments": "{}"}} for i in "ab"]
    item = {
        "tools": [{"name": "f"}],
        "messages": [{"role": "user", "content": "x"}, {"role": "assistant", "tool_calls": calls}],
    }
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps(item))
    assert survey([path]).problems == ()
    assert "several calls" in survey([path], layout="rotbench").problems[0].reason


def test_a_file_that_changes_in_between_is_noticed(files):
    found = survey(files)
    with files[0].open("a") as file:
        file.write(json.dumps(trajectory(99)) + "\n")
    with pytest.raises(DataError, match="was changed"):
        list(augment_all(found, QUOTA, seed=0, rules=STRICT))


def test_tools_of_other_data_have_no_special_ones():
    item = {
        "tools": [tool("finish_line", "a"), tool("search", "q")],
        "messages": [
            {"role": "system", "content": "Use finish_line with care."},
            {"role": "user", "content": "x"},
            {
                "role": "assistant",
                "tool_calls": [{"function": {"name": "search", "arguments": {"q": "x"}}}],
            },
        ],
    }
    noisy = augment(parse(item), Place("medium", "parameter", 0), seed=0, rules=STRICT)
    assert noisy.calls[0].name == "search"
    assert noisy.calls[0] != Call("search", {"q": "x"})
    renamed = augment(parse(item), Place("heavy", "tool", 0), seed=0, rules=STRICT)
    assert [one.name for one in renamed.tools] == ["search", "finish_line"]
    assert renamed.preamble == "Use search with care."
