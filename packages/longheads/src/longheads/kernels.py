"""Attention over chosen chunks as Triton kernels, for CUDA devices (spec 2.10).

Same results as `attention.attend_chunk_major` and `attention.attend_gathered`, up to rounding:
scores are never rounded to half precision here.

    if kernels.available(query, pages):
        out = kernels.attend_prefill(query, pages, plan, rotation, scale=scale)

Prefill has two ways. Where neighbouring tokens read much the same pages, a block of tokens meets
the union of its pages and keeps its answers in registers. Where they do not, most rows of such a
tile would be idle; then the pairs (query, slot) are sorted by page, and each tile writes parts of
answers that a second kernel adds up.

Importing this module needs no triton. Axes as in `attention`.
"""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from typing import Literal

import torch
from torch import Tensor

from longheads.attention import Pages, Plan
from longheads.kernel_plan import pair_tiles, survey, unions
from longheads.rotary import Rotation

Way = Literal["auto", "unions", "pairs"]
"""How queries meet pages in prefill; `auto` asks `kernel_plan.survey`."""

UNION_AT_MOST = 3.0
"""A block may read so many times more pages than each of its queries before pairs are cheaper.
Estimated: sorting and adding up parts cost about as much as two more readings."""

MAX_WIDTH = 256
DTYPES = (torch.float16, torch.bfloat16, torch.float32)

_LOWEST = -1e30
_ENOUGH_PROGRAMS = 528  # four for every multiprocessor of an H100


@dataclass(frozen=True)
class Tiles:
    """How a kernel is cut: rows of queries, keys, warps, and stages of its loads."""

    rows: int
    keys: int
    warps: int
    stages: int


def available(query: Tensor, pages: Pages) -> bool:
    """Whether the kernels can do it: CUDA of capability 8 or more, triton, dtype and width."""
    tensors = (query, pages.keys, pages.values)
    return (
        query.is_cuda
        and all(tensor.device == query.device for tensor in tensors)
        and all(tensor.dtype in DTYPES for tensor in tensors)
        and pages.keys.dtype == pages.values.dtype
        and pages.keys.stride(-1) == pages.values.stride(-1) == 1
        and query.shape[-1] <= MAX_WIDTH
        and _supported(query.device.index or 0)
    )


def attend_prefill(
    query_XTD: Tensor,
    pages: Pages,
    plan: Plan,
    rotation: Rotation,
    *,
    scale: float,
    softcap: float | None = None,
    way: Way = "auto",
    tiles: Tiles | None = None,
) -> Tensor:
    """Attention of many queries, as `attention.attend_chunk_major`; queries read a page once.

    Args:
        query_XTD: queries at local rotation.
        pages: all pages.
        plan: pages that each query reads; a query without any gets zeros.
        rotation: for the slots.
        scale: of the scores.
        softcap: of the scores.
        way: how queries meet pages.
        tiles: how the kernels are cut; None: by dtype and width.

    Shapes:
        returns XTD in the dtype of the query.
    """
    tiles = tiles or prefill_tiles(pages.keys.dtype, query_XTD.shape[-1], pages.keys.shape[1])
    plan = Plan(
        plan.pages.contiguous(),
        None if plan.first is None else plan.first.contiguous(),
        plan.last.contiguous(),
        plan.masked,
    )
    span = None
    if way != "pairs":
        seen = survey(plan.pages, tiles.rows)
        span = seen.span
        if way == "auto" and seen.reads > UNION_AT_MOST * plan.pages.shape[-1]:
            span = None
    launch = _Launch(pages, rotation, plan.pages.shape[-1], scale, softcap, tiles)
    with _on(query_XTD):
        if span is None:
            return _by_pairs(launch, query_XTD, plan)
        return _by_unions(launch, query_XTD, plan, span)


