"""Whatever way a model writes its list, the queries come out."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rotbench.query_list import MAX_CHARS, read_queries

A = "Book a table for two in Lyon."
B = 'Find the film "Alien (1979)" for tonight.'

WAYS = {
    "numbers": f"1. {A}\n2. {B}",
    "brackets": f"(1) {A}\n(2) {B}",
    "round": f"1) {A}\n\n2) {B}\n",
    "dashes": f"- {A}\n- {B}",
    "stars": f"* {A}\n* {B}",
    "words": f"Query 1: {A}\nQuery 2: {B}",
    "quotes": f'1. "{A}"\n2. “{B}”',
    "bold": f"1. **{A}**\n2. **{B}**",
    "talk": f"Sure, here are two new requests:\n\n1. {A}\n2. {B}\n\nTell me if you want more!",
    "wrapped": f"1. Book a table\n   for two in Lyon.\n2. {B}",
    "lines": f"Here you are:\n{A}\n{B}",
    "json": json.dumps([A, B]),
    "fenced": f"Here:\n```json\n{json.dumps([A, B], indent=2)}\n```\nDone.",
    "objects": json.dumps({"queries": [{"id": 1, "query": A}, {"id": 2, "query": B}]}),
    "torn": json.dumps([A, B])[:-1] + ', "Write a letter to the tax of',
    "repeated": f"1. {A}\n2. {B}\n3. {A}",
    "too-short": f"1. {A}\n2. Hello\n3. {B}",
    "too-long": f"1. {A}\n2. {'word ' * MAX_CHARS}\n3. {B}",
}


@pytest.mark.parametrize("text", WAYS.values(), ids=WAYS)
def test_a_way_to_write_a_list(text):
    assert read_queries(text) == [A, B]


def test_the_end_of_a_cut_reply_is_left_out():
    assert read_queries(f"1. {A}\n2. {B}\n3. Write a letter to", complete=False) == [A, B]
    assert read_queries(f"1. {A}\n2. {B}\n3. Write a letter to") == [A, B, "Write a letter to"]


def test_other_scripts_need_no_spaces():
    assert read_queries("1. 明日の東京の天気を教えて") == ["明日の東京の天気を教えて"]


@pytest.mark.parametrize("text", ["", "\n\n", "1.", "[]", "```", "I cannot help:", "[" * 50_000])
def test_there_may_be_none(text):
    assert read_queries(text) == []


@given(st.text(max_size=300))
def test_any_text_gives_clean_queries(text):
    for query in read_queries(text):
        assert query == " ".join(query.split())
        assert 0 < len(query) <= MAX_CHARS
