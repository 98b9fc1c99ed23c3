import random
from collections.abc import Callable

import pytest
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    Lfm2Config,
    Lfm2ForCausalLM,
)

from papercore.testing.fixtures import model_cache, one_thread
from papercore.testing.models import TINY, TinyKind
from self_cd.contexts import Contexts

__all__ = ["model_cache", "one_thread"]

TINY |= {
    "gpt2": TinyKind(GPT2LMHeadModel, GPT2Config, {}),  # learned positions
    "gemma2": TinyKind(  # soft-capped logits, every other layer with a window
        Gemma2ForCausalLM,
        Gemma2Config,
        {"sliding_window": 16, "final_logit_softcapping": 5.0, "query_pre_attn_scalar": 8},
    ),
    "lfm2": TinyKind(  # convolutions, whose state cannot be copied from a prefix
        Lfm2ForCausalLM,
        Lfm2Config,
        {"layer_types": ["conv", "full_attention"]},
    ),
}

PairMaker = Callable[..., list[Contexts]]


@pytest.fixture
def make_pairs() -> PairMaker:
    """Contexts as chat templates make them: a begin, the system prompt or none, a question."""

    def make(count: int, *, seed: int = 0, system: int = 20, most: int = 12) -> list[Contexts]:
        rng = random.Random(seed)

        def words(length: int) -> tuple[int, ...]:
            return tuple(rng.randrange(250) for _ in range(length))

        begin, prompt = words(3), words(system)
        questions = [words(rng.randrange(2, most)) for _ in range(count)]
        return [Contexts(begin + prompt + one, begin + one) for one in questions]

    return make
