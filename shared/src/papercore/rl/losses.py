"""Losses of PPO, token by token, and the weights that make a mean of them.

    loss_N, clipped_N = policy_loss(logps_N, old_logps_N, advantages_N, clip=0.2)
    loss = (loss_N * ragged(weights_BG, lengths)).sum()

A mean over a minibatch is a sum with fixed weights. So micro-batches, and processes, may add up
their parts in any way they like, and a token that is masked has exactly no gradient.

Axes: N generated tokens of all rows, B rollouts, G generated tokens of a rollout.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import torch
from torch import Tensor

from papercore.rl.estimators import Reduce

__all__ = ["Reduction", "policy_loss", "token_weights", "value_loss"]

Reduction: TypeAlias = Literal["token", "sequence"]


def policy_loss(
    logps_N: Tensor,
    old_logps_N: Tensor,
    advantages_N: Tensor,
    weights_N: Tensor | None = None,
    *,
    clip: float,
) -> tuple[Tensor, Tensor]:
    """The clipped surrogate.

    Args:
        old_logps_N: Log-probabilities before the update.
        weights_N: Importance weights of rollouts that another engine drew.
        clip: How far the ratio of new to old probability may go with a gain.

    Returns:
        The loss of each token, and whether it was clipped and so has no gradient.

    Source: 1707.06347, equation 7.
    """
    ratio_N = torch.exp(logps_N - old_logps_N)
    free_N = -advantages_N * ratio_N
    held_N = -advantages_N * ratio_N.clamp(1.0 - clip, 1.0 + clip)
    loss_N = torch.maximum(free_N, held_N)
    if weights_N is not None:
        loss_N = loss_N * weights_N
    return loss_N, held_N > free_N


def value_loss(
    values_N: Tensor, old_values_N: Tensor, returns_N: Tensor, *, clip: float | None
) -> Tensor:
    """Half the squared error, of the value or of the value held near its old one if that is worse.

    Args:
        clip: How far from the old value; None does not hold it.

    Source: official code of 2402.05808, `R3_math`.
    """
    error_N = (values_N - returns_N).square()
    if clip is not None:
        held_N = old_values_N + (values_N - old_values_N).clamp(-clip, clip)
        error_N = torch.maximum(error_N, (held_N - returns_N).square())
    return 0.5 * error_N


def token_weights(
    mask_BG: Tensor,
    reduction: Reduction,
    *,
    count_BG: Tensor | None = None,
    reduce: Reduce | None = None,
) -> Tensor:
    """Weights with which the sum over all tokens of all processes is the mean of a minibatch.

    Args:
        mask_BG: Tokens that bear the loss.
        reduction: `token` is the mean over all tokens; `sequence` the mean over a rollout's tokens,
            then over rollouts. A rollout without tokens does not count.
        count_BG: Tokens to divide by, if not those that bear the loss: where only some tokens bear
            it, dividing by all keeps the size of each token's gradient.
        reduce: Sums over processes; all of them must call this.

    Returns:
        Weights `[B, G]` in double precision, 0 outside of `mask_BG`; all 0 if no token counts.
    """
    count_BG = mask_BG if count_BG is None else count_BG
    tokens_B1 = count_BG.sum(dim=1, keepdim=True).double()
    per_row = reduction == "sequence"
    total = ((tokens_B1 > 0).double() if per_row else tokens_B1).sum()
    if reduce is not None:
        total = reduce(total)
    divisor_B1 = total * (tokens_B1 if per_row else torch.ones_like(tokens_B1))
    return torch.where(mask_BG & (divisor_B1 > 0), 1.0 / divisor_B1.clamp(min=1.0), 0.0)
