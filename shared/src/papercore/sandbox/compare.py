r"""When an answer is right: rules that are named, and never sets where order or number matters.

same_text("1 2\n", "1  2", Comparison(whitespace="tokens"))
same_value([1.0, 2], (1, 2), Comparison(tolerance=1e-6))
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from papercore.errors import ConfigError

__all__ = ["Comparison", "same_text", "same_value"]


@dataclass(frozen=True)
class Comparison:
    """Rules of comparison.

    Attributes:
        whitespace: Of text: `exact`, every letter; `lines`, blanks at the ends of lines and empty
            lines at the end do not count; `tokens`, words one after the other, line by line.
        tolerance: Numbers may differ by so much, absolutely or relative to the expected one; 0
            wants them equal, and in text equally written.
        order: `exact`, or `any`: lines of a text, or elements of a returned list, in any order,
            each as often.
    """

    whitespace: Literal["exact", "lines", "tokens"] = "lines"
    tolerance: float = 0.0
    order: Literal["exact", "any"] = "exact"

    def __post_init__(self) -> None:
        """Refuses rules that contradict each other.

        Raises:
            ConfigError: A tolerance without words to read numbers from, or no tolerance at all.
        """
        if not 0 <= self.tolerance < math.inf:
            raise ConfigError(f"tolerance={self.tolerance} is no number from 0 on")
        if self.whitespace == "exact" and (self.tolerance or self.order == "any"):
            raise ConfigError("whitespace=exact compares letters: no tolerance, no other order")


def same_text(actual: str, expected: str, rules: Comparison) -> bool:
    """Whether a program wrote what it should."""
    if rules.whitespace == "exact":
        return actual == expected
    found, wanted = _lines(actual), _lines(expected)
    if len(found) != len(wanted):
        return False

    def key(line: str) -> list[str]:
        return [line] if rules.whitespace == "lines" else line.split()

    def same(line: str, other: str) -> bool:
        if rules.whitespace == "lines" and not rules.tolerance:
            return line == other
        words, others = line.split(), other.split()
        return len(words) == len(others) and all(
            _same_word(one, two, rules.tolerance) for one, two in zip(words, others, strict=True)
        )

    if rules.order == "exact":
        return all(map(same, found, wanted))
    if not rules.tolerance:  # equal is equal: no need to try each with each
        return sorted(map(key, found)) == sorted(map(key, wanted))
    return _matched(found, wanted, same)


def same_value(actual: object, expected: object, rules: Comparison) -> bool:
    """Whether a function returned what it should.

    Tuples count as lists, since JSON has none, but a bool is no number.
    """
    if rules.order == "any" and _is_list(actual) and _is_list(expected):
        return len(actual) == len(expected) and _matched(  # type: ignore[arg-type]
            list(actual),  # type: ignore[call-overload]
            list(expected),  # type: ignore[call-overload]
            lambda one, two: _same(one, two, rules.tolerance),
        )
    return _same(actual, expected, rules.tolerance)


def _same(actual: object, expected: object, tolerance: float) -> bool:
    if _is_list(actual) and _is_list(expected):
        found, wanted = list(actual), list(expected)  # type: ignore[call-overload]
        return len(found) == len(wanted) and all(
            _same(one, two, tolerance) for one, two in zip(found, wanted, strict=True)
        )
    if isinstance(actual, dict) and isinstance(expected, dict):
        if len(actual) != len(expected):
            return False
        return all(
            key in actual and _same(actual[key], value, tolerance)
            for key, value in expected.items()
        )
    if isinstance(actual, bool) or isinstance(expected, bool):
        return isinstance(actual, bool) and isinstance(expected, bool) and actual == expected
    if isinstance(actual, int | float) and isinstance(expected, int | float):
        return _close(actual, expected, tolerance)
    return type(actual) is type(expected) and actual == expected


def _is_list(value: object) -> bool:
    return isinstance(value, list | tuple)


def _lines(text: str) -> list[str]:
    """Without blanks at the ends and without empty lines at the end."""
    lines = [line.rstrip() for line in text.splitlines()]
    while lines and not lines[-1]:
        lines.pop()
    return lines


def _same_word(actual: str, expected: str, tolerance: float) -> bool:
    if actual == expected:
        return True
    if not tolerance:
        return False
    try:
        return _close(float(actual), float(expected), tolerance)
    except ValueError:
        return False


def _close(actual: float, expected: float, tolerance: float) -> bool:
    if actual == expected or (actual != actual and expected != expected):  # noqa: PLR0124 - NaN
        return True
    if not tolerance:
        return False
    try:
        return math.isclose(actual, expected, rel_tol=min(tolerance, 1.0), abs_tol=tolerance)
    except OverflowError:  # an integer beyond any float
        return False


def _matched(found: Sequence[object], wanted: Sequence[object], same: object) -> bool:
    """Whether each of one has a partner of its own in the other.

    With a tolerance the partner is the first that is left: ties within it are rare, and a wrong
    match of them can only refuse.
    """
    assert callable(same)
    left = list(wanted)
    for one in found:
        partner = next((place for place, other in enumerate(left) if same(one, other)), None)
        if partner is None:
            return False
        left.pop(partner)
    return not left
