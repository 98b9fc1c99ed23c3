"""Noise on cases: what strict mode promises, and that every setting is honoured."""

import hashlib
import json
import string
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from papercore.errors import ConfigError, DataError
from rotbench.cases import HALVES, LEVELS, NOISY_LEVELS, Call, Case, CaseKey, Step, Tool
from rotbench.changes import Changes
from rotbench.config import NoiseRules
from rotbench.noise import disturb, restore
from rotbench.released import entry
from rotbench.rewrite import call_text, rename_call

COMBINATIONS = [(level, half) for level in NOISY_LEVELS for half in HALVES[level]]
OFFICIAL = NoiseRules(mode="official")

names = st.text(st.characters(codec="utf-8", exclude_characters="\n"), min_size=1, max_size=12)
short = st.text("abX", min_size=1, max_size=2)  # collides as soon as it can


@st.composite
def any_case(draw, naming=names | short):
    """Tools with distinct names, none to many parameters, golds among them, a history."""
    chosen = draw(st.lists(naming, min_size=1, max_size=6, unique=True))
    tools = []
    for name in chosen:
        keys = draw(st.lists(naming, max_size=5, unique=True))
        required = tuple(key for key in keys if draw(st.booleans()))
        tools.append(Tool(name, f"describes {name}", {key: {} for key in keys}, required))
    golds = []
    for _ in range(draw(st.integers(0, 3))):
        tool = draw(st.sampled_from(tools))
        keys = [key for key in tool.parameters if draw(st.booleans())]
        golds.append(Call(tool.name, {key: f"value of {key}" for key in keys}))
    steps = [Step("user", "a question")]
    steps += [Step("assistant", "Thought:\n" + call_text(call)) for call in golds]
    return Case(
        CaseKey("first", "clean", "whole", draw(st.integers(0, 99))),
        "a question",
        "TG",
        "before ",
        tuple(tools),
        " after",
        tuple(steps),
        tuple(golds),
        num_special=draw(st.integers(0, min(2, len(tools)))),
    )


def applied(call, changes):
    """The call in the disturbed environment, from the released description, not from our code."""
    tool = {one.old: one for one in changes.tools}[call.name]
    renamed = {one.old: one.new for one in tool.parameters}
    arguments = {renamed.get(key, key): value for key, value in call.arguments.items()}
    if tool.addendum:
        arguments[tool.addendum.name] = tool.addendum.value
    return Call(tool.new, arguments)


@settings(max_examples=150, deadline=None)
@given(any_case(), st.sampled_from(COMBINATIONS), st.integers(0, 5))
def test_strict_noise_keeps_its_promises(case, where, seed):
    level, half = where
    noised = disturb(case, level, half, seed=seed)
    noisy, changes = noised.case, noised.changes
    assert changes.collisions == 0
    assert noisy.origin is case
    old = [tool.name for tool in case.tools]
    new = [tool.name for tool in noisy.tools]
    # No name twice, none empty, no old name anew but by exchange.
    assert len(set(new)) == len(new)
    assert all(new)
    for one in changes.tools:
        assert one.old == one.new or one.operator == "exchange" or one.new not in old
    for before, after in zip(case.tools, noisy.tools, strict=True):
        assert after.description == before.description
        added = len(after.parameters) - len(before.parameters)
        assert added in (0, 1)
        assert all(after.parameters)
        assert list(after.parameters.values())[: len(before.parameters)] == list(
            before.parameters.values()
        )
        assert len(after.required) == len(before.required) + added
        assert set(after.required) <= set(after.parameters)
    # Golds and history follow, and can be undone.
    assert noisy.golds == tuple(applied(call, changes) for call in case.golds)
    assert [restore(call, changes) for call in noisy.golds] == list(case.golds)
    assert noisy.steps[0] == case.steps[0]
    for call, step in zip(noisy.golds, noisy.steps[1:], strict=True):
        assert step.text.endswith(call_text(call))
    assert Changes.from_json(json.loads(json.dumps(changes.to_json()))) == changes


