"""Trajectories in the layout of the released files.

Read too, because sister data sets have them: ShareGPT's names for who speaks, a list of tools in a
field `tools`, ToolBench's list of tools as a Python literal, and a list of texts in place of one
(the released files' accepted answers), of which the first is taken.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Literal, TypeAlias

from papercore.errors import DataError
from rotbench.fields import Fields, as_call, as_list, as_table, as_text, as_tools, fail
from rotbench.literals import Refused, read_python
from rotbench.released import BEGIN
from rotbench.rewrite import call_text
from rotbench.trajectories import Move, Trajectory

__all__ = ["as_rotbench", "from_rotbench", "spoken", "system_text", "to_rotbench", "tool_schemas"]

Role: TypeAlias = Literal["system", "user", "assistant", "function"]

PREAMBLE = (
    "You solve a user's task with tools. Every turn of yours is one call in this form:\n"
    "Thought: what you know so far and what to do next, in a few words\n"
    "Action: the name of a tool from the list below\n"
    "Action Input: the arguments of the call, one JSON object\n"
    "The names of the tools may say little: trust their descriptions.\n\n"
    "The tools:\n"
)
"""Ours, for trajectories that came without a text of this layout."""
CLOSING = "\n\nStart now."

_ROLES: Mapping[str, Role] = {
    "system": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "function": "function",
    "tool": "function",
    "observation": "function",
}
_REACT = re.compile(
    r"\s*(?:Thought:)?(?P<thought>.*?)\s*Action:[ \t]*(?P<name>[^\n]*?)[ \t]*\n"
    r"\s*Action Input:(?P<input>.*)\Z",
    re.DOTALL,
)
_LIST = re.compile(r"\[\s*\{")
_MAX_LISTS = 100
_DECODER = json.JSONDecoder()


def from_rotbench(fields: Fields) -> Trajectory:
    """Reads a row.

    Raises:
        DataError: What is wrong, beginning with the field that is.
    """
    turns = as_list(fields["conversations"], "conversations")
    if len(turns) < 3:
        fail("conversations", "should have a system's, a user's and an assistant's turn at least")
    said = [_said(turn, f"conversations[{place}]") for place, turn in enumerate(turns)]
    if said[0][0] != "system":
        fail("conversations[0].from", "should be system")
    preamble, listed, closing = said[0][1], fields.get("tools"), ""
    where = "tools"
    if listed is None:
        preamble, listed, closing = _split_system(said[0][1])
        where = "conversations[0].value: tools"
    tools, extras = as_tools(listed, where)
    moves: list[Move] = []
    for place, (role, text) in enumerate(said[1:], start=1):
        moves.append(_move(role, text, moves, f"conversations[{place}]"))
    return Trajectory(
        id=str(fields.get("id") or ""),
        scenario=str(fields.get("scenario") or ""),
        preamble=preamble,
        tools=tools,
        closing=closing,
        moves=tuple(moves),
        layout="rotbench",
        extras=extras,
    )


def to_rotbench(trajectory: Trajectory) -> dict[str, object]:
    """Writes a row.

    Raises:
        DataError: The trajectory has several calls in one turn and no reply to each.
    """
    trajectory = as_rotbench(trajectory)
    turns = [{"from": "system", "value": system_text(trajectory)}]
    turns += [{"from": move.role, "value": spoken(move)} for move in trajectory.moves]
    return {"id": trajectory.id, "conversations": turns, "scenario": trajectory.scenario}


def as_rotbench(trajectory: Trajectory) -> Trajectory:
    """The trajectory with one call per turn, and with this layout's words around its tools.

    Raises:
        DataError: The trajectory has several calls in one turn and no reply to each.
    """
    if trajectory.layout == "rotbench":
        return trajectory
    moves = list(_one_call_each(trajectory.moves))
    if moves[0].role == "user":
        moves[0] = replace(moves[0], text=moves[0].text + BEGIN)
    own = trajectory.preamble and trajectory.preamble + "\n\n"
    return replace(
        trajectory,
        preamble=own + PREAMBLE,
        closing=CLOSING,
        moves=tuple(moves),
        layout="rotbench",
    )


def system_text(trajectory: Trajectory) -> str:
    """The system's text with the list of tools in it."""
    return trajectory.preamble + json.dumps(tool_schemas(trajectory)) + trajectory.closing


