r"""The official scorer once more, plainly: what `official` is tested and measured against.

It works on released entries as the official script does: three passes, each of which reads the
tools out of the system's text and parses golds and answer again. Where the script crashes, so does
this. Not for answers that you do not trust: it hands text to Python's own literal reader.

    passes(entry, "Thought:\nAction: add\nAction Input: {}")     # (False, False, False)

Source: official evaluation script, re-stated.
"""

from __future__ import annotations

import json
import re
import warnings
from ast import literal_eval
from collections.abc import Mapping
from typing import Any

__all__ = ["passes"]

Entry = Mapping[str, Any]

_UP_TO = 100_000


def passes(entry: Entry, answer: str, version: int = 0) -> tuple[bool, bool, bool]:
    """Tool selection, parameter identification and content filling of one answer.

    Raises:
        Exception: Whatever the official script would die of.
    """
    assert len(answer) <= _UP_TO, "for tests and benchmarks only"
    tool = _right(entry, answer, version, 1)
    keys = _right(entry, answer, version, 2)
    return tool, keys, _right(entry, answer, version, 3)


def _right(entry: Entry, answer: str, version: int, wanted: int) -> bool:
    """One pass: whether any gold is met up to stage `wanted` (tool, keys, values)."""
    tools = _tools(entry)
    name, given = _answer(answer, version, tools)
    if not given:
        return False
    for text in entry["conversations"][-1]["value"]:
        gold_name, gold = _action(text), json.loads(text[text.find("Action Input:") + 14 :])
        if gold_name == tools[-1]["name"] and name == "finish":
            name = gold_name
        if gold_name != name:
            continue
        if wanted == 1:
            return True
        if gold.keys() != given.keys():
            continue
        if wanted == 2:
            return True
        special = (tools[-1]["name"], tools[-2]["name"], "finish", "ask_to_user")
        for key in [key for key in gold if gold[key] == "None"]:
            del gold[key]
            del given[key]
        if gold == given or gold_name in special:
            return True
    return False


def _tools(entry: Entry) -> list[Any]:
    text = entry["conversations"][0]["value"]
    return list(json.loads(text[text.find("[") : -13]))


def _action(text: str) -> str:
    name = text[text.find("Action:") + 8 : text.find("Action Input:")]
    return name[:-1] if name[-1] == "\n" else name


def _answer(answer: str, version: int, tools: list[Any]) -> tuple[str, Any]:
    if version == 0:
        name = _action(answer)
        try:
            given = json.loads(answer[answer.find("Action Input:") + 14 :])
        except json.JSONDecodeError:
            return name, 0
        return name, 0 if isinstance(given, str) else given
    call = _call_v1(answer) if version == 1 else _call_v2(answer)
    name, rest = call[: call.find("(")], call[call.find("(") :]
    by_place = version == 1 and "=" not in rest
    return name, _by_place(rest, name, tools) if by_place else _by_surgery(rest)


def _call_v1(answer: str) -> str:
    return answer[answer.find("Initial Answer: ") + 16 : answer.find("\nReflection: ")]


def _call_v2(answer: str) -> str:
    call = answer[6 : answer.find("\nThought:") - 1]
    if ";" in call:
        call = call[: call.find(";")]
    if call.count("(") == 1:
        return call
    end = call.find(")")
    start, seen = end, False
    for letter in reversed(call[:end]):
        start -= 1
        seen = seen or letter == "("
        if letter == "=" and seen:
            break
    return call[start + 1 : end + 1]


def _by_place(rest: str, name: str, tools: list[Any]) -> Any:  # noqa: ANN401 - whatever it reads
    found = re.search(r"\((.*)\)", rest)
    keys = next((list(t["parameters"]["properties"]) for t in tools if t["name"] == name), None)
    if found is None or keys is None:
        return 0
    values = found.group(1).split(", ")
    if len(values) > len(keys):
        return 0
    return _without_empty({keys[i]: value for i, value in enumerate(values)})


def _by_surgery(rest: str) -> Any:  # noqa: ANN401 - whatever Python reads
    text = rest.replace("(", "{").replace(")", "}").replace("=", "':")
    for i in range(len(text)):
        if text[i] == "{" and text[i + 1] != "}":
            text = text[: i + 1] + "'" + text[i + 1 :]
        outside = i > 0 and text[: i + 1].count("'") % 2 == 0
        if outside and text[i - 1 : i + 1] == ", " and text[i + 1] != "'":
            text = text[: i + 1] + "'" + text[i + 1 :]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return _without_empty(literal_eval(text))
    except SyntaxError:
        return 0


def _without_empty(given: Any) -> Any:  # noqa: ANN401 - dies if it is no dict
    return {key: given[key] for key in list(given.keys()) if given[key] != ""}