@settings(max_examples=150, deadline=None)
@given(any_case(), st.sampled_from(COMBINATIONS), st.integers(0, 5))
def test_strict_noise_changes_every_gold_call_that_it_can(case, where, seed):
    level, half = where
    noised = disturb(case, level, half, seed=seed)
    special = {tool.name for tool in case.tools[len(case.tools) - case.num_special :]}
    for before, after in zip(case.golds, noised.case.golds, strict=True):
        if half != "parameter":
            assert after.name != before.name or len(case.tools) == 1
        elif before.name in special:
            assert after == before
        elif level == "heavy":
            assert set(after.arguments) != set(before.arguments) or (
                list(after.arguments) != list(before.arguments)
            )
        else:
            assert set(after.arguments).isdisjoint(before.arguments)


@settings(max_examples=60, deadline=None)
@given(any_case(), st.sampled_from(COMBINATIONS), st.integers(0, 5))
def test_official_noise_never_fails_and_counts_what_it_loses(case, where, seed):
    noised = disturb(case, *where, seed=seed, rules=OFFICIAL)
    lost = len(case.tools) - len({tool.name for tool in noised.case.tools})
    lost += sum(
        max(0, len(a.parameters) - len(b.parameters))
        for a, b in zip(case.tools, noised.case.tools, strict=True)
    )
    assert (noised.changes.collisions > 0) or lost == 0


def test_noise_depends_on_seed_key_level_and_half_and_nothing_else(sample_cases):
    clean = [case for case in sample_cases if case.key.level == "clean"]
    alone = disturb(clean[5], "union", "whole", seed=3)
    for case in clean:
        disturb(case, "heavy", "tool")
    assert disturb(clean[5], "union", "whole", seed=3) == alone
    assert disturb(clean[5], "union", "whole", seed=4).case.tools != alone.case.tools


def test_the_same_bytes_on_every_machine_and_python(sample_cases):
    digest = hashlib.sha256()
    for mode in ("strict", "official"):
        rules = NoiseRules(mode=mode)
        for case in sample_cases:
            if case.key.level == "clean":
                for level, half in COMBINATIONS:
                    noised = disturb(case, level, half, seed=7, rules=rules)
                    digest.update(json.dumps(entry(noised.case)).encode())
                    digest.update(json.dumps(noised.changes.to_json()).encode())
    assert digest.hexdigest() == (
        "c154e7302a19a9c36744d5053024569ab1606242d4f6ce4b49ad8086a2f17244"
    )


def test_clean_is_the_identity(sample_cases):
    noised = disturb(sample_cases[0], "clean", "whole")
    assert noised.case is sample_cases[0]
    assert rename_call(sample_cases[0].golds[0], noised.changes) == sample_cases[0].golds[0]


def test_wrong_halves_and_disturbed_cases_are_refused(sample_cases):
    with pytest.raises(ConfigError, match="no half 'whole'"):
        disturb(sample_cases[0], "slight", "whole")
    noisy = next(case for case in sample_cases if case.origin is not None)
    with pytest.raises(ConfigError, match="disturbed already"):
        disturb(noisy, "slight", "tool")


def test_a_union_has_both_halves(sample_cases):
    clean = [case for case in sample_cases if case.key.level == "clean"]
    seen = Counter()
    for case in clean:
        for seed in range(10):
            changes = disturb(case, "union", "whole", seed=seed).changes
            seen[changes.drawn] += 1
            operators = {tool.operator for tool in changes.tools} - {None}
            wanted = {
                "slight": {"insertion", "omission", "substitution"},
                "medium": {"reversal", "nonsense"},
                "heavy": {"exchange"},
            }[changes.drawn[0]]
            assert operators <= wanted
    assert len(seen) == 9


def environment(num=12, num_special=2):
    tools = [
        Tool(f"tool_number_{i:02d}", "", {f"parameter_{k:02d}": {} for k in range(8)})
        for i in range(num)
    ]
    golds = (Call("tool_number_00", {"parameter_00": ""}),)
    key = CaseKey("first", "clean", "whole", 0)
    return Case(key, "", "TG", "", tuple(tools), "", (), golds, num_special=num_special)


def changed(level, half, **rules):
    return disturb(environment(), level, half, rules=NoiseRules(**rules)).changes.tools


