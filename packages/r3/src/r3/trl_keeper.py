"""What a run through TRL's trainers keeps of its steps: records, dev questions, best weights.

    keeper = Keeper(config, plan, log, TrainState(), folder, total_steps=500)
    keeper.attach(trainer, judge, evaluate)
    trainer.add_callback(keeper)

TRL counts optimizer steps; one of our steps has several. Its state goes into each checkpoint, so a
resumed run counts on.
"""

from __future__ import annotations

import json
import math
import shutil
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, cast

from pydantic import JsonValue
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import ExportableState

from papercore.errors import ConfigError, ModelError
from papercore.log import progress
from papercore.rl.parallel import is_first, whole
from r3.config import TrainConfig
from r3.loop import MAX_FAILING
from r3.step_metrics import by_depth, summarise
from r3.step_report import shares
from r3.train_log import StepLog
from r3.train_state import TrainState
from r3.train_step import Evaluate

if TYPE_CHECKING:
    from transformers import PreTrainedModel
    from trl.trainer.grpo_trainer import GRPOTrainer
    from trl.trainer.rloo_trainer import RLOOTrainer

    from r3.trl_rollouts import Judge, Plan

__all__ = ["Found", "Keeper", "last_checkpoint"]

_METRICS: Final = {
    "loss": "policy_loss",
    "grad_norm": "grad_norm",
    "learning_rate": "learning_rate",
    "entropy": "entropy",
    "clip_ratio/region_mean": "clip_fraction",
    "kl": "kl_per_token",
    "frac_reward_zero_std": "alike",
    "step_time": "step_s",
}
"""TRL's names of metrics, and ours. `kl_per_token` is k3 in GRPO and k1 in RLOO; `alike` is the
share of groups whose rewards are all equal, from which nothing is learnt; `step_s` is the mean time
of an optimizer step, generation included."""


@dataclass(frozen=True)
class Found:
    """A checkpoint, and what the run knew of itself then."""

    path: Path
    state: TrainState


def last_checkpoint(folder: Path) -> Found | None:
    """The checkpoint of the latest step that was written to its end."""
    found: list[tuple[int, Found]] = []
    for path in folder.glob("checkpoint-*"):
        try:
            saved = json.loads((path / "trainer_state.json").read_bytes())  # written last
            state = TrainState.read(saved["stateful_callbacks"][Keeper.__name__]["attributes"])
        except (OSError, ValueError, KeyError):
            continue
        found.append((int(path.name.removeprefix("checkpoint-")), Found(path, state)))
    return max(found, key=lambda one: one[0])[1] if found else None


