r"""Reads the call out of what a model answered. The text is data: nothing of it is ever run.

Lenient reading takes what a person would take and lists each repair it made. Strict reading is
lenient reading that needed no repair: exactly the format that was asked for. Both are kept of every
answer.

    prediction = read_react('Thought: easy\nAction: add\nAction Input: {"a": 1}')
    prediction.name, prediction.arguments     # 'add', {'a': 1}
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias, get_args

from pydantic import JsonValue

from rotbench.literals import Problem, Refused, read_json, read_python, without_surrogates

__all__ = [
    "MAX_ANSWER",
    "MAX_TEXT",
    "PROBLEMS",
    "Prediction",
    "Problem",
    "Repair",
    "read_native",
    "read_react",
]

Repair: TypeAlias = Literal[
    "broken_characters",
    "line_ends",
    "reasoning",
    "unfinished_reasoning",
    "label_style",
    "full_width_colon",
    "inline_labels",
    "label_in_thought",
    "no_thought",
    "leading_text",
    "spaces",
    "quoted_name",
    "name_lines",
    "fenced",
    "control_characters",
    "python_literal",
    "trailing_text",
    "several_calls",
    "empty_arguments",
    "nested_calls",
    "bare_words",
]
"""What lenient reading had to overlook or mend."""

PROBLEMS: tuple[Problem, ...] = get_args(Problem)
MAX_TEXT = 1_000_000
"""Characters of an answer with its reasoning; a longer one is not looked at."""
MAX_ANSWER = 65_536
"""Characters of an answer without its reasoning."""
MAX_QUOTES = 4
"""Pairs of quotes around a name that are taken off."""

_LABEL = re.compile(
    r"^[ \t]{0,8}[*_#>`-]{0,4}[ \t]{0,4}(thought|action[ _]input|action|observation)"
    r"[*_`]{0,3}[ \t]{0,4}[:\uff1a][*_]{0,3}",
    re.MULTILINE | re.IGNORECASE | re.ASCII,
)
_INLINE = re.compile(r"(Thought|Action Input|Action) ?[:\uff1a]")
_PLAIN_LABELS = ("Thought:", "Action:", "Action Input:", "Observation:")
_SPACE = re.compile(r"\s*+")
_FENCE = re.compile(r"`{1,3}[A-Za-z]{0,10}\s*+")
_OPENED = re.compile(r"^[ \t]{0,8}<(think|thinking|reasoning)>", re.MULTILINE | re.IGNORECASE)
_CLOSED = re.compile(r"</(?:think|thinking|reasoning)>", re.IGNORECASE)
_WRAPPED = {"`": "`", '"': '"', "'": "'", "*": "*", "[": "]", "<": ">"}


@dataclass(frozen=True, slots=True)
class Prediction:
    """What was read out of an answer."""

    name: str | None
    """The tool; may be known even though the arguments could not be read."""
    arguments: Mapping[str, JsonValue] | None
    """Set if and only if there is no problem."""
    problem: Problem | None = None
    repairs: tuple[Repair, ...] = ()
    extra_calls: int = 0
    """Calls behind the first one, which is the one that counts."""


def read_react(text: str, *, strict: bool = False) -> Prediction:
    """Reads `Thought:`, `Action:` and `Action Input:` with a JSON object.

    Args:
        text: What the model answered.
        strict: Take nothing but the format that was asked for.
    """
    return _strictly(_as_asked(text) or _mended(text), strict)


def read_native(
    calls: Sequence[tuple[str, str]], text: str = "", *, strict: bool = False
) -> Prediction:
    """Reads calls that came through a tool interface.

    Args:
        calls: Name of the tool and its arguments as text, in order.
        text: What the model said beside them.
        strict: Take nothing but one call with a JSON object.
    """
    if not calls:
        return Prediction(None, None, "no_action" if text.strip() else "empty")
    repairs: list[Repair] = ["several_calls"] if len(calls) > 1 else []
    name, arguments = _clean_characters(calls[0][0], repairs), calls[0][1]
    if len(arguments) > MAX_ANSWER:
        return Prediction(name, None, "too_long", tuple(repairs), len(calls) - 1)
    draft = _Draft(_clean_characters(arguments, repairs), repairs)
    if not draft.text.strip():
        repairs.append("empty_arguments")
        draft.text = "{}"
    read = draft.read_input(0)
    whole = Prediction(name, read.arguments, read.problem, read.repairs, len(calls) - 1)
    return _strictly(whole, strict)


def _strictly(read: Prediction, strict: bool) -> Prediction:
    if not strict or not read.repairs:
        return read
    return Prediction(None, None, read.problem or "not_as_asked", read.repairs, read.extra_calls)


def _as_asked(text: str) -> Prediction | None:
    """The short way for an answer in the asked format; None if it takes a closer look."""
    cut = text.find("\nAction Input: {")
    if cut < 0 or len(text) > MAX_ANSWER or not text.startswith("Thought:"):
        return None
    start = text.find("\nAction: ", 0, cut)
    if start < 0 or not text[start + 9 : cut].isidentifier() or not text.isascii():
        return None
    if "\r" in text or "<" in text[:start] or "action" in text[:start].lower():
        return None
    try:
        arguments, end = read_json(text, cut + 15)
    except Refused:
        return None
    if end < len(text) and not text[end:].isspace():
        return None
    return Prediction(text[start + 9 : cut], arguments) if isinstance(arguments, dict) else None


def _mended(text: str) -> Prediction:
    if len(text) > MAX_TEXT:
        return Prediction(None, None, "too_long")
    repairs: list[Repair] = []
    text = _without_reasoning(_clean_lines(_clean_characters(text, repairs), repairs), repairs)
    if not text.strip():
        return Prediction(None, None, "empty", tuple(repairs))
    if len(text) > MAX_ANSWER:
        return Prediction(None, None, "too_long", tuple(repairs))
    return _Draft(text, repairs).read()


def _clean_characters(text: str, repairs: list[Repair]) -> str:
    if text.isascii():
        return text
    whole = str(without_surrogates(text))
    if whole != text and "broken_characters" not in repairs:
        repairs.append("broken_characters")
    return whole


def _clean_lines(text: str, repairs: list[Repair]) -> str:
    if "\r" not in text:
        return text
    repairs.append("line_ends")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _without_reasoning(text: str, repairs: list[Repair]) -> str:
    """Without `<think>` blocks that start a line, and without what stands before a lone end."""
    kept, at = [], 0
    while opened := _OPENED.search(text, at):
        closed = _CLOSED.search(text, opened.end())
        kept.append(text[at : opened.start()])
        if closed is None:
            repairs.append("unfinished_reasoning")
            return "".join(kept)
        at = closed.end()
    rest = text[at:]
    closed = _CLOSED.search(rest) if at == 0 else None
    if closed and _has_call(rest[closed.end() :]):
        at, rest = closed.end(), rest[closed.end() :]
    if at == 0:
        return text
    repairs.append("reasoning")
    return "".join([*kept, rest]).lstrip()


def _has_call(text: str) -> bool:
    kinds = {match[1].lower().replace("_", " ") for match in _LABEL.finditer(text)}
    return {"action", "action input"} <= kinds


@dataclass(slots=True)
class _Label:
    kind: str
    start: int
    end: int
    shown: str


@dataclass(slots=True)
class _Draft:
    """An answer while it is read."""

    text: str
    repairs: list[Repair]
    calls: list[tuple[_Label, _Label]] = field(default_factory=list)

    def read(self) -> Prediction:
        labels = self._labels(_LABEL)
        self.calls = _pairs(labels)
        if not self.calls:
            inline = self._labels(_INLINE)
            self.calls = _pairs(inline)
            if not self.calls:
                return self._without_call(labels or inline)
            self._note("inline_labels")
            labels = inline
        action, given = self._chosen()
        self._check_labels(labels, action, given)
        name = self._name(self.text[action.end : given.start])
        read = self.read_input(given.end)
        if name:
            return Prediction(
                name, read.arguments, read.problem, tuple(self.repairs), read.extra_calls
            )
        return Prediction(None, None, "no_action", tuple(self.repairs), read.extra_calls)

    def read_input(self, start: int) -> Prediction:
        """Reads the object that follows `start`; the prediction has no name."""
        at = self._skip(start)
        if self.text[start:at] not in ("", " ") or (at == start and start > 0):
            self._note("spaces")
        fence = _FENCE.match(self.text, at)
        if fence:
            self._note("fenced")
            at = fence.end()
        if at >= len(self.text) or _LABEL.match(self.text, at):
            return Prediction(None, None, "no_input", tuple(self.repairs))
        try:
            value, end = self._value(at)
        except Refused as refused:
            return Prediction(None, None, refused.problem, tuple(self.repairs))
        extra = sum(given.start >= end for _, given in self.calls)
        if extra:
            self._note("several_calls")
        if self.text[end:].strip().strip("`" if fence else "").strip():
            self._note("trailing_text")
        if not isinstance(value, dict):
            return Prediction(None, None, "not_object", tuple(self.repairs), extra)
        return Prediction(None, value, None, tuple(self.repairs), extra)

    def _value(self, at: int) -> tuple[JsonValue, int]:
        try:
            return read_json(self.text, at)
        except Refused as refused:
            if refused.problem != "not_json":
                raise
        try:
            found = read_json(self.text, at, controls=True)
            self._note("control_characters")
        except Refused as refused:
            if refused.problem != "not_json":
                raise
            found = read_python(self.text, at)
            self._note("python_literal")
        return found

    def _labels(self, pattern: re.Pattern[str]) -> list[_Label]:
        return [
            _Label(m[1].lower().replace("_", " "), m.start(), m.end(), m[0])
            for m in pattern.finditer(self.text)
        ]

    def _without_call(self, labels: list[_Label]) -> Prediction:
        actions = [label for label in labels if label.kind == "action"]
        if not actions:
            return Prediction(None, None, "no_action", tuple(self.repairs))
        line = self.text[actions[0].end :].partition("\n")[0]
        name = self._name(f"{line}\n")
        return Prediction(name or None, None, "no_input", tuple(self.repairs))

    def _chosen(self) -> tuple[_Label, _Label]:
        """The first call, or rather the first that has an object: a thought may name the labels."""
        for call in self.calls:
            at = self._skip(call[1].end)
            fence = _FENCE.match(self.text, at)
            if self.text.startswith("{", fence.end() if fence else at):
                return call
        return self.calls[0]

    def _check_labels(self, labels: list[_Label], action: _Label, given: _Label) -> None:
        for label in (action, given):
            if "\uff1a" in label.shown:
                self._note("full_width_colon")
            elif label.shown not in _PLAIN_LABELS:
                self._note("label_style")
        head = self.text[: action.start]
        if "Action:" in head or "Action Input:" in head:
            self._note("label_in_thought")
        if not any(label.kind == "thought" and label.start < action.start for label in labels):
            self._note("no_thought")
        elif not head.startswith("Thought:"):
            self._note("spaces" if head.lstrip().startswith("Thought:") else "leading_text")

    def _name(self, raw: str) -> str:
        name = raw.strip()
        if raw != f" {name}\n":
            self._note("spaces")
        if "\n" in name:
            self._note("name_lines")
            name = name.partition("\n")[0].rstrip()
        for _ in range(MAX_QUOTES):
            if len(name) > 2 and _WRAPPED.get(name[0]) == name[-1]:
                self._note("quoted_name")
                name = name[1:-1].strip()
        return name

    def _skip(self, at: int) -> int:
        match = _SPACE.match(self.text, at)
        return match.end() if match else at

    def _note(self, repair: Repair) -> None:
        if repair not in self.repairs:
            self.repairs.append(repair)


def _pairs(labels: list[_Label]) -> list[tuple[_Label, _Label]]:
    """Each `Action Input:` with the nearest `Action:` before it."""
    pairs: list[tuple[_Label, _Label]] = []
    action: _Label | None = None
    for label in labels:
        if label.kind == "action":
            action = label
        elif label.kind == "action input" and action is not None:
            pairs.append((action, label))
            action = None
    return pairs
