import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from papercore.tiny import word_tokenizer
from rotbench import world
from rotbench.cases import HALVES, LEVELS, NOISY_LEVELS, Call, Case, CaseKey, Tool
from rotbench.grading import Answer, grade
from rotbench.noise import disturb
from rotbench.predictions import read_react
from rotbench.rewrite import rename_call
from rotbench.taxonomy import KINDS

CELLS = [(level, half) for level in LEVELS for half in HALVES[level]]


def episode(seed):
    return world.draw_episode(random.Random(seed), seed)


@pytest.fixture
def hotel():
    """A case written by hand."""
    text = {"type": "string"}
    tools = (
        Tool("selet", "send letter", {"dat": text | {"description": "date"}}, ("dat",)),
        Tool("fihok", "find hotel", {"cib": text | {"description": "city"}}, ("cib",)),
    )
    golds = (Call("fihok", {"cib": "paris"}),)
    key = CaseKey("first", "clean", "whole", 3)
    return Case(key, "city paris find hotel", "", "", tools, "", (), golds, num_special=0)


def test_the_vocabulary_is_that_of_the_design():
    tokenizer = word_tokenizer(world.WORDS)
    assert len(tokenizer) == 115
    assert [len(w) for w in (world.VERBS, world.NOUNS, world.KINDS, world.VALUES)] == [
        12,
        16,
        12,
        40,
    ]
    assert tokenizer.eos_token == world.END


@pytest.mark.parametrize("words", [world.VERBS, world.NOUNS, world.KINDS])
def test_stems_tell_words_apart(words):
    assert len({world.STEMS[word] for word in words}) == len(words)
    assert all(len(world.STEMS[word]) == world.STEM for word in words)


def test_a_prompt_by_hand(hotel):
    assert " ".join(world.prompt_tokens(hotel)) == (
        "send letter <tool> s e l e t date <parameter> d a t "
        "find hotel <tool> f i h o k city <parameter> c i b "
        "<query> city paris find hotel <call>"
    )


def test_an_answer_by_hand(hotel):
    tokens = world.answer_tokens(hotel.golds[0])
    assert " ".join(tokens) == "f i h o k <parameter> c i b = paris <eos>"
    assert world.answer_text(tokens) == ('Thought:\nAction: fihok\nAction Input: {"cib": "paris"}')


@pytest.mark.parametrize("seed", range(20))
def test_clean_names_are_two_stems_and_a_letter(seed):
    case = episode(seed)[0]
    assert len({tool.description for tool in case.tools}) == world.NUM_TOOLS
    for tool in case.tools:
        verb, noun = tool.description.split()
        assert tool.name[:-1] == world.STEMS[verb] + world.STEMS[noun]
        for name, schema in tool.parameters.items():
            assert name[:-1] == world.STEMS[schema["description"]]


@pytest.mark.parametrize("seed", range(5))
def test_an_episode_asks_for_each_tool_once(seed):
    cases = episode(seed)
    assert {case.golds[0].name for case in cases} == {tool.name for tool in cases[0].tools}
    for case in cases:
        assert case.tools == cases[0].tools
        tool = next(tool for tool in case.tools if tool.name == case.golds[0].name)
        assert case.query.endswith(tool.description)
        assert tuple(case.golds[0].arguments) == tuple(tool.parameters)


@given(seed=st.integers(0, 10_000), cell=st.sampled_from(CELLS))
def test_the_right_answer_is_right_at_every_level_and_fits(seed, cell):
    case = disturb(episode(seed)[0], *cell, seed=seed, rules=world.RULES).case
    tokens = world.answer_tokens(case.golds[0])
    assert len(tokens) <= world.MAX_ANSWER_TOK
    text = world.answer_text(tokens)
    assert read_react(text, strict=True).name == case.golds[0].name
    graded = grade(case, Answer(text))
    assert graded.fixed == graded.official == (True, True, True)


@given(seed=st.integers(0, 10_000), cell=st.sampled_from(CELLS))
def test_names_follow_by_place_as_the_noise_itself_renames_calls(seed, cell):
    cases = episode(seed)
    noised = disturb(cases[0], *cell, seed=seed, rules=world.RULES)
    for case in cases:
        renamed = world.rename_by_place(case, noised.case)
        assert renamed.golds == (rename_call(case.golds[0], noised.changes),)
        assert list(renamed.golds[0].arguments.values()) == list(case.golds[0].arguments.values())
        assert renamed.clean == case
    assert world.rename_by_place(cases[0], noised.case) == noised.case


@pytest.mark.parametrize("level", NOISY_LEVELS)
def test_the_clean_name_counts_as_noise_correction_where_it_is_gone(level):
    half = HALVES[level][0]
    for seed in range(5):
        case = disturb(episode(seed)[0], level, half, rules=world.RULES).case
        old = case.clean.golds[0].name
        call = Call(old, case.golds[0].arguments)
        error = grade(case, Answer(world.answer_text(world.answer_tokens(call)))).error
        gone = old not in {tool.name for tool in case.tools}
        assert error == ("corrected_tool" if gone else "swapped_tool")


@given(st.lists(st.sampled_from((*world.WORDS, world.END, "<unk>", "<pad>")), max_size=30))
def test_whatever_a_model_writes_gets_a_grade(tokens):
    case = episode(0)[0]
    graded = grade(case, Answer(world.answer_text(tokens)))
    assert graded.error in KINDS
    assert graded.fixed.cf == (graded.error == "correct")


@pytest.mark.parametrize(
    ("tokens", "error"),
    [
        ("f i h o k <parameter> c i b = paris", "correct"),
        ("f i h o k <parameter> c i b = paris paris", "wrong_value"),
        ("f i h o k <parameter> c i b paris", "format"),
        ("f i h o k", "missing_key"),
        ("f i h o k <parameter> c i = paris", "missing_key"),
        ("s e l e t <parameter> c i b = paris", "swapped_tool"),
        ("f i h o <parameter> c i b = paris", "invented_tool"),
        ("", "format"),
    ],
)
def test_broken_answers_by_hand(hotel, tokens, error):
    assert grade(hotel, Answer(world.answer_text(tokens.split()))).error == error


@pytest.mark.parametrize("seed", range(5))
def test_repeated_strings_are_what_can_be_known(seed):
    tokens, known = world.draw_records(random.Random(seed), 4)
    assert len(tokens) == len(known)
    words = " ".join(f"[{token}]" if token == world.STRING else token for token in tokens).split(
        "[<string>]"
    )
    strings = ["".join(part.split()[: -2 if i < 8 else None]) for i, part in enumerate(words)][1:]
    assert sorted(strings[:4]) == sorted(strings[4:])
    learnt = "".join(token for token, can in zip(tokens, known, strict=True) if can)
    assert learnt == "".join(strings[4:])


def test_hashes_are_of_content():
    first, second = episode(0)[:2]
    assert world.content_hash(world.prompt_tokens(first)) == world.content_hash(
        world.prompt_tokens(episode(0)[0])
    )
    assert world.content_hash(world.prompt_tokens(first)) != world.content_hash(
        world.prompt_tokens(second)
    )
