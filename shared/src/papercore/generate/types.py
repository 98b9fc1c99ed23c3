"""What every generation backend takes and gives back.

request = Request(id="q1", messages=(Message(role="user", content="2+2="),))
completion = generator.generate([request])[0]
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal, Protocol, TypeAlias, runtime_checkable

from pydantic import Field, model_validator

from papercore.config import Config

__all__ = [
    "Completion",
    "FinishReason",
    "Generator",
    "ImagePart",
    "Message",
    "Part",
    "Request",
    "SamplingParams",
    "TextPart",
    "Usage",
]

FinishReason: TypeAlias = Literal["stop", "length", "error"]


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


class Message(Config):
    """One turn of a chat."""

    role: Literal["system", "user", "assistant", "tool"]
    content: str | tuple[Part, ...]


class Request(Config):
    """One thing to complete: a prompt, token ids or a chat, exactly one of the three."""

    id: str
    prompt: str | None = None
    token_ids: tuple[int, ...] | None = None
    messages: tuple[Message, ...] | None = None
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
        return self


class Usage(Config):
    """Tokens that a completion cost."""

    prompt_tokens: int = Field(default=0, ge=0)
    completion_tokens: int = Field(default=0, ge=0)

    @property
    def total_tokens(self) -> int:
        """Prompt and completion together."""
        return self.prompt_tokens + self.completion_tokens


class Completion(Config):
    """What a backend made of one request. A failed request has `finish_reason="error"`."""

    id: str
    """The id of the request."""
    text: str = ""
    token_ids: tuple[int, ...] = ()
    logprobs: tuple[float, ...] | None = None
    """One per token id, if they were asked for."""
    finish_reason: FinishReason
    usage: Usage = Usage()
    error: str | None = None
    """Why it failed, if it did."""


@runtime_checkable
class Generator(Protocol):
    """A backend: completions come back in the order of the requests."""

    def generate(self, requests: Sequence[Request]) -> list[Completion]:
        """Complete every request; one that fails yields an error, not an exception."""
        ...
