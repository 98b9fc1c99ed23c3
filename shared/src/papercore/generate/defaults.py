"""What a checkpoint sets for generation: the tokens that end a text, and defaults to put aside.

ends = eos_ids(model, tokenizer)
with without_defaults(model):
model.generate(..., generation_config=config)
"""

from collections.abc import Iterator
from contextlib import contextmanager

from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase


def eos_ids(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """All ids that end a sequence: chat models name several in their generation config."""
    own = getattr(model.generation_config, "eos_token_id", None)
    ids = own if isinstance(own, list) else [own]
    return frozenset(id_ for id_ in [*ids, tokenizer.eos_token_id] if id_ is not None)


@contextmanager
def without_defaults(model: PreTrainedModel) -> Iterator[None]:
    """Puts aside the model's generation defaults.

    `generate` fills from them whatever is not given, so that a repetition penalty of the checkpoint
    would change greedy results in silence.
    """
    own = model.generation_config
    model.generation_config = GenerationConfig()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        model.generation_config = own
