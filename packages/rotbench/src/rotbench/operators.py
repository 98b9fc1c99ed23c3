"""The seven noise operators, on single names: pure functions of a source of random numbers.

Paper 2401.08326, section on environments. Randomness is a function that returns a float in [0, 1),
such as `random.Random(7).random`: of all that `random` offers only this is promised to give the
same numbers in every version of Python, and it is the fastest.

    slightly(random.Random(7).random, "get_weather", 2, string.ascii_letters)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, TypeAlias, TypeVar, get_args

__all__ = [
    "OPERATORS",
    "Draw",
    "Operator",
    "below",
    "bound",
    "made_up",
    "medium",
    "num_edits",
    "sample",
    "shuffled",
    "slightly",
]

Operator: TypeAlias = Literal[
    "insertion",
    "omission",
    "substitution",
    "reversal",
    "nonsense",
    "exchange",
    "addendum",
    "casing",
]
"""What happened to a name. The paper has the first seven; `casing` is an extra of ours."""
OPERATORS: tuple[Operator, ...] = get_args(Operator)

Draw: TypeAlias = Callable[[], float]
"""Gives the next random number, uniform in [0, 1)."""

T = TypeVar("T")

_EDITS: tuple[Operator, ...] = ("insertion", "omission", "substitution")


def below(draw: Draw, num: int) -> int:
    """A uniform integer from 0 to num - 1."""
    return int(draw() * num)


def sample(draw: Draw, num: int, size: int) -> list[int]:
    """`size` distinct integers below `num`, uniformly."""
    places = list(range(num))
    for done in range(size):
        other = done + int(draw() * (num - done))
        places[done], places[other] = places[other], places[done]
    return places[:size]


def shuffled(draw: Draw, items: Sequence[T]) -> list[T]:
    """The items in a uniformly random order."""
    mixed = list(items)
    for last in range(len(mixed) - 1, 0, -1):
        other = int(draw() * (last + 1))
        mixed[last], mixed[other] = mixed[other], mixed[last]
    return mixed


def made_up(draw: Draw, longest: int, alphabet: str) -> str:
    """A name of 1 to `longest` random letters: nonsense, or the name of an added parameter."""
    size = len(alphabet)
    length = 1 + int(draw() * longest)
    return "".join([alphabet[int(draw() * size)] for _ in range(length)])


def bound(length: int, edits: float) -> int:
    """The number that the edits of a name stay below: its length times `edits`, rounded up."""
    product = length * edits
    whole = int(product)
    # A product may miss the integer that it should be by one rounding.
    return whole if product - whole < 1e-9 else whole + 1


def num_edits(draw: Draw, length: int, edits: float, *, surely: bool) -> int:
    """How many letters a slight change touches.

    Args:
        draw: Random numbers.
        length: Length of the name.
        edits: `NoiseRules.edits`.
        surely: At least one, as for the gold call's names; else it may be none.

    Source: official generator: m = ceil(length / 3); U{1..m-1}, or 1 if m <= 1, for a gold name;
        else U{0..m-1}.
    """
    most = bound(length, edits) - 1
    if surely:
        return 1 if most <= 1 else 1 + int(draw() * most)
    return int(draw() * (most + 1)) if most > 0 else 0


def slightly(draw: Draw, name: str, edits: int, alphabet: str) -> tuple[str, Operator]:
    """Insert, leave out or replace letters at `edits` distinct places; one operator per name.

    Source: official generator: a letter is inserted before a place, hence never at the end; a
        replaced letter may be the old one.
    """
    length = len(name)
    places: list[int] = []
    while len(places) < edits:
        place = int(draw() * length)
        if place not in places:
            places.append(place)
    if edits > 1:
        places.sort(reverse=True)
    kind = int(draw() * 3)
    letters = list(name)
    if kind == 1:
        for place in places:
            del letters[place]
    else:
        size = len(alphabet)
        keep = kind // 2  # 0: the letter goes before the old one; 1: it takes its place
        for place in places:
            letters[place : place + keep] = alphabet[int(draw() * size)]
    return "".join(letters), _EDITS[kind]


def medium(draw: Draw, name: str, longest: int, alphabet: str) -> tuple[str, Operator]:
    """Reverse a name, or replace it: always if it is a palindrome, else every other time."""
    turned = name[::-1]
    if turned == name or draw() < 0.5:
        return made_up(draw, longest, alphabet), "nonsense"
    return turned, "reversal"
