"""What a row of a data set says: a question, its right answer, and a rationale if it has one.

    fields = Fields(row.fields)
    example = Example(question=fields.text("question"), gold=fields.text("answer"))

A value of a row is checked when it is asked for; what is wrong with it is a `BadRow`, whose reason
is counted and whose detail names the field. No torch here.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import cast

__all__ = ["MAX_CHARS", "BadRow", "Example", "Fields"]

MAX_CHARS = 100_000
"""Of one text; a longer one is a bad row."""


class BadRow(Exception):  # noqa: N818 - it is counted, not an error of the run
    """A row that cannot be used.

    Attributes:
        reason: Under which it is counted.
        detail: What is wrong with this one.
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True)
class Example:
    """A question as a data set has it.

    Attributes:
        question: As we word it.
        gold: The right answer in the data set's words.
        rationale: Its demonstration; it may state the answer at its end.
        id: The data set's name for it.
        group: Text that questions share, such as an article: they all go to the same split.
        pair: Two texts by which a rationale from elsewhere is found: premise and hypothesis, or
            article and question.
        options: Texts of the options of a choice.
    """

    question: str
    gold: str
    rationale: str | None = None
    id: str | None = None
    group: str | None = None
    pair: tuple[str, str] | None = None
    options: tuple[str, ...] = ()


class Fields:
    """The fields of a row, checked when they are asked for."""

    def __init__(self, values: Mapping[str, object]) -> None:
        self._values = values

    def text(self, name: str) -> str:
        """A field as a text with plain line breaks; a number becomes its digits.

        Raises:
            BadRow: It is missing, empty or no text.
        """
        found = self.maybe(name)
        if found is None:
            reason = "missing field" if name not in self._values else "empty field"
            raise BadRow(reason, f"{name!r}")
        return found

    def maybe(self, name: str) -> str | None:
        """The same, or None if it is missing or empty.

        Raises:
            BadRow: It is no text.
        """
        return _text(name, self._values.get(name))

    def texts(self, name: str) -> tuple[str, ...]:
        """A field that is a list of texts; in a CSV it is one written as JSON.

        Raises:
            BadRow: It is missing or something else.
        """
        value = self._values.get(name)
        if value is None:
            raise BadRow("missing field", f"{name!r}")
        if isinstance(value, str):
            value = _parsed(name, value)
        if not isinstance(value, list | tuple):
            raise BadRow("wrong type", f"{name!r} is a {type(value).__name__}, not a list")
        found = tuple(_text(name, one) for one in value)
        if not found or None in found:
            raise BadRow("empty field", f"{name!r} or one of its texts")
        return tuple(one for one in found if one is not None)

    def lists(self, name: str) -> tuple[tuple[str, ...], ...]:
        """A field that is a list of lists of texts.

        Raises:
            BadRow: It is missing or something else.
        """
        value = self._values.get(name)
        if not isinstance(value, list | tuple):
            raise BadRow("wrong type", f"{name!r} is no list")
        return tuple(Fields({name: one}).texts(name) for one in value)


def _parsed(name: str, text: str) -> object:
    try:
        return cast("object", json.loads(text[:MAX_CHARS]))
    except (ValueError, RecursionError):
        raise BadRow("wrong type", f"{name!r} is no list, nor one written as JSON") from None


def _text(name: str, value: object) -> str | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, str | int | float | Decimal):
        raise BadRow("wrong type", f"{name!r} is a {type(value).__name__}, not a text")
    if not isinstance(value, str):
        return _digits(name, value)
    if len(value) > MAX_CHARS:
        raise BadRow("too long", f"{name!r} has {len(value):,} characters, {MAX_CHARS:,} are read")
    if any("\ud800" <= letter <= "\udfff" for letter in value):
        raise BadRow("not UTF-8", f"{name!r}")
    if "\0" in value:
        raise BadRow("wrong type", f"{name!r} holds a NUL character")
    return value.replace("\r\n", "\n").replace("\r", "\n").strip() or None


def _digits(name: str, value: float | Decimal) -> str:
    if isinstance(value, int) and value.bit_length() > 300:
        raise BadRow("too long", f"{name!r} is a number of more than 90 digits")
    if not math.isfinite(value):
        raise BadRow("wrong type", f"{name!r} is {value}, no number")
    plain = format(Decimal(repr(value)) if isinstance(value, float) else Decimal(value), "f")
    return plain.rstrip("0").rstrip(".") if "." in plain else plain
