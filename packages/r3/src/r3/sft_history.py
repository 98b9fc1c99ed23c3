"""What `r3 sft` keeps of its steps: shown on the terminal, written as metrics, stopped at NaN."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from papercore.errors import ModelError
from papercore.log import progress
from papercore.runs import Run

__all__ = ["History"]


class History(TrainerCallback):
    """Shows how far it is, hands losses to the run, and stops where one is no number.

    Args:
        run: Gets the losses; None in all processes but the first.
        has_dev: Whether there are dev demonstrations, whose loss ends each epoch and the training.
    """

    def __init__(self, run: Run | None, *, has_dev: bool) -> None:
        self.run = run
        self.has_dev = has_dev
        self.shown: Iterator[int] = iter(())

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: object,
    ) -> None:
        """Starts to show how far it is."""
        if state.is_world_process_zero:
            done = state.global_step
            self.shown = iter(progress(range(done, state.max_steps), "tune", done=done))
            next(self.shown, None)

    def on_step_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: object,
    ) -> None:
        """Asks for the last step's losses."""
        next(self.shown, None)
        if state.global_step >= state.max_steps:
            control.should_log = True
            control.should_evaluate = self.has_dev

    def on_epoch_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: object,
    ) -> None:
        """Asks for the loss on dev demonstrations."""
        if state.global_step < state.max_steps:
            control.should_evaluate = self.has_dev

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: Mapping[str, float] | None = None,
        **kwargs: object,
    ) -> None:
        """Hands losses on.

        Raises:
            ModelError: One is no number.
        """
        if logs is None:
            return
        names = {"loss": "loss", "grad_norm": "grad_norm", "learning_rate": "learning_rate"}
        if "eval_loss" in logs:
            names = {"eval_loss": "dev_loss", "eval_mean_token_accuracy": "dev_token_accuracy"}
        found = {ours: float(logs[name]) for name, ours in names.items() if name in logs}
        if "loss" in found:
            # With float16 a gradient may overflow: such a step is left out by the scaler.
            watched = ("loss",) if args.fp16 else ("loss", "grad_norm")
            for name in watched:
                if not math.isfinite(found.get(name, 0.0)):
                    raise ModelError(
                        f"{name} is {found[name]} at step {state.global_step}: lower "
                        "--learning-rate"
                    )
        if self.run is not None and found:
            self.run.log(state.global_step, **found)
