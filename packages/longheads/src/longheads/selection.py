"""Which chunks each head reads for each query token (spec 2.3 and 2.4).

A plan has `k` slots per query. Slots are filled from the right: the query's own chunk is always in
slot k-1, and the chunk in slot i lies (k-1-i) chunk lengths before it after remapping. A slot may
be empty (-1). Inside the window every chunk up to the own one is taken, so distances are true.

Axes: B batch, S selecting heads, T query tokens, C chunks, K slots.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Select = Literal["scores", "random", "recent"]
"""`scores` is the method. `random` draws the free chunks, `recent` takes the latest ones."""

ShareSelection = Literal["per_head", "group_mean", "group_max", "layer_mean", "layer_max"]
"""Who chooses: every query head, the heads of one KV head together, or all heads of a layer."""

EMPTY = -1


@dataclass(frozen=True)
class Rules:
    """How slots are filled.

    Attributes:
        num_slots: Chunks per query, the own chunk included.
        keep_first: Chunk 0 is always read.
        keep_last: The chunk before the own one is always read.
    """

    num_slots: int
    keep_first: bool = True
    keep_last: bool = True

    @property
    def num_free(self) -> int:
        """Slots that are filled by score."""
        return self.num_slots - 1 - self.keep_first - self.keep_last


def window_plan(own_BT: Tensor, num_slots: int) -> Tensor:
    """All chunks up to the own one, for queries inside the window.

    Shapes:
        own_BT: chunk of each query; returns BTK with -1 in unused slots.
    """
    steps = torch.arange(1 - num_slots, 1, device=own_BT.device)
    plan = own_BT.unsqueeze(-1) + steps
    return plan.clamp(min=EMPTY)


def free_scores(
    rules: Rules, scores_BSTC: Tensor, own_BT: Tensor, *, boundary_BT: Tensor | None = None
) -> Tensor:
    """Masks the chunks that are forced, unfinished or in the future with -inf.

    Args:
        rules: How slots are filled.
        scores_BSTC: Score of every chunk for every query.
        own_BT: Chunk of each query; must be at least `num_slots`.
        boundary_BT: Queries for which the official code lets the chunk before the own one compete.
    """
    chunk_C = torch.arange(scores_BSTC.shape[-1], device=scores_BSTC.device)
    last_BT = own_BT - (2 if rules.keep_last else 1)
    if boundary_BT is not None:
        last_BT = torch.where(boundary_BT, own_BT - 1, last_BT)
    allowed_BTC = chunk_C <= last_BT.unsqueeze(-1)
    if rules.keep_first:
        allowed_BTC &= chunk_C > 0
    return scores_BSTC.masked_fill(~allowed_BTC.unsqueeze(1), float("-inf"))


def fill_slots(
    rules: Rules, masked_BSTC: Tensor, own_BT: Tensor, *, boundary_BT: Tensor | None = None
) -> Tensor:
    """Takes the best free chunks and lays all chosen chunks out in text order.

    Shapes:
        returns BSTK (int64), ascending over the slots, own chunk last.
    """
    batch, heads, tokens, _ = masked_BSTC.shape
    free = masked_BSTC.topk(rules.num_free, dim=-1, sorted=False).indices.sort(dim=-1).values
    own = own_BT[:, None, :, None].expand(batch, heads, tokens, 1)
    first = [torch.zeros_like(own)] if rules.keep_first else []
    last = [own - 1] if rules.keep_last else []
    plan = torch.cat([*first, free, *last, own], dim=-1)
    if boundary_BT is None:
        return plan
    shifted = torch.cat([torch.full_like(own, EMPTY), *first, free, own], dim=-1)
    return torch.where(boundary_BT[:, None, :, None], shifted, plan)


def share(scores_BHTC: Tensor, mode: ShareSelection, num_kv_heads: int) -> Tensor:
    """Merges the scores of heads that must choose together; one row per selecting head is left.

    Shapes:
        returns BSTC with S = H (`per_head`) or the number of KV heads (all other modes).
    """
    if mode == "per_head":
        return scores_BHTC
    batch, heads, tokens, chunks = scores_BHTC.shape
    if mode.startswith("group"):
        grouped = scores_BHTC.view(batch, num_kv_heads, heads // num_kv_heads, tokens, chunks)
        return grouped.mean(dim=2) if mode == "group_mean" else grouped.amax(dim=2)
    pooled = scores_BHTC.mean(dim=1) if mode == "layer_mean" else scores_BHTC.amax(dim=1)
    return pooled.unsqueeze(1).expand(batch, num_kv_heads, tokens, chunks)


def recent_scores(batch: int, heads: int, tokens: int, chunks: int, device: torch.device) -> Tensor:
    """Scores by which the latest chunks win."""
    order = torch.arange(chunks, device=device, dtype=torch.float32)
    return order.expand(batch, heads, tokens, chunks)


def random_scores(position_BT: Tensor, heads: int, chunks: int, *, seed: int) -> Tensor:
    """Scores drawn by a hash of (seed, head, position, chunk).

    They do not depend on how the text was cut into forward passes, so prefill and decode agree.
    """
    device = position_BT.device
    head = torch.arange(heads, device=device).view(1, heads, 1, 1)
    chunk = torch.arange(chunks, device=device).view(1, 1, 1, chunks)
    mixed = position_BT[:, None, :, None] * 0x9E3779B97F4A7C1 + chunk * 0x2545F4914F6CDD1D
    mixed = mixed + head * 0x5851F42D4C957F2D + seed * 0x14057B7EF767814F
    for shift, factor in ((31, 0x3F58476D1CE4E5B9), (27, 0x14D049BB133111EB)):
        mixed = (mixed ^ (mixed >> shift)) * factor
    return ((mixed ^ (mixed >> 33)) & 0xFFFFFF).float()
