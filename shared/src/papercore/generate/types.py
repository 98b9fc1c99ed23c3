"""What every generation backend takes and gives back.

request = Request(id="q1", messages=(Message(role="user", content="2+2="),))
completion = generator.generate([request])[0]
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal, Protocol, TypeAlias, runtime_checkable

from pydantic import Field, JsonValue, field_validator, model_validator

from papercore.config import Config
from papercore.seeds import fan_out

__all__ = [
    "Completion",
    "ErrorKind",
    "FinishReason",
    "Generator",
    "ImagePart",
    "Message",
    "Part",
    "Request",
    "SamplingParams",
    "TextPart",
    "ToolCall",
    "ToolSpec",
    "Usage",
]

FinishReason: TypeAlias = Literal["stop", "length", "error"]

ErrorKind: TypeAlias = Literal[
    "input", "refused", "filtered", "transport", "budget", "replay", "skipped", "backend"
]
"""Whose fault an error is.

`input`: the request itself cannot be answered: too long, not encodable, refused by name.
`refused`: the endpoint refuses us: key, permission, quota or model name.
`filtered`: the endpoint's content filter ended the reply.
`transport`: the reply did not arrive whole, after all retries.
`budget`: not sent, because the budget has no room for it.
`replay`: not sent, because a replay found no reply in the cache.
`skipped`: not sent, because the endpoint had failed too often or the deadline had passed.
`backend`: the model failed here: out of memory, logits that are not finite.
"""


class SamplingParams(Config):
    """How to choose the next token. The default is greedy."""

    max_new_tokens: int = Field(default=256, gt=0)
    """Most tokens to generate."""
    temperature: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    """0 is greedy."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    """Keep the smallest set of tokens whose probability reaches this."""
    top_k: int | None = Field(default=None, gt=0)
    """Keep this many tokens; None keeps all."""
    stop: tuple[str, ...] = ()
    """Generation ends before the first of these; it is not part of the text."""
    seed: int | None = Field(default=None, ge=0)
    """Seed of this request alone; None leaves the choice to the backend's own seed."""
    logprobs: bool = False
    """Return the log-probability of each generated token."""

    @property
    def greedy(self) -> bool:
        """Whether the most likely token is always taken."""
        return self.temperature == 0.0


class TextPart(Config):
    """Text within a message."""

    type: Literal["text"] = "text"
    text: str


class ImagePart(Config):
    """An image file within a message."""

    type: Literal["image"] = "image"
    path: Path


Part: TypeAlias = Annotated[TextPart | ImagePart, Field(discriminator="type")]


class ToolSpec(Config):
    """A tool that the model may call."""

    name: str = Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")
    description: str = ""
    parameters: Mapping[str, JsonValue] = Field(default={"type": "object", "properties": {}})
    """JSON schema of the arguments, of type object."""

    @field_validator("parameters")
    @classmethod
    def _an_object(cls, schema: Mapping[str, JsonValue]) -> Mapping[str, JsonValue]:
        if schema.get("type") != "object":
            raise ValueError(f"the schema of a tool's parameters has type object: got {schema}")
        return schema


class ToolCall(Config):
    """A call that the model wrote."""

    id: str
    """Names the call for the message that answers it."""
    name: str
    """May be the name of no tool."""
    arguments: str
    """As the model wrote them: meant as a JSON object, but possibly no valid JSON."""


class Message(Config):
    """One turn of a chat."""

    role: Literal["system", "user", "assistant", "tool"]
    content: str | tuple[Part, ...]
    tool_calls: tuple[ToolCall, ...] = ()
    """Calls that the assistant made in this turn."""
    tool_call_id: str | None = None
    """The call that a message of role `tool` answers."""

    @model_validator(mode="after")
    def _calls_where_they_belong(self) -> Message:
        if self.tool_calls and self.role != "assistant":
            raise ValueError(f"only an assistant makes tool calls, not the role {self.role!r}")
        if self.tool_call_id is not None and self.role != "tool":
            raise ValueError(f"only a tool answers a call, not the role {self.role!r}")
        return self


class Request(Config):
    """One thing to complete: a prompt, token ids or a chat, exactly one of the three."""

    id: str
    prompt: str | None = None
    token_ids: tuple[int, ...] | None = None
    messages: tuple[Message, ...] | None = None
    tools: tuple[ToolSpec, ...] | None = None
    """What the model may call; for messages only."""
    params: SamplingParams = SamplingParams()

    @model_validator(mode="after")
    def _exactly_one_input(self) -> Request:
        given = [
            name for name in ("prompt", "token_ids", "messages") if getattr(self, name) is not None
        ]
        if len(given) != 1:
            named = " and ".join(given) or "none of them"
            raise ValueError(
                f"request {self.id!r} needs exactly one of prompt, token_ids, messages; got {named}"
            )
        if self.tools is not None and self.messages is None:
            raise ValueError(f"request {self.id!r}: tools need messages, not a {given[0]}")
        return self

    def seed_from(self, base: int) -> int:
        """Its own seed, or the one that a backend's seed gives to its id."""
        own = self.params.seed
        return fan_out(base, f"request/{self.id}") if own is None else own


class Usage(Config):
    """Tokens that a completion cost."""

    prompt_tokens: int = Field(default=0, ge=0)
    completion_tokens: int = Field(default=0, ge=0)
    known: bool = True
    """False where the backend gave no count; the numbers are then no measurement."""

    @property
    def total_tokens(self) -> int:
        """Prompt and completion together."""
        return self.prompt_tokens + self.completion_tokens


class Completion(Config):
    """What a backend made of one request. A failed request has `finish_reason="error"`."""

    id: str
    """The id of the request."""
    text: str = ""
    """What was generated, without the tool calls that were read out of it."""
    token_ids: tuple[int, ...] = ()
    """What was generated; empty where an endpoint does not tell."""
    logprobs: tuple[float, ...] | None = None
    """One per generated token, if they were asked for."""
    tool_calls: tuple[ToolCall, ...] = ()
    """Calls that the backend could read, in the order in which they were written."""
    finish_reason: FinishReason
    usage: Usage = Usage()
    error: str | None = None
    """Why it failed, if it did."""
    error_kind: ErrorKind | None = None
    """Whose fault it is, if it failed."""


@runtime_checkable
class Generator(Protocol):
    """A backend: completions come back in the order of the requests."""

    def generate(self, requests: Sequence[Request]) -> list[Completion]:
        """Complete every request; one that fails yields an error, not an exception."""
        ...
