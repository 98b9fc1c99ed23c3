"""Learning rates of a step. No torch here.

rate(3e-7, step, schedule="cosine", warmup=100, total=2000)
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from r3.config import TrainConfig

__all__ = ["Rates", "rate", "rates_at"]


@dataclass(frozen=True)
class Rates:
    """Learning rates of one step.

    Attributes:
        policy: Of the policy; 0 while only the critic learns.
        critic: Of critic and value head.
    """

    policy: float
    critic: float


def rate(
    peak: float,
    step: int,
    *,
    schedule: Literal["constant", "linear", "cosine"],
    warmup: int,
    total: int,
) -> float:
    """Learning rate of a step, counted from 0: up in a line, then as the schedule says towards 0.

    The step after the last one would have 0, so every step learns.
    """
    if step < warmup:
        return peak * (step + 1) / warmup
    progress = min(1.0, (step - warmup) / max(1, total - warmup))
    if schedule == "linear":
        return peak * (1.0 - progress)
    if schedule == "cosine":
        return peak * 0.5 * (1.0 + math.cos(math.pi * progress))
    return peak


def rates_at(config: TrainConfig, step: int, total: int) -> Rates:
    """Rates of a step, counted from 0. The policy's schedule begins after the critic's warm-up."""
    waits = config.critic_warmup
    critic_peak = config.learning_rate if config.critic_rate is None else config.critic_rate
    policy = (
        0.0
        if step < waits
        else rate(
            config.learning_rate,
            step - waits,
            schedule=config.schedule,
            warmup=config.warmup,
            total=total - waits,
        )
    )
    critic = rate(critic_peak, step, schedule=config.schedule, warmup=config.warmup, total=total)
    return Rates(policy, critic)
