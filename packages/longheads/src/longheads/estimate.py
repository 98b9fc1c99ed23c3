"""What a command will need, for `--dry-run`: memory and work. No torch here.

Where the shape of the model is unknown before it is downloaded, that is what is said.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from longheads.config import (
    CHUNK_METHODS,
    AblateConfig,
    GenerateConfig,
    LongBenchConfig,
    LongHeadsConfig,
    ModelRunConfig,
    PasskeyConfig,
    PerplexityConfig,
    PromptConfig,
    TraceConfig,
    TrialsConfig,
)
from longheads.corpus_size import known_tok
from longheads.longbench_data import load
from longheads.longbench_sets import SETS
from longheads.presets import TINY_MODEL
from longheads.variants import chosen, variants
from longheads.windows import plan
from papercore.shapes import (
    Shape,
    bytes_per_weight,
    find_shape,
    kv_bytes_per_token,
    shown_bytes,
)

CHARS_PER_TOK = 4
"""Rough; only for texts, which `--dry-run` does not tokenize."""

EXAMPLE_TOK = 100_000
"""About a book of PG19; texts are not read for an estimate."""

TAIL_CHUNKS = 3
"""As in `cache`, which imports torch."""

WORKSPACE_BYTES = 128 << 20
GPU_WORKSPACE_BYTES = 1 << 30
"""As in `engine`."""

KNOWN: Mapping[str, Shape] = {
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
    return _trials(config)


def ablate(config: AblateConfig) -> dict[str, str]:
    """Estimates of `longheads ablate`."""
    shape = find_shape(config.model, KNOWN)
    if shape is None:
        return _trials(config)
    grouped = shape.kv_heads != shape.heads
    found = variants(config.longheads, trained=shape.trained_tok, grouped=grouped)
    names = ", ".join(chosen(found, config.variants))
    return {"variants": f"each prompt is read by {names}", **_trials(config)}


def perplexity(config: PerplexityConfig) -> dict[str, str]:
    """Estimates of `longheads perplexity`."""
    sizes = [(name, known_tok(name)) for name in config.data]
    shown = [f"{name} ({f'about {tok} tokens' if tok else 'size unknown'})" for name, tok in sizes]
    stretches = plan(EXAMPLE_TOK, config)
    windows = [
        f"{sum(length in one.counted for one in stretches)} of {length} tokens"
        for length in sorted(config.lengths)
    ]
    read = sum(one.length for one in stretches)
    return {
        "data": ", ".join(shown) or "no text given",
        "windows": f"{', '.join(windows)} in a document of {EXAMPLE_TOK} tokens",
        "read": f"{read} tokens for such a document, {read / EXAMPLE_TOK:.3g} times its length",
        **_needs(config, max(config.lengths)),
    }


def _trials(config: TrialsConfig) -> dict[str, str]:
    trials = len(config.lengths) * config.trials
    used = trials if config.limit is None else min(trials, config.limit)
    longest = max(config.lengths)
    size = f"{used} prompts of {min(config.lengths)} to {longest} tokens"
    return {"data": size, **_needs(config, longest)}


def longbench(config: LongBenchConfig) -> dict[str, str]:
    """Estimates of `longheads longbench`; local data is read, the hub is not asked."""
    if not Path(config.data).expanduser().exists():
        size = f"{len(config.chosen_sets)} sets of {config.data}, not looked at"
        return {"data": size, **_needs(config, config.truncate_tok)}
    by_set = load(config.data, config.chosen_sets, extended=config.extended).by_set
    examples = sum(map(len, by_set.values()))
    used = examples if config.limit is None else min(examples, config.limit)
    chars = max(len(one.context) + len(one.question) for rows in by_set.values() for one in rows)
    longest = chars // CHARS_PER_TOK + max(SETS[name].max_new_tok for name in by_set)
    size = (
        f"{used} of {examples} prompts from {len(by_set)} sets, the longest about {longest} tokens"
    )
    return {"data": size, **_needs(config, min(longest, config.truncate_tok or longest))}


def rep_bytes_per_token(shape: Shape, item_bytes: float, chunk_len: int) -> float:
    """Share of one token in the representations of its chunk: one per query head and full layer."""
    return shape.full_layers * shape.heads * shape.head_width * item_bytes / chunk_len


def attention_flops(shape: Shape, num_tok: int, window: int | None, chunk_len: int) -> float:
    """Floating-point operations of attention per prompt token, on average over a prompt.

    Full attention (`window` None) reads half of the prompt on average. LongHeads reads at most a
    window, and scores the chunks before the token.

    Source: counted from the formulas: 4 W d H L for attention, 2 (N / l) d H L for the
    scores of the last token.
    """
    width = shape.head_width * shape.heads
    scored = num_tok / 2 / chunk_len if window is not None and num_tok > window else 0.0
    full = shape.full_layers * (4 * _read(num_tok, window) + 2 * scored)
    return width * (full + shape.sliding_layers * 4 * _read(num_tok, shape.sliding_tok))


def _read(num_tok: int, window: int | None) -> float:
    """Tokens that one token reads, on average over a prompt."""
    inside = num_tok if window is None else min(num_tok, window)
    return (inside * inside / 2 + (num_tok - inside) * inside) / num_tok


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
    shape = find_shape(config.model, KNOWN)
    if shape is None:
        return {
            "memory": f"unknown: the shape of {config.model} is not known before it is downloaded"
        }
    item_bytes = 4 if _is_float32(config) else 2
    weight_bytes = bytes_per_weight(item_bytes, config.quantization)
    size = shown_bytes(shape.weights * weight_bytes)
    needs = {"weights": f"{size} ({shape.weights / 1e9:.3g} G weights)"}
    if num_tok is None:
        kib = kv_bytes_per_token(shape, item_bytes, shape.full_layers) / 1024
        return {**needs, "kv cache": f"{kib:.3g} KiB per token of the prompt"}
    return {**needs, **_memory(config, shape, num_tok, item_bytes), **_work(config, shape, num_tok)}


@dataclass(frozen=True)
class Held:
    """Bytes that reading a text takes, weights and activations apart.

    Attributes:
        cache: keys and values of the layers that see everything; on the host with offload.
        sliding: the same of layers with a sliding window, at their most; always on the device.
        reps: representations of the chunks.
        tail: queries of the last chunks.
        pool: with offload: pages that stay on the device; None where the window does not fit.
        workspace: intermediate results of one layer: on a GPU, and on a CPU.
    """

    cache: float
    sliding: float
    reps: float = 0.0
    tail: float = 0.0
    pool: float | None = 0.0
    workspace: tuple[int, int] = (0, 0)


def held(config: ModelRunConfig, shape: Shape, num_tok: int, item_bytes: float) -> Held:
    """What reading `num_tok` tokens takes, new ones included."""
    of_full = kv_bytes_per_token(shape, item_bytes, shape.full_layers)
    of_sliding = kv_bytes_per_token(shape, item_bytes, shape.sliding_layers)
    piece = min(num_tok, config.prefill_tok)
    if not _reads_chunks(config):  # transformers keeps a window, and a piece while it reads
        return Held(num_tok * of_full, min(num_tok, shape.sliding_tok - 1 + piece) * of_sliding)
    method = config.longheads
    length = method.chunk_len
    room = max(-(-num_tok // length), _with_spare(-(-piece // length))) * length
    double = 2 if method.chunk_rep == "minmax" else 1
    queries = shape.full_layers * shape.heads * shape.head_width * item_bytes
    pool = pool_bytes(shape, item_bytes, method) if method.offload else 0.0
    return Held(
        cache=room * of_full,
        sliding=sliding_chunks(shape.sliding_tok, num_tok, piece, length) * length * of_sliding,
        reps=room * rep_bytes_per_token(shape, item_bytes, length) * double,
        tail=TAIL_CHUNKS * length * queries,
        pool=None if pool is None else min(pool, room * of_full),
        workspace=(GPU_WORKSPACE_BYTES, WORKSPACE_BYTES),
    )


def sliding_chunks(window: int, num_tok: int, piece_tok: int, chunk_len: int) -> int:
    """Most chunks that a layer with a sliding window has room for while a text is read.

    It grows by a piece and drops what no token sees any more once that is half of it:
    `LongHeadsLayer.reserve_` and `drop_unseen_`.
    """
    have = base = most = 0
    for start in range(0, num_tok, piece_tok):
        end = min(num_tok, start + piece_tok)
        wanted = -(-end // chunk_len) - base
        if wanted > have:
            have = max(_with_spare(wanted), have + have // 4)
        most = max(most, have)
        surplus = (end - window - TAIL_CHUNKS * chunk_len) // chunk_len - base
        if surplus >= max(8, have // 2):
            have, base = have - surplus, base + surplus
    return most


def _with_spare(chunks: int) -> int:
    """Room that a layer makes for so many chunks when it did not know of them."""
    return chunks + 1 + chunks // 16


def _memory(config: ModelRunConfig, shape: Shape, num_tok: int, item_bytes: int) -> dict[str, str]:
    found = held(config, shape, num_tok, item_bytes)
    offload = _reads_chunks(config) and config.longheads.offload
    shown = {}
    if shape.full_layers:
        host = ", on the host" if offload else ""
        shown["kv cache"] = f"{shown_bytes(found.cache)} for {num_tok} tokens{host}"
    if shape.sliding_layers:
        some = f"{shape.sliding_layers} of {shape.layers} layers"
        size = f"{shown_bytes(found.sliding)} in {some}, which see {shape.sliding_tok} tokens"
        shown["kv cache of sliding layers"] = f"{size}{', on the device' if offload else ''}"
    if offload and shape.full_layers:
        shown["pool of pages on the device"] = _pool(found)
    if not _reads_chunks(config):
        return shown
    gpu, cpu = map(shown_bytes, found.workspace)
    return {
        **shown,
        "representations": shown_bytes(found.reps),
        "queries of the last chunks": shown_bytes(found.tail),
        "workspace": f"about {gpu} on a GPU, {cpu} on a CPU",
    }


def _pool(found: Held) -> str:
    if found.pool is None:
        return "unknown: the window does not fit"
    if found.pool < found.cache:
        return shown_bytes(found.pool)
    return (
        f"{shown_bytes(found.pool)}, which is everything, so offload saves nothing: a smaller "
        "--longheads.window makes it smaller"
    )


def pool_bytes(shape: Shape, item_bytes: float, config: LongHeadsConfig) -> float | None:
    """Pages that offloading keeps on the device; None where the window does not fit the model."""
    try:
        window = config.window_for(shape.trained_tok)
        chunks = config.pool_for(window, shape.heads // shape.kv_heads)
    except ValueError:
        return None
    return chunks * config.chunk_len * kv_bytes_per_token(shape, item_bytes, shape.full_layers)


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


def _flops(number: float) -> str:
    return f"{number / 1e9:.3g} GFLOP"