class Keeper(TrainerCallback, ExportableState):
    """Follows the trainer step by step.

    Args:
        config: How is trained.
        plan: The start states.
        log: Takes records, metrics and rollouts.
        state: Of the run; changed in place.
        folder: Of the checkpoints; the best weights stand beside these.
        total_steps: Of the whole run.
    """

    def __init__(
        self,
        config: TrainConfig,
        plan: Plan,
        log: StepLog,
        state: TrainState,
        folder: Path,
        *,
        total_steps: int,
    ) -> None:
        self._config, self._plan, self._log = config, plan, log
        self._state, self._folder, self._total = state, folder, total_steps
        self._updates = config.ppo.epochs * config.ppo.minibatches
        self._seen: dict[str, list[float]] = defaultdict(list)
        self._shown: Iterator[int] = iter(())
        self._trainer: GRPOTrainer | RLOOTrainer | None = None
        self._judge: Judge | None = None
        self._evaluate: Evaluate | None = None

    def attach(
        self, trainer: GRPOTrainer | RLOOTrainer, judge: Judge, evaluate: Evaluate | None
    ) -> None:
        """Says whose steps are followed, where rollouts are found, and how to look at dev."""
        self._trainer, self._judge, self._evaluate = trainer, judge, evaluate

    def state(self) -> dict[str, JsonValue]:
        """What transformers writes into a checkpoint."""
        self._state.dump = self._log.offset
        return {"args": {}, "attributes": self._state.json()}

    @property
    def kept_step(self) -> int:
        """The step whose weights the run keeps."""
        best = self._state.best
        last = self._config.keep == "last" or best is None
        return self._state.step if last else cast("int", best)

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: object,
    ) -> None:
        """Looks at the dev questions before the first step, and starts to show how far it is."""
        if self._state.step == 0:
            self._look()
        if state.is_world_process_zero:
            done = self._state.step
            self._shown = iter(progress(range(done, self._total), "train", done=done))
            next(self._shown, None)

    def on_step_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: object,
    ) -> None:
        """Counts our steps, and looks at the dev questions when it is time to."""
        if state.global_step % self._updates:
            return
        step = self._state.step = state.global_step // self._updates
        next(self._shown, None)
        if step == self._total or step % self._config.eval_steps == 0:
            self._look()

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: Mapping[str, float | None] | None = None,
        **kwargs: object,
    ) -> None:
        """Gathers what TRL says of an optimizer step; after the last one of ours writes it down.

        Raises:
            ModelError: A loss or a gradient is no number.
            ConfigError: The reward failed for every rollout of several steps in a row.
        """
        state.log_history.clear()  # it would grow in every checkpoint; metrics.jsonl has it all
        if logs is None or "loss" not in logs:
            return
        for name, ours in _METRICS.items():
            value = logs.get(name)
            if value is not None:
                self._check(ours, float(value), state.global_step // self._updates, args)
                self._seen[ours].append(float(value))
        if state.global_step % self._updates == 0:
            self._write()

    def on_save(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: object,
    ) -> None:
        """Takes older best weights away: no checkpoint needs them any more."""
        if state.is_world_process_zero:
            for old in self._folder.glob("best-*"):
                if old.name != self._best_folder(self._state.best).name:
                    shutil.rmtree(old)

    def keep(self) -> Path:
        """Saves the weights that the run keeps; called by all processes.

        Returns:
            Their folder.
        """
        if self.kept_step != self._state.step:
            return self._best_folder(self.kept_step)
        return self._saved(self._folder / "last")

    def _write(self) -> None:
        """Metrics, record and rollouts of the step that has just ended."""
        assert self._judge is not None, "attached"
        batch = self._judge.batch
        assert batch is not None, "there is no step without rollouts"
        assert batch.step == self._state.step, "rollouts of this step"
        counts = summarise(batch.rows)
        means = {name: math.fsum(seen) / len(seen) for name, seen in self._seen.items()}
        self._seen.clear()
        by: dict[str, JsonValue] = {
            str(depth): {**found} for depth, found in by_depth(batch.rows).items()
        }
        data: dict[str, JsonValue] = {
            "step": batch.step,
            **counts,
            "depths": by,
            "curriculum": {**self._plan.stages[batch.step - 1]},
        }
        self._state.tokens += int(counts["tokens"] or 0)
        self._state.excluded += int(counts["excluded"] or 0)
        metrics = {**shares(counts), **means}
        self._log.step(batch.step, metrics, data, tokens=int(counts["tokens"] or 0))
        self._log.failed(batch.step, batch.errors)
        if batch.dumped:
            self._log.dump(batch.step, batch.dumped)
        self._stop_if_unpaid(any(row.valid for row in batch.rows), batch.errors)

    def _stop_if_unpaid(self, paid: bool, errors: Mapping[str, int]) -> None:
        self._state.failing = 0 if paid else self._state.failing + 1
        if self._state.failing >= min(MAX_FAILING, self._total):
            reason = next(iter(errors), "unknown")
            raise ConfigError(
                f"no rollout of the last {self._state.failing} steps has a reward ({reason}): "
                "correct the reward function"
            )

    def _check(self, name: str, value: float, step: int, args: TrainingArguments) -> None:
        # With float16 a gradient may overflow: such a step is left out by the scaler.
        watched = ("policy_loss",) if args.fp16 else ("policy_loss", "grad_norm")
        if name in watched and not math.isfinite(value):
            raise ModelError(
                f"{name} is {value} in step {step + 1}: lower --learning-rate, then --resume goes "
                "on from the last checkpoint"
            )

    def _look(self) -> None:
        """Asks the dev questions; the weights are kept if there were none better before."""
        if self._evaluate is None:
            return
        assert self._trainer is not None, "attached"
        accelerator, state = self._trainer.accelerator, self._state
        model = self._trainer.model_wrapped
        with self._log.timed("dev"), whole(model, accelerator) as module:
            correct = list(self._evaluate(cast("PreTrainedModel", module)))
        self._log.look(state.step, correct)
        state.dev.append((state.step, sum(correct) / len(correct)))
        if self._config.keep == "best" and state.best == state.step < self._total:
            self._saved(self._best_folder(state.step))

    def _saved(self, folder: Path) -> Path:
        """Writes the weights as they are; the folder is there with all of them or not at all."""
        assert self._trainer is not None, "attached"
        beside = folder.with_name(f".{folder.name}.tmp")
        with _whole_weights(self._trainer):
            self._trainer.save_model(str(beside))
        self._trainer.accelerator.wait_for_everyone()
        if is_first(self._trainer.accelerator):
            shutil.rmtree(folder, ignore_errors=True)
            beside.rename(folder)
        self._trainer.accelerator.wait_for_everyone()
        return folder

    def _best_folder(self, step: int | None) -> Path:
        return self._folder / f"best-{step or 0:08d}"


@contextmanager
def _whole_weights(trainer: GRPOTrainer | RLOOTrainer) -> Iterator[None]:
    """Under FSDP: saves whole weights, while checkpoints go on to have each process's part."""
    if not trainer.is_fsdp_enabled:
        yield
        return
    plugin = trainer.accelerator.state.fsdp_plugin
    before = plugin.state_dict_type
    plugin.set_state_dict_type("FULL_STATE_DICT")
    try:
        yield
    finally:
        plugin.set_state_dict_type(before)
