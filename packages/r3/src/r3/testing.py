r"""Data for tests: word problems of our own wording in the layout that GSM8K was released in.

    path = write_gsm8k(tmp_path / "train.jsonl", 50, seed=0)

    path = write_gsm8k_programs(tmp_path / "train.jsonl", 50, seed=0)

No torch here.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import TypeAlias

__all__ = ["gsm8k_programs", "gsm8k_rows", "write_gsm8k", "write_gsm8k_programs"]

_NAMES = ("Ada", "Bela", "Chidi", "Dara", "Emre", "Farah", "Goran", "Hana", "Imani", "Jonas")
_THINGS = ("tiles", "stamps", "bolts", "seeds", "bricks", "buttons", "pencils", "shells")

Step: TypeAlias = tuple[str, str, Fraction]
"""A sentence of the question, a line of the rationale, the value after it."""


def write_gsm8k(path: Path, n: int, seed: int = 0) -> Path:
    """Writes `n` different problems as JSON lines with `question` and `answer`.

    Rationales have 2 to 7 lines with calculator annotations, and behind them the line `#### 1,234`.
    Some answers have thousands commas, some are negative, some are decimal fractions.

    Returns:
        The path.
    """
    return _write(path, gsm8k_rows(n, seed))


def write_gsm8k_programs(path: Path, n: int, seed: int = 0) -> Path:
    """Writes the same problems with programs, in the layout of ReFT and the official samples.

    Fields are `item_id`, `question`, `answer_cot` and `answer_value`; a program has the question in
    the docstring of `solution`, and returns its `result`.

    Returns:
        The path.
    """
    return _write(path, gsm8k_programs(n, seed))


def gsm8k_programs(n: int, seed: int = 0) -> list[dict[str, str]]:
    """The same as rows."""
    return [_with_program(number, row) for number, row in enumerate(gsm8k_rows(n, seed))]


def gsm8k_rows(n: int, seed: int = 0) -> list[dict[str, str]]:
    """The same as rows; a larger `n` with the same seed begins with the same rows."""
    rng = random.Random(f"r3 gsm8k {seed}")
    rows: dict[str, dict[str, str]] = {}
    kinds: tuple[Callable[[random.Random], dict[str, str]], ...] = (_stock, _warmth, _purse)
    while len(rows) < n:
        row = kinds[len(rows) % len(kinds)](rng)
        rows.setdefault(row["question"], row)
    return list(rows.values())


def _write(path: Path, rows: Sequence[dict[str, str]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def _with_program(number: int, row: dict[str, str]) -> dict[str, str]:
    """The calculations of a rationale, one in a line."""
    work, gold = row["answer"].split("\n#### ")
    sums = re.findall(r"<<(.*?)=", work)
    body = [f"value_{place} = {sum_}" for place, sum_ in enumerate(sums)]
    body += [f"result = value_{len(sums) - 1}", "return result"]
    head = ["def solution():", f'    """{row["question"]}"""']
    return {
        "item_id": f"gsm8k_{number}",
        "question": row["question"],
        "answer_cot": "\n".join([*head, *(f"    {line}" for line in body)]),
        "answer_value": gold.replace(",", ""),
    }


def _stock(rng: random.Random) -> dict[str, str]:
    """A store that fills and empties: whole numbers, often above a thousand."""
    name, thing = rng.choice(_NAMES), rng.choice(_THINGS)
    value = Fraction(rng.randint(2, 1500))
    said = [f"{name} has {_plain(value)} {thing}."]
    shown: list[str] = []
    for _ in range(rng.randint(2, 7)):
        sentence, line, value = _stock_step(rng, name, thing, value)
        said.append(sentence)
        shown.append(line)
    said.append(f"How many {thing} does {name} have now?")
    return _row(said, shown, value)


def _stock_step(rng: random.Random, name: str, thing: str, value: Fraction) -> Step:
    kind = rng.choice(("buy", "give", "double"))
    if kind == "double" and value < 5000:
        after = value * 2
        line = f"{name} then has {_work(value, '*', Fraction(2), after)} {thing}."
        return f"A delivery doubles that number of {thing}.", line, after
    if kind == "give" and value > 10:
        change = Fraction(rng.randint(1, int(value) - 1))
        after = value - change
        line = f"There remain {_work(value, '-', change, after)} {thing}."
        return f"Then {name} gives {_plain(change)} {thing} away.", line, after
    boxes, each = Fraction(rng.randint(2, 12)), Fraction(rng.randint(2, 60))
    more = boxes * each
    line = (
        f"The boxes hold {_work(boxes, '*', each, more)} {thing}, "
        f"which makes {_work(value, '+', more, value + more)} {thing}."
    )
    sentence = f"Next come {_plain(boxes)} boxes with {_plain(each)} {thing} in each."
    return sentence, line, value + more


def _warmth(rng: random.Random) -> dict[str, str]:
    """A thermometer: whole numbers that may fall below zero."""
    place = f"{rng.choice(_NAMES)}'s garden"
    value = Fraction(rng.randint(-9, 12))
    said = [f"At dawn it is {_plain(value)} degrees in {place}."]
    shown: list[str] = []
    for hour in range(1, 1 + rng.randint(2, 6)):
        change = Fraction(rng.randint(1, 9))
        up = rng.random() < 0.4
        after = value + change if up else value - change
        verb = "rises" if up else "falls"
        said.append(f"In hour {hour} the temperature {verb} by {_plain(change)} degrees.")
        work = _work(value, "+" if up else "-", change, after)
        shown.append(f"After hour {hour} it is {work} degrees.")
        value = after
    said.append(f"How many degrees is it in {place} at the end?")
    return _row(said, shown, value)


def _purse(rng: random.Random) -> dict[str, str]:
    """Money: quarters and halves."""
    name, thing = rng.choice(_NAMES), rng.choice(_THINGS)
    count = Fraction(rng.randint(2, 900))
    price = Fraction(rng.randint(1, 40), 4)
    total = count * price
    fee = Fraction(rng.randint(1, 30), 2)
    each, extra = _plain(price), _plain(fee)
    said = [f"{name} buys {_plain(count)} {thing} at ${each} each and has them sent for ${extra}."]
    shown = [
        f"The {thing} cost {_work(count, '*', price, total)} dollars.",
        f"With the delivery that is {_work(total, '+', fee, total + fee)} dollars.",
    ]
    value = total + fee
    for day in range(1, 1 + rng.randint(0, 5)):
        back = Fraction(rng.randint(1, 8), 4)
        said.append(f"On day {day} a friend pays ${_plain(back)} of it back.")
        work = _work(value, "-", back, value - back)
        shown.append(f"After day {day} the cost is {work} dollars.")
        value -= back
    said.append(f"How many dollars does {name} pay in the end?")
    return _row(said, shown, value)


def _row(said: list[str], shown: list[str], value: Fraction) -> dict[str, str]:
    return {"question": " ".join(said), "answer": "\n".join([*shown, f"#### {_comma(value)}"])}


def _work(left: Fraction, sign: str, right: Fraction, result: Fraction) -> str:
    """`48 / 2 = <<48/2=24>>24`, as GSM8K writes a calculation."""
    a, b, c = _plain(left), _plain(right), _plain(result)
    return f"{a} {sign} {b} = <<{a}{sign}{b}={c}>>{c}"


def _plain(value: Fraction) -> str:
    return str(int(value)) if value.denominator == 1 else f"{float(value):.2f}"


def _comma(value: Fraction) -> str:
    return f"{int(value):,}" if value.denominator == 1 else f"{float(value):,.2f}"
