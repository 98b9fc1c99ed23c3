"""Joining rationales: the example whose two texts both stand in an instruction."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r3 import rationales
from r3.rationales import Finder, belongs

PAIRS = [
    ("A dog runs in the big park.", "An animal moves."),
    ("A dog runs in the big park.", "An animal moves quickly."),
    ("A dog runs in the big park.", "A cat sleeps."),
    ("Hi.", "He said hi."),
    None,
    ("It rains.", "..."),
]


@pytest.mark.parametrize(
    ("instruction", "place"),
    [
        ('If "A dog runs in the big park.", does this mean that "An animal moves."?', 0),
        ('If "A dog runs in the big park.", is it true: "An animal moves quickly"?', 1),
        ("Hypothesis: a CAT sleeps\nPremise:  A dog\nruns in the big park!", 2),
        ("Premise: Hi. Hypothesis: He said hi.", 3),
        ("Premise: A dog runs in the big park. Hypothesis: It flies.", None),
        ("Premise: A big dog runs in the park. Hypothesis: An animal moves.", None),
        ("It rains.", None),
        ("", None),
    ],
)
def test_texts_are_found_whatever_stands_around(instruction, place):
    assert Finder(PAIRS).find(instruction) == place


def test_the_longest_texts_win_in_any_order():
    pairs = [("It rains.", "A man walks in the rain."), ("It rains.", "A man walks.")]
    instruction = "Premise: It rains. Hypothesis: A man walks in the rain."
    longer = [*pairs, ("Premise: It rains.", "A man")]
    assert Finder(pairs).find(instruction) == 0
    assert Finder(pairs[::-1]).find(instruction) == 1
    assert Finder(longer).find(instruction) == 0


def test_a_second_text_within_the_first_alone_does_not_count():
    assert Finder([("a man and a dog run", "a dog")]).find("If a man and a dog run, so?") is None
    assert Finder([("a man and a dog run", "a dog")]).find("A dog. A man and a dog run.") == 0


def test_an_article_that_was_cut_short_is_found_by_its_beginning():
    article = " ".join(f"word{number}" for number in range(500))
    short = " ".join(article.split()[: rationales.LONGEST])
    finder = Finder([(article, "What is it?")])
    assert finder.find(f"Article: {short}... Question: What is it?") == 0
    assert finder.find(f"Article: {short[:-4]} Question: What is it?") is None


WORDS = st.lists(st.sampled_from(["ab", "cd", "ef", "gh"]), min_size=1, max_size=8).map(" ".join)


@given(st.lists(st.tuples(WORDS, WORDS), max_size=6), WORDS)
def test_it_finds_what_a_search_of_everything_finds(pairs, instruction):
    def within(part, text):
        return f" {part} " in f" {text} "

    def holds(first, second):
        words, length = instruction.split(), len(first.split())
        places = range(len(words) - length + 1)
        return any(
            " ".join(words[at : at + length]) == first
            and (
                within(second, " ".join(words[:at]))
                or within(second, " ".join(words[at + length :]))
            )
            for at in places
        )

    sizes = [len(f"{a} {b}".split()) if holds(a, b) else 0 for a, b in pairs]
    found = Finder(pairs).find(instruction)
    best = max(sizes, default=0)
    assert (0 if found is None else sizes[found]) == best


@pytest.mark.parametrize(
    ("named", "task", "right"),
    [
        ("snli", "snli", True),
        ("esnli", "snli", True),
        ("glue/mnli:2.0.0", "mnli", True),
        ("mnli", "snli", False),
        ("race_high", "race-high", True),
        ("race_high", "race-middle", False),
        ("RACE", "race-middle", True),
        ("boolq", "race-high", False),
    ],
)
def test_names_of_tasks_in_cot_collection(named, task, right):
    assert belongs(named, task) is right
