"""Which models LongHeads is proved on, and a reason for every other (spec 7).

A model type is in `PROVED` only if the tests compare it numerically with its own eager attention
and with the slow reference. To add one: add a tiny model to `papercore.testing`, its name to
`longheads.testing`, add its type here, and see all tests pass.
"""

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

from longheads.caches import sliding_windows
from longheads.rotary import ALL_ALIKE, NONE, RotaryKind
from longheads.state import layer_index
from papercore.errors import ModelError

PROVED = (
    *("cohere", "gemma2", "gemma3_text", "glm4", "granite", "llama", "mistral", "olmo2", "phi3"),
    *("qwen2", "qwen3", "smollm3"),
)
"""Values of `config.model_type`."""

ROPE_TYPES = ("default", "linear", "llama3", "yarn")
"""Rope types whose frequencies do not depend on the length of the text."""

_REASONS = {
    "deepseek_v2": "multi-head latent attention caches no per-head keys",
    "deepseek_v3": "multi-head latent attention caches no per-head keys",
    "minicpm3": "multi-head latent attention caches no per-head keys",
    "bloom": "ALiBi has no rotary positions to remap",
    "mpt": "ALiBi has no rotary positions to remap",
    "gpt2": "absolute positions cannot be remapped",
    "opt": "absolute positions cannot be remapped",
    "falcon": "some of its models have ALiBi, and it is not proved",
    "gpt_oss": "attention sinks are not supported",
    "llama4_text": "it mixes complex rotary layers with layers without positions",
}


@dataclass(frozen=True)
class Parts:
    """The modules of a model that LongHeads touches."""

    decoder: nn.Module
    rotary: nn.Module
    rotary_kinds: tuple[RotaryKind, ...]
    attentions: tuple[nn.Module, ...]
    config: PreTrainedConfig


def find_parts(model: PreTrainedModel) -> Parts:
    """Finds decoder, rotary module and attention modules, or says why the model is refused.

    Raises:
        ModelError: for a model that LongHeads is not proved on.
    """
    config = model.config.get_text_config(decoder=True)
    _check_type(model.config, config)
    _check_rope(config)
    owners = [module for module in model.modules() if hasattr(module, "rotary_emb")]
    if len(owners) != 1:
        raise ModelError(
            f"{type(model).__name__} has {len(owners)} modules with a rotary embedding, LongHeads "
            "needs exactly one for the whole model"
        )
    decoder = owners[0]
    rotary = decoder.rotary_emb
    assert isinstance(rotary, nn.Module)
    attentions = [
        module
        for module in decoder.modules()
        if hasattr(module, "layer_idx")
        and (hasattr(module, "q_proj") or hasattr(module, "qkv_proj"))
    ]
    attentions.sort(key=layer_index)
    if not all(getattr(module, "is_causal", True) for module in attentions):
        raise ModelError(f"{type(model).__name__} reads in both directions; LongHeads is causal")
    if [layer_index(module) for module in attentions] != list(range(config.num_hidden_layers)):
        raise ModelError(f"{type(model).__name__}: cannot find one attention module per layer")
    kinds = _rotary_kinds(rotary, attentions, config)
    return Parts(decoder, rotary, kinds, tuple(attentions), config)


def trained_length(config: PreTrainedConfig) -> int:
    """Tokens that the model was trained to read, L_pre."""
    return int(config.max_position_embeddings)


def all_sliding(config: PreTrainedConfig) -> bool:
    """Whether no layer sees further than a sliding window; LongHeads changes nothing then."""
    return all(window is not None for window in sliding_windows(config))


def _rotary_kinds(
    rotary: nn.Module, attentions: Sequence[nn.Module], config: PreTrainedConfig
) -> tuple[RotaryKind, ...]:
    """Which positions each layer has: Gemma 3 has two tables, SmolLM3 layers without any."""
    several = "layer_type" in inspect.signature(rotary.forward).parameters
    return tuple(
        NONE
        if not getattr(attention, "use_rope", True)
        else (config.layer_types[layer] if several else ALL_ALIKE)
        for layer, attention in enumerate(attentions)
    )


def _check_type(config: PreTrainedConfig, text: PreTrainedConfig) -> None:
    kind = text.model_type
    if getattr(config, "is_encoder_decoder", False):
        raise ModelError(
            f"model type {kind!r} is an encoder-decoder; LongHeads reads decoders only"
        )
    if config is not text:
        raise ModelError(
            f"model type {config.model_type!r} reads more than text: load its language model alone"
        )
    if kind in PROVED:
        return
    reason = _REASONS.get(kind, "nobody has proved numerically that it is right there")
    raise ModelError(f"model type {kind!r} is refused: {reason} (proved: {', '.join(PROVED)})")


def _check_rope(config: PreTrainedConfig) -> None:
    for kind in rope_types(config):
        if kind not in ROPE_TYPES:
            raise ModelError(
                f"rope type {kind!r} is refused: its frequencies depend on the length of the text "
                f"or are not proved (proved: {', '.join(ROPE_TYPES)})"
            )


def rope_types(config: PreTrainedConfig) -> list[str]:
    """The rope type of the model, or one per type of layer."""
    parameters = getattr(config, "rope_parameters", None) or {}
    several = [part for part in parameters.values() if isinstance(part, Mapping)]
    return [part.get("rope_type", "default") for part in several or [parameters]]
