"""Native tool calling: how tools are shown to a model, and how its calls are read.

    functions(request.tools)  # what chat templates and endpoints take
    content, calls = read_calls(tokenizer, text, prompt=prompt_text, tools=request.tools)

The arguments of a call stay the text that the model wrote; whoever runs a tool parses them.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, TypeAlias, cast

from papercore.generate.types import Message, ToolCall, ToolSpec

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["arguments_text", "calls_of", "functions", "read_calls"]

logger = logging.getLogger(__name__)

Function: TypeAlias = dict[str, object]
"""A tool or a call of one in the form that OpenAI set and chat templates follow."""


def functions(tools: Sequence[ToolSpec]) -> list[Function]:
    """Tools as chat templates and endpoints take them."""
    return [{"type": "function", "function": one.model_dump(mode="json")} for one in tools]


def calls_of(message: Message, *, parsed: bool) -> list[Function]:
    """A message's calls in the same form.

    Args:
        parsed: Give the arguments as an object where they are one, which chat templates expect;
            endpoints expect text.
    """
    return [
        {
            "id": call.id,
            "type": "function",
            "function": {
                "name": call.name,
                "arguments": _parsed(call.arguments) if parsed else call.arguments,
            },
        }
        for call in message.tool_calls
    ]


def read_calls(
    tokenizer: PreTrainedTokenizerBase, text: str, *, prompt: str, tools: Sequence[ToolSpec]
) -> tuple[str, tuple[ToolCall, ...]]:
    """Content and calls in what a model wrote, by the tokenizer's response template.

    Without a template, or where the text does not follow it, the text comes back as it is and
    without calls.

    Args:
        text: What was generated, markers and other special tokens included.
        prompt: What was read before it; the start of a reply may be in it.
    """
    if getattr(tokenizer, "response_template", None) is None:
        _warn_of_no_template(tokenizer.name_or_path)
        return text, ()
    try:
        parsed = tokenizer.parse_response(text, prefix=prompt, tools=[*functions(tools)])
        calls = [_call(i, one) for i, one in enumerate(parsed.get("tool_calls") or ())]
    except (ValueError, KeyError, TypeError) as error:
        logger.info("a reply does not follow the response template: %s", str(error).split("\n")[0])
        return text, ()
    return str(parsed.get("content") or ""), tuple(calls)


def arguments_text(arguments: object) -> str:
    """Arguments as text, for whoever hands them over parsed; none at all are an empty text."""
    if arguments is None or isinstance(arguments, str):
        return arguments or ""
    return json.dumps(arguments, ensure_ascii=False)


def _call(index: int, parsed: Mapping[str, object]) -> ToolCall:
    called = parsed.get("function", parsed)
    if not isinstance(called, Mapping) or not isinstance(called.get("name"), str):
        raise TypeError("a call without a name")
    arguments = arguments_text(called.get("arguments", {}))
    return ToolCall(id=f"call_{index}", name=cast("str", called["name"]), arguments=arguments)


def _parsed(arguments: str) -> object:
    try:
        found = json.loads(arguments)
    except ValueError:
        return arguments
    return found if isinstance(found, dict) else arguments


@cache
def _warn_of_no_template(name: str) -> None:
    logger.warning(
        "the tokenizer of %s has no response_template: tool calls stay in the text, parse it there",
        name or "this model",
    )
