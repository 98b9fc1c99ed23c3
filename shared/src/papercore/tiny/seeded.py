"""Small models of real transformers classes, with weights from a seed.

    model = tiny_llama(51, hidden=64, layers=2, heads=4, seed=0)

Weights depend on class, config and seed alone, never on what the process drew before.
"""

from typing import TypeVar

import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedConfig, PreTrainedModel

ModelT = TypeVar("ModelT", bound=PreTrainedModel)


def seeded(model_class: type[ModelT], config: PreTrainedConfig, seed: int) -> ModelT:
    """Model of a class and config with weights drawn from a seed, in evaluation mode.

    The random state of the process is left as it was.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = model_class(config)
    model.train(False)
    return model


def tiny_llama(  # noqa: PLR0913  (the shape of a model is a list of numbers)
    vocab_size: int,
    *,
    hidden: int = 64,
    layers: int = 2,
    heads: int = 4,
    kv_heads: int | None = None,
    mlp: int | None = None,
    max_positions: int = 256,
    rope_theta: float = 10_000.0,
    tie: bool = False,
    initializer_range: float = 0.02,
    seed: int = 0,
) -> LlamaForCausalLM:
    """A Llama of a few hundred thousand weights or fewer, without special token ids.

    Args:
        kv_heads: Key-value heads; as many as `heads` by default.
        mlp: Width of the MLP; twice `hidden` by default.
        tie: Whether input and output embeddings share their weights.
        initializer_range: Standard deviation of the initial weights. Toy tasks that bind a value
            to a place learn faster with more than the default, about 0.12.
    """
    config = LlamaConfig(
        vocab_size=vocab_size,
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads or heads,
        intermediate_size=mlp or 2 * hidden,
        max_position_embeddings=max_positions,
        rope_parameters={"rope_type": "default", "rope_theta": rope_theta},
        tie_word_embeddings=tie,
        initializer_range=initializer_range,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=None,
    )
    return seeded(LlamaForCausalLM, config, seed)