def test_share_is_the_share_of_names_that_change():
    assert sum(one.old != one.new for one in changed("medium", "tool", share=0.0)) == 1
    assert sum(one.old != one.new for one in changed("medium", "tool", share=1.0)) == 12
    some = sum(one.old != one.new for one in changed("medium", "tool", share=0.25))
    assert some in (3, 4)
    assert [len(one.parameters) for one in changed("medium", "parameter", share=1.0)] == (
        [8] * 10 + [0, 0]
    )
    heavy = changed("heavy", "parameter", share=1.0)
    assert [one.changed for one in heavy] == [True] * 10 + [False] * 2


def test_edits_bound_the_slight_changes():
    mild = changed("slight", "tool", share=1.0, edits=0.1)
    assert all(abs(len(one.new) - len(one.old)) <= 1 for one in mild)
    strong = [
        abs(len(one.new) - len(one.old))
        for seed in range(20)
        for one in disturb(
            environment(), "slight", "tool", seed=seed, rules=NoiseRules(edits=0.8, share=1.0)
        ).changes.tools
    ]
    assert 7 <= max(strong) <= 11


def test_alphabet_and_lengths_of_made_up_names():
    rules = {"alphabet": "xyz", "share": 1.0, "nonsense_tool": 4, "nonsense_parameter": 3}
    tools = changed("medium", "tool", **rules)
    made = [one.new for one in tools if one.operator == "nonsense"]
    assert made
    assert all(set(name) <= set("xyz") for name in made)
    assert max(map(len, made)) <= 4
    rules |= {"addendum": 1.0, "addendum_value": 2}
    added = [one.addendum for one in changed("heavy", "parameter", **rules) if one.addendum]
    assert len(added) == 10
    assert all(set(one.name + one.value) <= set("xyz") for one in added)
    assert max(len(one.name) for one in added) <= 3
    assert max(len(one.value) for one in added) <= 2


def test_addendum_or_exchange():
    never = changed("heavy", "parameter", addendum=0.0, share=1.0)
    assert not any(one.addendum for one in never)
    always = changed("heavy", "parameter", addendum=1.0, share=1.0)
    assert all(one.addendum for one in always[:10])


def test_a_tiny_alphabet_still_gives_distinct_names():
    tools = tuple(Tool("a" * n, "", {"b": {}}) for n in range(1, 7))
    case = Case(CaseKey("first", "clean", "whole", 0), "", "TG", "", tools, "", (), (), None, 0)
    for level, half in COMBINATIONS:
        noised = disturb(case, level, half, rules=NoiseRules(alphabet="a", share=1.0))
        assert len({tool.name for tool in noised.case.tools}) == 6


def test_tools_that_share_a_name_go_on_sharing_one_in_strict_mode():
    tools = (Tool("drivers", "", {"name": {}}), Tool("races", "", {}), Tool("drivers", "2", {}))
    golds = (Call("drivers", {}),)
    case = Case(CaseKey("first", "clean", "whole", 0), "", "TG", "", tools, "", (), golds, None, 0)
    for level in ("slight", "medium", "heavy"):
        noised = disturb(case, level, "tool")
        first, _, last = (tool.name for tool in noised.case.tools)
        assert first == last != "drivers"
        assert restore(noised.case.golds[0], noised.changes) == golds[0]


def test_one_tool_alone_has_nobody_to_exchange_names_with():
    case = Case(
        CaseKey("first", "clean", "whole", 0),
        "",
        "TG",
        "",
        (Tool("only", "", {}),),
        "",
        (),
        (Call("only", {}),),
        None,
        0,
    )
    for rules in (NoiseRules(), OFFICIAL):
        assert not disturb(case, "heavy", "tool", rules=rules).changes.tools[0].changed


def test_every_sample_call_is_restored(sample_cases):
    for case in sample_cases:
        if case.key.level != "clean":
            continue
        for level, half in COMBINATIONS:
            noised = disturb(case, level, half, seed=11)
            for before, after in zip(case.golds, noised.case.golds, strict=True):
                assert restore(after, noised.changes) == before


def test_a_map_that_is_none_is_refused():
    good = disturb(environment(), "heavy", "parameter").changes.to_json()
    for bad in ({}, good | {"half": "whole"}, good | {"tools": 3}, good | {"tools": [{"old": 1}]}):
        with pytest.raises(DataError, match="no map of names"):
            Changes.from_json(bad)


def test_levels_are_those_of_the_paper():
    assert LEVELS == ("clean", "slight", "medium", "heavy", "union")
    assert NoiseRules().alphabet == string.ascii_letters
