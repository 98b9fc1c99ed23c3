"""Accuracy, pass@k and majority of answers, against counting by hand."""

from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from papercore.stats import bootstrap_mean, wilson
from r3.eval_answers import Answer, Setup, read_answers, read_setup
from r3.eval_scores import (
    accuracy,
    majority,
    majority_accuracy,
    mean_length,
    pass_at,
    pass_at_k,
    powers,
)


def answers(*outcomes, question="q", draw=0):
    return [
        Answer(question, "1", draw, sample, parsed=parsed, correct=parsed == "1", tokens=sample + 1)
        for sample, parsed in enumerate(outcomes)
    ]


def test_one_answer_per_question_gives_a_wilson_interval():
    found = [
        one
        for name, said in zip("abcd", "1120", strict=True)
        for one in answers(said, question=name)
    ]
    assert accuracy(found) == wilson(2, 4)


def test_several_answers_per_question_are_drawn_by_question():
    found = [*answers("1", "1", question="a"), *answers("1", "2", question="b")]
    assert accuracy(found) == bootstrap_mean([1, 1, 1, 0], groups=["a", "a", "b", "b"])
    assert accuracy(found).n == 2
    assert accuracy(found).method == "clustered"


@pytest.mark.parametrize(("said", "num_right"), [("1", 5), ("2", 0)])
def test_an_interval_has_a_width_where_all_questions_agree(said, num_right):
    found = [
        one
        for name in "abcde"
        for draw in range(3)
        for one in answers(said, said, question=name, draw=draw)
    ]
    expected = wilson(num_right, 5)  # over questions, not over their 30 answers
    assert accuracy(found) == expected
    assert majority_accuracy(found) == expected
    assert [pass_at(found, k) for k in (1, 2)] == [expected, expected]


def test_questions_that_are_all_solved_half_the_time_are_not_known_to_be():
    found = [one for name in "abcde" for one in answers("1", "2", question=name)]
    assert accuracy(found).value == 0.5
    assert (accuracy(found).lo, accuracy(found).hi) == (wilson(2, 5).lo, wilson(3, 5).hi)
    assert accuracy(found).n == 5
    assert pass_at(found, 1) == accuracy(found)


def test_questions_that_do_not_agree_are_drawn():
    found = [*answers("1", "1", question="a"), *answers("2", "2", question="b")]
    assert pass_at(found, 1) == bootstrap_mean([1, 0], groups=["a", "b"])
    assert pass_at(found, 1).method == "clustered"


def test_pass_at_k_by_hand():
    assert pass_at_k(4, 2, 1) == pytest.approx(0.5)
    assert pass_at_k(4, 2, 2) == pytest.approx(1 - 1 / 6)  # one pair of six has no right one
    assert pass_at_k(4, 0, 4) == 0.0
    assert pass_at_k(4, 1, 4) == 1.0


@given(st.lists(st.booleans(), min_size=1, max_size=7), st.data())
def test_pass_at_k_is_the_share_of_subsets_that_hold_a_right_one(right, data):
    k = data.draw(st.integers(1, len(right)))
    subsets = list(combinations(right, k))
    expected = sum(any(one) for one in subsets) / len(subsets)
    assert pass_at_k(len(right), sum(right), k) == pytest.approx(expected)


def test_pass_at_k_leaves_questions_with_fewer_answers_out():
    found = [*answers("1", "2", question="a"), *answers("2", question="b")]
    assert pass_at(found, 2).n == 1
    assert pass_at(found, 2).value == 1.0
    assert pass_at(found, 1).value == pytest.approx(0.25)


def test_the_majority_is_the_most_frequent_readable_answer():
    assert majority(answers("1", "2", "1"))
    assert not majority(answers("2", "2", "1"))
    assert majority(answers(None, None, "1"))
    assert not majority(answers(None, None))
    assert majority(answers("1", "2"))  # of equally frequent ones the first
    assert not majority(answers("2", "1"))


def test_majorities_are_taken_within_a_draw():
    found = [*answers("1", "1", "2"), *answers("2", "2", "1", draw=1)]
    assert majority_accuracy(found).value == 0.5
    assert majority_accuracy(answers("1", "1", "2")) == wilson(1, 1)


def test_mean_length():
    assert mean_length(answers("1", "1", "1")).value == 2.0


def test_powers_end_in_the_number_itself():
    assert powers(1) == (1,)
    assert powers(8) == (1, 2, 4, 8)
    assert powers(6) == (1, 2, 4, 6)


def test_answers_and_setup_come_back_from_their_records():
    made = [*answers("1", None), Answer("x", "1", error="no room", finish="error")]
    setup = Setup("gsm8k", "dev", 3, "m", samples=2, temperature=0.7)
    records = [setup.record(), *(one.record() for one in made)]
    assert read_answers(records) == made
    assert read_setup(records) == setup
    assert records[-1].status == "error"
    assert len({record.id for record in records}) == 4
    assert read_setup([]) is None
