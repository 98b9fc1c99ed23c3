"""One training step: start states, rollouts, rewards, advantages, the update.

stepper = TrainStep(setup, config, policy, optimizer, log, accelerator)
done = stepper.run(step, beta=0.05, train_policy=True)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, TypeAlias, cast

from accelerate import Accelerator
from torch import Tensor, nn
from torch.optim import Optimizer
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from papercore.errors import ConfigError, ModelError
from papercore.rl.parallel import gather_texts, reduce_sum, shard, whole
from papercore.rl.scoring import Scores, score_all
from papercore.rl.settings import Sampling
from papercore.rl.update import UpdateStats, ppo_update
from papercore.seeds import fan_out
from r3.config import TrainConfig
from r3.demos import Encoded, Start
from r3.experience import Worth, left_out, settings_of, weigh
from r3.prompting import pad_id
from r3.rewards import Judge
from r3.rollout_batch import Judged, judge, roll_out, row_seeds
from r3.step_metrics import Row, gather_rows, row_of
from r3.train_log import StepLog

if TYPE_CHECKING:
    from papercore.rl.actor_critic import ActorCritic
    from r3.curriculum import Curriculum

__all__ = ["PARTS", "Evaluate", "Setup", "StepDone", "TrainStep"]

PARTS: Final = ("generate", "verify", "score", "reference", "update")
"""What the time of a step goes to."""

Evaluate: TypeAlias = Callable[[PreTrainedModel], Sequence[bool]]
"""Which dev questions a model solves, in their order; called by all processes, with the policy's
own model in evaluation mode and all its weights, and gives all of them the same."""


@dataclass(frozen=True)
class Setup:
    """What is trained, on what, and how it is judged.

    Attributes:
        policy: Changed in place; after training it holds the weights that `config.keep` asks for.
        tokenizer: Of the policy.
        encoded: The demonstrations; `Start.demo` is an index into these.
        curriculum: Made over start states that leave room for an answer.
        reward: Judges the whole rationale, prefix included.
        evaluate: Looks at the dev questions before the first step, every `config.eval_steps` steps
            and after the last; None never does.
        eos_ids: Tokens that end a rollout; none given takes the tokenizer's.
    """

    policy: ActorCritic
    tokenizer: PreTrainedTokenizerBase
    encoded: Sequence[Encoded]
    curriculum: Curriculum
    reward: Judge
    evaluate: Evaluate | None = None
    eos_ids: frozenset[int] = field(default=frozenset())


@dataclass(frozen=True)
class StepDone:
    """What one step did.

    Attributes:
        rows: The rollouts of all processes, in the order of the global batch.
        judged: This process's rollouts.
        worth: What they were worth.
        stats: Of the update.
        errors: Reasons for which rollouts of any process have no reward -> how many.
    """

    rows: tuple[Row, ...]
    judged: tuple[Judged, ...]
    worth: Worth
    stats: UpdateStats
    errors: dict[str, int]


class TrainStep:
    """Makes steps; what changes from one to the next is in policy, optimizer and curriculum."""

    def __init__(
        self,
        setup: Setup,
        config: TrainConfig,
        policy: nn.Module,
        optimizer: Optimizer,
        log: StepLog,
        accelerator: Accelerator | None,
    ) -> None:
        """Checks that the rollouts divide among the processes.

        Args:
            policy: The setup's, as the accelerator prepared it; the optimizer too.
            log: Takes the times of the parts of a step.

        Raises:
            ConfigError: They do not.
            ModelError: The tokenizer has no token that ends a rollout.
        """
        self._setup, self._config = setup, config
        self._policy, self._optimizer = policy, optimizer
        self._log, self._accelerator = log, accelerator
        self._rows = shard(config.rollouts, accelerator)
        if len(self._rows) * _processes(accelerator) != config.rollouts:
            raise ConfigError(
                f"rollouts={config.rollouts} is no multiple of {_processes(accelerator)} "
                "processes: change one"
            )
        self._sampling = _sampling(setup, config)
        self._pad_id = pad_id(setup.tokenizer)

    def run(self, step: int, *, beta: float, train_policy: bool) -> StepDone:
        """One step, counted from 1.

        Args:
            beta: Weight of the KL penalty.
            train_policy: Otherwise only the critic learns.
        """
        config = self._config
        drawn = self._setup.curriculum.draw(config.rollouts // config.samples)
        starts = [start for start in drawn for _ in range(config.samples)]
        judged, worth = self._collect(step, [starts[row] for row in self._rows], beta)
        rows = gather_rows(self._own_rows(judged, worth), self._accelerator)
        with self._log.timed("update"):
            stats = ppo_update(
                self._policy,
                self._optimizer,
                worth.experience,
                settings_of(config, beta),
                pad_id=self._pad_id,
                seed=fan_out(config.seed, f"update/{step}") % 2**32,
                accelerator=self._accelerator,
                train_policy=train_policy,
            )
        told = [(start, row.correct) for start, row in zip(starts, rows, strict=True) if row.valid]
        self._setup.curriculum.feedback([one for one, _ in told], [won for _, won in told])
        errors = [cast("str", one.outcome.error) for one in judged if one.excluded]
        counted = Counter(gather_texts(errors, self._accelerator))
        return StepDone(tuple(rows), tuple(judged), worth, stats, dict(counted))

    def _collect(
        self, step: int, starts: Sequence[Start], beta: float
    ) -> tuple[list[Judged], Worth]:
        """This process's rollouts and what they are worth."""
        setup, config, log = self._setup, self._config, self._log
        seeds = row_seeds(config.seed, step, self._rows)
        with whole(self._policy, self._accelerator) as module:
            policy = cast("ActorCritic", module)
            with log.timed("generate"):
                rollouts = roll_out(
                    *(policy.actor, starts, setup.encoded, seeds),
                    sampling=self._sampling,
                    pad_id=self._pad_id,
                )
            with log.timed("verify"):
                judged = judge(rollouts, starts, setup.encoded, setup.tokenizer, setup.reward)
            with log.timed("score"):
                scores = self._score(policy, judged, "logps", "values")
            ref_logps_BG: Tensor | None = None
            if config.ppo.beta > 0:
                with log.timed("reference"):
                    ref_logps_BG = self._score(policy, judged, "reference").ref_logps_BG
        reduce = reduce_sum(self._accelerator)
        return judged, weigh(judged, scores, ref_logps_BG, config, beta=beta, reduce=reduce)

    def _score(self, policy: ActorCritic, judged: Sequence[Judged], *what: str) -> Scores:
        """One temperature for everything: that of sampling."""
        return score_all(
            policy,
            [one.rollout for one in judged],
            pad_id=self._pad_id,
            temperature=self._config.temperature,
            micro_batch=self._config.micro_batch,
            what=what,  # type: ignore[arg-type]
        )

    def _own_rows(self, judged: Sequence[Judged], worth: Worth) -> list[Row]:
        kl_B = worth.kl_B or (None,) * len(judged)
        return [
            row_of(
                one,
                learnt=not left_out(one, self._config),
                kl=kl,
                advantage=advantage,
                value=value,
            )
            for one, kl, advantage, value in zip(
                judged, kl_B, worth.advantage_B, worth.value_B, strict=True
            )
        ]


def _sampling(setup: Setup, config: TrainConfig) -> Sampling:
    eos_ids = setup.eos_ids or frozenset(
        {setup.tokenizer.eos_token_id} if setup.tokenizer.eos_token_id is not None else ()
    )
    if not eos_ids:
        raise ModelError(
            "the tokenizer has no end-of-sequence token, so no rollout could end: set eos_token in "
            "its tokenizer_config.json"
        )
    return Sampling(
        max_new_tokens=config.max_new_tokens,
        eos_ids=eos_ids,
        temperature=config.temperature,
        max_length=config.max_length,
        max_rows=config.generation_batch,
    )


def _processes(accelerator: Accelerator | None) -> int:
    return 1 if accelerator is None else int(accelerator.num_processes)
