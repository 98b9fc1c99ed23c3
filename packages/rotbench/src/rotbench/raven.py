r"""Reads the Python call that NexusRaven v1 and v2 answer with, without running it.

    read_raven("Call: add(a=1)<bot_end>\nThought: ...", 2, tools).arguments     # {'a': 1}

Names of tools and parameters may be anything without brackets, commas, quotes, `=` and spaces,
since disturbed names need not be Python's. Of nested calls the innermost counts, which would run
first; of several calls the first. `raven_official` reads them as the official scorer does.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from pydantic import JsonValue

from rotbench.cases import Tool
from rotbench.literals import MAX_DEPTH, MAX_KEYS, Refused, read_python, without_surrogates
from rotbench.predictions import MAX_ANSWER, Prediction, Repair

__all__ = ["read_raven"]

_LABELS = {1: ("Initial Answer:", "\nReflection:"), 2: ("Call:", "\nThought:")}
_END_MARKS = ("<bot_end>", "<human_end>")
_SPACE = re.compile(r"\s*+")
_NAME = re.compile(r"""[^\s()\[\]{},=;'"]++""")
_BARE = re.compile(r"""[^(),;='"\n]++""")


def read_raven(
    text: str, version: Literal[1, 2], tools: Sequence[Tool], *, strict: bool = False
) -> Prediction:
    """Reads the call of an answer.

    Args:
        text: What the model answered.
        version: 1 has it behind `Initial Answer:`, 2 behind `Call:`.
        tools: The environment; values without a name belong to the parameters in their order.
        strict: Take nothing but one plain call behind its label, with names and literals.
    """
    if not text.strip():
        return Prediction(None, None, "empty")
    if len(text) > MAX_ANSWER:
        return Prediction(None, None, "too_long")
    start, end = _LABELS[version]
    reader = _Reader(_answer(text, start, end), tools)
    if start not in text:
        reader.note("label_style")
    read = reader.read()
    if strict and read.repairs:
        return Prediction(
            None, None, read.problem or "not_as_asked", read.repairs, read.extra_calls
        )
    return read


def _answer(text: str, start: str, end: str) -> str:
    _, found, rest = text.partition(start)
    answer = (rest if found else text).partition(end)[0]
    for mark in _END_MARKS:
        answer = answer.partition(mark)[0]
    return str(without_surrogates(answer)).strip()


@dataclass(slots=True)
class _Called:
    name: str
    values: list[JsonValue] = field(default_factory=list)
    named: list[tuple[str, JsonValue]] = field(default_factory=list)


@dataclass(slots=True)
class _Reader:
    text: str
    tools: Sequence[Tool]
    at: int = 0
    first: _Called | None = None
    """The first call that was read to its end: the innermost of nested ones."""
    repairs: list[Repair] = field(default_factory=list)

    def read(self) -> Prediction:
        try:
            self._call(0)
        except Refused as refused:
            if self.first is None:
                return Prediction(self._outer_name(), None, refused.problem, tuple(self.repairs))
        assert self.first is not None
        extra = self._further_calls()
        try:
            arguments = self._arguments(self.first)
        except Refused as refused:
            return Prediction(self.first.name, None, refused.problem, tuple(self.repairs), extra)
        return Prediction(self.first.name, arguments, None, tuple(self.repairs), extra)

    def note(self, repair: Repair) -> None:
        if repair not in self.repairs:
            self.repairs.append(repair)

    def _call(self, depth: int) -> None:
        if depth > MAX_DEPTH:
            raise Refused("too_deep")
        match = _NAME.match(self.text, self.at)
        if not match or not self.text.startswith("(", match.end()):
            raise Refused("not_call")
        call, self.at = _Called(match.group()), match.end() + 1
        while not self._take(")"):
            self._argument(call, depth)
            if len(call.values) + len(call.named) > MAX_KEYS:
                raise Refused("too_many_keys")
            if not self._take(",") and not self._peek(")"):
                raise Refused("not_call")
        if self.first is None:
            self.first = call
            if depth:
                self.note("nested_calls")

    def _argument(self, call: _Called, depth: int) -> None:
        key = self._key(call.name)
        value = self._value(depth)
        if key is None:
            call.values.append(value)
        else:
            call.named.append((key, value))

    def _key(self, name: str) -> str | None:
        """A name and `=`; the tool's own names may hold a `=`, or be empty."""
        self._skip()
        match = _NAME.match(self.text, self.at)
        names = [match.group()] if match else []
        for key in sorted((*self._keys(name), *names), key=len, reverse=True):
            end = self._space_end(self.at + len(key))
            if self.text.startswith(key, self.at) and self.text.startswith("=", end):
                self.at = end + 1
                self._skip()
                return key
        return None

    def _keys(self, name: str) -> list[str]:
        return next((list(tool.parameters) for tool in self.tools if tool.name == name), [])

    def _value(self, depth: int) -> JsonValue:
        match = _NAME.match(self.text, self.at)
        if match and self.text.startswith("(", match.end()):
            self._call(depth + 1)
            return None  # what it would return is not known; the inner call is the one that counts
        try:
            value, end = read_python(self.text, self.at)
            if self.text[self._space_end(end) : self._space_end(end) + 1] in (",", ")"):
                self.at = end
                return value
        except Refused as refused:
            if refused.problem != "not_json":
                raise
        bare = _BARE.match(self.text, self.at)
        if not bare:
            raise Refused("not_call")
        self.note("bare_words")
        self.at = bare.end()
        return bare.group().strip()

    def _arguments(self, call: _Called) -> dict[str, JsonValue]:
        """Named values, and the others under the names that their places have in the schema."""
        keys = self._keys(call.name)
        if len(call.values) > len(keys):
            raise Refused("not_call")
        pairs = [*zip(keys, call.values, strict=False), *call.named]
        found = dict(pairs)
        if len(found) < len(pairs):
            raise Refused("duplicate_keys")
        return found

    def _further_calls(self) -> int:
        """Calls behind the one just read, each behind a semicolon or a line break."""
        extra = 0
        rest = self.text[self.at :].replace("\n", ";").split(";") if self.at else []
        for part in rest:
            match = _NAME.match(part.strip())
            extra += bool(match and part.strip().startswith("(", match.end()))
        if extra:
            self.note("several_calls")
        elif "".join(rest).strip():
            self.note("trailing_text")
        return extra

    def _outer_name(self) -> str | None:
        match = _NAME.match(self.text)
        return match.group() if match and self.text.startswith("(", match.end()) else None

    def _peek(self, mark: str) -> bool:
        self._skip()
        return self.text.startswith(mark, self.at)

    def _take(self, mark: str) -> bool:
        found = self._peek(mark)
        self.at += found
        return found

    def _skip(self) -> None:
        self.at = self._space_end(self.at)

    def _space_end(self, at: int) -> int:
        match = _SPACE.match(self.text, at)
        return match.end() if match else at
