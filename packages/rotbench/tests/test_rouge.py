"""Rouge-L against a table filled in by hand, and against its definition."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rotbench.rouge import Pool, lcs_length, rouge_l, words

SEQUENCES = st.lists(st.sampled_from("abcd"), max_size=12)


def by_table(first, second):
    """The textbook's table, cell by cell."""
    table = [[0] * (len(second) + 1) for _ in range(len(first) + 1)]
    for i, a in enumerate(first):
        for j, b in enumerate(second):
            table[i + 1][j + 1] = (
                table[i][j] + 1 if a == b else max(table[i][j + 1], table[i + 1][j])
            )
    return table[-1][-1]


@given(SEQUENCES, SEQUENCES)
def test_the_bits_agree_with_the_table(first, second):
    assert lcs_length(first, second) == by_table(first, second)


def test_a_subsequence_longer_than_a_machine_word():
    first = [str(i % 7) for i in range(200)]
    second = [str(i % 5) for i in range(150)]
    assert lcs_length(first, second) == by_table(first, second)


def test_an_example_by_hand():
    # police killed the gunman / police kill the gunman: 3 words in common, 4 + 4 words
    assert rouge_l("Police killed the gunman", "police kill the gunman.") == pytest.approx(0.75)


@given(st.text(max_size=30), st.text(max_size=30))
def test_it_is_symmetric_and_bounded(first, second):
    score = rouge_l(first, second)
    assert score == rouge_l(second, first)
    assert 0.0 <= score <= 1.0


@given(st.text(max_size=40))
def test_a_text_is_itself_unless_it_has_no_words(text):
    assert rouge_l(text, text) == (1.0 if words(text) else 0.0)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Book_a flight, NOW!", ["book", "a", "flight", "now"]),
        ("price in €: 12.5", ["price", "in", "12", "5"]),
        ("東京の天気", ["東", "京", "の", "天", "気"]),
        ("Überraschung naïve", ["überraschung", "naïve"]),
        ("погода завтра", ["погода", "завтра"]),
        ("...", []),
    ],
)
def test_words(text, expected):
    assert words(text) == expected


@given(st.lists(st.text("ab cd", max_size=12), max_size=8), st.text("ab cd", max_size=12))
def test_a_pool_finds_the_nearest_of_all(texts, text):
    near = Pool(texts).nearest(text)
    scores = [rouge_l(text, other) for other in texts]
    assert near.score == max(scores, default=0.0)
    assert near.text == (texts[scores.index(max(scores))] if texts else None)


def test_a_pool_grows():
    pool = Pool(["find a flight to Rome"])
    assert pool.nearest("translate this text").score < 0.5
    pool.add("translate this text")
    assert pool.nearest("Translate this text!").score == 1.0
