"""Chunk-major prefill against gathering the chosen chunks for every query.

The gather form re-states the algorithm of the authors' code from its formulas: their
code has no licence and needs a GPU, so it does not run here. For a block of queries it fetches the
chosen chunks of keys and values per query and head, rotates these keys to their slots, and attends.
All ways represent and choose chunks as well, and all give the same output, which is checked first.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from harness import Options, Result, Row, finish, measure, ratio
from onelayer import WIDTH, Inputs, OneLayer, cpu_options, joined, load_note, random_inputs, rotate

HEADS = 2
CHUNK_LEN = 64
CHUNKS = 16
TOKENS = 4096
TARGET = 10.0
AUTHORS_BLOCK = 128
"""Queries per block in the authors' script; their config has 256."""
BLOCKS = (4, 16, 64, 128)
"""Queries per block to try, since a small block fits the caches of a CPU better."""
READS = 5
"""Reads per repetition of the chunk-major form, which is short."""
OURS = "chunk-major (longheads)"
BLOCKS_TRIED = "queries a block: {} and, for the turned query, {}; the fastest of {} here"
AUTHORS = "the first three gathers re-state the authors' algorithm, which rotates the gathered keys"
LEAN = "the last one is leaner than theirs: it turns the query once per slot, as ours does"


@torch.no_grad()
def gather_attention(
    inputs: Inputs, *, chunk_len: int, chunks: int, block: int, turn_keys: bool = True
) -> Tensor:
    """LongHeads by gathering keys and values per query.

    Args:
        inputs: what the layer reads.
        chunk_len: tokens of a chunk, l.
        chunks: chunks per query, k.
        block: queries per block.
        turn_keys: rotate the gathered keys, as the authors do; else rotate the query once per slot,
            which is less work and gives the same scores.

    Shapes:
        returns HTD.
    """
    heads, tokens, _ = inputs.query.shape
    window = chunk_len * chunks
    place = torch.arange(tokens)
    local_key = rotate(inputs.key, place % chunk_len)
    reps = _represent(rotate(inputs.query, place % chunk_len), local_key, inputs.value, chunk_len)
    source = inputs.key if turn_keys else local_key
    pages = [_in_chunks(states, chunk_len) for states in (source, inputs.value)]
    out = torch.empty_like(inputs.query)
    head_index = torch.arange(heads)[:, None, None]
    inside = place[:window]
    query, key = (rotate(states[:, :window], inside) for states in (inputs.query, inputs.key))
    dense = scaled_dot_product_attention(query, key, inputs.value[:, :window], is_causal=True)
    out[:, :window] = dense
    for low in range(window, tokens, block):
        position = place[low : low + block]
        query = inputs.query[:, low : low + block]
        chosen = _choose(query, reps, position // chunk_len, chunks)
        key, value = (page[head_index, chosen] for page in pages)
        if turn_keys:
            scores = _scores_turning_keys(query, key, position % chunk_len)
        else:
            scores = _scores_turning_queries(query, key, position % chunk_len)
        visible = window - chunk_len + position % chunk_len
        hidden = torch.arange(window) > visible[:, None]
        weights = (scores * WIDTH**-0.5).masked_fill_(hidden, float("-inf")).softmax(-1)
        out[:, low : low + block] = torch.einsum("htn,htnd->htd", weights, value.flatten(2, 3))
    return out


def main(options: Options) -> int:
    """Check that all ways agree, measure them, write the result."""
    chunk_len, chunks, tokens = (16, 4, 512) if options.quick else (CHUNK_LEN, CHUNKS, TOKENS)
    inputs = random_inputs(heads=HEADS, tokens=tokens)
    layer = OneLayer(heads=HEADS, chunk_len=chunk_len, chunks=chunks)
    embeds = joined(inputs)
    gather = partial(gather_attention, inputs, chunk_len=chunk_len, chunks=chunks)

    def ours() -> Tensor:
        return layer.read(embeds, layer.new_cache(tokens)).transpose(0, 1)

    block = fastest_block(gather, options)
    lean_block = fastest_block(partial(gather, turn_keys=False), options)
    peers: dict[str, Callable[[], Tensor]] = {
        f"gather, {AUTHORS_BLOCK} queries a block": partial(gather, block=AUTHORS_BLOCK),
        f"gather, {block} queries a block": partial(gather, block=block),
        "gather, query by query": partial(gather, block=1),
        "gather, query turned instead": partial(gather, block=lean_block, turn_keys=False),
    }
    expected = ours()
    for way in peers.values():
        torch.testing.assert_close(way(), expected, atol=2e-5, rtol=0)
    rows = measure({OURS: lambda: [ours() for _ in range(READS)], **peers}, options, x=tokens)
    mine = rows.pop(OURS)
    mine = dataclasses.replace(mine, seconds=tuple(s / READS for s in mine.seconds))
    lean = list(peers)[-1]
    result = Result(
        "longheads_prefill_gather",
        f"prefill of one layer, N={tokens}, l={chunk_len}, k={chunks}, {HEADS} heads of {WIDTH}: "
        f"at least {TARGET:g} times as fast as gathering the chosen chunks for every query",
        (mine, *rows.values()),
        tuple(
            ratio(f"{label} / chunk-major", row, mine, at_least=None if label == lean else TARGET)
            for label, row in rows.items()
        ),
        notes=(
            BLOCKS_TRIED.format(block, lean_block, BLOCKS),
            AUTHORS,
            LEAN,
            "all ways represent and choose chunks as well; their outputs agree within 2e-5",
            load_note(),
        ),
    )
    return finish(result, options)


def fastest_block(gather: partial[Tensor], options: Options) -> int:
    """Queries per block with which the gather form is fastest on this machine."""
    ways = {str(block): partial(gather, block=block) for block in BLOCKS}
    rows = measure(ways, Options(options.device, repetitions=1))

    def seconds(row: Row) -> float:
        return row.seconds[0]

    return int(min(rows.values(), key=seconds).label)


def _in_chunks(states: Tensor, chunk_len: int) -> Tensor:
    return states.reshape(states.shape[0], -1, chunk_len, states.shape[2])


def _represent(query: Tensor, key: Tensor, value: Tensor, chunk_len: int) -> Tensor:
    """One vector per chunk, in two steps of attention; states are HTD at local rotation."""
    query, key, value = (_in_chunks(states, chunk_len) for states in (query, key, value))
    inner = scaled_dot_product_attention(query, key, value)
    pooled = inner.mean(dim=2, keepdim=True)
    return scaled_dot_product_attention(pooled, key, key).squeeze(2)


def _choose(query: Tensor, reps: Tensor, own: Tensor, chunks: int) -> Tensor:
    """The first, the latest, the own and the best other chunks, ascending."""
    scores = query @ reps.transpose(1, 2)
    index = torch.arange(reps.shape[1])
    largest, lowest = torch.finfo(scores.dtype).max, torch.finfo(scores.dtype).min
    forced = (index == 0) | (index == own[:, None] - 1) | (index == own[:, None])
    scores = scores.masked_fill(forced, largest).masked_fill(index > own[:, None], lowest)
    return scores.topk(chunks, dim=-1).indices.sort(dim=-1).values


def _scores_turning_keys(query: Tensor, key: Tensor, offset: Tensor) -> Tensor:
    length, chunks = key.shape[3], key.shape[2]
    placed = rotate(key.flatten(2, 3), torch.arange(length * chunks))
    turned = rotate(query, (chunks - 1) * length + offset)
    return torch.einsum("htd,htnd->htn", turned, placed)


def _scores_turning_queries(query: Tensor, key: Tensor, offset: Tensor) -> Tensor:
    length, chunks = key.shape[3], key.shape[2]
    away = torch.arange(chunks - 1, -1, -1) * length
    turned = rotate(query.unsqueeze(2), away + offset[:, None])
    return torch.einsum("htkd,htkld->htkl", turned, key).flatten(2, 3)


if __name__ == "__main__":
    raise SystemExit(main(cpu_options()))
