"""The shape of a decoder, and the memory that follows from it, without loading it. No torch here.

    shape = find_shape("meta-llama/Llama-2-7b-hf")
    gib = shape.weights * bytes_per_weight(2) / 2**30

A shape comes from the config.json of a local directory or of the hub's cache, or from the few
models that presets name; for any other it is unknown.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from papercore.files import read_json

__all__ = ["KNOWN", "Shape", "bytes_per_weight", "find_shape", "kv_bytes_per_token", "shown_bytes"]

_FULL_EVERY = {"gemma2": 2, "gemma3_text": 6, "cohere2": 4}
"""Model types of which every n-th layer sees everything. Source: their configs in transformers."""

_SLIDES_IF_TOLD = ("qwen2", "qwen3", "smollm3")
"""Model types whose window counts only with `use_sliding_window`."""

_TIED = ("gemma2", "gemma3_text", "cohere", "cohere2")
"""Model types with one table for both ends unless their config says otherwise."""

_QUANTIZED_BYTES = {"4bit": 0.55, "8bit": 1.05}


@dataclass(frozen=True)
class Shape:
    """The numbers of a decoder that memory and work depend on.

    Attributes:
        sliding_layers: Layers that see only the last `sliding_tok` tokens.
    """

    layers: int
    hidden: int
    mlp: int
    heads: int
    kv_heads: int
    head_width: int
    vocabulary: int
    trained_tok: int
    tied: bool
    sliding_layers: int = 0
    sliding_tok: int = 0

    @property
    def full_layers(self) -> int:
        """Layers that see the whole text."""
        return self.layers - self.sliding_layers

    @property
    def layer_weights(self) -> int:
        """Weights of all layers: projections of the attention and a gated MLP."""
        attention = 2 * self.hidden * self.head_width * (self.heads + self.kv_heads)
        return self.layers * (attention + 3 * self.hidden * self.mlp)

    @property
    def weights(self) -> int:
        """Weights of the model, norms apart."""
        tables = 1 if self.tied else 2
        return self.layer_weights + tables * self.vocabulary * self.hidden


KNOWN: Mapping[str, Shape] = {
    # source: config.json of each model on the hub
    "meta-llama/Llama-2-7b-hf": Shape(32, 4096, 11008, 32, 32, 128, 32000, 4096, tied=False),
    "meta-llama/Llama-2-7b-chat-hf": Shape(32, 4096, 11008, 32, 32, 128, 32000, 4096, tied=False),
    "meta-llama/Llama-2-13b-chat-hf": Shape(40, 5120, 13824, 40, 40, 128, 32000, 4096, tied=False),
    "meta-llama/Llama-3.1-8B-Instruct": Shape(
        32, 4096, 14336, 32, 8, 128, 128256, 131072, tied=False
    ),
    "Qwen/Qwen3-4B-Instruct-2507": Shape(36, 2560, 9728, 32, 8, 128, 151936, 262144, tied=True),
    "HuggingFaceTB/SmolLM2-1.7B-Instruct": Shape(
        24, 2048, 8192, 32, 32, 64, 49152, 8192, tied=True
    ),
}
"""Models that presets name."""


def find_shape(model: str, known: Mapping[str, Shape] = KNOWN) -> Shape | None:
    """The shape of a model, if it can be known without a network.

    Args:
        known: Shapes beside `KNOWN` by model reference, such as that of a miniature.
    """
    path = _config_file(model)
    if path is not None:
        try:
            return _read_shape(read_json(path))
        except (ValueError, KeyError, TypeError):
            return None
    return known.get(model) or KNOWN.get(model)


def bytes_per_weight(item_bytes: int, quantization: str | None = None) -> float:
    """Bytes of a weight, those of its scales included if it is quantized."""
    return _QUANTIZED_BYTES.get(quantization or "", item_bytes)


def kv_bytes_per_token(shape: Shape, item_bytes: float, layers: int | None = None) -> float:
    """Keys and values of one token in so many layers; None: in all."""
    count = shape.layers if layers is None else layers
    return 2 * count * shape.kv_heads * shape.head_width * item_bytes


def shown_bytes(num_bytes: float) -> str:
    """A number of bytes for people."""
    power = 0 if num_bytes < 1 else min(3, int(math.log(num_bytes, 1024)))
    return f"{num_bytes / 1024**power:.3g} {('B', 'KiB', 'MiB', 'GiB')[power]}"


def _config_file(model: str) -> Path | None:
    """The config.json of a model, without a network."""
    local = Path(model).expanduser() / "config.json"
    if local.is_file():
        return local
    if ":" in model:
        return None
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(model, "config.json")
    except HFValidationError:
        return None
    return Path(found) if isinstance(found, str) else None


def _read_shape(config: Mapping[str, object]) -> Shape:
    def number(key: str, default: int | None = None) -> int:
        value = config.get(key)
        if value is None and default is not None:
            return default
        return int(cast("int", value))

    heads, hidden = number("num_attention_heads"), number("hidden_size")
    layers, kind = number("num_hidden_layers"), config.get("model_type")
    sliding = _count_sliding(config, layers)
    return Shape(
        layers=layers,
        hidden=hidden,
        mlp=number("intermediate_size"),
        heads=heads,
        kv_heads=number("num_key_value_heads", heads),
        head_width=number("head_dim", hidden // heads),
        vocabulary=number("vocab_size"),
        trained_tok=number("max_position_embeddings"),
        tied=bool(config.get("tie_word_embeddings", kind in _TIED)),
        sliding_layers=sliding,
        sliding_tok=number("sliding_window") if sliding else 0,
    )


def _count_sliding(config: Mapping[str, object], layers: int) -> int:
    """Layers with a sliding window; a config names them one by one, or its model type tells."""
    kind = config.get("model_type")
    told = config.get("use_sliding_window", kind not in _SLIDES_IF_TOLD)
    if config.get("sliding_window") is None or not told:
        return 0
    types = config.get("layer_types")
    if isinstance(types, list):
        return types.count("sliding_attention")
    if kind in _SLIDES_IF_TOLD:
        return max(0, layers - int(cast("int", config.get("max_window_layers") or 0)))
    every = config.get("sliding_window_pattern") or _FULL_EVERY.get(str(kind))
    return layers - (layers // int(cast("int", every)) if every else 0)
