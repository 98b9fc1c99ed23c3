"""PPO's update: several passes over a batch of rollouts, in minibatches of accumulated gradients.

    stats = ppo_update(policy, optimizer, experience, PPOSettings(epochs=2), pad_id=0, seed=step)

The loss is normalised over all micro-batches of all processes. So the size of a micro-batch changes
nothing, and two processes make the step of one process with both of their batches.

Axes: N generated tokens of a micro-batch in row order.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.optim import Optimizer

from papercore.errors import ConfigError
from papercore.rl.batching import micro_batches, minibatch_order
from papercore.rl.estimators import Reduce, kl_estimate, masked_var
from papercore.rl.experience import Experience, Tokens, minibatch_tokens
from papercore.rl.losses import policy_loss, value_loss
from papercore.rl.parallel import gather_floats, reduce_sum
from papercore.rl.rollouts import Rollout, pack
from papercore.rl.settings import PPOSettings
from papercore.rl.stepping import Stepper

__all__ = ["Experience", "UpdateStats", "ppo_update"]

SEEDS = 2**63
"""Torch takes seeds below this."""


@dataclass(frozen=True)
class UpdateStats:
    """What an update did, over all processes; NaN where no step was made.

    Attributes:
        policy_loss: Before each step, as it was minimised; mean of the steps, like the next four.
        value_loss: Likewise, without its weight.
        entropy: Mean over tokens that bear the policy loss.
        approx_kl: k3 of the policy before the update against the one before each step, mean over
            tokens of the mask.
        clip_fraction: Share of the tokens that bear the policy loss where it was clipped.
        ratio_max: Largest ratio of new to old probability on such a token in any step.
        grad_norm: Before clipping; mean of the steps.
        explained_variance: How much of the returns' variance the old values explain; 1 is all, 0 if
            there is none to explain.
        skipped: Steps left out because a loss or gradient was not finite.
        steps: Steps that were made.
    """

    policy_loss: float
    value_loss: float
    entropy: float
    approx_kl: float
    clip_fraction: float
    ratio_max: float
    grad_norm: float
    explained_variance: float
    skipped: int
    steps: int


class _Outputs(Protocol):
    """What a policy returns."""

    @property
    def logps_N(self) -> Tensor: ...  # noqa: N802 - a shape suffix
    @property
    def entropy_N(self) -> Tensor: ...  # noqa: N802
    @property
    def values_N(self) -> Tensor: ...  # noqa: N802


class _Sums(NamedTuple):
    """What a step adds up over its micro-batches and over processes."""

    policy_loss: float
    value_loss: float
    entropy: float
    kl: float
    clipped: float
    policy_tokens: float
    tokens: float
    ratio_max: float


class _Step(NamedTuple):
    sums: _Sums
    grad_norm: float
    applied: bool


def ppo_update(
    policy: nn.Module,
    optimizer: Optimizer,
    experience: Experience,
    settings: PPOSettings,
    *,
    pad_id: int,
    seed: int,
    accelerator: Accelerator | None = None,
    train_policy: bool = True,
) -> UpdateStats:
    """Changes a policy and its critic by what a batch of rollouts says.

    All processes must call this together. A minibatch without a token in any process is passed
    over; so is a step for which a loss or the gradient is not finite, which is counted.

    Args:
        policy: `policy(packed, temperature=...)` gives an object with `logps_N`, `entropy_N` and
            `values_N`; as the accelerator prepared it, if there is one, like the optimizer.
        pad_id: Any valid token id.
        seed: Of the deal to minibatches; each update should have its own.
        train_policy: Otherwise only the value loss is minimised, and the parameters of the
            optimizer's group named `policy` stay as they are: the warm-up of a critic.

    Raises:
        ConfigError: Settings and experience, accelerator or optimizer do not fit together.
        ModelError: With DeepSpeed only: the loss is not finite.
    """
    if settings.kl_coef and experience.ref_logps_BG is None:
        raise ConfigError(f"kl_coef={settings.kl_coef} needs ref_logps_BG: score the reference")
    stepper = Stepper(
        *(policy, optimizer, accelerator),
        grad_clip=settings.grad_clip,
        train_policy=train_policy,
    )
    losses = _Losses(policy, experience, settings, pad_id, train_policy, stepper.device)
    reduce = reduce_sum(accelerator)
    steps: list[_Step] = []
    for rows in _minibatches(len(experience.rollouts), settings, seed):
        tokens_BG = minibatch_tokens(experience, rows, settings, reduce)
        batches = _micro_batches(experience, rows, settings.micro_batch)
        num_batches = int(max(gather_floats([len(batches)], accelerator)))
        if num_batches:
            # a process that has fewer goes through empty ones, or the others would wait for it
            batches += [[]] * (num_batches - len(batches))
            steps.append(_step(stepper, losses, tokens_BG, batches, accelerator))
    return _stats(steps, _explained_variance(experience, reduce))


def _minibatches(num: int, settings: PPOSettings, seed: int) -> Iterator[list[int]]:
    """Rows of each minibatch of each epoch, dealt anew in each."""
    for epoch in range(settings.epochs):
        yield from minibatch_order(
            num,
            minibatches=settings.minibatches,
            shards=settings.shards,
            seed=(seed * settings.epochs + epoch) % SEEDS,
        )


def _micro_batches(experience: Experience, rows: Sequence[int], size: int) -> list[list[int]]:
    """Rows that bear something, those of like length together."""
    bearing_B = experience.mask_BG.any(dim=1).tolist()
    kept = [row for row in rows if bearing_B[row]]
    rollouts = experience.rollouts
    lengths = [len(rollouts[row].prompt) + len(rollouts[row].response) for row in kept]
    return [[kept[place] for place in batch] for batch in micro_batches(lengths, max_rows=size)]


@dataclass(frozen=True)
class _Losses:
    """Loss and sums of one micro-batch."""

    policy: nn.Module
    experience: Experience
    settings: PPOSettings
    pad_id: int
    train_policy: bool
    device: torch.device

    def __call__(self, tokens_BG: Tokens, rows: Sequence[int]) -> tuple[Tensor, Tensor]:
        """The loss, and `_Sums` as a tensor."""
        rollouts = [self.experience.rollouts[row] for row in rows] or [self._nothing()]
        batch = pack(rollouts, pad_id=self.pad_id).to(self.device)
        outputs: _Outputs = self.policy(batch, temperature=self.settings.temperature)
        logps_N, entropy_N = _wide(outputs.logps_N), _wide(outputs.entropy_N)
        tokens = tokens_BG.cut(rows, batch.lengths, self.device, logps_N.dtype)
        policy_part, clipped_N = self._policy_part(logps_N, tokens)
        value_part = self._value_part(_wide(outputs.values_N), tokens)
        loss = self.settings.value_coef * value_part
        if self.train_policy:
            loss = loss + policy_part + self._regularizers(logps_N, entropy_N, tokens)
        else:
            # DDP waits for a gradient of every parameter
            loss = loss + 0.0 * logps_N.sum()
        sums = torch.stack([policy_part, value_part, *_sums(logps_N, entropy_N, clipped_N, tokens)])
        return loss, sums.detach()

    def _policy_part(self, logps_N: Tensor, tokens: Tokens) -> tuple[Tensor, Tensor]:
        loss_N, clipped_N = policy_loss(
            *(logps_N, tokens.old_logps, tokens.advantages, tokens.importance),
            clip=self.settings.clip,
        )
        return (loss_N * tokens.policy_weights).sum(), clipped_N

    def _value_part(self, values_N: Tensor, tokens: Tokens) -> Tensor:
        loss_N = value_loss(
            *(values_N, tokens.old_values, tokens.returns), clip=self.settings.value_clip
        )
        return (loss_N * tokens.weights).sum()

    def _regularizers(self, logps_N: Tensor, entropy_N: Tensor, tokens: Tokens) -> Tensor:
        """KL penalty and entropy bonus, where they are asked for."""
        found = logps_N.new_zeros(())
        if self.settings.kl_coef:
            penalty_N = kl_estimate(logps_N, tokens.ref_logps, "k3")
            found = found + self.settings.kl_coef * (penalty_N * tokens.weights).sum()
        if self.settings.entropy_coef:
            bonus = (entropy_N * tokens.policy_weights).sum()
            found = found - self.settings.entropy_coef * bonus
        return found

    def _nothing(self) -> Rollout:
        """A rollout without weight, for a process that has none left."""
        return Rollout((self.pad_id,), (self.pad_id,), (0.0,), ended=True)


@torch.no_grad()
def _sums(logps_N: Tensor, entropy_N: Tensor, clipped_N: Tensor, tokens: Tokens) -> list[Tensor]:
    """`_Sums` from the entropy on."""
    ratio_N = torch.exp(logps_N - tokens.old_logps)
    found = [
        torch.where(tokens.policy_mask, entropy_N, 0.0).sum(),
        torch.where(tokens.mask, kl_estimate(tokens.old_logps, logps_N, "k3"), 0.0).sum(),
        (clipped_N & tokens.policy_mask).sum(),
        tokens.policy_mask.sum(),
        tokens.mask.sum(),
        torch.where(tokens.policy_mask, ratio_N, 0.0).max(),
    ]
    return [one.to(logps_N.dtype) for one in found]


def _wide(x: Tensor) -> Tensor:
    """Sums over many tokens need more than half precision."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def _step(
    stepper: Stepper,
    losses: _Losses,
    tokens_BG: Tokens,
    batches: Sequence[Sequence[int]],
    accelerator: Accelerator | None,
) -> _Step:
    """One optimizer step over the micro-batches of a minibatch."""
    parts: list[Tensor] = []
    for number, rows in enumerate(batches):
        with stepper.micro_batch(last=number == len(batches) - 1) as backward:
            loss, sums = losses(tokens_BG, rows)
            backward(loss)
        parts.append(sums)
    grad_norm, applied = stepper.step()
    own = _merge(torch.stack(parts))
    everyone = torch.tensor(gather_floats(own, accelerator), dtype=torch.float64)
    return _Step(_merge(everyone.view(-1, len(own))), grad_norm, applied)


