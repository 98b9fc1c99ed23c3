from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r3.numbers import MAX_LENGTH, number_text, parse_number

READ = [
    ("18", 18),
    ("  18  ", 18),
    ("+18", 18),
    ("-18", -18),
    ("−18", -18),  # the sign of mathematics
    ("- 18", -18),
    ("0", 0),
    ("007", 7),
    ("1,234", 1234),
    ("1,234,567.89", Fraction(123456789, 100)),
    ("1 234", 1234),
    ("1\u202f234\u202f567", 1234567),
    ("1{,}234", 1234),
    ("3.5", Fraction(7, 2)),
    (".5", Fraction(1, 2)),
    ("5.", 5),
    ("18.00", 18),
    ("$18", 18),
    ("-$18.50", Fraction(-37, 2)),
    ("$-5", -5),
    ("€ 5", 5),
    ("5 €", 5),
    (r"\$18", 18),
    ("50%", 50),  # the sign is a unit
    (r"50\%", 50),
    ("3/4", Fraction(3, 4)),
    ("-3 / 4", Fraction(-3, 4)),
    ("10/4", Fraction(5, 2)),
    ("1 1/2", Fraction(3, 2)),
    ("-1 1/2", Fraction(-3, 2)),
    (r"\frac{3}{4}", Fraction(3, 4)),
    (r"-\dfrac{3}{4}", Fraction(-3, 4)),
    (r"1\frac{1}{2}", Fraction(3, 2)),
    ("1e3", 1000),
    ("1.5E-2", Fraction(3, 200)),
    ("2e5 people", 200000),
    ("18 dollars", 18),
    ("18 eggs per day.", 18),
    ("18 miles/hour", 18),
    ("18kg", 18),
    ("18, she said", 18),
    ("5 million dollars", 5_000_000),
    ("2.5 thousand", 2500),
    (r"\boxed{18}", 18),
    (r"$\boxed{18\text{ eggs}}$", 18),
    ("**18**.", 18),
    ("`18`", 18),
    ("(18)", 18),
    (r"\(18\)", 18),
    ("18k", 18_000),
    ("$18.5K per year", 18_500),
    ("18k/year", 18_000),
    ("18 k", 18),  # apart it is a unit
    ("18 m", 18),
    ("18 km", 18),
    ("18 meters", 18),
    ("18cm", 18),
    ("18mm", 18),
    ("18Kč", 18),
    ("5million", 5_000_000),
    ("5-million", 5_000_000),
    (r"5\text{ million}", 5_000_000),
    ("about 18", 18),
    ("Approximately $1,234.50.", Fraction(2469, 2)),
    ("around 18 eggs", 18),
    ("roughly -18", -18),
    ("about $5 million", 5_000_000),
    ("~18", 18),
    ("≈ 18", 18),
    ("= 18", 18),
    ("x=18", 18),
    ("x = -18", -18),
    ("$x = 18$", 18),
    ("x ≈ 18", 18),
    ("x = about 18", 18),
    ("18 = 9*2", 18),
    ("18 = 9 * 3", 18),  # the number is what is stated; nothing is worked out again
    ("18 eggs = $9 + $9.", 18),
    ("18 = (20 - 2) / 1", 18),
    ("18 = 1,000 − 982.0", 18),
    (r"x = 18 = 9 \times 2", 18),
    ("18 = 9 x -2", 18),
]


@pytest.mark.parametrize(("text", "value"), READ)
def test_number_is_read(text, value):
    assert parse_number(text) == value


