"""LongHeads and what it is compared with, on one model and in one harness.

    with apply_method(model, "ntk", LongHeadsConfig(), factor=8.0):
        model.generate(...)

| method | what it does |
|---|---|
| longheads | the paper's method |
| full | nothing: the model reads all tokens at their true positions |
| streaming | first and latest chunks (as StreamingLLM): LongHeads with `select="recent"` |
| random | chunks drawn at random: LongHeads with `select="random"` |
| pi | positions divided by the factor (position interpolation, 2306.15595) |
| ntk | base of the rotary frequencies times factor^(d/(d-2)) ("NTK-aware" scaling) |
| yarn | yarn frequencies and temperature (2309.00071), as transformers computes them |

The last three swap the model's one rotary module for one of a scaled config, then put the original
back.
"""

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

from longheads.architectures import Parts, find_parts, trained_length
from longheads.config import CHUNK_METHODS, LongHeadsConfig, Method
from longheads.plugin import Handle, enable
from papercore.config import merge, plain, validate
from papercore.errors import ModelError

CHOICES: Mapping[Method, str] = {"streaming": "recent", "random": "random"}
"""How the baselines that read chunks choose them; LongHeads leaves that to its config."""


@contextmanager
def apply_method(
    model: PreTrainedModel, method: Method, config: LongHeadsConfig, *, factor: float
) -> Iterator[Handle | None]:
    """Lets a model read by a method for the time of a block.

    Args:
        model: a decoder of transformers.
        method: its name.
        config: settings of LongHeads, for the methods that read chunks.
        factor: stretch of the positions, for pi, ntk and yarn.

    Yields:
        The handle of LongHeads, or None for methods that read no chunks.

    Raises:
        ModelError: for a model that the method is not proved on.
    """
    if method in CHUNK_METHODS:
        with enable(model, chooser_config(method, config)) as handle:
            yield handle
    elif method == "full":
        yield None
    else:
        with _scaled_rotary(find_parts(model), method, factor):
            yield None


def chooser_config(method: Method, config: LongHeadsConfig) -> LongHeadsConfig:
    """Settings of LongHeads with the method's own choice of chunks."""
    if method not in CHOICES:
        return config
    return validate(LongHeadsConfig, merge(plain(config), {"select": CHOICES[method]}))


def scaled_config(config: PreTrainedConfig, method: Method, factor: float) -> PreTrainedConfig:
    """A copy of a model's config with the rotary positions of pi, ntk or yarn.

    Raises:
        ModelError: The model's positions are scaled already.
    """
    rope = dict(config.rope_parameters)
    kind = rope.get("rope_type", "default")
    if kind != "default":
        raise ModelError(
            f"method {method!r} scales plain rotary positions, this model has rope type {kind!r}"
        )
    scaled = copy.deepcopy(config)
    if method == "pi":
        rope |= {"rope_type": "linear", "factor": factor}
    elif method == "ntk":
        width = _rotary_width(config)
        rope["rope_theta"] = rope["rope_theta"] * factor ** (width / (width - 2))
    else:
        original = trained_length(config)
        rope |= {
            "rope_type": "yarn",
            "factor": factor,
            "original_max_position_embeddings": original,
        }
        scaled.max_position_embeddings = int(original * factor)
    scaled.rope_parameters = rope
    return scaled


@contextmanager
def _scaled_rotary(parts: Parts, method: Method, factor: float) -> Iterator[None]:
    scaled: nn.Module = type(parts.rotary)(scaled_config(parts.config, method, factor))
    device = next(parts.rotary.buffers()).device
    parts.decoder.rotary_emb = scaled.to(device)
    try:
        yield
    finally:
        parts.decoder.rotary_emb = parts.rotary


def _rotary_width(config: PreTrainedConfig) -> int:
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return int(head * config.rope_parameters.get("partial_rotary_factor", 1.0))
