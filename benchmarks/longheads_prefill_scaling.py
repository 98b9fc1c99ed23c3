"""Prefill attention of one layer from 4k to 64k tokens, against full causal attention of torch.

The peer is `scaled_dot_product_attention` on states that are rotated already; ours includes rotary
embedding, cache, representations and choices. One head: both ways are linear in the heads.
The limit is a product of two square matrices of 2048, the fastest that this machine multiplies.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from harness import Options, Ratio, Result, Row, finish, measure, ratio
from onelayer import (
    WIDTH,
    Inputs,
    OneLayer,
    cpu_options,
    joined,
    labelled,
    load_note,
    random_inputs,
    rotate,
)

HEADS = 1
CHUNK_LEN = 256
CHUNKS = 16
LENGTHS = (4096, 8192, 16384, 32768, 65536)
SQUARE = 2048
OURS, FULL, LIMIT = "longheads", "full causal attention (SDPA)", "limit: sgemm of our operations"


def main(options: Options) -> int:
    """Measure all lengths interleaved, write the result."""
    lengths = tuple(n // 32 for n in LENGTHS) if options.quick else LENGTHS
    chunk_len, chunks = (16, 8) if options.quick else (CHUNK_LEN, CHUNKS)
    measured = measure(_ways(lengths, chunk_len, chunks), options)
    ours = [labelled(measured[f"{OURS} {n}"], OURS, n) for n in lengths]
    full = [labelled(measured[f"{FULL} {n}"], FULL, n) for n in lengths]
    limit = [
        _scaled(measured[LIMIT], n, operations(n, chunk_len, chunks) / (2 * SQUARE**3))
        for n in lengths
    ]
    doubled = f"longheads {lengths[-1]} / {lengths[-2]}"
    ratios = (
        ratio(doubled, ours[-1], ours[-2], at_most=2.2),
        ratio(f"full / longheads at {lengths[-2]}", full[-2], ours[-2], at_least=1),
        ratio(f"full / longheads at {lengths[-1]}", full[-1], ours[-1], at_least=1),
        *(_share(mine, best) for mine, best in zip(ours, limit, strict=True)),
        *(
            ratio(f"full / longheads at {n}", theirs, mine)
            for n, theirs, mine in zip(lengths[:-2], full[:-2], ours[:-2], strict=True)
        ),
    )
    result = Result(
        "longheads_prefill_scaling",
        f"prefill attention of one layer, l={chunk_len}, k={chunks}, {HEADS} head of {WIDTH}: "
        "linear in the length, and faster than full attention from 32k on",
        (*ours, *full, *limit),
        ratios,
        x_label="tokens",
        notes=(crossover(ours, full), _rate(measured[LIMIT]), load_note()),
    )
    return finish(result, options)


def operations(tokens: int, chunk_len: int, chunks: int) -> float:
    """Floating-point operations that the method needs, by its formulas, for one head.

    Attention over the keys that each query may see, representations of all complete chunks, and
    scores of the chunks before each query that lies beyond the window.
    """
    window = chunk_len * chunks
    inside = min(tokens, window)
    beyond = tokens - inside
    keys = inside * (inside + 1) / 2 + beyond * (window - chunk_len + (chunk_len + 1) / 2)
    scored = sum(range(chunks, tokens // chunk_len)) * chunk_len
    represented = tokens // chunk_len * (chunk_len**2 + chunk_len)
    return WIDTH * (4 * keys + 2 * scored + 4 * represented)


def crossover(ours: Sequence[Row], full: Sequence[Row]) -> str:
    """The length from which on ours is faster, between two measured ones by a straight line."""
    pairs = [
        (row.x or 0.0, statistics.median(row.seconds) / statistics.median(peer.seconds))
        for row, peer in zip(ours, full, strict=True)
    ]
    slower = [pair for pair in pairs if pair[1] >= 1]
    faster = [pair for pair in pairs if pair[1] < 1]
    if not faster:
        return f"crossover: none up to {pairs[-1][0]:g} tokens"
    if not slower:
        return f"crossover: below {pairs[0][0]:g} tokens"
    (low, over), (high, under) = slower[-1], faster[0]
    length = low + (high - low) * (over - 1) / (over - under)
    return f"crossover: faster than full attention from about {length:.0f} tokens on"


def _ways(lengths: Sequence[int], chunk_len: int, chunks: int) -> dict[str, Callable[[], object]]:
    layer = OneLayer(heads=HEADS, chunk_len=chunk_len, chunks=chunks)
    left, right = torch.randn(2, SQUARE, SQUARE)
    ways: dict[str, Callable[[], object]] = {LIMIT: partial(torch.matmul, left, right)}
    for tokens in lengths:
        inputs = random_inputs(heads=HEADS, tokens=tokens)
        ways[f"{OURS} {tokens}"] = partial(_read, layer, joined(inputs))
        ways[f"{FULL} {tokens}"] = _full(inputs, tokens)
    return ways


def _read(layer: OneLayer, embeds: Tensor) -> Tensor:
    return layer.read(embeds, layer.new_cache(embeds.shape[1]))


def _full(inputs: Inputs, tokens: int) -> Callable[[], object]:
    place = torch.arange(tokens)
    query, key = (rotate(states, place).unsqueeze(0) for states in (inputs.query, inputs.key))
    value = inputs.value.unsqueeze(0)
    return partial(scaled_dot_product_attention, query, key, value, is_causal=True)


def _scaled(row: Row, tokens: int, factor: float) -> Row:
    """Time of so many times the operations of a row, drawn at a length."""
    seconds = tuple(s * factor for s in row.seconds)
    return Row(LIMIT, tokens, seconds, row.peak_bytes)


def _share(mine: Row, best: Row) -> Ratio:
    """Share of the limit; the specification of the package wants a quarter."""
    return ratio(f"share of the sgemm rate at {mine.x:g}", best, mine, at_least=0.25)


def _rate(row: Row) -> str:
    gflops = 2 * SQUARE**3 / statistics.median(row.seconds) / 1e9
    return f"limit: {gflops:.1f} GFLOP/s on one thread, a product of matrices of {SQUARE}"


if __name__ == "__main__":
    raise SystemExit(main(cpu_options()))
