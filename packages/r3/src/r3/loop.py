"""The RL loop: rollouts from start states inside demonstrations, rewards, PPO updates.

    setup = Setup(policy, tokenizer, encoded, curriculum, reward, evaluate)
    result = train(setup, config, total_steps=60, run=run, out=out)

Everything random is drawn from a seed that names its purpose, step and row, so a step is the same
after a resume, and in one process as in several; except that each process deals its own rollouts to
`ppo.minibatches`, so that with more than one of them the deal depends on how many processes there
are.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypedDict, cast

import torch
from accelerate import Accelerator
from pydantic import JsonValue

from papercore.errors import ConfigError, ModelError
from papercore.log import progress
from papercore.rl.actor_critic import ActorCritic
from papercore.rl.checkpoints import (
    latest_checkpoint,
    load_checkpoint,
    load_weights,
    save_checkpoint,
    save_weights,
)
from papercore.rl.estimators import AdaptiveKL
from papercore.rl.parallel import is_first, whole
from papercore.rl.trunk import plain_model
from papercore.rl.whole_folder import remove_whole
from papercore.runs import Run
from r3.config import TrainConfig
from r3.schedule import rates_at
from r3.step_report import StepReport, report_of, write_report
from r3.train_log import StepLog
from r3.train_state import TrainState
from r3.train_step import Evaluate, Setup, StepDone, TrainStep

__all__ = [
    "CHECKPOINTS",
    "MAX_FAILING",
    "MAX_STUCK",
    "Evaluate",
    "Setup",
    "StepReport",
    "TrainResult",
    "kept_weights",
    "train",
]

logger = logging.getLogger(__name__)

MAX_STUCK: Final = 5
"""Optimizer steps in a row that may be left out, for a loss or gradient that is no number."""
MAX_FAILING: Final = 3
"""Steps in a row in which no rollout has a reward, before the run stops; all, if it has fewer."""
KL_HORIZON: Final = 10_000
"""Rollouts over which an adaptive KL weight moves. Source: 1909.08593, section 2.2."""
CHECKPOINTS: Final = "checkpoints"
"""Folder of checkpoints and best weights in a run folder."""


@dataclass(frozen=True)
class TrainResult:
    """What a training run came to; over all its sessions, where it was resumed.

    Attributes:
        steps: Steps that were done.
        tokens: Tokens that were generated in rollouts, over all processes.
        dev: Step and accuracy of each look at the dev questions; step 0 is before training.
        kept: Step whose weights the policy holds now.
        excluded: Rollouts that were left out because their reward failed or was no number.
        skipped: Optimizer steps that were left out because of a loss or gradient that is no number.
    """

    steps: int
    tokens: int
    dev: tuple[tuple[int, float], ...]
    kept: int
    excluded: int
    skipped: int


def train(
    setup: Setup,
    config: TrainConfig,
    *,
    total_steps: int,
    run: Run | None = None,
    out: Path | None = None,
    accelerator: Accelerator | None = None,
    on_step: Callable[[StepReport], None] | None = None,
) -> TrainResult:
    """Trains a policy in place.

    Args:
        setup: What is trained, on what, and how it is judged.
        config: How; `model`, `data`, `cut`, `curriculum`, `tune` and `lora` are in `setup` already.
        total_steps: Steps of the whole run, those before a resume included.
        run: Gets records, metrics and timing; None in all processes but the first, and in tests.
        out: Run folder: `checkpoints/`, `rollouts.jsonl`; a checkpoint in it is gone on from. None
            writes nothing, and is for one process.
        accelerator: For several processes; the policy must not be wrapped yet.
        on_step: Called after each step, by all processes; may read the policy.

    Raises:
        ModelError: Loss or gradient was no number several times in a row.
        ConfigError: The reward failed for every rollout of several steps in a row; or settings do
            not fit together, or not to the number of processes.
        DataError: A checkpoint cannot be written or read.
    """
    with ExitStack() as stack:
        if out is None:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        else:
            folder = out / CHECKPOINTS
        log = stack.enter_context(StepLog(run, out if is_first(accelerator) else None))
        loop = _Loop(setup, config, total_steps, folder, log, accelerator)
        if out is not None:
            loop.resume()
        return loop.run(on_step, saves=out is not None)


def kept_weights(out: Path, result: TrainResult) -> Path:
    """Where the kept weights of a finished run are, for `load_weights`."""
    folder = out / CHECKPOINTS
    if result.kept != result.steps:
        return folder / _best_name(result.kept)
    found = latest_checkpoint(folder)
    assert found is not None, "a run ends with a checkpoint"
    return found


class _Loop:
    """One training run in this process."""

    def __init__(
        self,
        setup: Setup,
        config: TrainConfig,
        total_steps: int,
        folder: Path,
        log: StepLog,
        accelerator: Accelerator | None,
    ) -> None:
        if config.critic_warmup >= total_steps:
            raise ConfigError(
                f"critic_warmup={config.critic_warmup} leaves none of {total_steps} steps for the "
                "policy: lower it, or raise max_steps"
            )
        self._setup, self._config, self._total = setup, config, total_steps
        self._folder, self._log, self._accelerator = folder, log, accelerator
        self._state = TrainState()
        self._adaptive = _adaptive_kl(config)
        groups = setup.policy.groups(
            lr=config.learning_rate,
            critic_lr=config.critic_rate,
            weight_decay=config.weight_decay,
        )
        self._optimizer: torch.optim.Optimizer = torch.optim.AdamW(groups)
        self._policy: torch.nn.Module = setup.policy
        if accelerator is not None:
            _name_layers(setup.policy)
            self._policy, self._optimizer = accelerator.prepare(setup.policy, self._optimizer)
        self._stepper = TrainStep(setup, config, self._policy, self._optimizer, log, accelerator)

    def resume(self) -> None:
        """Goes on from the last checkpoint, if there is one."""
        found = latest_checkpoint(self._folder)
        if found is not None:
            saved = load_checkpoint(
                found,
                policy=self._policy,
                optimizer=self._optimizer,
                accelerator=self._accelerator,
            )
            self._state = TrainState.read(cast("dict[str, JsonValue]", saved["train"]))
            curriculum = cast("dict[str, JsonValue]", saved["curriculum"])
            self._setup.curriculum.restore(curriculum)
            if self._adaptive is not None:
                self._adaptive.restore(cast("dict[str, float]", saved["adaptive"]))
        self._log.begin(self._state.dump)

    def run(self, on_step: Callable[[StepReport], None] | None, *, saves: bool) -> TrainResult:
        """All steps that are left."""
        state = self._state
        if state.step == 0:
            self._look()
        for step in self._steps_left():
            report = self._step(step)
            state.step = step
            last = step == self._total
            if last or step % self._config.eval_steps == 0:
                self._look()
            if saves and (last or step % self._config.save_steps == 0):
                self._save()
            if on_step is not None:
                on_step(report)
        return TrainResult(
            steps=state.step,
            tokens=state.tokens,
            dev=tuple(state.dev),
            kept=self._keep(),
            excluded=state.excluded,
            skipped=state.skipped,
        )

    def _steps_left(self) -> Iterator[int]:
        before = self._state.step
        left = range(before + 1, self._total + 1)
        if not is_first(self._accelerator):
            return iter(left)
        return progress(left, f"train {self._config.curriculum.kind}", done=before)

    def _step(self, step: int) -> StepReport:
        """One step, counted from 1."""
        config, state = self._config, self._state
        beta = config.ppo.beta if self._adaptive is None else self._adaptive.beta
        rates = rates_at(config, step - 1, self._total)
        for group in self._optimizer.param_groups:
            group["lr"] = rates.policy if group["name"] == "policy" else rates.critic
        done = self._stepper.run(step, beta=beta, train_policy=step > config.critic_warmup)
        settings = {"beta": beta, "learning_rate": rates.policy, "critic_rate": rates.critic}
        device = next(self._setup.policy.parameters()).device
        report = report_of(step, done, settings, self._log, device)
        kl = report.counts["kl"]
        if self._adaptive is not None and kl is not None:
            self._adaptive.update(kl, len(done.rows))
        state.tokens += int(report.counts["tokens"] or 0)
        state.excluded += int(report.counts["excluded"] or 0)
        state.skipped += done.stats.skipped
        write_report(
            *(report, done, self._setup, self._log),
            dumps=step == 1 or step % config.dump_every == 0,
            accelerator=self._accelerator,
        )
        self._stop_if_broken(step, done)
        return report

    def _stop_if_broken(self, step: int, done: StepDone) -> None:
        """Counts steps that led nowhere, and gives up after several in a row."""
        state = self._state
        if done.stats.steps:
            state.stuck = 0
        state.stuck += done.stats.skipped
        if state.stuck >= MAX_STUCK:
            raise ModelError(
                f"loss or gradient was no number in {state.stuck} optimizer steps in a row, the "
                f"last at step {step}: lower --learning-rate, or look at the rewards"
            )
        if not any(row.valid for row in done.rows):
            state.failing += 1
        else:
            state.failing = 0
            if not any(row.learnt for row in done.rows):
                logger.warning(
                    "step %d: every rollout was cut off and is masked: nothing was learnt; raise "
                    "max_new_tokens, or set --reward.truncated to something else than mask",
                    step,
                )
        if state.failing >= min(MAX_FAILING, self._total):
            reason = next(iter(done.errors), "unknown")
            raise ConfigError(
                f"no rollout of the last {state.failing} steps has a reward ({reason}): correct "
                "the reward function"
            )

    def _look(self) -> None:
        """Asks the dev questions; the weights are kept if there were none better before."""
        evaluate, state = self._setup.evaluate, self._state
        if evaluate is None:
            return
        with self._log.timed("dev"), whole(self._setup.policy, self._accelerator) as policy:
            correct = list(evaluate(policy.actor))
        self._log.look(state.step, correct)
        state.dev.append((state.step, sum(correct) / len(correct)))
        if self._config.keep == "best" and state.best == state.step < self._total:
            save_weights(self._folder / _best_name(state.step), **self._parts())

    def _save(self) -> None:
        """Writes a checkpoint, after which older best weights are not needed any more."""
        state = self._state
        state.dump = self._log.offset
        with self._log.timed("checkpoint"):
            save_checkpoint(
                self._folder,
                state.step,
                **self._parts(),
                state={
                    "train": state.json(),
                    "curriculum": self._setup.curriculum.state(),
                    "adaptive": None if self._adaptive is None else {**self._adaptive.state()},
                },
                keep=self._config.keep_checkpoints,
            )
        if is_first(self._accelerator):
            for old in self._folder.glob("best-*"):
                if old.name != _best_name(state.best or 0):
                    remove_whole(old)

    def _keep(self) -> int:
        """Puts the weights back that the policy shall have in the end; gives their step."""
        best = self._state.best
        if self._config.keep == "last" or best is None or best == self._state.step:
            return self._state.step
        load_weights(self._folder / _best_name(best), **self._parts())
        return best

    def _parts(self) -> _Parts:
        return {
            "policy": self._policy,
            "optimizer": self._optimizer,
            "accelerator": self._accelerator,
        }


class _Parts(TypedDict):
    """What checkpoints are made of."""

    policy: torch.nn.Module
    optimizer: torch.optim.Optimizer
    accelerator: Accelerator | None


def _name_layers(policy: ActorCritic) -> None:
    """Tells accelerate which layers FSDP is to shard one by one; models of transformers know it."""
    layers = plain_model(policy.actor)._no_split_modules  # noqa: SLF001 - what accelerate reads
    policy._no_split_modules = layers  # type: ignore[assignment]  # noqa: SLF001


def _best_name(step: int) -> str:
    return f"best-{step:08d}"


def _adaptive_kl(config: TrainConfig) -> AdaptiveKL | None:
    ppo = config.ppo
    return None if ppo.kl_target is None else AdaptiveKL(ppo.beta, ppo.kl_target, KL_HORIZON)
