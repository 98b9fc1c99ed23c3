"""What goes to an endpoint and comes back: bodies of requests, replies read as completions.

route, body = body_of(request, model="Qwen/Qwen3-8B", config=config, seed=0)
reply = read_reply(request, route, text)
"""

from __future__ import annotations

import base64
import json
import mimetypes
import re
from pathlib import Path
from typing import Literal, TypeAlias

from pydantic import BaseModel, JsonValue, ValidationError

from papercore.config import one_line
from papercore.generate.endpoint import EndpointConfig
from papercore.generate.texts import cut_at_stop
from papercore.generate.tools import arguments_text, calls_of, functions
from papercore.generate.types import (
    Completion,
    ImagePart,
    Message,
    Part,
    Request,
    SamplingParams,
    ToolCall,
    Usage,
)

__all__ = ["Reply", "Route", "body_of", "read_reply"]

Route: TypeAlias = Literal["/chat/completions", "/completions"]

_HALF = re.compile(r"\\u[dD][89a-fA-F]")
_SEED_BITS = 31
"""Seeds of our own stay below 2**31: some gateways keep numbers as floats or as 32 bits."""


class _Function(BaseModel):
    name: str | None = None
    arguments: JsonValue = ""
    """Text by the API, but a model writes what it likes, and some servers read it first."""


class _Call(BaseModel):
    id: str | None = None
    function: _Function


class _ReplyMessage(BaseModel):
    content: str | None = None
    refusal: str | None = None
    tool_calls: list[_Call] | None = None


class _Logprob(BaseModel):
    logprob: float


class _Logprobs(BaseModel):
    content: list[_Logprob] | None = None
    token_logprobs: list[float | None] | None = None


class _Choice(BaseModel):
    message: _ReplyMessage | None = None
    text: str | None = None
    finish_reason: str | None = None
    logprobs: _Logprobs | None = None


class _Usage(BaseModel):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


class _Document(BaseModel):
    choices: list[_Choice]
    usage: _Usage | None = None
    model: str | None = None
    system_fingerprint: str | None = None


class Reply(BaseModel):
    """A completion, and what the endpoint said about itself."""

    completion: Completion
    model: str | None
    fingerprint: str | None


def body_of(
    request: Request, *, model: str, config: EndpointConfig, seed: int
) -> tuple[Route, dict[str, object]]:
    """Route and body of a request.

    Args:
        seed: From which a sampled request without a seed gets its own.

    Raises:
        OSError: An image cannot be read.
        ValueError: A file is no image by its name.
    """
    body: dict[str, object] = {"model": model, **_sampling(request, seed)}
    limit = request.params.max_new_tokens
    if request.messages is None:
        prompt = request.prompt if request.token_ids is None else list(request.token_ids)
        body |= {"prompt": prompt, "max_tokens": limit}
        if request.params.logprobs:
            body["logprobs"] = 1
        return "/completions", body
    body |= {"messages": [_turn(one) for one in request.messages], config.max_tokens_field: limit}
    if request.params.logprobs:
        body["logprobs"] = True
    if request.tools:
        body["tools"] = functions(request.tools)
    return "/chat/completions", body


def read_reply(request: Request, route: Route, text: str) -> Reply:
    """The completion in a reply.

    Raises:
        ValueError: The reply is not what its route should give.
    """
    try:
        document = _Document.model_validate_json(_whole(text))
    except ValidationError as error:
        raise ValueError(f"the reply is malformed: {one_line(error)}") from None
    if len(document.choices) != 1:
        raise ValueError(f"the reply has {len(document.choices)} choices instead of 1")
    choice = document.choices[0]
    written = choice.message if route == "/chat/completions" else choice.text
    if written is None:
        raise ValueError("the reply is malformed: its choice holds no message or text")
    completion = _completion(request, choice, document.usage)
    return Reply(
        completion=completion, model=document.model, fingerprint=document.system_fingerprint
    )


def _whole(text: str) -> str:
    """The same with U+FFFD for each half of a character that a model wrote and JSON may escape."""
    if not _HALF.search(text):
        return text
    try:
        content = json.dumps(json.loads(text), ensure_ascii=False)
    except (ValueError, RecursionError):
        return text
    return content.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _sampling(request: Request, seed: int) -> dict[str, object]:
    params: SamplingParams = request.params
    body: dict[str, object] = {"temperature": params.temperature}
    if params.seed is not None:
        body["seed"] = params.seed
    elif not params.greedy:
        body["seed"] = request.seed_from(seed) % 2**_SEED_BITS
    if not params.greedy and params.top_p < 1:
        body["top_p"] = params.top_p
    if not params.greedy and params.top_k is not None:
        body["top_k"] = params.top_k  # no part of OpenAI's API, but of vLLM's and others'
    if params.stop:
        body["stop"] = list(params.stop)
    return body


def _turn(message: Message) -> dict[str, object]:
    content = message.content
    turn: dict[str, object] = {
        "role": message.role,
        "content": content if isinstance(content, str) else [_part(part) for part in content],
    }
    if message.tool_calls:
        turn["tool_calls"] = calls_of(message, parsed=False)
    if message.tool_call_id is not None:
        turn["tool_call_id"] = message.tool_call_id
    return turn


def _part(part: Part) -> dict[str, object]:
    if isinstance(part, ImagePart):
        return {"type": "image_url", "image_url": {"url": _data_url(part.path)}}
    return {"type": "text", "text": part.text}


def _data_url(path: Path) -> str:
    kind, _ = mimetypes.guess_type(path.name)
    if kind is None or not kind.startswith("image/"):
        raise ValueError(f"{path.name}: no image by its name, such as .png or .jpg")
    return f"data:{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"


def _completion(request: Request, choice: _Choice, usage: _Usage | None) -> Completion:
    message = choice.message or _ReplyMessage(content=choice.text)
    text = message.content or message.refusal or ""
    filtered = choice.finish_reason == "content_filter"
    return Completion(
        id=request.id,
        text=cut_at_stop(text, request.params.stop),
        logprobs=_logprobs(choice) if request.params.logprobs else None,
        tool_calls=tuple(
            ToolCall(
                id=one.id or f"call_{i}",
                name=one.function.name or "",
                arguments=arguments_text(one.function.arguments),
            )
            for i, one in enumerate(message.tool_calls or ())
        ),
        finish_reason=_finish_reason(choice.finish_reason),
        usage=_usage(usage),
        error="the endpoint's content filter ended the reply" if filtered else None,
        error_kind="filtered" if filtered else None,
    )


def _finish_reason(told: str | None) -> Literal["stop", "length", "error"]:
    """Ours for the endpoint's; a reply that ends with tool calls has stopped."""
    if told == "content_filter":
        return "error"
    return "length" if told == "length" else "stop"


def _usage(told: _Usage | None) -> Usage:
    """What the endpoint told; half of a count, or less than nothing, is as good as none."""
    prompt, new = (told.prompt_tokens, told.completion_tokens) if told else (None, None)
    if prompt is None or new is None or min(prompt, new) < 0:
        return Usage(known=False)
    return Usage(prompt_tokens=prompt, completion_tokens=new)


def _logprobs(choice: _Choice) -> tuple[float, ...] | None:
    told = choice.logprobs
    if told is None:
        return None
    if told.content is not None:
        return tuple(one.logprob for one in told.content)
    if told.token_logprobs is None or None in told.token_logprobs:
        return None
    return tuple(one for one in told.token_logprobs if one is not None)
