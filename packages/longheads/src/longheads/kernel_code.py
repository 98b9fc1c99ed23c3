"""The Triton kernels behind `kernels` (spec 2.10). Importing this module needs triton.

Arguments that change from call to call are not specialised, or each of them would compile a kernel
again. A stored `lse2` is the base-2 logarithm of a normaliser.

Axes: T tokens, K slots, D head width, M rows of a tile of queries, N keys of a tile, G parts.
"""
# Triton's language is not typed Python: its functions take pointers and block values.
# ruff: noqa: ANN001, ANN201, PLR0913, PLR0917
# mypy: disable-error-code="no-untyped-def, untyped-decorator, no-untyped-call"

import triton  # type: ignore[import-untyped]  # ships no types
import triton.language as tl  # type: ignore[import-untyped]  # ships no types

from longheads.kernel_tiles import LOWEST, find_slot, read_page, turned


@triton.jit(do_not_specialize=["tokens", "slots", "blocks", "span", "turn_base"])
def union_kernel(
    paired,
    key,
    value,
    answer,
    page,
    first,
    last,
    turns,
    union,
    count,
    tokens,
    slots,
    blocks,
    span,
    turn_base,
    key_page,
    key_step,
    value_page,
    value_step,
    scale,
    softcap,
    LENGTH: tl.constexpr,
    WIDTH: tl.constexpr,
    TURNED: tl.constexpr,
    CAPPED: tl.constexpr,
    HAS_FIRST: tl.constexpr,
    D: tl.constexpr,
    M: tl.constexpr,
    N: tl.constexpr,
):
    """One block of M tokens of one head meets every page that any of them reads."""
    pid = tl.program_id(0)
    m = tl.arange(0, M)
    t = (pid % blocks) * M + m
    real = t < tokens
    row = (pid // blocks).to(tl.int64) * tokens + (pid % blocks) * M  # the first of the block
    d = tl.arange(0, D)
    page_M = page + row * slots + m * slots
    row_D = paired + row * (WIDTH + TURNED) + m * (WIDTH + TURNED)
    top = tl.full([M], LOWEST, tl.float32)
    total = tl.zeros([M], tl.float32)
    out = tl.zeros([M, D], tl.float32)
    for entry in range(tl.load(count + pid)):
        here = tl.load(union + pid.to(tl.int64) * span + entry)
        slot = find_slot(page_M, real, here, slots, M)
        reads = slot >= 0
        bound = t * slots + slot
        high = tl.load(last + bound, mask=reads, other=-1).to(tl.int32)
        if HAS_FIRST:
            low = tl.load(first + bound, mask=reads, other=LENGTH).to(tl.int32)
            begin = tl.min(low) // N * N
        else:
            low = tl.zeros([M], tl.int32)
            begin = 0
        end = tl.minimum(tl.max(high) + 1, LENGTH)
        query = turned(row_D, reads, turn_base + slot, turns, WIDTH, TURNED, D)
        at = here.to(tl.int64)
        top, total, out = read_page(
            query.to(key.dtype.element_ty),
            key + at * key_page,
            value + at * value_page,
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
            LENGTH,
            WIDTH,
            CAPPED,
            D,
            N,
        )
    out = out / tl.where(total > 0, total, 1.0)[:, None]
    to = answer + row * WIDTH + (m[:, None] * WIDTH + d)
    tl.store(to, out.to(answer.dtype.element_ty), mask=real[:, None] & (d < WIDTH))


@triton.jit(do_not_specialize=["tokens", "slots", "num_pages", "turn_base"])
def pair_kernel(
    paired,
    key,
    value,
    part,
    lse2,
    pair,
    start,
    stop,
    tile_page,
    first,
    last,
    turns,
    tokens,
    slots,
    num_pages,
    turn_base,
    key_page,
    key_step,
    value_page,
    value_step,
    scale,
    softcap,
    LENGTH: tl.constexpr,
    WIDTH: tl.constexpr,
    TURNED: tl.constexpr,
    CAPPED: tl.constexpr,
    HAS_FIRST: tl.constexpr,
    D: tl.constexpr,
    M: tl.constexpr,
    N: tl.constexpr,
):
    """One tile of M pairs (query, slot) that read the same page; writes a part of each answer."""
    tile = tl.program_id(0)
    here = tl.load(tile_page + tile).to(tl.int64)
    if here < num_pages:
        d = tl.arange(0, D)
        rank = tl.load(start + tile) + tl.arange(0, M)
        reads = rank < tl.load(stop + tile)
        number = tl.load(pair + rank, mask=reads, other=0)
        row = number // slots
        slot = (number % slots).to(tl.int32)
        bound = row % tokens * slots + slot
        high = tl.load(last + bound, mask=reads, other=-1).to(tl.int32)
        if HAS_FIRST:
            low = tl.load(first + bound, mask=reads, other=LENGTH).to(tl.int32)
            begin = tl.min(low) // N * N
        else:
            low = tl.zeros([M], tl.int32)
            begin = 0
        row_D = paired + row * (WIDTH + TURNED)
        query = turned(row_D, reads, turn_base + slot, turns, WIDTH, TURNED, D)
        top, total, out = read_page(
            query.to(key.dtype.element_ty),
            key + here * key_page,
            value + here * value_page,
            key_step,
            value_step,
            low,
            high,
            begin,
            tl.minimum(tl.max(high) + 1, LENGTH),
            scale,
            softcap,
            tl.full([M], LOWEST, tl.float32),
            tl.zeros([M], tl.float32),
            tl.zeros([M, D], tl.float32),
            LENGTH,
            WIDTH,
            CAPPED,
            D,
            N,
        )
        total_or_one = tl.where(total > 0, total, 1.0)
        to = part + number[:, None] * WIDTH + d
        tl.store(to, out / total_or_one[:, None], mask=reads[:, None] & (d < WIDTH))
        tl.store(lse2 + number, top + tl.log2(total_or_one), mask=reads)


@triton.jit(do_not_specialize=["slots", "pieces", "piece_len", "turn_base"])
def decode_kernel(
    paired,
    key,
    value,
    part,
    lse2,
    page,
    first,
    last,
    turns,
    selecting,
    rows,
    slots,
    pieces,
    piece_len,
    turn_base,
    key_page,
    key_step,
    value_page,
    value_step,
    scale,
    softcap,
    LENGTH: tl.constexpr,
    WIDTH: tl.constexpr,
    TURNED: tl.constexpr,
    CAPPED: tl.constexpr,
    HAS_FIRST: tl.constexpr,
    D: tl.constexpr,
    M: tl.constexpr,
    N: tl.constexpr,
):
    """The heads that share a choice meet one piece of one of their pages."""
    head = tl.program_id(0)
    piece = tl.program_id(1)
    slot = piece // pieces
    d = tl.arange(0, D)
    m = tl.arange(0, M)
    real = m < rows
    row = head.to(tl.int64) * rows + m
    here = tl.load(page + head * slots + slot).to(tl.int64)
    bound = head // selecting * slots + slot
    high = tl.load(last + bound).to(tl.int32)
    begin = piece % pieces * piece_len
    end = tl.minimum(tl.minimum(high + 1, LENGTH), begin + piece_len)
    low = begin
    if HAS_FIRST:
        low = tl.maximum(tl.load(first + bound).to(tl.int32), begin)
    high = tl.where(here >= 0, end - 1, -1)
    row_D = paired + row * (WIDTH + TURNED)
    query = turned(row_D, real, turn_base + slot + m * 0, turns, WIDTH, TURNED, D)
    at = tl.maximum(here, 0)
    top, total, out = read_page(
        query.to(key.dtype.element_ty),
        key + at * key_page,
        value + at * value_page,
        key_step,
        value_step,
        low + m * 0,
        high + m * 0,
        low // N * N,
        high + 1,
        scale,
        softcap,
        tl.full([M], LOWEST, tl.float32),
        tl.zeros([M], tl.float32),
        tl.zeros([M, D], tl.float32),
        LENGTH,
        WIDTH,
        CAPPED,
        D,
        N,
    )
    total_or_one = tl.where(total > 0, total, 1.0)
    number = row * (slots * pieces) + piece
    to = part + number[:, None] * WIDTH + d
    tl.store(to, out / total_or_one[:, None], mask=real[:, None] & (d < WIDTH))
    tl.store(lse2 + number, top + tl.log2(total_or_one), mask=real)


@triton.jit(do_not_specialize=["pieces"])
def merge_kernel(part, lse2, answer, pieces, WIDTH: tl.constexpr, D: tl.constexpr, G: tl.constexpr):
    """Adds up the parts of one answer, each with the weight of its normaliser."""
    row = tl.program_id(0).to(tl.int64)
    d = tl.arange(0, D)
    top = tl.full([1], LOWEST, tl.float32)
    total = tl.zeros([1], tl.float32)
    out = tl.zeros([D], tl.float32)
    for start in range(0, pieces, G):
        g = start + tl.arange(0, G)
        known = tl.load(lse2 + row * pieces + g, mask=g < pieces, other=LOWEST)
        used = known > LOWEST
        number = row * pieces + g
        inside = used[:, None] & (d < WIDTH)
        part_GD = tl.load(part + number[:, None] * WIDTH + d, mask=inside, other=0.0)
        new_top = tl.maximum(top, tl.max(known, 0))
        weight = tl.where(used, tl.exp2(known - new_top), 0.0)
        shrink = tl.exp2(top - new_top)
        out = out * shrink + tl.sum(weight[:, None] * part_GD, 0)
        total = total * shrink + tl.sum(weight, 0)
        top = new_top
    out = out / tl.where(total > 0, total, 1.0)
    tl.store(answer + row * WIDTH + d, out.to(answer.dtype.element_ty), mask=d < WIDTH)
