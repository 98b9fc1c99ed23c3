"""Reads JSON objects, and the Python literals that models write in their place, within limits.

Nothing is ever evaluated. Both readers stop at the end of the value, so that a caller can tell what
follows it, take time linear in the text, and refuse what is too deep, too large or ambiguous.

    value, end = read_json('{"a": 1} and so on', 0)
"""

from __future__ import annotations

import json
import math
import re
from typing import Final, Literal, NoReturn, TypeAlias, cast

from pydantic import JsonValue

__all__ = [
    "MAX_DEPTH",
    "MAX_DIGITS",
    "MAX_KEYS",
    "Problem",
    "Refused",
    "nesting",
    "read_json",
    "read_python",
    "without_surrogates",
]

Problem: TypeAlias = Literal[
    "empty",
    "no_action",
    "no_input",
    "not_json",
    "not_object",
    "not_call",
    "duplicate_keys",
    "too_long",
    "too_deep",
    "too_many_keys",
    "too_large_number",
    "not_finite",
    "not_as_asked",
]
"""Why an answer holds no call. `not_as_asked` occurs in strict reading only: it could be mended."""

MAX_DEPTH = 32
"""Nested objects and lists; the released calls have one level."""
MAX_KEYS = 256
"""Keys of one object; the largest released tool has 41 parameters."""
MAX_DIGITS = 300
"""Digits of one number."""

_ESCAPES: Final = {
    "n": "\n",
    "t": "\t",
    "r": "\r",
    "b": "\b",
    "f": "\f",
    "a": "\a",
    "v": "\v",
    "0": "\0",
    "\\": "\\",
    "'": "'",
    '"': '"',
    "/": "/",
    "\n": "",
}
_HEX_DIGITS: Final = {"x": 2, "u": 4, "U": 8}
_CONSTANTS: Final[dict[str, JsonValue]] = {
    "True": True,
    "true": True,
    "False": False,
    "false": False,
    "None": None,
    "null": None,
}
_SPACE = re.compile(r"\s*+")
_PLAIN = {"'": re.compile(r"[^'\\]*+"), '"': re.compile(r'[^"\\]*+')}
_NUMBER = re.compile(r"[+-]?(?:\d++(?:\.\d*+)?|\.\d++)(?:[eE][+-]?\d++)?")
_WORD = re.compile(r"[A-Za-z_]\w*+")
_BRACKET = re.compile(r'"(?:[^"\\]|\\.)*+\\?"?|[][{}]', re.DOTALL)
_HEX = re.compile(r"[0-9a-fA-F]+")


