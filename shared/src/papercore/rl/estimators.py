"""Estimates of a rollout's worth and of its distance: pure functions on tensors.

    rewards_BG = token_rewards(scores_B, lengths, kl_BG=kl_BG, beta=0.05)
    advantages_BG, returns_BG = gae(rewards_BG, values_BG, mask_BG, gamma=1.0, lam=0.95)
    advantages_BG = whiten(advantages_BG, mask_BG, reduce=reduce_sum(accelerator))

What a mask leaves out is never read, so NaN there does no harm, and comes out as 0.

Axes: B rollouts, G generated tokens of a rollout (padded on the right).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from papercore.rl.rollouts import token_mask

__all__ = [
    "AdaptiveKL",
    "KLKind",
    "Reduce",
    "gae",
    "importance_weights",
    "kl_estimate",
    "masked_mean",
    "masked_var",
    "token_rewards",
    "whiten",
]

Reduce: TypeAlias = Callable[[Tensor], Tensor]
"""Sums a tensor over all processes."""

KLKind: TypeAlias = Literal["k1", "k2", "k3"]

FLAT = 1e-8
"""Variance up to which values count as equal, and what is added to a larger one."""

ADAPT = 0.2
"""Largest relative error that an adaptive KL weight answers to. Source: 1909.08593, section 2.2."""


def masked_mean(x_BG: Tensor, mask_BG: Tensor, *, reduce: Reduce | None = None) -> Tensor:
    """Mean over the tokens of the mask, of all processes; 0 if there is none."""
    num, total = _sums(x_BG, mask_BG, reduce)
    return (total / num.clamp(min=1)).to(x_BG.dtype)


def masked_var(x_BG: Tensor, mask_BG: Tensor, *, reduce: Reduce | None = None) -> Tensor:
    """Unbiased variance over the tokens of the mask, of all processes; 0 for fewer than two."""
    return _moments(x_BG, mask_BG, reduce)[1].to(x_BG.dtype)


def whiten(
    x_BG: Tensor, mask_BG: Tensor, *, shift_mean: bool = True, reduce: Reduce | None = None
) -> Tensor:
    """Brings the tokens of the mask, of all processes together, to mean 0 and variance 1.

    Args:
        shift_mean: Otherwise the mean stays what it was, divided like everything else.
        reduce: Sums over processes; all of them must call this.

    Returns:
        The same shape, 0 outside of the mask. A single token, or tokens that are all equal, have no
        spread to divide by: they are shifted only.
    """
    mean, var = _moments(x_BG, mask_BG, reduce)
    scale = torch.where(var > FLAT, torch.rsqrt(var + FLAT), 1.0)
    shifted_BG = x_BG.double() - (mean if shift_mean else 0.0)
    return torch.where(mask_BG, shifted_BG * scale, 0.0).to(x_BG.dtype)


def kl_estimate(logps: Tensor, ref_logps: Tensor, kind: KLKind) -> Tensor:
    """KL(policy || reference) from tokens that the policy drew, token by token.

    `k1`, the difference of log-probabilities, and `k3` are unbiased, `k2` is not; `k3` is never
    negative and varies less than `k1`.

    Source: J. Schulman (2020), Approximating KL Divergence.
    """
    difference = logps - ref_logps
    if kind == "k1":
        return difference
    if kind == "k2":
        return 0.5 * difference.square()
    # rounding may put it a hair below 0
    return (torch.expm1(-difference) + difference).clamp(min=0.0)


def token_rewards(
    scores_B: Tensor,
    lengths: Sequence[int],
    *,
    kl_BG: Tensor | None = None,
    beta: float = 0.0,
    score_clip: float | None = None,
) -> Tensor:
    """The score on the last generated token, less the KL penalty of each token.

    Args:
        scores_B: One score for each rollout.
        lengths: Generated tokens of each rollout, the end-of-sequence token included.
        kl_BG: k1 of each generated token; padding is not read.
        beta: Weight of the penalty.
        score_clip: Largest absolute score.

    Returns:
        Rewards `[B, G]`, 0 on padding.
    """
    mask_BG = _token_mask(lengths, width=kl_BG.shape[1] if kl_BG is not None else None)
    mask_BG = mask_BG.to(scores_B.device)
    if score_clip is not None:
        scores_B = scores_B.clamp(-score_clip, score_clip)
    rewards_BG = torch.zeros(mask_BG.shape, dtype=scores_B.dtype, device=scores_B.device)
    if kl_BG is not None:
        rewards_BG = torch.where(mask_BG, -beta * kl_BG, 0.0).to(scores_B.dtype)
    last_B1 = mask_BG.sum(dim=1, keepdim=True) - 1
    return rewards_BG.scatter_add(1, last_B1, scores_B[:, None])


def gae(
    rewards_BG: Tensor,
    values_BG: Tensor,
    mask_BG: Tensor,
    *,
    gamma: float,
    lam: float,
    bootstrap_B: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Generalized advantage estimation, backwards from each rollout's last token.

    A token outside of the mask is passed over wherever it is: padding, and holes too, as if the row
    were written without it.

    Args:
        values_BG: Value of the state in which each token was drawn.
        bootstrap_B: Value of the state after the last token, for rollouts that were cut off; 0, or
            None for all, where the last token ends it.

    Returns:
        Advantages and returns (advantage plus value), 0 outside of the mask.

    Source: 1506.02438, equation 16.
    """
    advantages_BG = torch.zeros_like(values_BG)
    next_B = values_BG.new_zeros(len(values_BG)) if bootstrap_B is None else bootstrap_B
    advantage_B = torch.zeros_like(next_B)
    for token in reversed(range(values_BG.shape[1])):
        value_B, on_B = values_BG[:, token], mask_BG[:, token]
        error_B = rewards_BG[:, token] + gamma * next_B - value_B
        advantage_B = torch.where(on_B, error_B + gamma * lam * advantage_B, advantage_B)
        next_B = torch.where(on_B, value_B, next_B)
        advantages_BG[:, token] = advantage_B
    returns_BG = advantages_BG + values_BG
    return torch.where(mask_BG, advantages_BG, 0.0), torch.where(mask_BG, returns_BG, 0.0)


