"""The ten released files: byte-identical prompts, a round trip, counts by others, bad files."""

import copy
import json
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from papercore.errors import DataError
from rotbench.cases import ANY_VALUE, HALVES, LEVELS, SCENARIOS, TURNS, CaseKey
from rotbench.data import SAMPLE
from rotbench.defects import defects, table
from rotbench.released import (
    FOLDERS,
    SHA256,
    checksums,
    entry,
    file_of,
    read_folder,
    system_text,
)


@pytest.fixture(scope="module")
def entries(released_folder):
    """(turn, level) -> the file's own list."""
    return {
        (turn, level): json.loads(file_of(released_folder, turn, level).read_text("utf-8"))
        for turn in TURNS
        for level in LEVELS
    }


def of(entries, key):
    listed = entries[key.turn, key.level]
    size = len(listed) // len(HALVES[key.level])
    return listed[HALVES[key.level].index(key.half) * size + key.index]


def test_the_files_are_those_that_the_package_knows(released_folder):
    assert checksums(released_folder) == SHA256


def test_every_prompt_is_byte_identical(released_cases, entries):
    assert len(released_cases) == 1400
    for case in released_cases:
        assert system_text(case) == of(entries, case.key)["conversations"][0]["value"]
    assert len({(case.preamble, case.closing) for case in released_cases}) == 1


def test_every_entry_comes_back(released_cases, entries):
    """Equal but for the spaces in eight answers that the files write in another way."""
    spaced = 0
    for case in released_cases:
        ours, theirs = entry(case), of(entries, case.key)
        if ours == theirs:
            continue
        spaced += 1
        for mine, other in zip(
            ours["conversations"][-1]["value"],
            theirs["conversations"][-1]["value"],
            strict=True,
        ):
            assert mine.partition("{")[0] == other.partition("{")[0]
            assert json.loads(mine[mine.index("{") :]) == json.loads(other[other.index("{") :])
        ours["conversations"][-1] = theirs["conversations"][-1]
        assert ours == theirs
    assert spaced == 8


def test_counts_of_the_clean_files(released_cases):
    clean = {
        turn: [c for c in released_cases if (c.key.turn, c.key.level) == (turn, "clean")]
        for turn in TURNS
    }
    first, third = clean["first"], clean["third"]
    assert Counter(c.scenario for c in first) == dict.fromkeys(SCENARIOS, 15)
    assert Counter(c.scenario for c in third) == dict.fromkeys(SCENARIOS, 10)
    assert {c.query for c in third} <= {c.query for c in first}
    sizes = [len(c.tools) for c in first]
    assert (min(sizes), max(sizes), sum(sizes)) == (3, 18, 892)
    assert len({tool.name for c in first for tool in c.tools}) == 312
    assert len({c.tools for c in map(hashable, first)}) == 50
    assert Counter(len(c.golds) for c in first) == {1: 79, 2: 10, 3: 11, 5: 1, 7: 3, 8: 1}
    assert Counter(len(c.golds) for c in third) == {1: 67, 2: 3}
    assert sum(len(tool.parameters) for c in first for tool in c.tools) == 2493
    golds = [call for c in first for call in c.golds]
    assert len(golds) == 166
    assert sum(call.name == "ask_to_user" for call in golds) == 8
    assert sum(call.name == "finish" for c in third for call in c.golds) == 36
    values = [value for call in golds for value in call.arguments.values()]
    assert len(values) == 236
    assert sum(value == ANY_VALUE for value in values) == 13
    kinds = Counter(
        type(v).__name__ for c in third for call in c.golds for v in call.arguments.values()
    )
    assert kinds == {"str": 97, "int": 2}
    assert {tuple(t.name for t in c.tools[-2:]) for c in first} == {("ask_to_user", "finish")}


class hashable:  # noqa: N801
    """A case's tools as text."""

    def __init__(self, case):
        self.tools = system_text(case)


