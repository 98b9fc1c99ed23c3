"""Trajectories as OpenAI messages, with tools and tool calls.

`{"id", "tools": [{"type": "function", "function": {...}}], "messages": [...]}`; arguments may be a
text, as the API has them, or an object, as some data sets do. Calls without a place for their id,
and contents in parts, are read too.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from rotbench.cases import Call
from rotbench.fields import Fields, as_call, as_list, as_table, as_text, as_tools, fail
from rotbench.released import BEGIN
from rotbench.rotbench_layout import tool_schemas
from rotbench.trajectories import Move, Trajectory

__all__ = ["as_openai", "from_openai", "to_openai"]

_SYSTEM = ("system", "developer")


@dataclass(slots=True)
class _Open:
    """Calls that no reply has answered yet: id -> name, in order."""

    calls: dict[str, str]

    def take(self, call_id: object) -> str | None:
        """The tool of the call that a reply answers: that of its id, else the oldest one."""
        key = str(call_id)
        if key not in self.calls:
            key = next(iter(self.calls), "")
        return self.calls.pop(key, None)


def from_openai(fields: Fields) -> Trajectory:
    """Reads a row.

    Raises:
        DataError: What is wrong, beginning with the field that is.
    """
    messages = as_list(fields["messages"], "messages")
    tools, extras = as_tools(fields.get("tools"), "tools")
    preamble, moves, waiting = "", [], _Open({})
    for place, item in enumerate(messages):
        field = f"messages[{place}]"
        message = as_table(item, field)
        if message.get("role") in _SYSTEM:
            if place:
                fail(f"{field}.role", "only the first message may be the system's")
            preamble = _content(message, field)
        else:
            moves.append(_move(message, field, waiting))
    return Trajectory(
        id=str(fields.get("id") or ""),
        scenario=str(fields.get("scenario") or ""),
        preamble=preamble,
        tools=tools,
        closing="",
        moves=tuple(moves),
        layout="openai",
        extras=extras,
    )


def to_openai(trajectory: Trajectory) -> dict[str, object]:
    """Writes a row. Ids of calls are numbered anew."""
    trajectory = as_openai(trajectory)
    messages: list[dict[str, object]] = []
    if trajectory.preamble:
        messages.append({"role": "system", "content": trajectory.preamble})
    waiting: list[tuple[str, str]] = []
    for place, move in enumerate(trajectory.moves):
        if move.role == "function":
            found = next((one for one in waiting if one[1] == move.called), ("", ""))
            if found in waiting:
                waiting.remove(found)
            messages.append({"role": "tool", "tool_call_id": found[0], "content": move.text})
        elif move.calls:
            named = [(f"call{place:03d}{number:02d}", c) for number, c in enumerate(move.calls)]
            waiting = [(call_id, call.name) for call_id, call in named]
            calls = [_call_entry(call_id, call) for call_id, call in named]
            messages.append({"role": "assistant", "content": move.text, "tool_calls": calls})
        else:
            messages.append({"role": move.role, "content": move.text})
    tools = [{"type": "function", "function": schema} for schema in tool_schemas(trajectory)]
    return {
        "id": trajectory.id,
        "scenario": trajectory.scenario,
        "tools": tools,
        "messages": messages,
    }


def as_openai(trajectory: Trajectory) -> Trajectory:
    """The trajectory without the words that only the released layout needs.

    Its system text goes: it orders another form of calls. So does the start signal of the query.
    """
    if trajectory.layout == "openai":
        return trajectory
    moves = list(trajectory.moves)
    moves[0] = replace(moves[0], text=moves[0].text.removesuffix(BEGIN))
    return replace(trajectory, preamble="", closing="", moves=tuple(moves), layout="openai")


def _move(message: Fields, field: str, waiting: _Open) -> Move:
    role, text = message.get("role"), _content(message, field)
    if role == "user":
        return Move("user", text)
    if role in ("tool", "function"):
        return Move("function", text, called=waiting.take(message.get("tool_call_id")))
    if role != "assistant":
        fail(f"{field}.role", f"{role!r:.40} is none of system, user, assistant, tool")
    named = _calls(message.get("tool_calls") or [], f"{field}.tool_calls")
    if named:
        waiting.calls = {call_id: call.name for call_id, call in named}
    return Move("assistant", text, tuple([call for _, call in named]))


def _content(message: Fields, field: str) -> str:
    content = message.get("content")
    if isinstance(content, list):
        parts = [as_table(part, f"{field}.content[{i}]") for i, part in enumerate(content)]
        return "".join(
            as_text(part.get("text"), f"{field}.content[{i}].text") for i, part in enumerate(parts)
        )
    return "" if content is None else as_text(content, f"{field}.content")


def _calls(value: object, field: str) -> Sequence[tuple[str, Call]]:
    read: list[tuple[str, Call]] = []
    for place, item in enumerate(as_list(value, field)):
        where = f"{field}[{place}]"
        entry = as_table(item, where)
        function = as_table(entry.get("function"), f"{where}.function")
        name = as_text(function.get("name"), f"{where}.function.name")
        call = as_call(name, _arguments(function, where), f"{where}.function.arguments")
        read.append((str(entry.get("id") or f"#{place}"), call))
    return read


def _arguments(function: Fields, where: str) -> object:
    arguments = function.get("arguments")
    if not isinstance(arguments, str):
        return arguments
    try:
        read: object = json.loads(arguments or "{}")
    except (ValueError, RecursionError):
        fail(f"{where}.function.arguments", "is not JSON")
    return read


def _call_entry(call_id: str, call: Call) -> Mapping[str, object]:
    arguments = json.dumps(call.arguments)
    return {
        "id": call_id,
        "type": "function",
        "function": {"name": call.name, "arguments": arguments},
    }
