"""The noise operators against what the paper and the official generator say of them."""

import random
import string
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rotbench.operators import bound, made_up, medium, num_edits, sample, shuffled, slightly

LETTERS = string.ascii_letters
names = st.text(min_size=1, max_size=40)


@given(names, st.integers(0, 2**32), st.data())
def test_a_slight_change_is_one_operator_at_as_many_places_as_asked(name, seed, data):
    edits = data.draw(st.integers(1, len(name)))
    new, operator = slightly(random.Random(seed).random, name, edits, LETTERS)
    expected = {"insertion": edits, "omission": -edits, "substitution": 0}
    assert len(new) - len(name) == expected[operator]
    if operator == "insertion":
        assert new[-1] == name[-1], "never behind the last letter"
    if operator == "substitution":
        assert sum(a != b for a, b in zip(name, new, strict=True)) <= edits


def test_by_hand():
    draws = iter([0.0, 0.99, 0.5, 0.0, 0.0])  # places 0 and 2, substitution is 2/3 and above
    assert slightly(lambda: next(draws), "abc", 2, "xy") == ("b", "omission")
    draws = iter([0.4, 0.0, 0.6])  # place 1, insertion, second letter
    assert slightly(lambda: next(draws), "abc", 1, "xy") == ("aybc", "insertion")
    draws = iter([0.4, 0.9, 0.0])
    assert slightly(lambda: next(draws), "abc", 1, "xy") == ("axc", "substitution")


@pytest.mark.parametrize(
    ("length", "surely", "expected"),
    [
        (1, True, {1}),
        (3, True, {1}),
        (4, True, {1}),
        (9, True, {1, 2}),
        (10, True, {1, 2, 3}),
        (1, False, {0}),
        (3, False, {0}),
        (4, False, {0, 1}),
        (10, False, {0, 1, 2, 3}),
    ],
)
def test_number_of_edits_is_that_of_the_official_generator(length, surely, expected):
    draw = random.Random(3).random
    drawn = Counter(num_edits(draw, length, 1 / 3, surely=surely) for _ in range(2000))
    assert set(drawn) == expected
    for number in drawn.values():
        assert abs(number - 2000 / len(expected)) < 5 * (2000 / len(expected)) ** 0.5


def test_the_bound_is_a_third_rounded_up_for_every_length():
    assert [bound(n, 1 / 3) for n in range(3000)] == [-(-n // 3) for n in range(3000)]
    assert [bound(n, 0.1) for n in range(3000)] == [-(-n // 10) for n in range(3000)]


def test_medium_reverses_half_of_the_names_and_never_a_palindrome():
    draw = random.Random(1).random
    kinds = Counter(medium(draw, "get_weather", 10, LETTERS)[1] for _ in range(4000))
    assert abs(kinds["reversal"] - 2000) < 5 * 1000**0.5
    assert {medium(draw, "level", 10, LETTERS)[1] for _ in range(100)} == {"nonsense"}
    assert medium(lambda: 0.9, "abc", 10, LETTERS) == ("cba", "reversal")


def test_made_up_names_have_every_length_and_letter_equally_often():
    draw = random.Random(2).random
    made = [made_up(draw, 5, LETTERS) for _ in range(20_000)]
    for number in Counter(map(len, made)).values():
        assert abs(number - 4000) < 5 * 3200**0.5
    letters = Counter("".join(made))
    assert set(letters) == set(LETTERS)
    mean = sum(letters.values()) / 52
    assert all(abs(number - mean) < 6 * mean**0.5 for number in letters.values())


@given(st.integers(0, 30), st.data())
def test_a_sample_has_distinct_places(num, data):
    size = data.draw(st.integers(0, num))
    drawn = sample(random.Random(num).random, num, size)
    assert len(drawn) == size
    assert len(set(drawn) & set(range(num))) == size


def test_samples_and_orders_are_uniform():
    draw = random.Random(5).random
    pairs = Counter(frozenset(sample(draw, 5, 2)) for _ in range(10_000))
    orders = Counter("".join(shuffled(draw, "abcd")) for _ in range(24_000))
    assert len(pairs) == 10
    assert len(orders) == 24
    assert all(abs(number - 1000) < 5 * 900**0.5 for number in [*pairs.values(), *orders.values()])