def attend_decode(
    query_BSRD: Tensor,
    pages: Pages,
    page_BSK: Tensor,
    rotation: Rotation,
    *,
    first_BK: Tensor | None,
    last_BK: Tensor,
    scale: float,
    softcap: float | None = None,
) -> Tensor:
    """Attention of one query per head, as `attention.attend_gathered`; no page gives zeros.

    Every slot, or a piece of it, is a program of its own, so that one text fills a device.

    Shapes:
        query_BSRD: R query heads share the choice of selecting head S; returns BSRD.
    """
    from longheads.kernel_code import decode_kernel

    batch, selecting, rows, width = query_BSRD.shape
    slots, length = page_BSK.shape[-1], pages.keys.shape[1]
    tiles = _decode_tiles(rows, pages.keys.dtype, width, length)
    heads = batch * selecting
    wanted = min(-(-length // tiles.keys), -(-_ENOUGH_PROGRAMS // (heads * slots)))
    piece_len = -(-length // (wanted * tiles.keys)) * tiles.keys
    pieces = -(-length // piece_len)
    launch = _Launch(pages, rotation, slots, scale, softcap, tiles)
    part = query_BSRD.new_empty(heads * rows, slots * pieces, width, dtype=torch.float32)
    lse2 = torch.empty_like(part[..., 0])
    first = None if first_BK is None else first_BK.contiguous()
    last = last_BK.contiguous()
    with _on(query_BSRD):
        decode_kernel[heads, slots * pieces](
            launch.paired(query_BSRD),
            *(pages.keys, pages.values, part, lse2, page_BSK.contiguous()),
            *(last if first is None else first, last, rotation.slot_turns),
            *(selecting, rows, slots, pieces, piece_len),
            **launch.shared(has_first=first is not None),
        )
        return _merged(part, lse2, query_BSRD)


def prefill_tiles(dtype: torch.dtype, width: int, length: int) -> Tiles:
    """Tiles of queries and keys: as large as registers and shared memory of an A100 hold."""
    if dtype == torch.float32:  # without tensor cores, so registers are what counts
        rows, keys, warps, stages = (32, 32, 8, 1) if width <= 128 else (16, 16, 4, 1)
    elif width <= 128:
        rows, keys, warps, stages = 128, 64, 8, 3
    else:
        rows, keys, warps, stages = 64, 32, 8, 2
    return Tiles(rows, min(keys, _power_of_two(length)), warps, stages)


def narrow(num_pages: int) -> torch.dtype:
    """The smallest whole numbers that tell pages apart: blocks read theirs again and again."""
    return torch.int16 if num_pages <= torch.iinfo(torch.int16).max else torch.int32


def _decode_tiles(rows: int, dtype: torch.dtype, width: int, length: int) -> Tiles:
    small = dtype == torch.float32 or width > 128
    keys = min(16 if small else 64, _power_of_two(length))
    return Tiles(_power_of_two(rows), keys, 4, 1 if dtype == torch.float32 else 2)


@dataclass(frozen=True)
class _Launch:
    """What all kernels are told alike."""

    pages: Pages
    rotation: Rotation
    slots: int
    scale: float
    softcap: float | None
    tiles: Tiles

    def paired(self, query: Tensor) -> Tensor:
        """Queries with their partners behind them; a partner is exact in the query's dtype."""
        return self.rotation.with_partner(query).to(query.dtype).contiguous()

    def shared(self, *, has_first: bool) -> dict[str, object]:
        """Arguments by name."""
        keys, values, tiles = self.pages.keys, self.pages.values, self.tiles
        width, turns = keys.shape[-1], self.rotation.slot_turns
        assert keys.stride(2) == values.stride(2) == 1, "the widths of a state lie side by side"
        return {
            "key_page": keys.stride(0),
            "key_step": keys.stride(1),
            "value_page": values.stride(0),
            "value_step": values.stride(1),
            "turn_base": len(turns) - self.slots,
            "scale": self.scale,
            "softcap": self.softcap or 1.0,
            "LENGTH": keys.shape[1],
            "WIDTH": width,
            "TURNED": turns.shape[-1] // 2,
            "CAPPED": self.softcap is not None,
            "HAS_FIRST": has_first,
            "D": _power_of_two(width),
            "M": tiles.rows,
            "N": tiles.keys,
            "num_warps": tiles.warps,
            "num_stages": tiles.stages,
        }


def _by_unions(launch: _Launch, query_XTD: Tensor, plan: Plan, span: int) -> Tensor:
    from longheads.kernel_code import union_kernel

    heads, tokens, _ = query_XTD.shape
    listed = unions(plan.pages, launch.tiles.rows, span)
    blocks = listed.counts.shape[1]
    out = torch.empty_like(query_XTD, memory_format=torch.contiguous_format)
    page_XTK = plan.pages.to(narrow(len(launch.pages.keys)))
    union_kernel[(heads * blocks,)](
        *(launch.paired(query_XTD), launch.pages.keys, launch.pages.values, out, page_XTK),
        *(plan.last if plan.first is None else plan.first, plan.last),
        *(launch.rotation.slot_turns, listed.pages, listed.counts),
        *(tokens, launch.slots, blocks, listed.pages.shape[-1]),
        **launch.shared(has_first=plan.first is not None),
    )
    return out


def _by_pairs(launch: _Launch, query_XTD: Tensor, plan: Plan) -> Tensor:
    from longheads.kernel_code import pair_kernel

    heads, tokens, width = query_XTD.shape
    num_pages = len(launch.pages.keys)
    sorted_pairs = pair_tiles(plan.pages, launch.tiles.rows, num_pages)
    shape = (heads * tokens, launch.slots)
    part = query_XTD.new_empty(*shape, width, dtype=torch.float32)
    lse2 = torch.full(shape, _LOWEST, dtype=torch.float32, device=query_XTD.device)
    pair_kernel[(len(sorted_pairs.page),)](
        *(launch.paired(query_XTD), launch.pages.keys, launch.pages.values, part, lse2),
        *(sorted_pairs.pairs, sorted_pairs.start, sorted_pairs.stop, sorted_pairs.page),
        *(plan.last if plan.first is None else plan.first, plan.last),
        *(launch.rotation.slot_turns, tokens, launch.slots, num_pages),
        **launch.shared(has_first=plan.first is not None),
    )
    return _merged(part, lse2, query_XTD)


def _merged(part_NGD: Tensor, lse2_NG: Tensor, query: Tensor) -> Tensor:
    from longheads.kernel_code import merge_kernel

    count, pieces, width = part_NGD.shape
    out = torch.empty_like(query, memory_format=torch.contiguous_format)
    merge_kernel[(count,)](
        part_NGD, lse2_NG, out, pieces, WIDTH=width, D=_power_of_two(width), G=16, num_warps=4
    )
    return out


def _on(tensor: Tensor) -> AbstractContextManager[object]:
    """Makes the tensor's device the current one; triton's interpreter has none."""
    return torch.cuda.device(tensor.device) if tensor.is_cuda else nullcontext()


def _power_of_two(count: int) -> int:
    """The next power of two, and at least 16: what a matrix product of triton takes."""
    return max(16, 1 << (count - 1).bit_length())


@cache
def _supported(device: int) -> bool:
    has_triton = find_spec("triton") is not None
    return has_triton and torch.cuda.get_device_capability(device) >= (8, 0)
