"""Where a training step leaves gradients: at generated tokens, and nowhere else.

    found = token_gradients(model, tokenizer, prepared, config)
    found.given    # largest one at a token of question or prefix: exactly 0

One real step of `r3 train` is made, with its start states, rollouts, rewards and update, and the
gradient is read off the trunk's last hidden states. The state before a token is all that its
log-probability and its value are computed from, so it has a gradient only if the token is learnt.

Source: 2402.05808: the objective sums over what comes after the start state.

Axes: B rows, T tokens, D hidden width.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from papercore.rl.actor_critic import ActorCritic
from papercore.rl.rollouts import Packed
from papercore.rl.trunk import trunk_of
from r3.config import TrainConfig
from r3.data import Prepared
from r3.train_log import StepLog
from r3.train_setup import build_policy, lay_ground
from r3.train_step import Setup, TrainStep

__all__ = ["TokenGradients", "token_gradients"]


@dataclass(frozen=True)
class TokenGradients:
    """Gradients of the loss with respect to the states that tokens are predicted from.

    Attributes:
        given: Largest absolute one at a token of question or prefix, or behind the end.
        learnt: Share of generated tokens with one that is not 0.
        num_given: States of the first kind, over all passes of the step.
        num_generated: Generated tokens, likewise.
    """

    given: float
    learnt: float
    num_given: int
    num_generated: int


def token_gradients(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prepared: Prepared,
    config: TrainConfig,
) -> TokenGradients:
    """Makes one training step with a copy of a model, and looks at its gradients.

    Args:
        model: Left as it is.
        tokenizer: Of the model.
        prepared: Whose demonstrations rollouts start in.
        config: Of the step.
    """
    ground = lay_ground(config, prepared, tokenizer)
    policy = build_policy(config, copy.deepcopy(model))
    groups = policy.groups(lr=config.learning_rate, critic_lr=config.critic_rate)
    optimizer = torch.optim.AdamW(groups)
    setup = Setup(policy, tokenizer, ground.encoded, ground.curriculum, ground.reward)
    stepper = TrainStep(setup, config, policy, optimizer, StepLog(None, None), None)
    with _watched(policy) as passes:
        stepper.run(1, beta=config.ppo.beta, train_policy=True)
    return _summed(passes)


@contextmanager
def _watched(policy: ActorCritic) -> Iterator[list[tuple[Packed, Tensor]]]:
    """Collects batches and hidden states of passes that bear a gradient."""
    passes: list[tuple[Packed, Tensor]] = []
    batches: list[Packed] = []

    def note(_: nn.Module, args: tuple[Packed, ...]) -> None:
        batches.append(args[0])

    def keep(_: nn.Module, __: object, outputs: tuple[Tensor, ...]) -> None:
        states_BTD = outputs[0]
        if states_BTD.requires_grad:
            states_BTD.retain_grad()
            passes.append((batches[-1], states_BTD))

    handles = [
        policy.register_forward_pre_hook(note),
        trunk_of(policy.actor).register_forward_hook(keep),
    ]
    try:
        yield passes
    finally:
        for handle in handles:
            handle.remove()


def _summed(passes: list[tuple[Packed, Tensor]]) -> TokenGradients:
    given, num_given, num_learnt, num_generated = 0.0, 0, 0, 0
    for batch, states_BTD in passes:
        assert states_BTD.grad is not None, "every pass ends in a loss"
        size_BT = states_BTD.grad.abs().amax(-1)
        generated_BT = torch.zeros_like(size_BT, dtype=torch.bool)
        generated_BT[batch.row_N, batch.at_N - 1] = True
        given = max(given, size_BT[~generated_BT].max().item())
        num_given += int((~generated_BT).sum())
        num_learnt += int((size_BT[generated_BT] > 0).sum())
        num_generated += int(generated_BT.sum())
    return TokenGradients(given, num_learnt / num_generated, num_given, num_generated)
