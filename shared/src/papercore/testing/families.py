"""Tiny models of classes that differ in what RL has to get right, and rollouts to score with them.

model = tiny_family("gemma2")
rollouts = some_rollouts([(3, 5), (7, 2)])
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import torch
import transformers
from transformers import PreTrainedModel

from papercore.rl.rollouts import Rollout
from papercore.testing.models import SHAPE, TINY, tiny_model
from papercore.tiny import seeded

__all__ = ["FAMILIES", "some_rollouts", "tiny_family"]

_MORE: Final[Mapping[str, tuple[str, Mapping[str, object]]]] = {
    "gemma2": ("Gemma2", {"final_logit_softcapping": 3.0, "sliding_window": 8}),
    "granite": ("Granite", {"logits_scaling": 4.0, "embedding_multiplier": 2.0}),
    "cohere": ("Cohere", {"logit_scale": 0.25}),
}

FAMILIES: Final = ("llama", "llama-gqa", "qwen3", "mistral", "gpt2", *_MORE)
"""What `tiny_family` makes: grouped heads, a sliding window, absolute positions (gpt2), logits that
are capped (gemma2) or scaled (granite, cohere)."""


def tiny_family(name: str, *, seed: int = 0, **changes: object) -> PreTrainedModel:
    """Seeded model of a family, in evaluation mode; `changes` go to its config."""
    if name in TINY:
        return tiny_model(name, seed=seed, **changes)
    if name == "gpt2":
        shape = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 512}
        kept = ("vocab_size", "initializer_range", "bos_token_id", "eos_token_id", "pad_token_id")
        settings = {**shape, **{key: SHAPE[key] for key in kept}}
        prefix, model_name = "GPT2", "GPT2LMHeadModel"
    else:
        prefix, own = _MORE[name]
        settings, model_name = {**SHAPE, **own}, f"{prefix}ForCausalLM"
    config = getattr(transformers, f"{prefix}Config")(**{**settings, **changes})
    model: PreTrainedModel = seeded(getattr(transformers, model_name), config, seed)
    return model


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
