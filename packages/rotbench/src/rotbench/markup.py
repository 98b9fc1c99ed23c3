"""Tool calls in the text of models whose backend did not read them out.

    calls_in('<tool_call>{"name": "f", "arguments": {"x": 1}}</tool_call>')  # [("f", '{"x": 1}')]

Read are: `<tool_call>` objects (Hermes, Qwen), `[TOOL_CALLS]` (Mistral), and a bare object with
`name` and `arguments` or `parameters` (Llama 3). Arguments come back as JSON text. The text is
data: its length, the number of calls and their depth are bounded, and nothing in it is run.

Source: the chat templates of Qwen2.5, Mistral v0.3 and Llama 3.1 on the hub.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

from rotbench.native import Pairs, RawCall, written

__all__ = ["calls_in"]

MAX_TEXT = 100_000
MAX_CALLS = 16

_DECODER = json.JSONDecoder(object_pairs_hook=Pairs)
_HERMES = re.compile(r"<tool_call>\s*")
_MISTRAL = re.compile(r"\[TOOL_CALLS\]\s*")
_MISTRAL_NAME = re.compile(r"([^\s\[\]{}]{1,200})(?:\[CALL_ID\]\w{1,40})?(?:\[ARGS\])?\s*(?=\{)")
_LLAMA = re.compile(r"(?:<\|python_tag\|>\s*)?(?=\{)")


def calls_in(text: str) -> list[RawCall]:
    """Calls in a text, in order; none if it has no markup that is known."""
    text = text[:MAX_TEXT]
    found: list[RawCall] = []
    # What follows the reasoning comes first: a call in there may only have been thought of.
    said = text.rpartition("</think>")[2]
    for call in _marked(said) or _marked(text):
        found.append(call)
        if len(found) == MAX_CALLS:
            break
    return found


def _marked(text: str) -> list[RawCall]:
    return _hermes(text) or _mistral(text) or _llama(text)


def _hermes(text: str) -> list[RawCall]:
    places = _limited(_HERMES.finditer(text))
    return [call for match in places for call in _calls(text, match.end())]


def _mistral(text: str) -> list[RawCall]:
    """Both forms: a list of objects behind one mark, and a name before each object."""
    found: list[RawCall] = []
    for match in _limited(_MISTRAL.finditer(text)):
        named = _MISTRAL_NAME.match(text, match.end())
        if named is None:
            found += _calls(text, match.end())
        elif (end := _end(text, named.end())) is not None:
            found.append((named[1], text[named.end() : end]))
    return found


def _llama(text: str) -> list[RawCall]:
    """The whole answer is one object, or several with semicolons between them."""
    place = len(text) - len(text.lstrip())
    found: list[RawCall] = []
    while len(found) < MAX_CALLS and (match := _LLAMA.match(text, place)):
        end = _end(text, match.end())
        if end is None:
            break
        found += _calls(text, match.end())
        place = end + len(text[end : end + 100]) - len(text[end : end + 100].lstrip("; \n"))
    return found


def _calls(text: str, place: int) -> list[RawCall]:
    """Calls in the JSON value at a place."""
    try:
        value, _ = _DECODER.raw_decode(text, place)
    except (ValueError, RecursionError):
        return []
    items = [value] if isinstance(value, Pairs) else value if isinstance(value, list) else []
    return [call for item in items[:MAX_CALLS] if (call := _call(item)) is not None]


def _call(value: object) -> RawCall | None:
    if not isinstance(value, Pairs):
        return None
    fields = dict(value)
    name, arguments = fields.get("name"), fields.get("arguments", fields.get("parameters", Pairs()))
    if not isinstance(name, str):
        return None
    # some models write the object as a text
    return name, arguments if isinstance(arguments, str) else written(arguments)


def _end(text: str, place: int) -> int | None:
    try:
        return _DECODER.raw_decode(text, place)[1]
    except (ValueError, RecursionError):
        return None


def _limited(matches: Iterator[re.Match[str]]) -> list[re.Match[str]]:
    return [match for match, _ in zip(matches, range(MAX_CALLS), strict=False)]