def tool_schemas(trajectory: Trajectory) -> list[dict[str, object]]:
    """The tools as the released files have them."""
    extras = trajectory.extras or ({},) * len(trajectory.tools)
    return [
        {
            "name": tool.name,
            "description": tool.description,
            "parameters": {
                "type": "object",
                "properties": dict(tool.parameters),
                "required": list(tool.required),
                **extra,
            },
        }
        for tool, extra in zip(trajectory.tools, extras, strict=True)
    ]


def spoken(move: Move) -> str:
    """A turn as text, its call in the released form."""
    if not move.calls:
        return move.text
    assert len(move.calls) == 1, "as_rotbench leaves one"
    thought = f"Thought: {move.text}" if move.text else "Thought:"
    return f"{thought}\n{call_text(move.calls[0])}"


def _split_system(text: str) -> tuple[str, object, str]:
    """The words before the list of tools, the list, and the words behind it."""
    for tried, found in enumerate(_LIST.finditer(text)):
        read = _read_list(text, found.start())
        if read is not None:
            return text[: found.start()], read[0], text[read[1] :]
        if tried == _MAX_LISTS:
            break
    return fail("conversations[0].value", "holds no list of tools")


def _read_list(text: str, start: int) -> tuple[object, int] | None:
    """The list of tools that begins here, in JSON or in Python, and where it ends."""
    value: object
    try:
        value, end = _DECODER.raw_decode(text, start)
    except (ValueError, RecursionError):
        try:
            value, end = read_python(text, start)
        except Refused:
            return None
    is_tools = isinstance(value, list) and isinstance(value[0], dict) and "name" in value[0]
    return (value, end) if is_tools else None


def _said(value: object, field: str) -> tuple[Role, str]:
    fields = as_table(value, field)
    role = _ROLES.get(str(fields.get("from")))
    if role is None:
        fail(f"{field}.from", f"{fields.get('from')!r:.40} is none of {', '.join(_ROLES)}")
    text = fields.get("value")
    if isinstance(text, list) and text:
        return role, as_text(text[0], f"{field}.value[0]")
    return role, as_text(text, f"{field}.value")


def _move(role: Role, text: str, before: Sequence[Move], field: str) -> Move:
    if role == "system":
        fail(f"{field}.from", "only the first turn may be the system's")
    if role == "function":
        return Move("function", text, called=_called(before))
    if role == "user":
        return Move("user", text)
    found = _REACT.match(text)
    if found is None:
        return Move("assistant", text)
    try:
        arguments: object = json.loads(found["input"])
    except (ValueError, RecursionError):
        fail(f"{field}.value", "its Action Input is not JSON")
    call = as_call(found["name"], arguments, f"{field}.value: Action Input")
    return Move("assistant", found["thought"].strip(), (call,))


def _called(before: Sequence[Move]) -> str | None:
    """The tool whose reply comes next."""
    last = before[-1] if before else None
    return last.calls[0].name if last is not None and last.calls else None


def _one_call_each(moves: Sequence[Move]) -> Iterator[Move]:
    """Turns with several calls as one turn per call, each with its reply behind it."""
    place = 0
    while place < len(moves):
        move = moves[place]
        place += 1
        if len(move.calls) < 2:
            yield move
            continue
        replies = moves[place : place + len(move.calls)]
        place += len(replies)
        if [reply.role for reply in replies] != ["function"] * len(move.calls):
            raise DataError("the row: several calls in one turn, and not one reply to each")
        for number, (call, reply) in enumerate(zip(move.calls, replies, strict=True)):
            yield Move("assistant", "" if number else move.text, (call,))
            yield reply