def importance_weights(logps: Tensor, behaviour_logps: Tensor, *, cap: float) -> Tensor:
    """Truncated importance weights of tokens that another engine drew, without a gradient."""
    return torch.exp(logps.detach() - behaviour_logps.detach()).clamp(max=cap)


class AdaptiveKL:
    """A weight of the KL penalty that keeps the mean KL near a target.

    Source: 1909.08593, section 2.2.

    Attributes:
        beta: The weight now.
    """

    def __init__(self, beta: float, target: float, horizon: float) -> None:
        """Starts from a weight.

        Args:
            beta: The weight at first; one of 0 stays 0.
            target: Mean KL of a rollout, in nats.
            horizon: Rollouts over which a weight that is off by `ADAPT` changes by that share.
        """
        self.beta = beta
        self._target, self._horizon = target, horizon

    def update(self, kl: float, n: int) -> None:
        """Takes in the mean KL of `n` rollouts; one that is not finite says nothing."""
        if not math.isfinite(kl):
            return
        error = min(max(kl / self._target - 1.0, -ADAPT), ADAPT)
        # a batch beyond the horizon must not turn the weight's sign
        self.beta *= 1.0 + error * min(n / self._horizon, 1.0)

    def state(self) -> dict[str, float]:
        """What a checkpoint keeps."""
        return {"beta": self.beta}

    def restore(self, state: Mapping[str, float]) -> None:
        """Goes on from a checkpoint."""
        self.beta = float(state["beta"])


def _sums(x_BG: Tensor, mask_BG: Tensor, reduce: Reduce | None) -> tuple[Tensor, Tensor]:
    """Number and sum of the tokens of the mask, in double precision."""
    kept_BG = torch.where(mask_BG, x_BG.double(), 0.0)
    both = torch.stack([mask_BG.sum().double(), kept_BG.sum()])
    num, total = (both if reduce is None else reduce(both)).unbind()
    return num, total


def _moments(x_BG: Tensor, mask_BG: Tensor, reduce: Reduce | None) -> tuple[Tensor, Tensor]:
    """Mean and unbiased variance, in two passes: squares of large values would cancel."""
    num, total = _sums(x_BG, mask_BG, reduce)
    mean = total / num.clamp(min=1)
    _, squares = _sums((x_BG.double() - mean).square(), mask_BG, reduce)
    return mean, torch.where(num > 1, squares / (num - 1).clamp(min=1), 0.0)


def _token_mask(lengths: Sequence[int], *, width: int | None) -> Tensor:
    """`token_mask`, as wide as another tensor."""
    mask_BG = token_mask(lengths)
    extra = 0 if width is None else width - mask_BG.shape[1]
    assert extra >= 0, "the KL of some generated token is missing"
    return torch.nn.functional.pad(mask_BG, (0, extra))
