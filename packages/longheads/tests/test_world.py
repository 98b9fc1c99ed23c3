import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from longheads import world
from longheads.world import Layout


def rng(seed=0):
    return np.random.default_rng(seed)


@st.composite
def layouts(draw):
    facts = draw(st.integers(1, 16))
    questions = draw(st.integers(1, 20))
    repeats = draw(st.integers(1, 3))
    noise = draw(st.integers(0, 60))
    return Layout(2 * (facts * repeats + questions) + noise, facts, questions, repeats)


def read_facts(ids, layout):
    """All runs of facts in the body of a document, as (start, key, value)."""
    found, place = [], 0
    while place < layout.body:
        if ids[place] < world.FIRST_KEY:
            place += 1
            continue
        fact = list(ids[place : place + 2])
        assert list(ids[place : place + layout.fact_tok]) == fact * layout.repeats
        found.append((place, *fact))
        place += layout.fact_tok
    return found


def test_the_vocabulary_is_three_times_sixteen_short_words():
    assert len(set(world.WORDS)) == len(world.WORDS) == 48
    assert all(re.fullmatch("[a-z]{3,5}", word) for word in world.WORDS)
    assert world.WORDS[world.FIRST_KEY] == "fox"
    assert world.WORDS[world.FIRST_VALUE] == "plum"


@given(layouts(), st.integers(0, 2**32))
def test_every_document_is_noise_facts_and_questions_that_the_facts_answer(layout, seed):
    documents = world.write_documents(rng(seed), 3, layout)
    assert documents.ids.shape == (3, layout.length)
    for ids, needles, values in zip(
        documents.ids, documents.needles, documents.values, strict=True
    ):
        facts = read_facts(ids, layout)
        assert len(facts) == layout.facts
        assert len({key for _, key, _ in facts}) == layout.facts
        where = {key: (start, value) for start, key, value in facts}
        for question, place in enumerate(layout.answers):
            start, value = where[ids[place - 1]]
            assert world.FIRST_KEY <= ids[place - 1] < world.FIRST_VALUE <= value
            assert ids[place] == value
            assert needles[question] == start
            assert [ids[p] for p in values[question]] == [value] * layout.repeats


def test_each_fact_is_asked_at_most_once_when_there_are_enough():
    layout = Layout(64, facts=4, questions=4)
    documents = world.write_documents(rng(), 50, layout)
    asked = documents.ids[:, layout.answers - 1]
    assert all(len(set(row)) == 4 for row in asked)


def test_facts_lie_anywhere_in_the_body():
    layout = Layout(13, facts=1, questions=1)
    starts = world.write_documents(rng(), 2000, layout).needles[:, 0]
    counts = np.bincount(starts, minlength=10)
    assert len(counts) == 10
    assert counts.min() > 140  # 200 expected, standard deviation 13


def test_keys_and_values_are_uniform():
    layout = Layout(256, facts=4, questions=4)
    documents = world.write_documents(rng(), 1000, layout)
    answers = documents.ids[:, layout.answers] - world.FIRST_VALUE
    keys = documents.ids[:, layout.answers - 1] - world.FIRST_KEY
    for drawn in (answers, keys):
        counts = np.bincount(drawn.ravel(), minlength=16)
        assert len(counts) == 16
        assert counts.min() > 180  # 250 expected, standard deviation 15


def test_a_document_by_hand():
    layout = Layout(8, facts=1, questions=1, repeats=3)
    documents = world.write_documents(rng(), 1, layout)
    assert layout.noise == 0
    assert list(layout.answers) == [7]
    key, value = documents.ids[0, :2]
    assert list(documents.ids[0]) == [key, value] * 4
    assert documents.needles.tolist() == [[0]]
    assert documents.values.tolist() == [[[1, 3, 5]]]
    assert documents.depths.tolist() == [[0.0]]
    words = [world.WORDS[key], world.WORDS[value]]
    assert world.to_text(documents.ids[0]) == " ".join(words * 4)


def test_the_same_seed_writes_the_same_documents():
    layout = Layout(64)
    first, again = (world.write_documents(rng(3), 5, layout) for _ in range(2))
    other = world.write_documents(rng(4), 5, layout)
    assert np.array_equal(first.ids, again.ids)
    assert not np.array_equal(first.ids, other.ids)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"length": 23, "facts": 4, "questions": 4, "repeats": 2}, "it needs 24"),
        ({"length": 99, "facts": 17}, "facts=17 is not between 1 and 16"),
        ({"length": 99, "facts": 0}, "facts=0"),
        ({"length": 99, "questions": 0}, "at least one question"),
        ({"length": 99, "repeats": 0}, "at least one question, a fact one repeat"),
    ],
)
def test_a_layout_that_cannot_be_written_is_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Layout(**settings)


def test_copies_say_the_same_twice():
    copies = world.write_copies(rng(), 100, 9)
    assert copies.shape == (100, 18)
    assert np.array_equal(copies[:, :9], copies[:, 9:])
    assert copies.min() == 0
    assert copies.max() == 47


def test_an_example_ends_with_a_question_whose_answer_is_in_its_text():
    example = world.write_example(seed=1, length=8000)
    words = example.text.split(" ")
    assert len(words) == 8000
    assert words[-1] in world.KEYS
    first = words.index(words[-1])
    assert words[first : first + 4] == [words[-1], example.answer] * 2
    assert words.count(words[-1]) == 3
    assert example.depth == first / 7999
    assert example == world.write_example(seed=1, length=8000)
    assert example != world.write_example(seed=2, length=8000)


def test_the_hash_is_of_the_content():
    ids = [0, 1, 47]
    assert world.to_text(ids) == "fen moss rice"
    assert world.content_hash(ids) == world.content_hash(np.array(ids))
    assert world.content_hash(ids) != world.content_hash([1, 0, 47])
    assert re.fullmatch("[0-9a-f]{16}", world.content_hash(ids))
