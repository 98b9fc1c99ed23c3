"""What endpoints cost: a ledger with a hard budget, and an estimate before anything is sent.

    ledger = Ledger(EndpointConfig(budget_tok=1_000_000))
    held = ledger.hold(worst_case(request))  # before sending: raises if it never fits
    ledger.settle(held, usage)  # after the reply

The worst case is held back while a request is in flight, so that requests in flight together cannot
overshoot. A reply that may have been paid for but tells no usage is charged in full.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from pydantic import Field

from papercore.config import Config
from papercore.errors import GenerationError
from papercore.generate.endpoint import EndpointConfig
from papercore.generate.types import ImagePart, Request, TextPart, Usage

__all__ = ["Ledger", "OverBudget", "Spend", "Tokens", "estimate", "worst_case"]

logger = logging.getLogger(__name__)

CountTokens = Callable[[str], int]

CHARACTERS_PER_TOKEN = 4
"""Of English text, for an estimate without a tokenizer. Source: our own rule of thumb."""
TOKENS_PER_MESSAGE = 16
"""Room for what a chat template writes around a message; templates in use write 3 to 10."""
TOKENS_PER_IMAGE = 3_000
"""Room for an image; vision models in use take 85 to 2,700 tokens for one within their limits."""


class OverBudget(GenerationError):  # noqa: N818 - it reads as what it says
    """A request that the budget has no room for, now or later."""


@dataclass(frozen=True)
class Tokens:
    """Prompt tokens and new tokens."""

    prompt: int = 0
    new: int = 0

    def __add__(self, other: Tokens) -> Tokens:
        return Tokens(self.prompt + other.prompt, self.new + other.new)

    def __sub__(self, other: Tokens) -> Tokens:
        return Tokens(self.prompt - other.prompt, self.new - other.new)

    @property
    def total(self) -> int:
        """Both together."""
        return self.prompt + self.new


class Spend(Config):
    """What was sent and what it cost, for the folder of a run."""

    sent: int = Field(default=0, ge=0)
    """Attempts, further ones included."""
    retried: int = Field(default=0, ge=0)
    """Attempts after the first of a request."""
    cached: int = Field(default=0, ge=0)
    """Requests answered from the cache: they cost nothing."""
    prompt_tok: int = Field(default=0, ge=0)
    """Prompt tokens that replies told."""
    new_tok: int = Field(default=0, ge=0)
    """Generated tokens that replies told."""
    unknown: int = Field(default=0, ge=0)
    """Attempts that may have cost something but told no usage."""
    unknown_tok: int = Field(default=0, ge=0)
    """What those were charged against the budget: their worst case."""
    usd: float | None = None
    """Money, those worst cases included; None without prices."""


class Ledger:
    """Counts what is paid for and holds it below a budget; several threads may use one."""

    def __init__(self, config: EndpointConfig) -> None:
        self._config = config
        self._lock = threading.Lock()
        self._told = Tokens()
        self._unknown = Tokens()
        self._held = Tokens()
        self._counts = {"sent": 0, "retried": 0, "cached": 0, "unknown": 0}
        self._warned = False

    @property
    def spend(self) -> Spend:
        """What was spent so far."""
        with self._lock:
            return Spend(
                **self._counts,
                prompt_tok=self._told.prompt,
                new_tok=self._told.new,
                unknown_tok=self._unknown.total,
                usd=self._usd(self._told + self._unknown),
            )

    def hold(self, cost: Tokens) -> bool:
        """Holds a worst case back; False if it does not fit until something in flight is settled.

        Raises:
            OverBudget: It does not fit, whatever is settled.
        """
        with self._lock:
            paid = self._told + self._unknown
            if (problem := self._problem(paid + cost)) is not None:
                raise OverBudget(problem)
            if self._problem(paid + self._held + cost) is not None:
                return False
            self._held += cost
            return True

    def settle(self, held: Tokens, usage: Usage | None) -> None:
        """Replaces a held worst case by what the reply told; None charges the worst case."""
        with self._lock:
            self._held -= held
            if usage is None:
                self._unknown += held
                self._counts["unknown"] += 1
                return
            told = Tokens(usage.prompt_tokens, usage.completion_tokens)
            self._told += told
            warn = told.total > held.total and not self._warned
            self._warned = self._warned or warn
        if warn:
            logger.warning(
                "a reply cost %d tokens where at most %d were expected: the budget may be exceeded",
                *(told.total, held.total),
            )

    def release(self, held: Tokens) -> None:
        """Gives a held worst case back: nothing was paid."""
        with self._lock:
            self._held -= held

    def count(self, **more: int) -> None:
        """Adds to the counts of `Spend`: sent, retried, cached."""
        with self._lock:
            for name, number in more.items():
                self._counts[name] += number

    def _problem(self, total: Tokens) -> str | None:
        limit_tok, limit_usd = self._config.budget_tok, self._config.budget_usd
        if limit_tok is not None and total.total > limit_tok:
            return f"the budget of {limit_tok:,} tokens has no room for it"
        usd = self._usd(total)
        if limit_usd is not None and usd is not None and usd > limit_usd:
            return f"the budget of {limit_usd:g} USD has no room for it"
        return None

    def _usd(self, tokens: Tokens) -> float | None:
        return _usd(self._config, tokens)


def worst_case(request: Request, count_tokens: CountTokens | None = None) -> Tokens:
    """Most tokens that a request can cost.

    Without a tokenizer a token is taken to be one byte of UTF-8, which no tokenizer in use exceeds.
    """
    length = count_tokens or (lambda text: len(text.encode()))
    prompt = len(request.token_ids or ()) + sum(map(length, _texts(request)))
    prompt += TOKENS_PER_MESSAGE * (1 + len(request.messages or ()) + len(request.tools or ()))
    return Tokens(prompt + TOKENS_PER_IMAGE * _num_images(request), request.params.max_new_tokens)


def estimate(
    requests: Sequence[Request],
    endpoint: EndpointConfig,
    *,
    count_tokens: CountTokens | None = None,
) -> Mapping[str, str]:
    """What requests will cost at most about, for `--dry-run`; loads and sends nothing.

    Args:
        count_tokens: Tokens of a text; four characters to a token if `None`.
    """
    characters = sum(len(text) for one in requests for text in _texts(one))
    length = count_tokens or (lambda text: -(-len(text) // CHARACTERS_PER_TOKEN))
    prompt = sum(length(text) for one in requests for text in _texts(one))
    prompt += sum(len(one.token_ids or ()) for one in requests)
    num_images = sum(_num_images(one) for one in requests)
    tokens = Tokens(
        prompt + TOKENS_PER_IMAGE * num_images, sum(one.params.max_new_tokens for one in requests)
    )
    lines = {
        "requests": f"{len(requests):,}",
        "prompt characters": f"{characters:,}",
        "prompt tokens": f"about {tokens.prompt:,}",
        "new tokens": f"at most {tokens.new:,}",
    }
    if num_images:
        lines["images"] = f"{num_images:,}, taken as {TOKENS_PER_IMAGE:,} tokens each"
    usd = _usd(endpoint, tokens)
    lines["cost"] = (
        "unknown: give price_in and price_out" if usd is None else f"at most about {usd:.4g} USD"
    )
    return lines


def _usd(config: EndpointConfig, tokens: Tokens) -> float | None:
    if config.price_in is None or config.price_out is None:
        return None
    return (tokens.prompt * config.price_in + tokens.new * config.price_out) / 1e6


def _texts(request: Request) -> Iterator[str]:
    """Every text that a request sends."""
    if request.prompt is not None:
        yield request.prompt
    for message in request.messages or ():
        parts = message.content
        if isinstance(parts, str):
            yield parts
        else:
            yield from (part.text for part in parts if isinstance(part, TextPart))
        yield from (call.name + call.arguments for call in message.tool_calls)
    yield from (tool.model_dump_json() for tool in request.tools or ())


def _num_images(request: Request) -> int:
    return sum(
        isinstance(part, ImagePart)
        for message in request.messages or ()
        if not isinstance(message.content, str)
        for part in message.content
    )