def test_noisy_cases_have_the_clean_one_of_their_query(released_cases):
    for case in released_cases:
        if case.key.level == "clean":
            assert case.origin is None
            continue
        assert case.origin.key == CaseKey(case.key.turn, "clean", "whole", case.key.index)
        assert case.origin.query == case.query
        assert [t.description for t in case.tools] == [t.description for t in case.origin.tools]


def test_defects_are_those_that_others_counted(released_cases):
    found = defects(released_cases)
    counts = table(found)
    where = {}
    for one in found:
        if one.key.level == "clean":
            where.setdefault((one.key.turn, one.kind), set()).add(one.key.index)
    assert where["first", "duplicate tools"] == {75, 78, 80}
    assert where["third", "duplicate tools"] == {50, 53, 55}
    assert where["first", "unknown gold key"] == {74}
    assert where["third", "unknown gold key"] == {47, 65}
    assert where["third", "missing required key"] - where["third", "unknown gold key"] == {31, 32}
    assert counts["first/clean", "only empty golds"] == 8
    empty = Counter(
        case.scenario
        for case in released_cases
        if case.key.level == "clean"
        and case.key.turn == "first"
        and not any(call.arguments for call in case.golds)
    )
    assert empty == {"AM": 3, "IR": 2, "FT": 3}
    levels = ("slight", "medium", "heavy", "union")
    assert [counts[f"first/{level}", "duplicate tools"] for level in levels] == [5, 5, 6, 2]
    unchanged = Counter(
        (one.key.turn, one.key.level, one.key.half)
        for one in found
        if one.kind == "nothing disturbed"
    )
    # The last one exchanged the names of two tools of one name.
    assert unchanged == {
        ("first", "heavy", "parameter"): 1,
        ("third", "slight", "parameter"): 5,
        ("third", "heavy", "tool"): 1,
    }


def test_ceilings_of_the_official_scorer_follow_from_the_empty_answers(released_cases):
    """The scorer gives nothing for an empty object, so an oracle that echoes the first gold ends at
    the share of cases whose first gold is not empty."""
    expected = {
        "first": {"clean": 92.38, "slight": 92.38, "medium": 92.38, "heavy": 95.24, "union": 92.38},
        "third": {"clean": 95.71, "slight": 95.71, "medium": 95.71, "heavy": 97.86, "union": 98.57},
    }
    for turn, levels in expected.items():
        for level, ceiling in levels.items():
            cases = [c for c in released_cases if (c.key.turn, c.key.level) == (turn, level)]
            share = sum(bool(c.golds[0].arguments) for c in cases) / len(cases)
            assert round(100 * share, 2) == ceiling, (turn, level)


def test_levels_and_turns_can_be_chosen(released_folder):
    cases = read_folder(released_folder, ("third",), ("heavy",))
    assert {(c.key.turn, c.key.level) for c in cases} == {("third", "heavy")}
    assert len(cases) == 140
    assert all(c.origin is not None for c in cases)


# Bad files, made from the sample.


@pytest.fixture
def folder(tmp_path):
    """A folder with the sample's files, and how to change one."""
    for turn in TURNS:
        (tmp_path / FOLDERS[turn]).mkdir()
        for level in LEVELS:
            source = file_of(SAMPLE, turn, level)
            file_of(tmp_path, turn, level).write_bytes(source.read_bytes())
    return tmp_path


def changed(folder, change, level="clean"):
    file = file_of(folder, "first", level)
    document = json.loads(file.read_text("utf-8"))
    new = change(document)
    file.write_text(json.dumps(document if new is None else new), "utf-8")
    return folder


