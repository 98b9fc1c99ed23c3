"""Rotary positions restarted in every chunk, and the extra rotation of queries (spec 2.10).

The model's own rotary module is asked for every cosine, so each rope type keeps its frequencies;
its own `apply_rotary_pos_emb` says which widths form a pair, so half-split and interleaved layouts
both work.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor, nn

RotaryKind = str | None
"""Which positions a layer has: `ALL_ALIKE`, `NONE`, or a type of layer with tables of its own."""

ALL_ALIKE: Final = None
"""The rotary module has one table."""

NONE: Final = "none"
"""The layer has no positions, so nothing is rotated."""

Apply = Callable[[Tensor, Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]
"""A model file's `apply_rotary_pos_emb(query, key, cos, sin)`."""


@dataclass(frozen=True)
class Rotation:
    """Rotations by multiples of the chunk length, and back by an offset inside the chunk.

    A rotation is `x cos + partner(x) sin`, where the partner swaps (and negates) the two halves of
    each rotated pair. Only the partner depends on how a model lays out its pairs.

    Attributes:
        apply: the model file's function.
        slot_turns: entry i rotates by (K-1-i) chunk lengths; cosines, then sines, K(2D').
        back_turns: entry r rotates by -r, L(2D').
    """

    apply: Apply
    slot_turns: Tensor
    back_turns: Tensor

    def slots(self, num_slots: int) -> Tensor:
        """Indices of the last `num_slots` slots."""
        return torch.arange(-num_slots, 0, device=self.slot_turns.device)

    def with_partner(self, query: Tensor) -> Tensor:
        """Queries in wide precision with their partners behind them, ready for `turn`.

        Shapes:
            query: ...D; returns ...(D + D'), where D' is the width that is rotated.
        """
        width = self.slot_turns.shape[-1] // 2
        full = wide(query)
        if not width:
            return full
        return torch.cat([full, _partner(self.apply, full[..., :width])], dim=-1)

    def turn(self, paired: Tensor, slot: Tensor) -> Tensor:
        """Rotates queries for the slots they read.

        Shapes:
            paired: from `with_partner`. slot: index from the end (-1 is the own chunk),
            broadcastable to `...`; returns ...D in wide precision.
        """
        return _turn(paired, pick(self.slot_turns, slot + self.slot_turns.shape[0]))

    def unrotate(self, query: Tensor, offset: Tensor) -> Tensor:
        """Takes the rotation by the offset inside the chunk off again, in wide precision."""
        return _turn(self.with_partner(query), self.back_turns[offset])


def wide(x: Tensor) -> Tensor:
    """At least float32: scores, rotations and sums are never taken in half precision."""
    return x if x.dtype == torch.float64 else x.float()


def pick(table: Tensor, index: Tensor) -> Tensor:
    """`table[index]` for places from 0 on, in a fourth of its time on a CPU."""
    return table.index_select(0, index.flatten()).view(*index.shape, *table.shape[1:])


def _turn(paired: Tensor, turns: Tensor) -> Tensor:
    width = turns.shape[-1] // 2
    if not width:
        return paired
    part, partner = paired[..., :width], paired[..., -width:]
    turned = (part * turns[..., :width]).addcmul_(partner, turns[..., width:])
    rest = paired[..., width:-width]
    return torch.cat([turned, rest], dim=-1) if rest.shape[-1] else turned


def _partner(apply: Apply, part: Tensor) -> Tensor:
    """What the model's function multiplies by the sine."""
    flat = part.reshape(1, 1, -1, part.shape[-1])
    nothing = flat[:0]  # the function wants keys too
    zero = flat.new_zeros(1, 1, part.shape[-1])
    partner, _ = apply(flat, nothing, zero, zero + 1)
    return partner.view(part.shape)


def model_rotation(
    rotary: nn.Module,
    attention: nn.Module,
    *,
    kind: RotaryKind,
    chunk_len: int,
    num_slots: int,
    device: torch.device,
) -> Rotation:
    """Asks the model's rotary module for the tables of a `Rotation`.

    Args:
        rotary: the model's rotary module.
        attention: one of its attention modules; its file owns `apply_rotary_pos_emb`.
        kind: which of its tables.
        chunk_len: tokens of a chunk.
        num_slots: chunks per query.
        device: where the tables live.
    """
    apply = sys.modules[type(attention).__module__].apply_rotary_pos_emb
    slot = torch.arange(num_slots - 1, -1, -1, device=device) * chunk_len
    back = -torch.arange(chunk_len, device=device)
    return Rotation(apply, _turns(rotary, apply, slot, kind), _turns(rotary, apply, back, kind))


def _turns(rotary: nn.Module, apply: Apply, positions: Tensor, kind: RotaryKind) -> Tensor:
    """Cosines and sines, one per width, as the model's function uses them.

    The attention scaling is taken out again: the model's own call applied it to query and key.
    """
    like = torch.zeros(1, dtype=torch.float32, device=positions.device)
    if kind == NONE:
        return like.new_zeros(len(positions), 0)
    own = () if kind is ALL_ALIKE else (kind,)
    cos, sin = rotary(like, positions.unsqueeze(0), *own)
    name = "attention_scaling" if kind is ALL_ALIKE else f"{kind}_attention_scaling"
    cos, sin = (table / float(getattr(rotary, name, 1.0)) for table in (cos, sin))
    ones = torch.ones_like(cos).unsqueeze(0)
    sign = _partner(apply, torch.ones_like(cos[0]))
    used_cos, _ = apply(ones, ones[:0], cos, torch.zeros_like(sin))
    used_sin, _ = apply(ones, ones[:0], torch.zeros_like(cos), sin)
    return torch.cat([used_cos[0, 0], used_sin[0, 0] * sign], dim=-1)
