"""Statements of the answer at the end of demonstrations: found, cut off, their place given."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r3.statements import Split, bare, split_statements, without_annotations
from r3.tasks import TASKS, read_answer


def split(text, task="gsm8k"):
    return split_statements(text, read=lambda stated: read_answer(TASKS[task], stated))


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("48/2 = <<48/2=24>>24 clips", "48/2 = 24 clips"),
        ("<<1+1=2>>2 and <<2+2=4>>4", "2 and 4"),
        ("x << y and y >> z", "x << y and y >> z"),
        ("<<1\n=2>>", "<<1\n=2>>"),
        (f"<<{'1' * 201}=>>", f"<<{'1' * 201}=>>"),
    ],
)
def test_annotations_of_the_calculator_go(text, plain):
    assert without_annotations(text) == plain


@pytest.mark.parametrize(
    ("text", "task", "body", "stated"),
    [
        ("He has 18.\n#### 18", "gsm8k", "He has 18.", ("18",)),
        ("He has 18. #### 18", "gsm8k", "He has 18.", ("18",)),
        ("He has 18.\nThe answer is 18.", "gsm8k", "He has 18.", ("18",)),
        ("He has 18. So, the final answer is: $18.", "gsm8k", "He has 18.", ("$18",)),
        ("He has 18.\nThe answer is 18.\n#### 18", "gsm8k", "He has 18.", ("18", "18")),
        ("#### 18", "gsm8k", "", ("18",)),
        ("He has 18.", "gsm8k", "He has 18.", ()),
        ("####", "gsm8k", "####", ()),
        ('It says so. So the answer is "yes". ### yes', "snli", "It says so.", ("yes", "yes")),
        ("It fits.\nSo, the answer is (B). ### B", "race-high", "It fits.", ("B", "B")),
        ("Hence the answer to this question is no.", "snli", "", ("no",)),
    ],
)
def test_what_only_states_the_answer_is_cut_off(text, task, body, stated):
    assert split(text, task) == Split(body, stated)


def test_a_last_sentence_that_also_argues_stays_and_its_place_is_given():
    text = 'We know A. So "B" is disproved and the answer is "no". #### disproved'
    found = split(text, "boardgame")
    assert found.stated == ("disproved", "no")
    assert found.body == 'We know A. So "B" is disproved and the answer is "no".'
    assert found.body[found.inside :] == 'So "B" is disproved and the answer is "no".'


def test_the_answer_may_stand_before_the_word():
    found = split('A cat is no dog. Hence, "no" would be the correct answer.', "snli")
    assert (found.stated, found.body[found.inside :]) == (
        ("no",),
        'Hence, "no" would be the correct answer.',
    )


def test_a_sentence_that_states_no_answer_is_none():
    text = "It is odd. The answer is not easy to find."
    assert split(text) == Split(text)


def test_one_sentence_without_an_end_is_all_in_the_statement():
    assert split("As it rains the answer is yes", "snli").inside == 0


def test_bare_takes_off_what_stands_around():
    assert bare(' **"(B)."** ') == "B"
    assert bare("-5.") == "-5"


@given(st.text(alphabet="#<>= 18a.\n\"'answeri", max_size=300))
def test_any_text_is_read_and_nothing_is_added(text):
    found = split(text)
    assert found.body in without_annotations(text)
    assert found.inside is None or 0 <= found.inside <= len(found.body)


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    "part", ["#### 1\n", "the answer is ", "<<", "answer is 1. ", '"a" is the answer ', "\n \n"]
)
def test_a_hostile_text_ends(part):
    assert len(split(part * (60_000 // len(part))).body) <= 60_000