def _merge(parts: Tensor) -> _Sums:
    """Sums of several parts; the last column is a maximum."""
    *sums, _ = parts.double().sum(dim=0).tolist()
    return _Sums._make([*sums, parts[:, -1].max().item()])


def _explained_variance(experience: Experience, reduce: Reduce) -> float:
    mask_BG, returns_BG = experience.mask_BG, experience.returns_BG.double()
    left = masked_var(returns_BG - experience.old_values_BG, mask_BG, reduce=reduce)
    whole = masked_var(returns_BG, mask_BG, reduce=reduce)
    return 1.0 - float(left / whole) if whole > 0 else 0.0


def _stats(steps: Sequence[_Step], explained_variance: float) -> UpdateStats:
    made = [step for step in steps if step.applied]

    def mean(values: Iterator[float]) -> float:
        return sum(values) / len(made) if made else math.nan

    return UpdateStats(
        policy_loss=mean(step.sums.policy_loss for step in made),
        value_loss=mean(step.sums.value_loss for step in made),
        entropy=mean(step.sums.entropy / max(step.sums.policy_tokens, 1) for step in made),
        approx_kl=mean(step.sums.kl / max(step.sums.tokens, 1) for step in made),
        clip_fraction=mean(step.sums.clipped / max(step.sums.policy_tokens, 1) for step in made),
        ratio_max=max((step.sums.ratio_max for step in made), default=math.nan),
        grad_norm=mean(step.grad_norm for step in made),
        explained_variance=explained_variance,
        skipped=len(steps) - len(made),
        steps=len(made),
    )
