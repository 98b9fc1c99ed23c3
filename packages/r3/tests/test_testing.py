"""The problems that other tests train on: in GSM8K's layout, right, and the same for a seed."""

import json
import re
from fractions import Fraction

from r3.numbers import parse_number
from r3.testing import gsm8k_programs, gsm8k_rows, write_gsm8k, write_gsm8k_programs

ROWS = gsm8k_rows(300, seed=5)


def test_the_layout_is_that_of_the_release(tmp_path):
    path = write_gsm8k(tmp_path / "deep" / "a.jsonl", 7, seed=1)
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert rows == gsm8k_rows(7, seed=1)
    assert all(list(row) == ["question", "answer"] for row in rows)
    assert all(row["answer"].splitlines()[-1].startswith("#### ") for row in rows)


def test_every_calculation_is_right_and_the_last_one_is_the_answer():
    for row in ROWS:
        *lines, last = row["answer"].splitlines()
        worked = re.findall(r"<<(-?[\d.]+)([-+*])(-?[\d.]+)=(-?[\d.]+)>>(-?[\d.]+)", row["answer"])
        assert worked
        for left, sign, right, result, shown in worked:
            a, b = Fraction(left), Fraction(right)
            assert {"+": a + b, "-": a - b, "*": a * b}[sign] == Fraction(result)
            assert result == shown
        assert parse_number(last.removeprefix("#### ")) == Fraction(worked[-1][3])
        assert 2 <= len(lines) <= 7


def test_there_are_commas_negative_numbers_and_fractions():
    answers = [row["answer"].splitlines()[-1] for row in ROWS]
    for sign in (",", "-", "."):
        assert sum(sign in answer for answer in answers) > 20
    assert {len(row["answer"].splitlines()) for row in ROWS} == {3, 4, 5, 6, 7, 8}


def test_questions_differ_and_more_begin_with_the_same():
    assert len({row["question"] for row in ROWS}) == len(ROWS)
    assert gsm8k_rows(40, seed=5) == ROWS[:40]
    assert gsm8k_rows(40, seed=6) != ROWS[:40]


def test_programs_are_of_the_same_problems(tmp_path):
    path = write_gsm8k_programs(tmp_path / "deep" / "a.jsonl", 7, seed=5)
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert rows == gsm8k_programs(7, seed=5)
    for row, words in zip(rows, ROWS, strict=False):
        assert list(row) == ["item_id", "question", "answer_cot", "answer_value"]
        assert row["question"] == words["question"]
        assert parse_number(row["answer_value"]) == parse_number(words["answer"].split("#### ")[1])
        assert row["answer_cot"].splitlines()[-1] == "    return result"
