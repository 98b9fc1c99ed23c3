"""What a sampler is asked for: prompts, seeds, and how many tokens each may get.

jobs = jobs_of(prompts, seeds, sampling, vocabulary=32000, positions=4096)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from papercore.errors import DataError
from papercore.rl.settings import Sampling

__all__ = ["Job", "jobs_of"]


class Job(NamedTuple):
    """One rollout to draw.

    Attributes:
        row: Its place among those that were asked for.
        prompt: Token ids.
        seed: Of its random numbers.
        limit: Generated tokens at most, at least 1.
    """

    row: int
    prompt: tuple[int, ...]
    seed: int
    limit: int


def jobs_of(
    prompts: Sequence[Sequence[int]],
    seeds: Sequence[int],
    sampling: Sampling,
    *,
    vocabulary: int,
    positions: int | None,
) -> list[Job]:
    """Checks what is asked for.

    Args:
        vocabulary: Tokens of the model.
        positions: Longest sequence that the model was made for, if it has one.

    Raises:
        DataError: A prompt is empty, foreign, or leaves no room below the length limit; a seed is
            negative; or there is not one seed for each prompt.
    """
    if len(prompts) != len(seeds):
        raise DataError(f"{len(seeds)} seeds for {len(prompts)} prompts: give one for each")
    bounds = [(sampling.max_length, "max_length"), (positions, "the model's own length limit")]
    most, why = min(
        ((bound, name) for bound, name in bounds if bound is not None), default=(None, "")
    )
    found = []
    for row, (prompt, seed) in enumerate(zip(prompts, seeds, strict=True)):
        if not prompt:
            raise DataError(f"prompt {row} is empty: it needs at least one token")
        if not 0 <= min(prompt) <= max(prompt) < vocabulary:
            odd = max(prompt) if min(prompt) >= 0 else min(prompt)
            raise DataError(f"prompt {row} holds token {odd}, the model has 0 to {vocabulary - 1}")
        if seed < 0:
            raise DataError(f"seed {seed} of prompt {row} is negative: give one from 0 on")
        limit = sampling.max_new_tokens if most is None else most - len(prompt)
        if limit < 1:
            raise DataError(
                f"prompt {row} has {len(prompt)} tokens, which leaves no room below {why} "
                f"({most}): drop it or raise the limit"
            )
        found.append(Job(row, tuple(prompt), seed, min(limit, sampling.max_new_tokens)))
    return found