class Refused(Exception):  # noqa: N818 - it is an answer, not an accident
    """The text is not a value that we take."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem)
        self.problem: Problem = problem


def read_json(text: str, start: int, *, controls: bool = False) -> tuple[JsonValue, int]:
    """The JSON value that begins at `start`, and where it ends.

    Args:
        text: Holds the value; what follows it is not looked at.
        start: Where the value begins; spaces before it are refused.
        controls: Take line breaks and other control characters inside strings too.

    Raises:
        Refused: It is no JSON value within the limits.
    """
    if nesting(text, start) > MAX_DEPTH:
        raise Refused("too_deep")
    decoder = _TOLERANT if controls else _STRICT
    try:
        value, end = decoder.raw_decode(text, start)
    except json.JSONDecodeError:
        raise Refused("not_json") from None
    if "\\u" in text[start:end]:
        value = without_surrogates(value)
    return cast("JsonValue", value), end


def read_python(text: str, start: int) -> tuple[JsonValue, int]:
    """The Python or JSON literal that begins at `start`, and where it ends.

    Strings (in either quotes), numbers, dicts with such keys, lists, tuples (as lists) and the
    constants of both languages; commas may trail.

    Raises:
        Refused: It is no such literal within the limits.
    """
    value, end = _value(text, start, 0)
    return without_surrogates(value), end


def nesting(text: str, start: int) -> int:
    """Deepest nesting of brackets outside strings, up to where those opened are closed."""
    if text.count("{", start) + text.count("[", start) <= MAX_DEPTH:
        return 0  # cannot be too deep: not worth a closer look
    depth = deepest = 0
    for match in _BRACKET.finditer(text, start):
        mark = match.group()
        if mark in "{[":
            depth += 1
            deepest = max(deepest, depth)
        elif mark in "}]":
            depth -= 1
            if depth <= 0:
                break
    return deepest


def without_surrogates(value: JsonValue) -> JsonValue:
    """The same with U+FFFD for each half of a character, which could not be written anywhere."""
    if isinstance(value, str):
        return value if value.isascii() else _whole(value)
    if isinstance(value, dict):
        return {_whole(key): without_surrogates(item) for key, item in value.items()}
    if isinstance(value, list):
        return [without_surrogates(item) for item in value]
    return value


def _whole(text: str) -> str:
    return re.sub("[\ud800-\udfff]", "�", text)


def _object(pairs: list[tuple[str, JsonValue]]) -> dict[str, JsonValue]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise Refused("duplicate_keys")
    if len(found) > MAX_KEYS:
        raise Refused("too_many_keys")
    return found


def _int(digits: str) -> int:
    if len(digits) > MAX_DIGITS:
        raise Refused("too_large_number")
    return int(digits)


def _float(digits: str) -> float:
    if len(digits) > MAX_DIGITS:
        raise Refused("too_large_number")
    number = float(digits)
    if not math.isfinite(number):
        raise Refused("not_finite")
    return number


def _constant(name: str) -> NoReturn:
    raise Refused("not_finite")


def _decoder(*, strict: bool) -> json.JSONDecoder:
    return json.JSONDecoder(
        object_pairs_hook=_object,
        parse_int=_int,
        parse_float=_float,
        parse_constant=_constant,
        strict=strict,
    )


_STRICT = _decoder(strict=True)
_TOLERANT = _decoder(strict=False)


def _skip(text: str, at: int) -> int:
    match = _SPACE.match(text, at)
    return match.end() if match else at


def _value(text: str, at: int, depth: int) -> tuple[JsonValue, int]:
    first = text[at : at + 1]
    if first in ("'", '"'):
        return _string(text, at)
    if first in ("{", "[", "("):
        if depth >= MAX_DEPTH:
            raise Refused("too_deep")
        if first == "{":
            return _dict(text, at + 1, depth + 1)
        return _sequence(text, at + 1, depth + 1, "]" if first == "[" else ")")
    if match := _NUMBER.match(text, at):
        return _number(match.group()), match.end()
    if (match := _WORD.match(text, at)) and match.group() in _CONSTANTS:
        return _CONSTANTS[match.group()], match.end()
    if match and match.group().lower() in ("nan", "inf", "infinity"):
        raise Refused("not_finite")
    raise Refused("not_json")


def _number(digits: str) -> int | float:
    if any(mark in digits for mark in ".eE"):
        return _float(digits)
    return _int(digits)


def _string(text: str, at: int) -> tuple[str, int]:
    quote = text[at]
    plain, parts, at = _PLAIN[quote], [], at + 1
    while True:
        match = plain.match(text, at)
        assert match is not None, "it matches nothing at least"
        parts.append(match.group())
        at = match.end()
        mark = text[at : at + 1]
        if mark == quote:
            return "".join(parts), at + 1
        if not mark:
            raise Refused("not_json")
        part, at = _escape(text, at + 1)
        parts.append(part)


def _escape(text: str, at: int) -> tuple[str, int]:
    mark = text[at : at + 1]
    if mark in _HEX_DIGITS:
        end = at + 1 + _HEX_DIGITS[mark]
        digits = text[at + 1 : end]
        if len(digits) != end - at - 1 or not _HEX.fullmatch(digits):
            raise Refused("not_json")
        return chr(min(int(digits, 16), 0x10FFFF)), end
    return _ESCAPES.get(mark, "\\" + mark), at + 1


def _dict(text: str, at: int, depth: int) -> tuple[dict[str, JsonValue], int]:
    pairs: list[tuple[str, JsonValue]] = []
    while (at := _skip(text, at)) < len(text):
        if text[at] == "}":
            return _object(pairs), at + 1
        if text[at] not in "'\"":
            break
        key, at = _string(text, at)
        at = _skip(text, at)
        if text[at : at + 1] != ":":
            break
        value, at = _value(text, _skip(text, at + 1), depth)
        pairs.append((key, value))
        at = _separator(text, at, "}")
    raise Refused("not_json")


def _sequence(text: str, at: int, depth: int, close: str) -> tuple[list[JsonValue], int]:
    items: list[JsonValue] = []
    while (at := _skip(text, at)) < len(text):
        if text[at] == close:
            return items, at + 1
        item, at = _value(text, at, depth)
        items.append(item)
        at = _separator(text, at, close)
    raise Refused("not_json")


def _separator(text: str, at: int, close: str) -> int:
    """Behind the comma, or at the closing bracket."""
    at = _skip(text, at)
    mark = text[at : at + 1]
    if mark == ",":
        return at + 1
    if mark == close:
        return at
    raise Refused("not_json")
