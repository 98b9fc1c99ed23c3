"""What one tile of a Triton kernel does: rotate its queries, meet the keys of a page (spec 2.10).

All softmax statistics are in base 2: `top` is the largest score times log2(e). A row that saw no
key keeps `LOWEST` and zeros.

Axes: L tokens of a page, D head width (a power of two; `WIDTH` of it are real, and the first
`TURNED` are rotated), M rows of a tile of queries, N keys of a tile.
"""
# Triton's language is not typed Python: its functions take pointers and block values.
# ruff: noqa: ANN001, ANN201, PLR0913, PLR0917
# mypy: disable-error-code="no-untyped-def, untyped-decorator, no-untyped-call"

import triton  # type: ignore[import-untyped]  # ships no types
import triton.language as tl  # type: ignore[import-untyped]  # ships no types

LOWEST = tl.constexpr(-1e30)
LOG2_E = tl.constexpr(1.4426950408889634)
PIECE = tl.constexpr(16)  # slots that `find_slot` holds at once


@triton.jit
def turned(row, real, entry, turns, WIDTH: tl.constexpr, TURNED: tl.constexpr, D: tl.constexpr):
    """Queries MD in float32, each rotated by its own entry of the table.

    `row` points at queries with their partners behind them.
    """
    d = tl.arange(0, D)
    query = tl.load(row[:, None] + d, mask=real[:, None] & (d < WIDTH), other=0.0).to(tl.float32)
    if TURNED > 0:
        part = real[:, None] & (d < TURNED)
        partner = tl.load(row[:, None] + WIDTH + d, mask=part, other=0.0).to(tl.float32)
        table = turns + entry[:, None] * (2 * TURNED) + d
        cos = tl.load(table, mask=part, other=1.0)
        sin = tl.load(table + TURNED, mask=part, other=0.0)
        query = query * cos + partner * sin
    return query


@triton.jit
def find_slot(page_M, real, here, slots, M: tl.constexpr):
    """The slot in which each row reads page `here`; -1 where it does not.

    `page_M` points at the pages of each row. They are read again for every page, a piece at a time:
    all of them at once would fill the registers where a window has hundreds of slots.
    """
    slot = tl.full([M], -1, tl.int32)
    for start in tl.range(0, slots, PIECE, num_stages=1):
        k = start + tl.arange(0, PIECE)
        inside = real[:, None] & (k < slots)[None, :]
        piece = tl.load(page_M[:, None] + k[None, :], mask=inside, other=-1).to(tl.int32)
        slot = tl.maximum(slot, tl.max(tl.where(piece == here, k[None, :], -1), 1))
    return slot


@triton.jit
def read_page(
    query,
    key,
    value,
    key_step,
    value_step,
    low,
    high,
    begin,
    end,
    scale,
    softcap,
    top,
    total,
    out,
    LENGTH: tl.constexpr,
    WIDTH: tl.constexpr,
    CAPPED: tl.constexpr,
    D: tl.constexpr,
    N: tl.constexpr,
):
    """Online softmax over keys `begin` to `end` of a page; row m sees `low[m]` to `high[m]`."""
    d = tl.arange(0, D)
    for start in range(begin, end, N):
        n = start + tl.arange(0, N)
        key_DN = key + n[None, :] * key_step + d[:, None]
        value_ND = value + n[:, None] * value_step + d[None, :]
        if LENGTH % N == 0 and WIDTH == D:  # whole tiles: loads without a mask
            keys = tl.load(key_DN)
            values = tl.load(value_ND)
        else:
            keys = tl.load(key_DN, mask=(n < LENGTH)[None, :] & (d < WIDTH)[:, None], other=0.0)
            values = tl.load(value_ND, mask=(n < LENGTH)[:, None] & (d < WIDTH)[None, :], other=0.0)
        score = tl.dot(query, keys, input_precision="ieee") * scale
        if CAPPED:
            fall = tl.exp2(tl.abs(score) * (-2.0 * LOG2_E / softcap))
            bent = softcap * (1.0 - fall) / (1.0 + fall)  # softcap * tanh(|score| / softcap)
            score = tl.where(score < 0, -bent, bent)
        seen = (n[None, :] >= low[:, None]) & (n[None, :] <= high[:, None])
        score = tl.where(seen, score * LOG2_E, float("-inf"))
        new_top = tl.maximum(top, tl.max(score, 1))
        weight = tl.exp2(score - new_top[:, None])
        shrink = tl.exp2(top - new_top)
        total = total * shrink + tl.sum(weight, 1)
        out = tl.dot(weight.to(values.dtype), values, out * shrink[:, None], input_precision="ieee")
        top = new_top
    return top, total, out