def set_system(document, old, new):
    turn = document[1]["conversations"][0]
    assert old in turn["value"]
    turn["value"] = turn["value"].replace(old, new, 1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: {}, "should hold a list"),
        (lambda d: [], "a list of 1 to"),
        (lambda d: d[1].pop("scenario") and None, "entry 1: entry: should have id, conversations"),
        (lambda d: d[1].update(scenario=[]), "entry 1: scenario: should be a text"),
        (lambda d: d[1].update(more=1), "entry 1: entry: should have"),
        (lambda d: d[1].update(scenario="XX"), "entry 1: scenario: should be one of TG"),
        (lambda d: d[1].update(id="Turn 3: x"), "entry 1: id: should start with 'Turn 1: '"),
        (lambda d: d[1].update(id=7), "entry 1: id: should be a text, not int"),
        (lambda d: d[1]["conversations"].pop() and None, "at least three turns"),
        (
            lambda d: d[1]["conversations"][1].update(value="x"),
            r"conversations\[1\]: should be the",
        ),
        (lambda d: d[1]["conversations"][0].update(value="x"), "no line with a list of tools"),
        (lambda d: set_system(d, '[{"name"', '[{"name'), "list of tools is not JSON"),
        (lambda d: set_system(d, '"type": "object"', '"typ": "object"'), r"tools\[0\].parameters"),
        (lambda d: set_system(d, '"name": "', '"name": "' + "x" * 600), "longer than 512"),
        (lambda d: d[1]["conversations"][-1].update(value="x"), "should be a list, not str"),
        (lambda d: d[1]["conversations"][-1].update(value=[]), "holds no answer"),
        (lambda d: d[1]["conversations"][-1].update(value=["x"]), "an Action and an Action Input"),
        (
            lambda d: d[1]["conversations"][-1].update(
                value=["Thought:\nAction: a\nAction Input: [1]"]
            ),
            r"value\[0\]: should be an object, not list",
        ),
    ],
)
def test_a_bad_file_is_named_with_entry_and_field(folder, change, message):
    with pytest.raises(DataError, match=message) as caught:
        read_folder(changed(folder, change))
    assert "clean.json" in str(caught.value)


def test_files_that_do_not_belong_together_are_refused(folder):
    def other_tools(document):
        set_system(document, "Lists words that rhyme", "Lists words that do not rhyme")

    with pytest.raises(DataError, match=r"slight/tool/001.*descriptions"):
        read_folder(changed(folder, other_tools, "slight"))


def test_halves_and_queries_must_match(folder):
    with pytest.raises(DataError, match="do not divide into halves"):
        read_folder(changed(folder, lambda d: d.pop() and None, "slight"))
    changed(folder, lambda d: d.reverse(), "union")
    with pytest.raises(DataError, match="another query at place 0"):
        read_folder(folder, ("first",), ("union",))


def test_missing_binary_and_deep_files(folder):
    file = file_of(folder, "first", "clean")
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="is not JSON"):
        read_folder(folder)
    file.write_text("[" * 200_000)
    with pytest.raises(DataError, match="is not JSON"):
        read_folder(folder)
    file.unlink()
    with pytest.raises(DataError, match="no such file"):
        read_folder(folder)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_field_may_be_anything(tmp_path_factory, data):
    """A value of another kind anywhere in an entry is an error that names the file, or harmless."""
    document = json.loads(file_of(SAMPLE, "third", "clean").read_text("utf-8"))
    places = list(paths(document[:1]))
    place = data.draw(st.sampled_from(places))
    junk = st.none() | st.booleans() | st.integers() | st.text() | st.just([]) | st.just({})
    broken = copy.deepcopy(document)
    target = broken
    for step in place[:-1]:
        target = target[step]
    target[place[-1]] = data.draw(junk)
    folder = tmp_path_factory.mktemp("junk")
    file = file_of(folder, "third", "clean")
    file.parent.mkdir()
    file.write_text(json.dumps(broken), "utf-8")
    problem = "clean.json"
    try:
        read_folder(folder, ("third",), ("clean",))
    except DataError as error:
        problem = str(error)
    assert "clean.json" in problem


def paths(value, before=()):
    if isinstance(value, dict | list):
        for key in value if isinstance(value, dict) else range(len(value)):
            yield (*before, key)
            yield from paths(value[key], (*before, key))
