"""Start states, rollouts and rewards in the forms that TRL's trainers take.

    plan = plan_starts(curriculum, steps=500, groups=8)
    roll = rollout_func(plan, encoded, sampling, seed=0, pad_id=0)
    trainer = GRPOTrainer(model, judge, train_dataset=plan.dataset(), rollout_func=roll, args=args)

A trainer is given keys for prompts, one for each start state. They are exchanged for token ids by
our `rollout_func` where we generate, and where TRL does (RLOO, and vLLM) by the tokenizer that it
is given: prefixes of demonstrations are token ids that no text need give back. The order of start
states is drawn before the run, so each curriculum that does not look at rewards is followed to the
letter, all rollouts of a group share their start, and a resumed run goes on with the next ones.
"""

from __future__ import annotations

import copy
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Protocol, cast

import torch
from accelerate import Accelerator
from datasets import Dataset
from pydantic import JsonValue
from transformers import BatchEncoding, PreTrainedTokenizerBase, TrainerState

from papercore.errors import ModelError
from papercore.records import decode, encode
from papercore.rl.parallel import gather_floats, gather_texts, whole
from papercore.rl.rollouts import Rollout
from papercore.rl.settings import Sampling
from r3.config import TrainConfig
from r3.curriculum import Curriculum
from r3.demos import Encoded, Start
from r3.dump import Dumped
from r3.experience import left_out
from r3.rewards import Judge as Judging
from r3.rollout_batch import Judged, dumped, judge, roll_out, row_seeds
from r3.step_metrics import Row, gather_rows, row_of

if TYPE_CHECKING:
    from trl.trainer.grpo_trainer import GRPOTrainer

__all__ = ["Batch", "Judge", "Plan", "group_advantages", "keyed", "plan_starts", "rollout_func"]

_STD_FLOOR: Final = 1e-4
"""What GRPO adds to the standard deviation of a group. Source: trl 1.16."""


@dataclass(frozen=True)
class Plan:
    """With which start states the groups of a run begin, drawn before it.

    Attributes:
        starts: Every state that is drawn, once.
        drawn: For each group of each step, in order, its index in `starts`.
        stages: What the curriculum said of each step.
    """

    starts: tuple[Start, ...]
    drawn: tuple[int, ...]
    stages: tuple[Mapping[str, JsonValue], ...]

    def dataset(self) -> Dataset:
        """A row for each group: the key of its start state, and the index of that."""
        rows = {"prompt": [key_of(index) for index in self.drawn], "start": list(self.drawn)}
        return Dataset.from_dict(rows)

    def prompts(self, encoded: Sequence[Encoded]) -> dict[str, list[int]]:
        """The token ids of each key: the question, and the beginning of its demonstration."""
        return {key_of(at): _prompt(encoded, start) for at, start in enumerate(self.starts)}


def key_of(index: int) -> str:
    """What stands for a start state where TRL wants a text."""
    return f"start {index}"


def plan_starts(curriculum: Curriculum, *, steps: int, groups: int) -> Plan:
    """Draws all start states of a run, `groups` for each step."""
    places: dict[Start, int] = {}
    drawn: list[int] = []
    stages: list[Mapping[str, JsonValue]] = []
    for _ in range(steps):
        drawn += [places.setdefault(start, len(places)) for start in curriculum.draw(groups)]
        stages.append(curriculum.describe())
    return Plan(tuple(places), tuple(drawn), tuple(stages))


class Keyed(Protocol):
    """A tokenizer that gives keys their token ids."""

    asked: tuple[str, ...]
    """The keys that it was last asked for."""


