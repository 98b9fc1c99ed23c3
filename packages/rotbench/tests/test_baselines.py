import json
import math
import re
from dataclasses import replace

import pytest

from papercore.errors import ConfigError
from rotbench.answers import answer_of
from rotbench.baselines import BASELINES, BaselineGenerator, baseline_call, baseline_of
from rotbench.cases import Call, Case, CaseKey, Step, Tool
from rotbench.grading import grade
from rotbench.prompts import write_prompt

MODES = ("react", "native", "raven1", "raven2")


def make_case(query="Book a table in 'Rome' for 4 people", names=("f", "g")):
    text = {"type": "string", "description": ""}
    tools = (
        Tool(names[0], "Tells the weather of a city.", {"city": text}, ("city",)),
        Tool(
            names[1],
            "Books a table at a restaurant.",
            {"place": text, "number_of_people": text, "note": text},
            ("place", "number_of_people"),
        ),
    )
    return Case(
        CaseKey("first", "clean", "whole", 0), query, "PL", "P", tools, "C",
        (Step("user", query),), (Call(names[1], {"place": "Rome", "number_of_people": "4"}),),
        num_special=0,
    )  # fmt: skip


def answers(baseline, cases, mode, seed=0):
    prompts = [write_prompt(case, name=str(n), mode=mode) for n, case in enumerate(cases)]
    made = BaselineGenerator(baseline, prompts, mode=mode, seed=seed)
    completions = made.generate([prompt.request for prompt in prompts])
    return [answer_of(p, c) for p, c in zip(prompts, completions, strict=True)]


def share(baseline, cases, mode="react", place=0, seed=0):
    graded = [
        grade(case, answer, mode)
        for case, answer in zip(cases, answers(baseline, cases, mode, seed), strict=True)
    ]
    return sum(g.fixed[place] for g in graded) / len(graded)


@pytest.mark.parametrize("mode", MODES)
def test_the_oracle_is_right_in_every_mode_and_on_every_case(released_cases, mode):
    assert share("oracle", released_cases, mode, place=2) == 1.0


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("baseline", BASELINES)
def test_a_baseline_means_the_same_in_every_mode(sample_cases, baseline, mode):
    for case, answer in zip(sample_cases, answers(baseline, sample_cases, mode), strict=True):
        found = grade(case, answer, mode).prediction
        wanted = baseline_call(baseline, case)
        assert (found.name, dict(found.arguments)) == (wanted.name, dict(wanted.arguments))
        assert not found.repairs


def test_a_random_tool_is_right_as_often_as_it_should(released_cases):
    clean = [c for c in released_cases if (c.key.turn, c.key.level) == ("first", "clean")]
    assert len(clean) == 105
    chances = [
        sum(tool.name in {gold.name for gold in case.golds} for tool in case.tools)
        / len(case.tools)
        for case in clean
    ]
    expected = sum(chances) / len(chances)
    # Counted before this code was there: 13.95 % if each case had one right tool. 26 of the 105
    # accept several calls, of which most are of different tools.
    one_right = sum(1 / len(case.tools) for case in clean) / len(clean)
    assert (round(100 * one_right, 2), round(100 * expected, 2)) == (13.95, 18.68)
    deviation = math.sqrt(sum(chance * (1 - chance) for chance in chances)) / len(chances)
    drawn = [share("random", clean, seed=seed) for seed in range(20)]
    assert all(abs(one - expected) < 3.5 * deviation for one in drawn)
    assert abs(sum(drawn) / 20 - expected) < 3.5 * deviation / math.sqrt(20)
    assert len(set(drawn)) > 5


def test_a_random_tool_depends_on_seed_and_key_alone(sample_cases):
    forward = [baseline_call("random", case, 7) for case in sample_cases]
    backward = [baseline_call("random", case, 7) for case in sample_cases[::-1]]
    assert forward == backward[::-1]
    assert forward != [baseline_call("random", case, 8) for case in sample_cases]


def test_the_lexical_baseline_beats_chance_on_the_released_cases(released_cases):
    clean = [c for c in released_cases if (c.key.turn, c.key.level) == ("first", "clean")]
    assert share("lexical", clean) > 0.4


def test_the_lexical_baseline_reads_names_as_well_as_descriptions():
    wanted = baseline_call("lexical", make_case())
    assert wanted == Call("g", {"place": "Rome", "number_of_people": "4"})
    bare = make_case("please do the bookTable")
    tools = tuple(replace(tool, description="", parameters={}, required=()) for tool in bare.tools)
    tools = (tools[0], replace(tools[1], name="table_book"))
    assert baseline_call("lexical", replace(bare, tools=tools)).name == "table_book"


def test_what_the_query_does_not_give_is_filled_with_the_query():
    call = baseline_call("first", make_case("is it warm?"))
    assert call == Call("f", {"city": "is it warm?"})


def test_equal_tools_are_decided_by_their_order():
    case = make_case("nothing of this is there", names=("same", "same"))
    assert baseline_call("lexical", case) == baseline_call("first", case)


def test_a_reference_names_a_baseline_with_or_without_its_scheme():
    assert [baseline_of(name) for name in ("oracle", "baseline:first")] == ["oracle", "first"]
    assert baseline_of("Qwen/Qwen2.5-7B-Instruct") is None
    with pytest.raises(ConfigError, match=r"no baseline 'best' \(there are: oracle, random"):
        baseline_of("baseline:best")


def test_react_answers_have_the_format_that_is_asked_for(sample_cases):
    for answer in answers("lexical", sample_cases, "react"):
        match = re.fullmatch(r"Thought:.*\nAction: (\S+)\nAction Input: (\{.*\})", answer.text)
        assert match
        json.loads(match[2])
