"""Settings of sampling and of the update. No torch here.

settings = PPOSettings(epochs=2, minibatches=2, clip=0.2)
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from papercore.errors import ConfigError

__all__ = ["PPOSettings", "Sampling"]


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn.

    Attributes:
        max_new_tokens: Generated tokens of a rollout at most.
        eos_ids: Tokens that end a rollout; they are part of it.
        temperature: Of drawing and of the log-probabilities that come with it; 0 takes the most
            likely token, and the log-probabilities are then those of temperature 1.
        max_length: Prompt and response together at most; None does not limit it.
        max_rows: Rollouts that are generated at once.
    """

    max_new_tokens: int
    eos_ids: frozenset[int]
    temperature: float = 1.0
    max_length: int | None = None
    max_rows: int = 64

    def __post_init__(self) -> None:
        _require(self.max_new_tokens >= 1, "max_new_tokens", self.max_new_tokens, "at least 1")
        _require(bool(self.eos_ids), "eos_ids", "empty", "at least one token")
        _require(
            math.isfinite(self.temperature) and self.temperature >= 0,
            *("temperature", self.temperature, "0 or above"),
        )
        _require(self.max_rows >= 1, "max_rows", self.max_rows, "at least 1")


@dataclass(frozen=True)
class PPOSettings:
    """How a batch of rollouts changes the policy.

    Attributes:
        epochs: Passes over the batch.
        minibatches: Optimizer steps of a pass.
        micro_batch: Rollouts in one forward pass; gradients are accumulated over these.
        clip: Range of the ratio of new to old probability.
        value_clip: Range of the critic's change; None does not clip it.
        value_coef: Weight of the critic's loss beside the policy's.
        entropy_coef: Bonus for entropy.
        kl_coef: Weight of the k3 KL penalty in the loss; 0 where the penalty is in the reward.
        temperature: Of all log-probabilities; that of sampling.
        reduction: `token` averages over all tokens of a minibatch, `sequence` over the tokens of a
            rollout and then over rollouts.
        normalise: What the policy's loss is divided by where a policy mask leaves tokens out:
            `policy`, the tokens that bear it, or `all` generated tokens, as without that mask.
        grad_clip: Largest norm of the gradient, of all parameters together.
        shards: Into how many equal runs of rollouts the minibatches are cut alike: one process with
            `shards=2` makes the same minibatches as two processes with half of the rollouts each.
    """

    epochs: int = 1
    minibatches: int = 1
    micro_batch: int = 8
    clip: float = 0.2
    value_clip: float | None = 0.2
    value_coef: float = 0.5
    entropy_coef: float = 0.0
    kl_coef: float = 0.0
    temperature: float = 1.0
    reduction: Literal["token", "sequence"] = "token"
    normalise: Literal["policy", "all"] = "policy"
    grad_clip: float = 1.0
    shards: int = 1

    def __post_init__(self) -> None:
        for name in ("epochs", "minibatches", "micro_batch", "shards"):
            _require(getattr(self, name) >= 1, name, getattr(self, name), "at least 1")
        for name in ("clip", "temperature", "grad_clip"):
            _require(getattr(self, name) > 0, name, getattr(self, name), "above 0")
        if self.value_clip is not None:
            _require(self.value_clip > 0, "value_clip", self.value_clip, "above 0, or None")


def _require(holds: bool, name: str, value: object, allowed: str) -> None:
    if not holds:
        raise ConfigError(f"{name}={value} is not allowed: {allowed}")