def keyed(
    tokenizer: PreTrainedTokenizerBase, prompts: Mapping[str, Sequence[int]]
) -> PreTrainedTokenizerBase:
    """A copy of a tokenizer that gives keys their token ids and other texts what it always did.

    The ids are not made from a text, since they need not be what the text of them would give: a
    demonstration is tokenized by itself, and may be cut anywhere.
    """
    kind: Any = type(tokenizer)

    class KeyedTokenizer(kind):  # type: ignore[misc]  # a class is known only when it is run
        asked: tuple[str, ...] = ()

        def __call__(self, text: object = None, *args: object, **more: object) -> BatchEncoding:
            if isinstance(text, list) and text and all(one in prompts for one in text):
                self.asked = tuple(text)
                ids = [list(prompts[one]) for one in text]
                masks = [[1] * len(one) for one in ids]
                return BatchEncoding({"input_ids": ids, "attention_mask": masks})
            return cast("BatchEncoding", super().__call__(text, *args, **more))

    # Saved beside a checkpoint it is what it was.
    KeyedTokenizer.__name__ = KeyedTokenizer.__qualname__ = kind.__name__
    found = copy.deepcopy(tokenizer)
    found.__class__ = KeyedTokenizer
    return found


def rollout_func(
    plan: Plan,
    encoded: Sequence[Encoded],
    sampling: Sampling,
    *,
    seed: int,
    pad_id: int,
    updates: int,
) -> Callable[[list[str], GRPOTrainer], dict[str, list[Any]]]:
    """What GRPOTrainer calls to generate: our own decode loop.

    Args:
        plan: The start states.
        encoded: The demonstrations.
        sampling: How tokens are drawn.
        seed: Each rollout has a seed of its own, by step and place in the whole batch.
        pad_id: Fills rows up.
        updates: Optimizer steps of one step of ours.
    """
    start_of = {key_of(index): start for index, start in enumerate(plan.starts)}

    def roll(keys: list[str], trainer: GRPOTrainer) -> dict[str, list[Any]]:
        starts = [start_of[key] for key in keys]
        first = trainer.accelerator.process_index * len(keys)
        places = range(first, first + len(keys))
        seeds = row_seeds(seed, trainer.state.global_step // updates + 1, places)
        model: torch.nn.Module = trainer.model_wrapped
        training = model.training
        with whole(model, trainer.accelerator) as module:
            module.train(False)
            found = roll_out(module, starts, encoded, seeds, sampling=sampling, pad_id=pad_id)
        model.train(training)  # by its mode TRL tells training from evaluation
        return {
            "prompt_ids": [list(one.prompt) for one in found],
            "completion_ids": [list(one.response) for one in found],
            "logprobs": [list(one.logps) for one in found],
        }

    return roll


@dataclass(frozen=True)
class Batch:
    """The rollouts of one step, of all processes, rollouts of one start side by side.

    Attributes:
        step: 1 for the first.
        rows: What counts of each.
        dumped: The same in words; empty for a step that is not dumped.
        errors: Reasons for which some have no reward -> how many.
    """

    step: int
    rows: tuple[Row, ...]
    dumped: tuple[Dumped, ...]
    errors: Mapping[str, int]


class Judge:
    """The reward function that TRL calls: the whole rationale is judged, prefix included.

    Args:
        plan: The start states.
        encoded: The demonstrations.
        reward: Judges texts.
        tokenizer: Reads rollouts.
        config: How.
        eos_ids: What ends a rollout.
        updates: Optimizer steps of one step of ours.
        keeper: The tokenizer by which TRL gets prompts, where it generates itself.
    """

    __name__ = "reward"  # in TRL's metrics

    def __init__(
        self,
        plan: Plan,
        encoded: Sequence[Encoded],
        reward: Judging,
        tokenizer: PreTrainedTokenizerBase,
        *,
        config: TrainConfig,
        eos_ids: frozenset[int],
        updates: int,
        keeper: PreTrainedTokenizerBase | None = None,
    ) -> None:
        self.plan, self.encoded, self.reward, self.tokenizer = plan, encoded, reward, tokenizer
        self.config, self.eos_ids, self.updates, self.keeper = config, eos_ids, updates, keeper
        self.accelerator: Accelerator | None = None
        self.batch: Batch | None = None
        """The rollouts of the latest step."""

    def __call__(
        self,
        *,
        prompts: Sequence[str],
        completion_ids: Sequence[Sequence[int]],
        start: Sequence[int],
        trainer_state: TrainerState,
        **_: object,
    ) -> list[float | None]:
        """Rewards of this process's rollouts; None leaves one out.

        Raises:
            ModelError: TRL has not generated from the token ids that belong to the start states.
        """
        if self.keeper is not None and cast("Keyed", self.keeper).asked != tuple(prompts):
            raise ModelError(
                "TRL has not asked its tokenizer for the prompts, so they were others than the "
                "start states: install trl >=1.16,<1.17, or use algo=ppo"
            )
        starts = [self.plan.starts[index] for index in start]
        rollouts = [
            self._rollout(one, tuple(ids)) for one, ids in zip(starts, completion_ids, strict=True)
        ]
        judged = judge(rollouts, starts, self.encoded, self.tokenizer, self.reward)
        given = [self._given(one) for one in judged]
        self._keep(trainer_state.global_step // self.updates + 1, judged, given)
        return given

    def _rollout(self, start: Start, response: tuple[int, ...]) -> Rollout:
        prompt = tuple(_prompt(self.encoded, start))
        unknown = (math.nan,) * len(response)
        return Rollout(prompt, response, unknown, ended=response[-1] in self.eos_ids)

    def _given(self, one: Judged) -> float | None:
        """What TRL is told: None for what must be left out of the update."""
        if left_out(one, self.config):
            return None
        unpaid = self.config.reward.truncated == "zero" and not one.rollout.ended
        return 0.0 if unpaid else one.outcome.reward

    def _keep(self, step: int, judged: Sequence[Judged], given: Sequence[float | None]) -> None:
        """Brings the rollouts of all processes together, with what TRL makes of their rewards."""
        numbers = [math.nan if one is None else one for one in given]
        rewards = gather_floats(numbers, self.accelerator)
        advantages = group_advantages(rewards, self.config)
        local = [
            row_of(one, learnt=reward is not None, kl=None, advantage=math.nan, value=math.nan)
            for one, reward in zip(judged, given, strict=True)
        ]
        rows = gather_rows(local, self.accelerator)
        rows = [replace(row, advantage=one) for row, one in zip(rows, advantages, strict=True)]
        failed = [str(one.outcome.error) for one in judged if one.excluded]
        errors = dict(Counter(gather_texts(failed, self.accelerator)))
        self.batch = Batch(step, tuple(rows), self._dumped(step, judged, advantages), errors)

    def _dumped(
        self, step: int, judged: Sequence[Judged], advantages: Sequence[float]
    ) -> tuple[Dumped, ...]:
        if step > 1 and step % self.config.dump_every:
            return ()
        lines = [
            dumped(one, step, self.tokenizer, kl=None, advantage=None, value=None) for one in judged
        ]
        texts = gather_texts([encode(line.model_dump()) for line in lines], self.accelerator)
        found = (Dumped.model_validate(decode(text)) for text in texts)
        return tuple(
            line.model_copy(update={"advantage": None if math.isnan(one) else one})
            for line, one in zip(found, advantages, strict=True)
        )


def group_advantages(rewards: Sequence[float], config: TrainConfig) -> list[float]:
    """What TRL's trainer makes of the rewards of a step, group by group.

    A reward that is no number is left out, and its rollout has the advantage 0. RLOO puts its KL
    penalty into the rewards, which it does not tell: the advantages are NaN then.

    Source: trl 1.16, `scale_rewards="group"` of GRPO, leave-one-out of RLOO.
    """
    if config.algo == "rloo" and config.ppo.beta:
        return [math.nan] * len(rewards)
    found: list[float] = []
    for place in range(0, len(rewards), config.samples):
        group = rewards[place : place + config.samples]
        known = [one for one in group if not math.isnan(one)]
        found += [_advantage(one, known, config.algo) for one in group]
    return found


def _advantage(reward: float, known: Sequence[float], algo: str) -> float:
    num = len(known)
    if math.isnan(reward) or num < 2:
        return 0.0
    mean = sum(known) / num
    if algo == "rloo":
        return (reward - mean) * num / (num - 1)
    spread = math.sqrt(sum((one - mean) ** 2 for one in known) / (num - 1))
    return (reward - mean) / (spread + _STD_FLOOR)


def _prompt(encoded: Sequence[Encoded], start: Start) -> list[int]:
    one = encoded[start.demo]
    return [*one.prompt, *one.target[: start.cut]]
