"""Renaming what refers to tools: calls, and the turns of a conversation.

rename_call(call, changes)                    # into the disturbed environment
restore(call, changes)                        # and back
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import cast

from pydantic import JsonValue

from rotbench.cases import Call, Step
from rotbench.changes import Changes, ToolChange

__all__ = ["call_in", "call_text", "rename_call", "rename_step", "rename_steps", "restore"]

_CALL = re.compile(r"Action: ([^\n]*)\nAction Input: (\{.*\})\s*\Z", re.DOTALL)
_COMPLAINT = re.compile(r"argument|parameter|required|keyword")
"""Only a tool's complaint about its arguments names parameters. Elsewhere the same word is data."""
_IDENTIFIER = re.compile(r"[a-z0-9][A-Z]|[_\d]")
"""What marks a word as a name: `get_news`, `getNews`, `news2`; but not `news`."""


def rename_call(call: Call, changes: Changes) -> Call:
    """The same call in the disturbed environment; a call of an unknown tool stays as it is.

    A parameter that the tool got is added with the value that its description orders.
    """
    change = changes.forward.get(call.name)
    if change is None or not change.changed:
        return call
    if not change.parameters and change.addendum is None:
        return Call(change.new, call.arguments)
    names = change.forward
    arguments = {names.get(key, key): value for key, value in call.arguments.items()}
    if change.addendum is not None:
        arguments[change.addendum.name] = change.addendum.value
    return Call(change.new, arguments)


def restore(call: Call, changes: Changes) -> Call:
    """Undoes `rename_call`: a call in the disturbed environment as the clean one knows it.

    Exact for `strict` noise and arguments that the tool has.
    """
    change = changes.backward.get(call.name)
    if change is None or not change.changed:
        return call
    names = change.backward
    added = None if change.addendum is None else change.addendum.name
    arguments = {names.get(k, k): value for k, value in call.arguments.items() if k != added}
    return Call(change.old, arguments)


def call_in(text: str) -> Call | None:
    """The call that an assistant's turn ends with, if it has the released form."""
    found = _CALL.search(text)
    if found is None:
        return None
    try:
        arguments: object = json.loads(found[2])
    except (ValueError, RecursionError):
        return None
    return Call(found[1], cast("dict[str, JsonValue]", arguments))


def call_text(call: Call) -> str:
    """A call as the released files write it, without the thought."""
    return f"Action: {call.name}\nAction Input: {json.dumps(call.arguments)}"


def rename_steps(
    steps: Sequence[Step], changes: Changes, *, plain: bool = False
) -> tuple[Step, ...]:
    """A conversation in the disturbed environment. Its first turn, the query, stays as it is.

    Args:
        steps: The turns.
        changes: What the noise did.
        plain: As the official generator: tool names are replaced wherever their letters occur.
    """
    renamed: list[Step] = []
    called: str | None = None
    for place, step in enumerate(steps):
        if place == 0 and step.role == "user":
            renamed.append(step)
            continue
        renamed.append(rename_step(step, changes, called=called, plain=plain))
        if step.role == "assistant":
            call = call_in(step.text)
            called = None if call is None else call.name
    return tuple(renamed)


def rename_step(
    step: Step, changes: Changes, *, called: str | None = None, plain: bool = False
) -> Step:
    """One turn in the disturbed environment.

    Args:
        step: An assistant's turn with its call, or the reply to one.
        changes: What the noise did.
        called: Clean name of the tool that this is the reply of; only its parameters are renamed.
        plain: As the official generator: tool names are replaced wherever their letters occur.

    Source: released Third_Turn files: calls are renamed as calls; replies have all tools' names
        replaced, and in a complaint about arguments the quoted names of the called tool's.
    Deviation: unless `plain`, only whole words are replaced, and a tool's name that is an ordinary
        word only where it is called, so that short names do not corrupt other text.
    """
    if step.role == "assistant":
        return Step("assistant", _rename_assistant(step.text, changes, plain=plain))
    text = _rename_tools(step.text, changes.tools, plain=plain)
    change = None if called is None else changes.forward.get(called)
    if change is not None and change.parameters and _COMPLAINT.search(step.text):
        text = _rename_quoted(text, change)
    return Step(step.role, text)


def _rename_assistant(text: str, changes: Changes, *, plain: bool) -> str:
    """Renames the call, and in strict mode the names in the thought before it."""
    found = _CALL.search(text)
    call = None if found is None else call_in(text)
    if found is None or call is None:
        return text if plain else _rename_tools(text, changes.tools, plain=False)
    before = text[: found.start()]
    if not plain:
        before = _rename_tools(before, changes.tools, plain=False)
    return before + call_text(rename_call(call, changes))


def _rename_tools(text: str, tools: Iterable[ToolChange], *, plain: bool) -> str:
    """Replaces tool names, all at once, so that exchanged names do not chain."""
    names = {one.old: one.new for one in tools if one.old != one.new and one.old in text}
    names.pop("", None)
    if not names:
        return text
    return _pattern(tuple(names), plain).sub(lambda found: names[found[0]], text)


@lru_cache(maxsize=1024)
def _pattern(names: tuple[str, ...], plain: bool) -> re.Pattern[str]:
    longest_first = sorted(names, key=lambda name: (-len(name), name))
    if plain:
        return re.compile("|".join(map(re.escape, longest_first)))
    parts = [
        re.escape(name) + ("" if _IDENTIFIER.search(name) else r"(?=\()") for name in longest_first
    ]
    return re.compile(rf"(?<![\w-])(?:{'|'.join(parts)})(?![\w-])")


def _rename_quoted(text: str, change: ToolChange) -> str:
    names = change.forward
    return re.sub(r"(['`])([^'`\n]{0,200})\1", lambda m: m[1] + names.get(m[2], m[2]) + m[1], text)
