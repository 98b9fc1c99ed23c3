"""Small real models made in code: tokenizers, seeded weights, a training loop and a cache.

    model, tokenizer, from_cache = cached_model(spec)

Everything here is real: stock transformers classes, trained in seconds on one CPU core.
"""

from papercore.files import cache_dir
from papercore.tiny.cache import Built, TinySpec, cached_model, find_model
from papercore.tiny.seeded import seeded, tiny_llama
from papercore.tiny.tokenizers import byte_tokenizer, word_tokenizer
from papercore.tiny.training import (
    IGNORE,
    Batch,
    Batches,
    FitResult,
    Phase,
    fit,
    logits_at,
    one_thread,
    token_loss,
)

__all__ = [
    "IGNORE",
    "Batch",
    "Batches",
    "Built",
    "FitResult",
    "Phase",
    "TinySpec",
    "byte_tokenizer",
    "cache_dir",
    "cached_model",
    "find_model",
    "fit",
    "logits_at",
    "one_thread",
    "seeded",
    "tiny_llama",
    "token_loss",
    "word_tokenizer",
]
