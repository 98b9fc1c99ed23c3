"""The training itself: an adapter on the base model, and trl's trainer.

result = tune(model, tokenizer, data, config, Path("runs/train"), run)
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from peft import LoraConfig
from transformers import (
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PrinterCallback,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from trl.trainer.sft_config import SFTConfig
from trl.trainer.sft_trainer import SFTTrainer

from papercore.errors import ConfigError, ModelError
from papercore.log import progress
from papercore.models import load_model
from papercore.runs import Run
from papercore.trainers import (
    BESIDE_WEIGHTS,
    activation_checkpointing,
    adapter_for,
    last_checkpoint,
    no_telemetry,
    num_processes,
    quiet,
)
from rotbench.base_model import place_of, positions
from rotbench.config import TrainConfig
from rotbench.training_set import TrainingSet

__all__ = ["tune"]

logger = logging.getLogger(__name__)


def tune(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    data: TrainingSet,
    config: TrainConfig,
    out: Path,
    run: Run | None,
) -> dict[str, float]:
    """Trains, from the last checkpoint if there is one, and saves what was trained.

    Args:
        model: From `load_base`; it is changed.
        tokenizer: Of the same.
        data: What to train on.
        config: How.
        out: The run folder.
        run: The same, open; None in all processes but the first.

    Raises:
        ConfigError: The batch does not divide among the devices.
        ModelError: The base has none of the layers that get an adapter, or the loss is not finite.
    """
    no_telemetry()
    arguments = _arguments(config, out, model)
    history = _History(run)
    with quiet():
        trainer = SFTTrainer(
            model=model,
            args=arguments,
            train_dataset=data.dataset,
            processing_class=tokenizer,
            peft_config=_adapter(config, model),
            callbacks=[history],
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train(resume_from_checkpoint=last_checkpoint(out / "checkpoints"))
        _save(trainer, tokenizer, config, out, dtype=str(model.dtype).removeprefix("torch."))
    losses = [float(entry["loss"]) for entry in trainer.state.log_history if "loss" in entry]
    if run is not None:
        run.count(tokens=int(trainer.state.num_input_tokens_seen))
    return {
        "steps": trainer.state.global_step,
        "first_loss": losses[0],
        "last_loss": losses[-1],
        "trainable": trainer.get_num_trainable_parameters(),
    }


class _History(TrainerCallback):
    """Shows how far it is, hands each step's loss to the run, and stops where it is no number."""

    def __init__(self, run: Run | None) -> None:
        self.run = run
        self.shown: Iterator[int] = iter(())

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: object,
    ) -> None:
        if state.is_world_process_zero:
            done = state.global_step
            self.shown = iter(progress(range(done, state.max_steps), "train", done=done))
            next(self.shown, None)

    def on_step_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: object,
    ) -> None:
        next(self.shown, None)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: Mapping[str, float] | None = None,
        **kwargs: object,
    ) -> None:
        if logs is None or "loss" not in logs:
            return
        loss = float(logs["loss"])
        if not torch.isfinite(torch.tensor(loss)):
            raise ModelError(f"loss is {loss} at step {state.global_step}: lower --learning-rate")
        if self.run is not None:
            names = ("loss", "grad_norm", "learning_rate")
            self.run.log(state.global_step, **{n: float(logs[n]) for n in names if n in logs})


def _arguments(config: TrainConfig, out: Path, model: PreTrainedModel) -> SFTConfig:
    processes = num_processes()
    together = config.micro_batch * processes
    if config.batch % together:
        raise ConfigError(
            f"batch={config.batch} is no multiple of micro_batch={config.micro_batch} times "
            f"{processes} processes: change one"
        )
    on_cpu = model.device.type == "cpu"
    half = model.dtype if config.tune == "lora" else torch.bfloat16
    return SFTConfig(
        output_dir=str(out / "checkpoints"),
        num_train_epochs=config.epochs,
        max_steps=config.max_steps or -1,
        learning_rate=config.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=config.warmup,
        per_device_train_batch_size=config.micro_batch,
        gradient_accumulation_steps=config.batch // together,
        **activation_checkpointing(wanted=config.gradient_checkpointing),
        max_length=None,  # training_set has skipped or cut what is too long, and counted it
        dataset_kwargs={"skip_prepare_dataset": True},
        bf16=not on_cpu and half is torch.bfloat16,
        fp16=not on_cpu and half is torch.float16,
        use_cpu=on_cpu,
        seed=config.seed,
        data_seed=config.seed,
        logging_steps=1,
        save_strategy="steps",
        save_steps=config.save_steps,
        save_total_limit=2,
        report_to="none",
        disable_tqdm=True,
        include_num_input_tokens_seen="non_padding",
        dataloader_pin_memory=not on_cpu,
        ddp_find_unused_parameters=False,
    )


def _adapter(config: TrainConfig, model: PreTrainedModel) -> LoraConfig | None:
    if config.tune == "full":
        return None
    lora = config.lora
    return adapter_for(
        model,
        name=config.base,
        r=lora.r,
        alpha=lora.alpha,
        targets=lora.targets,
        dropout=lora.dropout,
    )


def _save(
    trainer: SFTTrainer,
    tokenizer: PreTrainedTokenizerBase,
    config: TrainConfig,
    out: Path,
    *,
    dtype: str,
) -> None:
    """Adapter, and base and adapter as one model; or the model, if all of it was trained."""
    saved = out / ("adapter" if config.tune == "lora" else "model")
    trainer.save_model(str(saved))
    trainer.accelerator.wait_for_everyone()
    if not trainer.is_world_process_zero():
        return
    for name in BESIDE_WEIGHTS:
        (saved / name).unlink(missing_ok=True)
    if config.tune == "full" or not config.merged:
        return
    # Loaded anew, as anyone would: also where this process holds a part of the weights only.
    model, _ = load_model(
        place_of(config),
        device="cpu",
        dtype=dtype,
        adapter=str(saved),
        config_overrides=positions(config),
    )
    model.save_pretrained(str(out / "model"))
    tokenizer.save_pretrained(str(out / "model"))
