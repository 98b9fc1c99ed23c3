"""What a step learns from: rewards, advantages and returns of judged rollouts.

    worth = weigh(judged, scores, ref_logps_BG, config, beta=0.05, reduce=reduce)
    ppo_update(policy, optimizer, worth.experience, settings, pad_id=0, seed=step)

Axes: B rollouts, G generated tokens of a rollout (padded on the right).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from papercore.rl.estimators import (
    Reduce,
    gae,
    importance_weights,
    kl_estimate,
    token_rewards,
    whiten,
)
from papercore.rl.rollouts import padded, token_mask
from papercore.rl.scoring import Scores
from papercore.rl.settings import PPOSettings
from papercore.rl.update import Experience
from r3.config import TrainConfig
from r3.rollout_batch import Judged

__all__ = ["Worth", "left_out", "settings_of", "weigh"]


@dataclass(frozen=True)
class Worth:
    """A batch for the update, and what it says of each rollout.

    Attributes:
        experience: For `ppo_update`.
        kl_B: Sum over a rollout's tokens of its log-probability ratio to the reference, in nats;
            None without a reference.
        advantage_B: Mean over its tokens, as the update takes it.
        value_B: Mean of the critic's values.
    """

    experience: Experience
    kl_B: tuple[float, ...] | None
    advantage_B: tuple[float, ...]
    value_B: tuple[float, ...]


def settings_of(config: TrainConfig, beta: float) -> PPOSettings:
    """The update's settings; the KL penalty is among them where it belongs to the loss."""
    ppo = config.ppo
    return PPOSettings(
        epochs=ppo.epochs,
        minibatches=ppo.minibatches,
        micro_batch=config.micro_batch,
        clip=ppo.clip,
        value_clip=ppo.value_clip,
        value_coef=ppo.value_coef,
        entropy_coef=ppo.entropy_coef,
        kl_coef=beta if ppo.kl == "loss" else 0.0,
        temperature=config.temperature,
        reduction=ppo.reduction,
        grad_clip=ppo.grad_clip,
    )


def left_out(one: Judged, config: TrainConfig) -> bool:
    """Whether nothing is learnt from a rollout: it has no reward, or was cut off and is masked."""
    return one.excluded or (config.reward.truncated == "mask" and not one.rollout.ended)


def weigh(
    judged: Sequence[Judged],
    scores: Scores,
    ref_logps_BG: Tensor | None,
    config: TrainConfig,
    *,
    beta: float,
    reduce: Reduce,
) -> Worth:
    """Rewards, advantages and returns of rollouts, from this process's scores of them.

    Args:
        scores: Log-probabilities and values before the update.
        ref_logps_BG: Log-probabilities under the reference; None if there is no KL penalty.
        beta: Weight of the KL penalty.
        reduce: Sums over processes, for whitening; all of them must call this.
    """
    lengths = [len(one.rollout.response) for one in judged]
    tokens_BG = token_mask(lengths)
    learnt_B = torch.tensor([not left_out(one, config) for one in judged])
    mask_BG = tokens_BG & learnt_B[:, None]
    kl_BG = None
    if ref_logps_BG is not None:
        kl_BG = torch.where(tokens_BG, kl_estimate(scores.logps_BG, ref_logps_BG, "k1"), 0.0)
    rewards_BG = token_rewards(
        _scores(judged, config),
        lengths,
        kl_BG=kl_BG if config.ppo.kl == "reward" else None,
        beta=beta,
    )
    advantages_BG, returns_BG = gae(
        *(rewards_BG, scores.values_BG, mask_BG),
        gamma=config.ppo.gamma,
        lam=config.ppo.lam,
        bootstrap_B=_bootstrap(judged, scores, config),
    )
    if config.ppo.whiten:
        advantages_BG = whiten(advantages_BG, mask_BG, reduce=reduce)
    experience = Experience(
        rollouts=tuple(one.rollout for one in judged),
        mask_BG=mask_BG,
        old_logps_BG=scores.logps_BG,
        advantages_BG=advantages_BG,
        returns_BG=returns_BG,
        old_values_BG=scores.values_BG,
        ref_logps_BG=ref_logps_BG,
        weights_BG=_importance(judged, scores, config),
    )
    return Worth(
        experience=experience,
        kl_B=None if kl_BG is None else tuple(kl_BG.double().sum(dim=1).tolist()),
        advantage_B=_means(advantages_BG, tokens_BG),
        value_B=_means(scores.values_BG, tokens_BG),
    )


def _scores(judged: Sequence[Judged], config: TrainConfig) -> Tensor:
    """What each rollout earns on its last token."""
    judges_cut_ones = config.reward.truncated == "score"
    return torch.tensor(
        [
            one.outcome.reward if not one.excluded and (one.rollout.ended or judges_cut_ones) else 0
            for one in judged
        ],
        dtype=torch.float32,
    )


def _bootstrap(judged: Sequence[Judged], scores: Scores, config: TrainConfig) -> Tensor | None:
    """The critic's word for what was cut off."""
    if config.reward.truncated != "bootstrap":
        return None
    cut_B = torch.tensor([not one.rollout.ended for one in judged])
    return torch.where(cut_B, scores.end_values_B, 0.0)


def _importance(judged: Sequence[Judged], scores: Scores, config: TrainConfig) -> Tensor | None:
    """Our probability over that of the engine that drew the tokens."""
    if config.ppo.is_cap is None:
        return None
    lengths = [len(one.rollout.response) for one in judged]
    drawn_N = torch.tensor([logp for one in judged for logp in one.rollout.logps])
    drawn_BG = padded(drawn_N, lengths)
    return importance_weights(scores.logps_BG, drawn_BG, cap=config.ppo.is_cap)


def _means(x_BG: Tensor, mask_BG: Tensor) -> tuple[float, ...]:
    sums_B = torch.where(mask_BG, x_BG.double(), 0.0).sum(dim=1)
    return tuple((sums_B / mask_BG.sum(dim=1)).tolist())
