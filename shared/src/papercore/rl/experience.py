"""Rollouts with all that an update needs to know, and the tokens of one minibatch or micro-batch.

    tokens_BG = minibatch_tokens(experience, rows, settings, reduce)
    tokens_N = tokens_BG.cut(rows, lengths, device, dtype)

Axes: B rollouts, G generated tokens of a rollout (padded on the right), N generated tokens of a
micro-batch in row order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from papercore.rl.estimators import Reduce
from papercore.rl.losses import token_weights
from papercore.rl.rollouts import Rollout, ragged, token_mask
from papercore.rl.settings import PPOSettings

__all__ = ["Experience", "Tokens", "minibatch_tokens"]


@dataclass(frozen=True)
class Experience:
    """A batch of rollouts and all that the update needs to know of them, `[B, G]` on the CPU.

    What the mask leaves out is never read.

    Attributes:
        rollouts: This process's; may be none if other processes have some.
        mask_BG: Tokens that bear the value loss and the KL; generated ones only. A row without any
            is left out.
        old_logps_BG: Log-probabilities before the update, at the update's temperature.
        advantages_BG: As the policy loss takes them, whitened or not.
        returns_BG: What the critic is drawn to.
        old_values_BG: The critic's values before the update.
        ref_logps_BG: Log-probabilities of the reference; needed with `kl_coef`.
        policy_mask_BG: Tokens of the mask that bear the policy loss and the entropy bonus; None is
            all of them.
        weights_BG: Importance weights of the policy loss.
    """

    rollouts: tuple[Rollout, ...]
    mask_BG: Tensor
    old_logps_BG: Tensor
    advantages_BG: Tensor
    returns_BG: Tensor
    old_values_BG: Tensor
    ref_logps_BG: Tensor | None = None
    policy_mask_BG: Tensor | None = None
    weights_BG: Tensor | None = None

    def __post_init__(self) -> None:
        shape, lengths = self.mask_BG.shape, self.lengths
        for name in ("old_logps", "advantages", "returns", "old_values", "ref_logps", "weights"):
            value_BG = getattr(self, f"{name}_BG")
            assert value_BG is None or value_BG.shape == shape, f"{name}_BG is not {tuple(shape)}"
        assert len(shape) == 2 and shape[0] == len(lengths), "one row for each rollout"
        longest = max(lengths, default=0)
        assert shape[1] >= longest, "one column for each generated token"
        assert self.mask_BG.dtype == torch.bool, "a mask is boolean"
        assert not self.mask_BG[:, longest:].any(), "the mask holds padding"
        assert not (self.mask_BG[:, :longest] & ~token_mask(lengths)).any(), "it holds padding"
        if self.policy_mask_BG is not None:
            assert self.policy_mask_BG.dtype == torch.bool, "a mask is boolean"
            assert not (self.policy_mask_BG & ~self.mask_BG).any(), "the policy mask goes further"

    @property
    def lengths(self) -> tuple[int, ...]:
        """Generated tokens of each rollout."""
        return tuple(len(one.response) for one in self.rollouts)


class Tokens(NamedTuple):
    """What is known of each token, `[B, G]` or `[N]`; 0 where the mask leaves it out.

    Attributes:
        mask: Bears the value loss.
        policy_mask: Bears the policy loss.
        weights: Of the value loss and the KL, in a mean over the minibatch.
        policy_weights: Of the policy loss and the entropy.
        importance: Importance weights; 1 without any.
        ref_logps: 0 without a reference.
    """

    mask: Tensor
    policy_mask: Tensor
    weights: Tensor
    policy_weights: Tensor
    old_logps: Tensor
    advantages: Tensor
    returns: Tensor
    old_values: Tensor
    importance: Tensor
    ref_logps: Tensor

    def cut(
        self, rows: Sequence[int], lengths: Sequence[int], device: torch.device, dtype: torch.dtype
    ) -> Tokens:
        """The generated tokens of some rows, in row order.

        Args:
            rows: None at all gives tokens without weight.
            lengths: Generated tokens of each row of the micro-batch.
            dtype: Of all but the masks.
        """

        def cut(x_BG: Tensor) -> Tensor:
            if rows:
                x_N = ragged(x_BG[list(rows)][:, : max(lengths)], lengths)
            else:
                x_N = torch.zeros(sum(lengths), dtype=x_BG.dtype)
            return x_N.to(device, x_N.dtype if x_N.dtype == torch.bool else dtype)

        return Tokens(*map(cut, self))


def minibatch_tokens(
    experience: Experience, rows: Sequence[int], settings: PPOSettings, reduce: Reduce
) -> Tokens:
    """Everything about the tokens of a minibatch; other rows have no weight.

    All processes must call this together: weights are of the minibatch in all of them.
    """
    chosen_B1 = torch.zeros(len(experience.rollouts), 1, dtype=torch.bool)
    chosen_B1[list(rows)] = True
    mask_BG = experience.mask_BG & chosen_B1
    whole_BG = experience.policy_mask_BG
    policy_BG = mask_BG if whole_BG is None else whole_BG & chosen_B1
    count_BG = mask_BG if settings.normalise == "all" else policy_BG
    kind = settings.reduction

    def read(x_BG: Tensor | None, default: float = 0.0) -> Tensor:
        if x_BG is None:
            return torch.full(mask_BG.shape, default)
        return torch.where(mask_BG, x_BG, 0.0)

    return Tokens(
        mask=mask_BG,
        policy_mask=policy_BG,
        weights=token_weights(mask_BG, kind, reduce=reduce),
        policy_weights=token_weights(policy_BG, kind, count_BG=count_BG, reduce=reduce),
        old_logps=read(experience.old_logps_BG),
        advantages=torch.where(policy_BG, experience.advantages_BG, 0.0),
        returns=read(experience.returns_BG),
        old_values=read(experience.old_values_BG),
        importance=read(experience.weights_BG, default=1.0),
        ref_logps=read(experience.ref_logps_BG),
    )
