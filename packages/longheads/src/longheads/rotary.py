"""Rotary positions restarted in every chunk, and the extra rotation of queries (spec 2.10).

The model's own rotary module is asked for every cosine, so each rope type keeps its frequencies;
its own `apply_rotary_pos_emb` does every rotation, so half-split and interleaved layouts work.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Rotation:
    """Rotations by multiples of the chunk length, and back by an offset inside the chunk.

    Attributes:
        apply: the model file's `apply_rotary_pos_emb`.
        slot_cos, slot_sin: entry i rotates by (K-1-i) chunk lengths, KD.
        back_cos, back_sin: entry r rotates by -r, LD.
    """

    apply: Callable[[Tensor, Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]
    slot_cos: Tensor
    slot_sin: Tensor
    back_cos: Tensor
    back_sin: Tensor

    def slots(self, num_slots: int) -> Tensor:
        """Indices of the last `num_slots` slots."""
        return torch.arange(-num_slots, 0, device=self.slot_cos.device)

    def rotate(self, query: Tensor, slot: Tensor) -> Tensor:
        """Rotates queries for the slots they read.

        Shapes:
            query: ...D. slot: index from the end (-1 is the own chunk), broadcastable to `...`.
        """
        return self._turn(query, self.slot_cos[slot], self.slot_sin[slot])

    def unrotate(self, query: Tensor, offset: Tensor) -> Tensor:
        """Takes the rotation by the offset inside the chunk off again, in float32."""
        return self._turn(query.float(), self.back_cos[offset], self.back_sin[offset])

    def _turn(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Rotates in float32 and returns the dtype of `x`."""
        width = cos.shape[-1]
        part = x[..., :width].float()
        shape = part.shape
        flat = part.reshape(1, 1, -1, width)
        cos, sin = (table.expand(shape).reshape(1, -1, width) for table in (cos, sin))
        turned, _ = self.apply(flat, flat[:0], cos, sin)  # the model's function wants keys too
        turned = turned.view(shape).to(x.dtype)
        return turned if width == x.shape[-1] else torch.cat([turned, x[..., width:]], dim=-1)


def model_rotation(
    rotary: nn.Module, attention: nn.Module, *, chunk_len: int, num_slots: int, device: torch.device
) -> Rotation:
    """Asks the model's rotary module for the tables of a `Rotation`.

    Args:
        rotary: the model's rotary module.
        attention: one of its attention modules; its file owns `apply_rotary_pos_emb`.
        chunk_len: tokens of a chunk.
        num_slots: chunks per query.
        device: where the tables live.
    """
    slot = torch.arange(num_slots - 1, -1, -1, device=device) * chunk_len
    slot_cos, slot_sin = _tables(rotary, slot)
    back_cos, back_sin = _tables(rotary, -torch.arange(chunk_len, device=device))
    apply = sys.modules[type(attention).__module__].apply_rotary_pos_emb
    return Rotation(apply, slot_cos, slot_sin, back_cos, back_sin)


def _tables(rotary: nn.Module, positions: Tensor) -> tuple[Tensor, Tensor]:
    """Cosines and sines without the attention scaling, which the model's own call applied."""
    like = torch.zeros(1, dtype=torch.float32, device=positions.device)
    cos, sin = rotary(like, positions.unsqueeze(0))
    factor = float(getattr(rotary, "attention_scaling", 1.0))
    return cos[0] / factor, sin[0] / factor
