"""What a command will need, for `--dry-run`: memory and work. No torch here.

The shape of the model comes from the config.json of a local directory or of the hub's cache, or
from the few models that the presets name; for any other it is unknown, and that is what is said.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from longheads.config import (
    CHUNK_METHODS,
    GenerateConfig,
    ModelRunConfig,
    PasskeyConfig,
    PromptConfig,
    TraceConfig,
)
from longheads.presets import MODERN_MODEL, PAPER_MODEL, TINY_MODEL
from papercore.files import read_json

CHARS_PER_TOK = 4
"""Rough; only for texts, which `--dry-run` does not tokenize."""

_WEIGHT_BYTES = {"4bit": 0.55, "8bit": 1.05}


@dataclass(frozen=True)
class Shape:
    """The numbers of a decoder that memory and work depend on."""

    layers: int
    hidden: int
    mlp: int
    heads: int
    kv_heads: int
    head_width: int
    vocabulary: int
    trained_tok: int
    tied: bool

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
    PAPER_MODEL: Shape(32, 4096, 11008, 32, 32, 128, 32000, 4096, tied=False),
    MODERN_MODEL: Shape(24, 2048, 8192, 32, 32, 64, 49152, 8192, tied=True),
    # source: spec of the miniature (section 8.1)
    TINY_MODEL: Shape(2, 64, 128, 4, 4, 16, 48, 256, tied=False),
}


def generate(config: GenerateConfig) -> dict[str, str]:
    """Estimates of `longheads generate`."""
    return _with_prompt(config, config.max_new_tokens)


def trace(config: TraceConfig) -> dict[str, str]:
    """Estimates of `longheads trace`."""
    return _with_prompt(config, 0)


def passkey(config: PasskeyConfig) -> dict[str, str]:
    """Estimates of `longheads passkey`."""
    trials = len(config.lengths) * config.trials
    used = trials if config.limit is None else min(trials, config.limit)
    longest = max(config.lengths)
    size = f"{used} prompts of {min(config.lengths)} to {longest} tokens"
    return {"data": size, **_needs(config, longest)}


def find_shape(model: str) -> Shape | None:
    """The shape of a model, if it can be known without a network."""
    path = _config_file(model)
    if path is not None:
        try:
            return _read_shape(read_json(path))
        except (ValueError, KeyError, TypeError):
            return None
    return KNOWN.get(model)


def kv_bytes_per_token(shape: Shape, item_bytes: float) -> float:
    """Keys and values of one token in all layers."""
    return 2 * shape.layers * shape.kv_heads * shape.head_width * item_bytes


def rep_bytes_per_token(shape: Shape, item_bytes: float, chunk_len: int) -> float:
    """Share of one token in the representations of its chunk: one per query head and layer."""
    return shape.layers * shape.heads * shape.head_width * item_bytes / chunk_len


def attention_flops(shape: Shape, num_tok: int, window: int | None, chunk_len: int) -> float:
    """Floating-point operations of attention per prompt token, on average over a prompt.

    Full attention (`window` None) reads half of the prompt on average. LongHeads reads at most a
    window, and scores the chunks before the token.

    Source: counted from the formulas: 4 W d H L for attention, 2 (N / l) d H L for the
    scores of the last token.
    """
    width = shape.head_width * shape.heads * shape.layers
    if window is None:
        return 4 * width * num_tok / 2
    inside = min(num_tok, window)
    read = (inside * inside / 2 + max(0, num_tok - window) * window) / num_tok
    scored = num_tok / 2 / chunk_len if num_tok > window else 0.0
    return 4 * width * read + 2 * width * scored


def _with_prompt(config: PromptConfig, new_tok: int) -> dict[str, str]:
    size = _prompt_chars(config)
    if size is None:
        return {"data": "no prompt given", **_needs(config, None)}
    num_tok = max(1, size // CHARS_PER_TOK)
    about = f"prompt of {size} characters, about {num_tok} tokens"
    return {"data": about, **_needs(config, num_tok + new_tok)}


def _prompt_chars(config: PromptConfig) -> int | None:
    if config.prompt is not None:
        return len(config.prompt)
    if config.prompt_file is None:
        return None
    try:
        return config.prompt_file.expanduser().stat().st_size
    except OSError:
        return None


def _needs(config: ModelRunConfig, num_tok: int | None) -> dict[str, str]:
    shape = find_shape(config.model)
    if shape is None:
        return {
            "memory": f"unknown: the shape of {config.model} is not known before it is downloaded"
        }
    item_bytes = 4 if _is_float32(config) else 2
    weight_bytes = _WEIGHT_BYTES.get(config.quantization or "", item_bytes)
    needs = {
        "weights": f"{_size(shape.weights * weight_bytes)} ({shape.weights / 1e9:.3g} G weights)"
    }
    if num_tok is None:
        kib = kv_bytes_per_token(shape, item_bytes) / 1024
        return {**needs, "kv cache": f"{kib:.3g} KiB per token of the prompt"}
    return {**needs, **_memory(config, shape, num_tok, item_bytes), **_work(config, shape, num_tok)}


def _memory(config: ModelRunConfig, shape: Shape, num_tok: int, item_bytes: int) -> dict[str, str]:
    kv = num_tok * kv_bytes_per_token(shape, item_bytes)
    found = {"kv cache": f"{_size(kv)} for {num_tok} tokens"}
    if _reads_chunks(config):
        reps = num_tok * rep_bytes_per_token(shape, item_bytes, config.longheads.chunk_len)
        found["representations"] = _size(reps)
    return found


def _work(config: ModelRunConfig, shape: Shape, num_tok: int) -> dict[str, str]:
    chunk_len = config.longheads.chunk_len
    full = attention_flops(shape, num_tok, None, chunk_len)
    linear = 2 * shape.layer_weights
    line = f"linear layers {_flops(linear)}, full attention {_flops(full)}"
    if not _reads_chunks(config):
        return {"work per prompt token": line}
    try:
        window = config.longheads.window_for(shape.trained_tok)
    except ValueError as error:
        return {"work per prompt token": line, "window": f"does not fit: {error}"}
    ours = attention_flops(shape, num_tok, window, chunk_len)
    beyond = "" if num_tok > window else "; the prompt is inside the window"
    return {
        "window": f"{window} of {shape.trained_tok} trained tokens, chunks of {chunk_len}{beyond}",
        "work per prompt token": f"{line}, LongHeads attention {_flops(ours)}",
    }


def _reads_chunks(config: ModelRunConfig) -> bool:
    return config.method in CHUNK_METHODS


def _is_float32(config: ModelRunConfig) -> bool:
    return config.dtype == "float32" or (config.dtype == "auto" and config.model == TINY_MODEL)


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
    return Shape(
        layers=number("num_hidden_layers"),
        hidden=hidden,
        mlp=number("intermediate_size"),
        heads=heads,
        kv_heads=number("num_key_value_heads", heads),
        head_width=number("head_dim", hidden // heads),
        vocabulary=number("vocab_size"),
        trained_tok=number("max_position_embeddings"),
        tied=bool(config.get("tie_word_embeddings", False)),
    )


def _size(num_bytes: float) -> str:
    power = 0 if num_bytes < 1 else min(3, int(math.log(num_bytes, 1024)))
    return f"{num_bytes / 1024**power:.3g} {('B', 'KiB', 'MiB', 'GiB')[power]}"


def _flops(number: float) -> str:
    return f"{number / 1e9:.3g} GFLOP"
