"""Rollouts of random tokens, and the kinds of tiny models that RL has to get right."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import torch

from papercore.rl.rollouts import Rollout

__all__ = ["FAMILIES", "some_rollouts"]

FAMILIES: Final = ("llama", "llama-gqa", "qwen3", "mistral", "gpt2", "gemma2", "granite", "cohere")
"""Names in `papercore.testing.TINY`: grouped heads, a sliding window, absolute positions, logits
that are capped or scaled."""


def some_rollouts(
    sizes: Sequence[tuple[int, int]], *, vocabulary: int = 259, seed: int = 0
) -> list[Rollout]:
    """Rollouts of random tokens, each with so many of prompt and response."""
    generator = torch.Generator().manual_seed(seed)

    def tokens(num: int) -> tuple[int, ...]:
        return tuple(torch.randint(vocabulary, (num,), generator=generator).tolist())

    return [
        Rollout(tokens(prompt), tokens(response), (0.0,) * response, ended=True)
        for prompt, response in sizes
    ]
