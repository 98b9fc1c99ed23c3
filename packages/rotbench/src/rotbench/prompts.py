"""What a model is asked: a case as a request, in each mode.

    prompt = write_prompt(case, mode="react")
    generator.generate([prompt.request])

`react` shows the system text of the data byte for byte and its conversation as chat messages, or as
the plain lines of the official code; `native` gives the tools to the model's own tool calling;
`raven1` and `raven2` are in `raven_prompts`.

Source: official inference code. It sends tool results in a chat role `function` that today's chat
    templates and endpoints no longer have.
Deviation: a tool result is a user's message that begins with `Function: `, the label of the
    official plain lines. Sending it as `tool` needs a call in the API's form before it, which
    `react` has not.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from papercore.generate.types import Message, Request, SamplingParams, ToolCall, ToolSpec
from rotbench.cases import Case
from rotbench.config import Mode
from rotbench.native import Toolbox
from rotbench.predictions import read_react
from rotbench.raven_prompts import raven_prompt
from rotbench.released import system_text

__all__ = ["Prompt", "Style", "prefix_order", "prompt_hash", "write_prompt"]

Style = Literal["chat", "plain"]

GREEDY = SamplingParams(max_new_tokens=512)

NATIVE_SYSTEM = (
    "You help a user by calling tools. Decide what the next step is and make exactly one call, of "
    "the tool whose description fits it, with the arguments that the description asks for. Do not "
    "answer in plain text: one tool hands over the final answer, and one asks the user a question."
)
"""Ours. It names no tool, since any name may be disturbed."""

_LABELS = {"user": "User", "assistant": "Assistant", "function": "Function"}


@dataclass(frozen=True, slots=True)
class Prompt:
    """A request, and what is needed to read its answer."""

    case: Case
    request: Request
    toolbox: Toolbox | None = None
    """In `native` mode: the way back from legal names."""


def write_prompt(
    case: Case,
    *,
    name: str | None = None,
    mode: Mode = "react",
    style: Style = "chat",
    params: SamplingParams = GREEDY,
) -> Prompt:
    """A case as a request.

    Args:
        case: What to ask.
        name: Id of the request; the case's key if None.
        mode: How tools are shown and calls are to be written.
        style: `plain` for a model without a chat template; `react` only.
        params: How to generate.
    """
    name = name or str(case.key)
    if mode == "native":
        toolbox = Toolbox.of(case.tools)
        messages = _native_messages(case, toolbox)
        return Prompt(case, _chat(name, messages, params, toolbox.specs), toolbox)
    if mode == "react" and style == "chat":
        return Prompt(case, _chat(name, _react_messages(case), params))
    text = (
        _plain_lines(case) if mode == "react" else raven_prompt(case, 1 if mode == "raven1" else 2)
    )
    return Prompt(case, Request(id=name, prompt=text, params=params))


def prefix_order(prompts: Iterable[Prompt]) -> list[Prompt]:
    """Prompts with equal beginnings next to each other, for backends that remember prefixes."""
    return sorted(prompts, key=lambda prompt: (_beginning(prompt.request), prompt.request.id))


def prompt_hash(prompts: Iterable[Prompt]) -> str:
    """SHA-256 over all that the model will see, in the order of the ids."""
    digest = hashlib.sha256()
    for prompt in sorted(prompts, key=lambda prompt: prompt.request.id):
        for part in _parts(prompt.request):
            digest.update(part.encode("utf-8", "surrogatepass") + b"\0")
    return digest.hexdigest()


def _chat(
    name: str,
    messages: Sequence[Message],
    params: SamplingParams,
    tools: tuple[ToolSpec, ...] | None = None,
) -> Request:
    return Request(id=name, messages=tuple(messages), tools=tools, params=params)


def _react_messages(case: Case) -> list[Message]:
    messages = [Message(role="system", content=system_text(case))]
    for step in case.steps:
        if step.role == "function":
            messages.append(_result_as_user(step.text))
        else:
            messages.append(Message(role=step.role, content=step.text))
    return messages


def _result_as_user(text: str) -> Message:
    return Message(role="user", content=f"{_LABELS['function']}: {text}")


def _plain_lines(case: Case) -> str:
    lines = [f"System: {system_text(case)}"]
    lines += [f"{_LABELS[step.role]}: {step.text}" for step in case.steps]
    return "\n".join([*lines, f"{_LABELS['assistant']}:"])


def _native_messages(case: Case, toolbox: Toolbox) -> list[Message]:
    """The conversation with calls and results in the API's form.

    A user's message behind a call answers it, as the reply of the tool that asks the user.
    """
    messages = [Message(role="system", content=NATIVE_SYSTEM)]
    messages.append(Message(role="user", content=case.query))
    open_call: str | None = None
    for place, step in enumerate(case.steps[1:]):
        if step.role == "assistant":
            message = _native_step(step.text, toolbox, f"call{place:05d}")
            open_call = message.tool_calls[0].id if message.tool_calls else None
            messages.append(message)
        elif open_call is not None:
            messages.append(Message(role="tool", content=step.text, tool_call_id=open_call))
            open_call = None
        elif step.role == "function":
            messages.append(_result_as_user(step.text))
        else:
            messages.append(Message(role="user", content=step.text))
    return messages


def _native_step(text: str, toolbox: Toolbox, call_id: str) -> Message:
    """An earlier step in the API's form; as text if no call can be read.

    The id has nine letters and digits, which is what Mistral's template asks for.
    """
    read = read_react(text)
    if read.name is None or read.arguments is None:
        return Message(role="assistant", content=text)
    thought = text.partition("Action:")[0].removeprefix("Thought:").strip()
    name, arguments = toolbox.disguised(read.name, read.arguments)
    call = ToolCall(id=call_id, name=name, arguments=arguments)
    return Message(role="assistant", content=thought, tool_calls=(call,))


def _beginning(request: Request) -> str:
    """What comes first: the tools where they are sent apart, else the first message or the text."""
    if request.tools:
        return "".join(f"{tool.name}\0{tool.description}\0" for tool in request.tools)
    return request.prompt or str((request.messages or ())[0].content)


def _parts(request: Request) -> Iterable[str]:
    if request.prompt is not None:
        yield request.prompt
    for message in request.messages or ():
        yield message.role
        yield str(message.content)
        yield from (f"{call.name}\0{call.arguments}" for call in message.tool_calls)
    for tool in request.tools or ():
        yield tool.model_dump_json()
