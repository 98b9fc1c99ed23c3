"""Cost of one more token with 8k to 64k tokens in the cache, against full attention of torch.

The caches are filled by prefill of random states through the model. A repetition decodes one whole
chunk of tokens, so that each repetition also represents one chunk, and the lengths take turns. The
peer attends to preallocated, rotated keys and values of a fixed length, which spares it every copy.
What the decoder costs without any attention is measured too: a constant would flatter the ratio.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface
from transformers.cache_utils import Cache, DynamicCache

from harness import Options, Ratio, Result, Row, finish, measure, ratio
from onelayer import WIDTH, OneLayer, cpu_options, joined, labelled, load_note, random_inputs

HEADS = 4
CHUNK_LEN = 256
CHUNKS = 16
LENGTHS = (8192, 16384, 32768, 65536)
PIECE_TOK = 4096
OURS, FULL, NOTHING = "longheads", "full attention (SDPA)", "decoder without attention"


def main(options: Options) -> int:
    """Fill the caches, measure all lengths interleaved, write the result."""
    lengths = tuple(n // 32 for n in LENGTHS) if options.quick else LENGTHS
    chunk_len, chunks = (16, 8) if options.quick else (CHUNK_LEN, CHUNKS)
    spare_tok = (options.repetitions + 1) * chunk_len
    measured = measure(_ways(lengths, chunk_len, chunks, spare_tok), options)
    rows = {
        (label, n): _per_token(measured[f"{label} {n}"], label, n, chunk_len)
        for label in (OURS, FULL)
        for n in lengths
    }
    nothing = _per_token(measured[NOTHING], NOTHING, lengths[0], chunk_len)
    short, long = lengths[0], lengths[-1]
    ratios: tuple[Ratio, ...] = (
        ratio(f"longheads {long} / {short}", rows[OURS, long], rows[OURS, short], at_most=1.15),
        ratio(
            f"longheads {long} / {short}, less the decoder",
            *(_less(rows[OURS, n], nothing) for n in (long, short)),
            at_most=1.15,
        ),
        *(
            ratio(f"longheads {n} / {short}", rows[OURS, n], rows[OURS, short])
            for n in lengths[1:-1]
        ),
        ratio(f"full {long} / {short}", rows[FULL, long], rows[FULL, short]),
        *(ratio(f"full / longheads at {n}", rows[FULL, n], rows[OURS, n]) for n in lengths),
    )
    result = Result(
        "longheads_decode",
        f"cost per decoded token of one layer, l={chunk_len}, k={chunks}, {HEADS} heads of "
        f"{WIDTH}: grows by at most 1.15 from {short} to {long} tokens in the cache",
        (*rows.values(), nothing),
        ratios,
        x_label="tokens in the cache",
        notes=(
            f"seconds are per token, over {chunk_len} tokens a repetition",
            f"the decoder without attention costs {statistics.median(nothing.seconds):.2g} s/token",
            f"full attention: {_bandwidth(rows[FULL, long])}",
            load_note(),
        ),
    )
    return finish(result, options)


def fill(layer: OneLayer, embeds: Tensor, capacity_tok: int) -> Cache:
    """A cache that has read the tokens, piece by piece."""
    cache = layer.new_cache(capacity_tok)
    for piece in torch.split(embeds, PIECE_TOK, dim=1):
        layer.read(piece, cache)
    return cache


def _ways(
    lengths: Sequence[int], chunk_len: int, chunks: int, spare_tok: int
) -> dict[str, Callable[[], object]]:
    layer = OneLayer(heads=HEADS, chunk_len=chunk_len, chunks=chunks)
    inputs = random_inputs(heads=HEADS, tokens=max(lengths))
    fresh = random_inputs(heads=HEADS, tokens=chunk_len, seed=1)
    old, new = joined(inputs), joined(fresh)
    queries = torch.split(fresh.query.unsqueeze(0), 1, dim=2)
    ways: dict[str, Callable[[], object]] = {NOTHING: _nothing(new, chunk_len, chunks)}
    for tokens in lengths:
        cache = fill(layer, old[:, :tokens], tokens + spare_tok)
        ways[f"{OURS} {tokens}"] = partial(_decode, layer, new, cache)
        key, value = (t[None, :, :tokens].contiguous() for t in (inputs.key, inputs.value))
        ways[f"{FULL} {tokens}"] = partial(_decode_full, queries, key, value)
    return ways


def _decode(layer: OneLayer, embeds: Tensor, cache: Cache) -> None:
    for token in torch.split(embeds, 1, dim=1):
        layer.read(token, cache)


@torch.no_grad()
def _decode_full(queries: Sequence[Tensor], key: Tensor, value: Tensor) -> None:
    for query in queries:
        scaled_dot_product_attention(query, key, value)


def _nothing(embeds: Tensor, chunk_len: int, chunks: int) -> Callable[[], object]:
    """The same decoder, with an attention that returns the queries."""
    layer = OneLayer(heads=HEADS, chunk_len=chunk_len, chunks=chunks)
    layer.handle.disable()

    def attend(_module: object, query: Tensor, *_: object, **__: object) -> tuple[Tensor, None]:
        return query.transpose(1, 2).contiguous(), None

    AttentionInterface.register("benchmark_nothing", attend)
    layer.model.set_attn_implementation("benchmark_nothing")
    return lambda: _decode(layer, embeds, DynamicCache())


def _per_token(row: Row, label: str, tokens: int, count: int) -> Row:
    shared = labelled(row, label, tokens)
    return Row(label, shared.x, tuple(s / count for s in row.seconds), row.peak_bytes)


def _less(row: Row, constant: Row) -> Row:
    seconds = tuple(a - b for a, b in zip(row.seconds, constant.seconds, strict=True))
    return Row(f"{row.label} less {constant.label}", row.x, seconds, row.peak_bytes)


def _bandwidth(row: Row) -> str:
    read = 2 * 4 * HEADS * WIDTH * (row.x or 0)
    return f"reads {read / statistics.median(row.seconds) / 1e9:.1f} GB/s of keys and values"


if __name__ == "__main__":
    raise SystemExit(main(cpu_options()))