NOT_READ = [
    "",
    " ",
    "-",
    "$",
    ".",
    "eggs",
    "18m",  # million or metres
    "18M",
    "$18b",
    "$18bn",
    "18t",
    "18m/s",
    "18k2",
    "18k-20k",
    "about",
    "x =",
    "about 5 or 6",
    "not about 18",
    "x = 18 or x = 19",
    "xy = 18",
    "==18",
    "18 = 19",  # a second number
    "18 = 9*2 = 18",
    "18 = 9*2, 19",
    "18 = 9*y",
    "18 = 9**2",
    "18 =",
    "18 = +",
    "9*2 = 18",
    "1,2",
    "1,2345",
    "12,34,567",
    "0,123",
    "1.234.567",
    "1 23",
    "5 6 7",
    "5 or 6",
    "18 eggs in 3 days",
    "1/0",
    r"\frac{1}{0}",
    "1 5/2",
    "3/4/5",
    "12:30",
    "--5",
    "5-3",
    "5 + x",
    "9*x",
    "9**9**9",
    "2^10",
    "10 = x",
    "1e101",
    "1e-101",
    "1e1000",
    "nan",
    "NaN",
    "inf",
    "-Infinity",
    "１８",  # digits other than 0 to 9 are refused
    "١٨",
    "½",
    "5½",
    "5²",
    "9" * 101,
    "1" + " x" * MAX_LENGTH,
]


@pytest.mark.parametrize("text", NOT_READ)
def test_what_is_no_single_number_is_refused(text):
    assert parse_number(text) is None


def test_decimals_are_exact():
    assert parse_number("0.1") == Fraction(1, 10)
    assert parse_number("0." + "3" * 90) == Fraction(int("3" * 90), 10**90)


@given(st.text(max_size=2 * MAX_LENGTH))
def test_no_text_raises(text):
    parse_number(text)


@given(st.text(alphabet="0123456789 ,./-+−$%eE\\frac{}()*^", max_size=60))
def test_nothing_made_of_number_signs_raises(text):
    found = parse_number(text)
    assert found is None or Fraction(number_text(found)) == found


@given(st.integers(min_value=-(10**50), max_value=10**50))
def test_integers_come_back(value):
    assert parse_number(str(value)) == value
    assert parse_number(f"{value:,}") == value
    assert parse_number(f"{value:,}".replace(",", " ")) == value
    assert parse_number(f"**${value}**.") == value
    assert parse_number(f"${value} per day.") == value


@given(st.decimals(allow_nan=False, allow_infinity=False, places=6, max_value=10**20))
def test_decimals_come_back(value):
    assert parse_number(format(value, "f")) == Fraction(value)


@given(st.fractions(max_denominator=10**12))
def test_one_text_for_each_value(value):
    text = number_text(value)
    assert parse_number(text) == value
    assert Fraction(text) == value


def test_text_of_a_number_is_plain():
    assert number_text(Fraction(18)) == "18"
    assert number_text(Fraction(-5, 2)) == "-2.5"
    assert number_text(Fraction(1, 40)) == "0.025"
    assert number_text(Fraction(1, 3)) == "1/3"


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "piece", ["1", "1,", "1,234,", " 1", "1/", "\\frac{", "$", "-", "{", "(", "**", "e1", ".", " "]
)
def test_hostile_texts_are_left_at_once(piece):
    for text in (piece * 100_000, "1" + piece * (MAX_LENGTH // len(piece)) + "!"):
        value = parse_number(text)
        assert value is None or len(text) <= MAX_LENGTH, "longer ones are not read"


@pytest.mark.timeout(20)
@pytest.mark.parametrize("piece", ["9+", "$9+", " 9 -", "-$9-", "(9)*", "%+9", "x9", "9,999+"])
def test_hostile_sums_behind_a_number_are_left_at_once(piece):
    text = f"18 = {piece * 100}"[:190]
    assert parse_number(f"{text}!") is None
    assert parse_number(f"18 = {piece * 100_000}") is None


@given(st.integers(0, 10**6), st.text(alphabet="0123456789+-*/() =xk.,$", max_size=40))
def test_what_stands_behind_never_changes_a_number(value, behind):
    found = parse_number(f"{value} = {behind}")
    assert found is None or found == value
