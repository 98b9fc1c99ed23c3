"""NexusRaven's answers as the official scorer reads them: by surgery on the text.

The calls of v1 and v2 are Python text. The official script cuts them out at fixed places, turns
`f(a='x', b=1)` into the text of a dict and has Python read that. What comes out of it for odd
answers is an accident, and part of the published scores; so the accidents are kept, one by one.
`raven` has a reading that makes sense.

Source: official evaluation script, re-stated to take linear time.
Deviation: texts beyond our limits, which the script would hand to Python, are refused.
"""

from __future__ import annotations

import ast
import warnings
from collections.abc import Sequence
from typing import Literal

from rotbench.cases import Tool
from rotbench.crashes import Crashed

__all__ = ["MAX_CALL", "read_raven"]

MAX_CALL = 8_192
"""Characters of a call's arguments; Python's parser gets no longer text from here."""

_STARTS = "Initial Answer: "
_ENDS = "\nReflection: "
_CALL_LABEL = 6


def read_raven(text: str, version: Literal[1, 2], tools: Sequence[Tool]) -> tuple[str, object]:
    """Name and arguments, or 0 for arguments that the script fails to read.

    Raises:
        Crashed: The script would.
    """
    call = _call_v1(text) if version == 1 else _call_v2(text)
    opened = call.find("(")
    name, given = call[:opened], call[opened:]
    if len(given) > MAX_CALL:
        raise Crashed("too_long")
    if version == 1 and "=" not in given:
        read: object = _by_position(given, name, tools)
    else:
        read = _by_surgery(given)
    if read is None:
        return name, 0
    if not isinstance(read, dict):
        raise Crashed("AttributeError")
    return name, {key: value for key, value in read.items() if value != ""}


def _call_v1(text: str) -> str:
    """A missing label is -1, as `str.find` has it."""
    return text[text.find(_STARTS) + len(_STARTS) : text.find(_ENDS)]


def _call_v2(text: str) -> str:
    call = text[_CALL_LABEL : text.find("\nThought:") - 1].partition(";")[0]
    return call if call.count("(") == 1 else _innermost(call)


def _innermost(call: str) -> str:
    """From behind the last `=` that an inner `(` follows, up to the first `)`.

    Without such a `=` the walk ends at the start of the text, and one character too far.
    """
    end = call.find(")")
    head = call[:end]
    inner = head.rfind("(")
    equals = head.rfind("=", 0, inner) if inner >= 0 else -1
    walked = len(head) - equals if equals >= 0 else len(head)
    return call[end - walked + 1 : end + 1]


def _by_position(given: str, name: str, tools: Sequence[Tool]) -> object:
    """Values without keys belong to the parameters in their order, and stay text."""
    inside = _between_brackets(given)
    tool = next((tool for tool in tools if tool.name == name), None)
    if inside is None or tool is None:
        return None
    values, keys = inside.split(", "), list(tool.parameters)
    return dict(zip(keys, values, strict=False)) if len(values) <= len(keys) else None


def _between_brackets(given: str) -> str | None:
    """From the first `(` to the last `)` of the first line that has both."""
    for line in given.split("\n"):
        opened, closed = line.find("("), line.rfind(")")
        if 0 <= opened < closed:
            return line[opened + 1 : closed]
    return None


def _by_surgery(given: str) -> object:
    text = _as_dict_text(given.replace("(", "{").replace(")", "}").replace("=", "':"))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # odd escapes in a model's answer are not our warnings
            value: object = ast.literal_eval(text)
    except SyntaxError:
        return None
    except ValueError:
        raise Crashed("ValueError") from None
    except TypeError:
        raise Crashed("TypeError") from None
    except RecursionError:
        raise Crashed("RecursionError") from None
    except MemoryError:
        raise Crashed("MemoryError") from None
    return value


def _as_dict_text(text: str) -> str:
    """Puts a quote before what looks like a key: behind `{`, and behind `, ` outside quotes.

    The script walks as many steps as the text had characters at first; what its insertions pushed
    beyond that stays as it is.
    """
    made: list[str] = []
    quotes, at, before, opened = 0, 0, "", False
    for _ in range(len(text)):
        mark = "'" if opened else text[at]
        at += not opened
        opened = False
        made.append(mark)
        quotes += mark == "'"
        key_follows = mark == "{" or (before == "," and mark == " " and quotes % 2 == 0)
        if key_follows:
            if at >= len(text):
                raise Crashed("IndexError")
            opened = text[at] != ("}" if mark == "{" else "'")
        before = mark
    return "".join(made) + ("'" if opened else "") + text[at:]
