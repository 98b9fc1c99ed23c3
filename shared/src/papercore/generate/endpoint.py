"""How to talk to an endpoint: limits, prices, budget and cache; part of a command's config.

    class EvaluateConfig(RunConfig):
        endpoint: EndpointConfig = EndpointConfig()

What is talked to is in the model reference, `openai:<model>@<base_url>`; see `papercore.refs`.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field, model_validator

from papercore.config import Config

__all__ = ["EndpointConfig"]


class EndpointConfig(Config):
    """How to talk to an endpoint, and what that may cost. Local models need none of it.

    A run that is gone on with may talk in another way: more slowly, or with a larger budget.
    """

    how: ClassVar[frozenset[str]] = frozenset(
        {
            "concurrency",
            "timeout_s",
            "deadline_s",
            "max_retries",
            "give_up_after",
            "requests_per_minute",
            "max_tokens_field",
            "price_in",
            "price_out",
            "budget_tok",
            "budget_usd",
            "cache",
            "replay",
            "api_key_env",
        }
    )

    concurrency: int = Field(default=8, gt=0)
    """Most requests in flight at a time."""
    timeout_s: float = Field(default=120.0, gt=0)
    """Longest time that one attempt may take."""
    deadline_s: float | None = Field(default=None, gt=0)
    """Longest time for all requests of one call together; None sets no limit."""
    max_retries: int = Field(default=5, ge=0)
    """Further attempts after one that may succeed later: 429, 5xx, time-out, broken connection."""
    give_up_after: int = Field(default=5, gt=0)
    """Requests that fail one after the other before no more are sent."""
    requests_per_minute: float | None = Field(default=None, gt=0)
    """Attempts are spread to stay below this; None sets no limit."""
    max_tokens_field: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    """Name by which the endpoint's chat knows the limit of new tokens."""
    price_in: float | None = Field(default=None, ge=0)
    """USD per million prompt tokens."""
    price_out: float | None = Field(default=None, ge=0)
    """USD per million generated tokens."""
    budget_tok: int | None = Field(default=None, gt=0)
    """Most tokens to pay for, prompt and generated together; None sets no limit. Like `budget_usd`
    it counts from the start of a command: one that resumes has all of it again."""
    budget_usd: float | None = Field(default=None, gt=0)
    """Most money to spend; needs both prices. None sets no limit."""
    cache: Path | None = None
    """Folder of replies; an equal request is answered from it. None keeps none."""
    replay: bool = False
    """Answer from the cache alone: a request that is not in it is an error, nothing is sent."""
    api_key_env: str = "OPENAI_API_KEY"
    """Environment variable that holds the key; empty sends none."""

    @model_validator(mode="after")
    def _complete(self) -> EndpointConfig:
        if self.budget_usd is not None and (self.price_in is None or self.price_out is None):
            raise ValueError("budget_usd needs price_in and price_out, in USD per million tokens")
        if self.replay and self.cache is None:
            raise ValueError("replay needs a cache: give the folder of an earlier run's replies")
        return self
