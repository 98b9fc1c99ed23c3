"""Attention over chosen chunks, without gathering keys per query (spec 2.10).

Keys lie in pages of one chunk each, rotated by their offset inside the chunk. A query that reads
the page in slot i is rotated by (K-1-i) chunk lengths first; the product is then the attention
score at the remapped positions. Keys are never rotated again.

Axes: B batch, H query heads, T query tokens, K slots, P pages, L tokens of a page, D head width,
N = pairs (query, slot), M tiles, R rows of a tile.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from longheads.rotary import Rotation, pick, wide
from longheads.scores import attention_scores

TILE_ELEMENTS = 1 << 18
"""Scores computed at once: 1 MiB in float32, so that softmax stays in the cache of a CPU core."""

_LOWEST = -1e30


@dataclass(frozen=True)
class Pages:
    """All pages of a layer: keys PLD (at local rotation) and values PLD."""

    keys: Tensor
    values: Tensor


@dataclass(frozen=True)
class Plan:
    """Pages that each query reads.

    Attributes:
        pages: index into `Pages`, or -1; XTK, where X counts (row, head) pairs of the queries.
        first: lowest key offset that a query may read in a slot, TK; None: 0 everywhere.
        last: highest key offset that a query may read in a slot, TK.
        masked: slots in which `first` or `last` really hides a key.
    """

    pages: Tensor
    first: Tensor | None
    last: Tensor
    masked: tuple[int, ...]


class Room:
    """Memory for the answers of all pairs, kept from one part of a layer to the next.

    On a CPU, memory that comes anew from the system costs as much as a tenth of the attention.
    """

    def __init__(self) -> None:
        self._kept: Tensor | None = None

    def take(self, shape: tuple[int, int], query: Tensor) -> Tensor:
        """A tensor in wide precision with whatever was in it before."""
        size, kept = shape[0] * shape[1], self._kept
        if kept is None or kept.numel() < size:
            self._kept = kept = wide(query.new_empty(0)).new_empty(size)
        return kept[:size].view(shape)


def attend_chunk_major(
    query_XTD: Tensor,
    pages: Pages,
    plan: Plan,
    rotation: Rotation,
    *,
    scale: float,
    softcap: float | None = None,
    room: Room | None = None,
) -> Tensor:
    """Attention of many queries: queries are sorted by the page they read, then meet it in tiles.

    Args:
        query_XTD: queries at local rotation.
        pages, plan: what there is, and what each query reads of it.
        rotation: of the layer.
        scale, softcap: of the scores.
        room: for intermediate results, if there are more calls like this one.

    Shapes:
        returns XTD in the dtype of the query.
    """
    heads, tokens, width = query_XTD.shape
    num_slots = plan.pages.shape[-1]
    out_ND = (room or Room()).take((heads * tokens * num_slots, width), query_XTD)
    lse_N = torch.full_like(out_ND[:, 0], _LOWEST)
    if not bool((plan.pages >= 0).all()):
        out_ND.zero_()  # empty slots have no weight, but what lies there must be finite
    work = _Work(query_XTD, pages, plan, rotation, scale, softcap, out_ND, lse_N)
    work.fill_([slot for slot in range(num_slots) if slot not in plan.masked], hidden=False)
    work.fill_(list(plan.masked), hidden=True)
    weight = lse_N.view(heads * tokens, 1, num_slots).softmax(dim=-1)
    out = torch.bmm(weight, out_ND.view(heads * tokens, num_slots, width))
    return out.view(heads, tokens, width).to(query_XTD.dtype)


def attend_gathered(
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
    """Attention of one query per head: the few pages it reads are gathered.

    Shapes:
        query_BSRD: R query heads share the choice of selecting head S; returns BSRD.
    """
    valid = page_BSK >= 0
    index = page_BSK.clamp(min=0)
    keys_BSKLD, values_BSKLD = pick(pages.keys, index), pick(pages.values, index)
    num_slots = page_BSK.shape[-1]
    paired = rotation.with_partner(query_BSRD).unsqueeze(2).expand(-1, -1, num_slots, -1, -1)
    query_BSKRD = rotation.turn(paired, rotation.slots(num_slots)[:, None]).to(query_BSRD.dtype)
    scores = attention_scores(query_BSKRD, keys_BSKLD, scale, softcap)
    offset_L = torch.arange(keys_BSKLD.shape[-2], device=scores.device)
    seen_BKL = offset_L <= last_BK.unsqueeze(-1)
    if first_BK is not None:
        seen_BKL &= offset_L >= first_BK.unsqueeze(-1)
    seen = seen_BKL[:, None, :, None, :] & valid[:, :, :, None, None]
    scores.masked_fill_(~seen, float("-inf"))
    batch, heads, _, rows, length = scores.shape
    flat = scores.permute(0, 1, 3, 2, 4).reshape(batch, heads, rows, num_slots * length)
    weights = flat.softmax(dim=-1).to(values_BSKLD.dtype)
    return torch.matmul(weights, values_BSKLD.flatten(2, 3))


@dataclass(frozen=True)
class _Work:
    """Queries, what they read, and where the answers of all pairs go."""

    query_XTD: Tensor
    pages: Pages
    plan: Plan
    rotation: Rotation
    scale: float
    softcap: float | None
    out_ND: Tensor
    lse_N: Tensor

    def fill_(self, slots: list[int], *, hidden: bool) -> None:
        """Answers the pairs of some slots; `hidden` tells that keys are hidden there."""
        pair_N, page_N = _pairs(self.plan.pages, slots)
        if not pair_N.numel():
            return
        tokens, num_slots = self.plan.pages.shape[1:]
        length = self.pages.keys.shape[1]
        rows_MR, page_M = _tiles(page_N)
        paired = self.rotation.with_partner(self.query_XTD).flatten(0, 1)
        step = max(1, TILE_ELEMENTS // (rows_MR.shape[1] * length))
        for start in range(0, rows_MR.shape[0], step):
            pair_MR = pair_N[rows_MR[start : start + step]]
            page = page_M[start : start + step]
            slot_MR, source_MR = pair_MR % num_slots, pair_MR // num_slots
            query = self.rotation.turn(pick(paired, source_MR), slot_MR - num_slots)
            seen = _seen(self.plan, source_MR % tokens, slot_MR, length) if hidden else None
            key, value = pick(self.pages.keys, page), pick(self.pages.values, page)
            scores = attention_scores(query.to(key.dtype), key, self.scale, self.softcap)
            out, lse = _tile_attention(scores, value, seen)
            flat = pair_MR.flatten()
            self.out_ND[flat] = out.flatten(0, 1)
            self.lse_N[flat] = lse.flatten()


def _pairs(page_XTK: Tensor, slots: list[int]) -> tuple[Tensor, Tensor]:
    """Pairs (query, slot) that read a page, sorted by page."""
    num_slots = page_XTK.shape[-1]
    index = torch.as_tensor(slots, dtype=torch.long, device=page_XTK.device)
    page = page_XTK[..., index].reshape(-1)
    count = page_XTK.shape[0] * page_XTK.shape[1]
    query = torch.arange(count, device=page_XTK.device).unsqueeze(-1)
    pair = (query * num_slots + index).reshape(-1)
    valid = page >= 0
    if not bool(valid.all()):
        page, pair = page[valid], pair[valid]
    sorted_page, order = page.sort(stable=True)
    return pair[order], sorted_page


def _tiles(page_N: Tensor) -> tuple[Tensor, Tensor]:
    """Cuts the sorted pairs into tiles of one page each; short tiles repeat their last pair."""
    page, count = torch.unique_consecutive(page_N, return_counts=True)
    rows = _tile_rows(page_N.numel() / page.numel())
    end = count.cumsum(0)
    tiles = (count + rows - 1) // rows
    owner = torch.repeat_interleave(torch.arange(page.numel(), device=page.device), tiles)
    before = tiles.cumsum(0) - tiles
    rank = torch.arange(owner.numel(), device=page.device) - before[owner]
    start = (end - count)[owner] + rank * rows
    index = start.unsqueeze(-1) + torch.arange(rows, device=page.device)
    return index.minimum(end[owner].unsqueeze(-1) - 1), page[owner]


def _tile_rows(mean_count: float) -> int:
    """Rows of a tile: a third of the mean count as a power of two, so that few rows are padding."""
    rows = 16
    while rows < 256 and rows * 3 < mean_count:
        rows *= 2
    return rows


def _seen(plan: Plan, token_MR: Tensor, slot_MR: Tensor, length: int) -> Tensor:
    offset_L = torch.arange(length, device=token_MR.device)
    seen = offset_L <= plan.last[token_MR, slot_MR].unsqueeze(-1)
    if plan.first is not None:
        seen &= offset_L >= plan.first[token_MR, slot_MR].unsqueeze(-1)
    return seen


def _tile_attention(
    scores: Tensor, value_MLD: Tensor, seen_MRL: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Softmax attention of each tile and the logarithm of its normaliser, in wide precision."""
    if seen_MRL is not None:
        scores.masked_fill_(~seen_MRL, float("-inf"))
    top = scores.amax(dim=-1, keepdim=True).clamp_(min=_LOWEST)
    weights = scores.sub_(top).exp_()
    total = weights.sum(dim=-1, keepdim=True).clamp_(min=1e-30)
    out = wide(torch.bmm(weights.to(value_MLD.dtype), value_MLD)).div_(total)
    return out, (top + total.log()).squeeze(-1)
