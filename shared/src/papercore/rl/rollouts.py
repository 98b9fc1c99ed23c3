"""What a policy wrote, and how it is laid out for a forward pass.

    batch = pack(rollouts, pad_id=0)
    scored = policy(batch, temperature=1.0)

Rollouts are ragged and stay on the CPU until a micro-batch is packed. Each row of a packed batch is
prompt and response without a gap, filled up on the right: where prompts differ in length and longer
ones have shorter answers, as prefixes of demonstrations have, that is much less than padding both
apart. Masks come from lengths, never from token ids.

Axes: B rollouts, T tokens of prompt and response, N response tokens of all rows in row order,
G response tokens of one row (padded on the right).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Packed", "Rollout", "pack", "padded", "ragged"]


@dataclass(frozen=True)
class Rollout:
    """One prompt and what the policy wrote after it.

    Attributes:
        prompt: Token ids that are conditioned on only: question and prefix.
        response: Generated token ids, the end-of-sequence token included; at least one.
        logps: Log-probability of each generated token when it was drawn, at the temperature of
            sampling.
        ended: Whether the policy ended it; otherwise it was cut at a length limit.
    """

    prompt: tuple[int, ...]
    response: tuple[int, ...]
    logps: tuple[float, ...]
    ended: bool

    def __post_init__(self) -> None:
        assert self.prompt and self.response, "a rollout needs a prompt and a response"
        assert len(self.logps) == len(self.response), "one log-probability per generated token"


@dataclass(frozen=True)
class Packed:
    """Rollouts as one rectangle of token ids, and where the generated tokens are in it.

    Attributes:
        ids_BT: Token ids, prompt and response without a gap, padded on the right.
        mask_BT: 1 on real tokens.
        row_N: Row of each generated token.
        at_N: Its position in the row, at least 1; it is predicted at the position before.
        lengths: Generated tokens of each row.
    """

    ids_BT: Tensor
    mask_BT: Tensor
    row_N: Tensor
    at_N: Tensor
    lengths: tuple[int, ...]

    @property
    def targets_N(self) -> Tensor:  # noqa: N802 - a shape suffix
        """The generated tokens."""
        return self.ids_BT[self.row_N, self.at_N]

    def to(self, device: torch.device) -> Packed:
        """The same on another device."""
        ids_BT, mask_BT = self.ids_BT.to(device), self.mask_BT.to(device)
        row_N, at_N = self.row_N.to(device), self.at_N.to(device)
        return Packed(ids_BT, mask_BT, row_N, at_N, self.lengths)


def pack(rollouts: Sequence[Rollout], *, pad_id: int) -> Packed:
    """Lays rollouts out as rows without gaps.

    Args:
        pad_id: Fills the rows up; any valid id will do, since masks come from lengths.
    """
    assert rollouts, "nothing to pack"
    width = max(len(one.prompt) + len(one.response) for one in rollouts)
    ids_BT = torch.full((len(rollouts), width), pad_id, dtype=torch.long)
    mask_BT = torch.zeros_like(ids_BT)
    rows: list[int] = []
    places: list[int] = []
    for row, one in enumerate(rollouts):
        start, end = len(one.prompt), len(one.prompt) + len(one.response)
        ids_BT[row, :end] = torch.tensor(one.prompt + one.response)
        mask_BT[row, :end] = 1
        rows += [row] * (end - start)
        places += range(start, end)
    lengths = tuple(len(one.response) for one in rollouts)
    return Packed(ids_BT, mask_BT, torch.tensor(rows), torch.tensor(places), lengths)


def padded(values_N: Tensor, lengths: Sequence[int], *, fill: float = 0.0) -> Tensor:
    """Values of generated tokens as one row per rollout, filled up on the right: `[B, G]`."""
    mask_BG = token_mask(lengths).to(values_N.device)
    found_BG = torch.full(mask_BG.shape, fill, dtype=values_N.dtype, device=values_N.device)
    return found_BG.masked_scatter(mask_BG, values_N)


def ragged(values_BG: Tensor, lengths: Sequence[int]) -> Tensor:
    """The reverse of `padded`: the values of generated tokens in row order, `[N]`."""
    return values_BG[token_mask(lengths).to(values_BG.device)]


def token_mask(lengths: Sequence[int]) -> Tensor:
    """Boolean `[B, G]`, true on the generated tokens of each rollout."""
    lengths_B1 = torch.tensor(list(lengths), dtype=torch.long)[:, None]
    return torch.arange(max(lengths, default=0))[None] < lengths_B1
