"""Choosing: from queries and chunk representations to the chunks that every query reads.

The rules are in `selection`; this module feeds them from the cache, block by block, for queries of
many tokens or of one token per row.

Axes: R rows, A active rows, H query heads, S selecting heads, T tokens, C chunks, K slots.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from longheads import selection
from longheads.cache import LongHeadsLayer
from longheads.chunks import score_features
from longheads.rotary import wide
from longheads.state import ModelState, Newest

SCORE_ELEMENTS = 1 << 19
"""Chunk scores held at once, so that choosing needs the same memory for every length."""


@dataclass(frozen=True)
class Chooser:
    """Chooses for one layer in one forward pass."""

    state: ModelState
    layer: LongHeadsLayer
    index: int

    def choose(
        self,
        rows: Sequence[int],
        position_RT: Tensor,
        query_RHTD: Tensor,
        *,
        furthest: int,
        decode: bool,
    ) -> Tensor:
        """Chunks that each query reads, RSTK; R or S may be 1 where they do not differ.

        Positions of several tokens follow each other; `furthest` is the highest one, known without
        asking the device.
        """
        own_RT = position_RT // self.layer.chunk_len
        num_chunks = furthest // self.layer.chunk_len
        if self.layer.is_sliding:
            reach = sliding_slots(self.layer.sliding_window or 1, self.layer.chunk_len)
            return selection.window_plan(own_RT, min(reach, num_chunks + 1)).unsqueeze(1)
        if furthest < self.state.window:
            slots = min(self.state.rules.num_slots, num_chunks + 1)
            chunks = selection.window_plan(own_RT, slots).unsqueeze(1)
        else:
            chunks = self._choose_free(rows, position_RT, query_RHTD, furthest, decode)
        for sink in self.state.sinks:
            sink(self.index, rows, position_RT, chunks)
        return chunks

    def _choose_free(
        self,
        rows: Sequence[int],
        position_RT: Tensor,
        query_RHTD: Tensor,
        furthest: int,
        decode: bool,
    ) -> Tensor:
        num_rows, heads, tokens, _ = query_RHTD.shape
        step = max(1, SCORE_ELEMENTS // (num_rows * heads * (furthest // self.layer.chunk_len)))
        parts = []
        for low in range(0, tokens, step):
            high = min(tokens, low + step)
            before = (furthest - (tokens - high)) // self.layer.chunk_len  # the last of these
            positions = position_RT[:, low:high]
            scores = self._scores(rows, positions, query_RHTD[:, :, low:high], before)
            parts.append(self._fill(rows, positions, scores, decode))
        return torch.cat(parts, dim=2)

    def _scores(
        self, rows: Sequence[int], position_RT: Tensor, query_RHTD: Tensor, num_chunks: int
    ) -> Tensor:
        config, layer = self.state.config, self.layer
        num_rows, heads, tokens, _ = query_RHTD.shape
        if config.select == "recent":
            return selection.recent_scores(num_rows, 1, tokens, num_chunks, query_RHTD.device)
        if config.select == "random":
            seed = config.seed * 1009 + self.index
            drawn = selection.random_scores(position_RT, heads, num_chunks, seed=seed)
            drawn = drawn.expand(num_rows, -1, -1, -1)
            return selection.share(drawn, config.share_selection, layer.kv_heads)
        assert layer.reps is not None
        offset = (position_RT % self.layer.chunk_len).unsqueeze(1).expand(num_rows, heads, tokens)
        plain = self.state.rotation(query_RHTD.device, self.index).unrotate(query_RHTD, offset)
        chosen = slice(None) if len(rows) == layer.reps.shape[0] else list(rows)
        reps = wide(layer.reps[:, :, :num_chunks][chosen])
        scores = torch.matmul(score_features(plain, config.chunk_rep), reps.transpose(-1, -2))
        if config.check_finite:
            self.state.step.sums.append((self.index, scores.sum()))
        return selection.share(scores, config.share_selection, layer.kv_heads)

    def _fill(
        self, rows: Sequence[int], position_RT: Tensor, scores: Tensor, decode: bool
    ) -> Tensor:
        own_RT = (position_RT // self.layer.chunk_len).expand(scores.shape[0], -1)
        boundary = None
        if decode and self.state.config.compat == "official":
            at_end = position_RT % self.layer.chunk_len == self.layer.chunk_len - 1
            boundary = at_end.expand(scores.shape[0], -1) if bool(at_end.any()) else None
        rules = self.state.rules
        masked = selection.free_scores(rules, scores, own_RT, boundary_BT=boundary)
        if self.state.boost is not None:
            boosted = self.state.boost(self.index, rows, masked)
            masked = masked if boosted is None else boosted
        return selection.fill_slots(rules, masked, own_RT, boundary_BT=boundary)

    def choose_ragged(self, newest: Newest, query: Tensor) -> Tensor:
        """Chunks for one token per row; rows inside and outside the window are told apart."""
        rows, places, position_A = newest.rows, newest.positions, newest.position_A
        inside = [i for i, place in enumerate(places) if place < self.state.window]
        outside = [i for i, place in enumerate(places) if place >= self.state.window]
        if not inside or not outside or self.layer.is_sliding:
            chunks = self.choose(
                rows, position_A.unsqueeze(1), query, furthest=max(places), decode=True
            )
            return chunks.squeeze(2)
        parts: dict[int, Tensor] = {}
        for part in (inside, outside):
            some = [rows[i] for i in part]
            chunks = self.choose(
                some,
                position_A[part].unsqueeze(1),
                query[part],
                furthest=max(places[i] for i in part),
                decode=True,
            )
            parts.update(zip(part, chunks.squeeze(2), strict=True))
        heads, slots = parts[outside[0]].shape
        padded = []
        for i in range(len(rows)):
            chunk_SK = parts[i].expand(heads, -1)
            empty = chunk_SK.new_full((heads, slots - chunk_SK.shape[1]), selection.EMPTY)
            padded.append(torch.cat([empty, chunk_SK], dim=1))
        return torch.stack(padded)


def sliding_slots(window: int, chunk_len: int) -> int:
    """Chunks that a sliding window can touch."""
    return 1 + -(-(window - 1) // chunk_len)
