"""Tuning on whole demonstrations, by trl's trainer: where RL starts, and a baseline by itself.

    encoded, too_long = fitting(encode_whole(demos, tokenizer, prompt), config.max_length)
    result = finetune(model, tokenizer, encoded, config, Path("runs/sft"), run)

A row is the prompt's tokens and the target's, as RL and evaluation have them; the loss is on the
target alone, its end-of-sequence token included. The last weights are kept, as official code does
after its fixed number of epochs; the loss on dev demonstrations is reported beside them.

Under `accelerate launch` each process trains and the first one writes.

Source: official SFT scripts: rate 2e-5, 256 sequences per step, all weights.
"""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, cast

import torch
from datasets import Dataset, Features, List, Value
from peft import LoraConfig, PeftModel
from transformers import (
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PrinterCallback,
    TrainerState,
)
from transformers.integrations.deepspeed import is_deepspeed_zero3_enabled
from trl.trainer.sft_config import SFTConfig as TrlConfig
from trl.trainer.sft_trainer import SFTTrainer

from papercore.device import choose_dtype
from papercore.errors import ConfigError, DataError
from papercore.models import load_model
from papercore.runs import Run
from papercore.trainers import (
    BESIDE_WEIGHTS,
    activation_checkpointing,
    adapter_for,
    last_checkpoint,
    num_processes,
    quiet,
)
from r3.config import PromptConfig, SFTConfig
from r3.demos import Demo, Encoded
from r3.prompting import prompt_ids, target_ids
from r3.sft_base import name_special_tokens, unpatched
from r3.sft_history import History

__all__ = ["Tuned", "check", "encode_whole", "finetune", "fitting"]

IGNORE: Final = -100
"""Label of a token that bears no loss."""

_FEATURES = Features({"input_ids": List(Value("int32")), "labels": List(Value("int32"))})
_SCHEDULES = {"constant": "constant_with_warmup", "linear": "linear", "cosine": "cosine"}


@dataclass(frozen=True)
class Tuned:
    """What tuning came to; over all its sessions, where it was resumed.

    Attributes:
        steps: Optimizer steps.
        tokens: Tokens that were read, prompts included.
        trainable: Weights that were trained.
        losses: Step and mean loss per target token, for each logged step.
        dev_losses: The same on dev demonstrations, at the ends of epochs and of the training; a
            mean over micro-batches, whose tokens may differ in number.
    """

    steps: int
    tokens: int
    trainable: int
    losses: tuple[tuple[int, float], ...]
    dev_losses: tuple[tuple[int, float], ...] = ()


def check(config: SFTConfig) -> None:
    """Refuses settings that do not fit the processes that were started.

    Raises:
        ConfigError: The batch does not divide among them.
    """
    if config.batch % (config.micro_batch * num_processes()):
        raise ConfigError(
            f"batch={config.batch} is no multiple of micro_batch={config.micro_batch} times "
            f"{num_processes()} processes: change one"
        )


def encode_whole(
    demos: Sequence[Demo], tokenizer: PreTrainedTokenizerBase, prompt: PromptConfig
) -> list[Encoded]:
    """Demonstrations as token ids, without cuts.

    Raises:
        ConfigError: The prompt does not fit the model.
        ModelError: The tokenizer has no end-of-sequence token.
    """
    return [
        Encoded(
            demo=demo,
            prompt=prompt_ids(tokenizer, demo.question, prompt),
            target=target_ids(tokenizer, demo.target).ids,
            cuts=(0,),
        )
        for demo in demos
    ]


def fitting(encoded: Sequence[Encoded], max_length: int) -> tuple[list[Encoded], int]:
    """Those of at most a length, and how many are longer: cut off, an answer would never end."""
    kept = [one for one in encoded if len(one.prompt) + len(one.target) <= max_length]
    return kept, len(encoded) - len(kept)


def finetune(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    encoded: Sequence[Encoded],
    config: SFTConfig,
    out: Path | None,
    run: Run | None,
    *,
    dev: Sequence[Encoded] = (),
    log_steps: int = 1,
) -> Tuned:
    """Trains on all rows, from the last checkpoint in the folder if there is one, and saves.

    Args:
        model: Changed in place: it holds the tuned weights at the end, adapters merged into it,
            unless processes share its weights out.
        tokenizer: Of the model.
        encoded: What to train on; see `fitting`.
        config: How.
        out: Folder of `model/`, `adapter/` and `checkpoints/`; None writes nothing.
        run: Gets the metrics of each logged step; None in all processes but the first.
        dev: Demonstrations whose loss is measured at the end of each epoch.
        log_steps: Steps over which a logged loss is averaged.

    Raises:
        ConfigError: The batch does not divide among the devices.
        DataError: There is nothing to train on.
        ModelError: The model has none of the layers that get an adapter, or the loss is no number.
    """
    if not encoded:
        raise DataError("there are no demonstrations to tune on")
    name_special_tokens(model, tokenizer)
    caches, dtype = model.config.use_cache, str(model.dtype).removeprefix("torch.")
    with tempfile.TemporaryDirectory() as scratch, quiet(), unpatched(model):
        history = History(run, has_dev=bool(dev))
        trainer = SFTTrainer(
            model=model,
            args=_arguments(config, out, Path(scratch), model, log_steps=log_steps),
            train_dataset=_dataset(encoded),
            eval_dataset=_dataset(dev) if dev else None,
            processing_class=copy.deepcopy(tokenizer),  # trl gives it a pad token
            peft_config=_adapter(config, model),
            callbacks=[history],
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train(resume_from_checkpoint=last_checkpoint(out / "checkpoints") if out else None)
        model.config.use_cache = caches  # the trainer turned it off, and would save that
        state = trainer.state
        trainable = trainer.get_num_trainable_parameters()
        if out is not None:
            _save_trained(trainer, config, out)
        merged = _merge(trainer, config)
        if out is not None and trainer.is_world_process_zero():
            _save_model(merged, tokenizer, config, out, dtype=dtype)
        trainer.accelerator.wait_for_everyone()
    model.train(False)
    return Tuned(
        steps=state.global_step,
        tokens=int(state.num_input_tokens_seen),
        trainable=int(trainable),
        losses=_logged(state, "loss"),
        dev_losses=_logged(state, "eval_loss"),
    )


def _logged(state: TrainerState, name: str) -> tuple[tuple[int, float], ...]:
    return tuple(
        (int(entry["step"]), float(entry[name])) for entry in state.log_history if name in entry
    )


def _dataset(encoded: Sequence[Encoded]) -> Dataset:
    rows = {
        "input_ids": [[*one.prompt, *one.target] for one in encoded],
        "labels": [[IGNORE] * len(one.prompt) + list(one.target) for one in encoded],
    }
    return Dataset.from_dict(rows, features=_FEATURES)


def _arguments(
    config: SFTConfig, out: Path | None, scratch: Path, model: PreTrainedModel, *, log_steps: int
) -> TrlConfig:
    check(config)
    on_cpu = model.device.type == "cpu"
    computes_in = model.dtype
    if computes_in is torch.float32 and config.dtype == "auto":
        computes_in = choose_dtype("auto", model.device).value
    return TrlConfig(
        output_dir=str(scratch if out is None else out / "checkpoints"),
        num_train_epochs=config.epochs,
        max_steps=config.max_steps or -1,
        learning_rate=config.learning_rate,
        lr_scheduler_type=_SCHEDULES[config.schedule],
        warmup_steps=config.warmup,
        weight_decay=config.weight_decay,
        per_device_train_batch_size=config.micro_batch,
        per_device_eval_batch_size=config.micro_batch,
        gradient_accumulation_steps=config.batch // (config.micro_batch * num_processes()),
        **activation_checkpointing(wanted=config.gradient_checkpointing),
        max_length=None,  # `fitting` has left out what is too long
        dataset_kwargs={"skip_prepare_dataset": True},
        bf16=not on_cpu and computes_in is torch.bfloat16,
        fp16=not on_cpu and computes_in is torch.float16,
        use_cpu=on_cpu,
        seed=config.seed,
        data_seed=config.seed,
        logging_steps=log_steps,
        logging_nan_inf_filter=False,  # a loss that is no number would be shown as the mean so far
        save_strategy="no" if out is None else "steps",
        save_steps=config.save_steps,
        save_total_limit=config.keep_checkpoints,
        report_to="none",
        disable_tqdm=True,
        include_num_input_tokens_seen="non_padding",
        dataloader_pin_memory=not on_cpu,
        ddp_find_unused_parameters=False,
    )


def _adapter(config: SFTConfig, model: PreTrainedModel) -> LoraConfig | None:
    if config.tune == "full":
        return None
    lora = config.lora
    return adapter_for(
        model,
        name=config.model,
        r=lora.r,
        alpha=lora.alpha,
        targets=lora.targets,
        dropout=lora.dropout,
    )


def _save_trained(trainer: SFTTrainer, config: SFTConfig, out: Path) -> None:
    """What was trained: all weights as `model/`, or adapters as `adapter/`; called everywhere."""
    saved = out / ("adapter" if config.tune == "lora" else "model")
    if trainer.is_fsdp_enabled:
        trainer.accelerator.state.fsdp_plugin.set_state_dict_type("FULL_STATE_DICT")
    trainer.save_model(str(saved))
    trainer.accelerator.wait_for_everyone()


def _merge(trainer: SFTTrainer, config: SFTConfig) -> PreTrainedModel | None:
    """The whole model with its adapters merged; None if this process holds a part of it only."""
    in_parts = trainer.is_fsdp_enabled or is_deepspeed_zero3_enabled()  # type: ignore[no-untyped-call]
    if in_parts:
        return None
    trained = trainer.accelerator.unwrap_model(trainer.model, keep_fp32_wrapper=False)
    if isinstance(trained, PeftModel):
        trained = trained.merge_and_unload()
    return cast("PreTrainedModel", trained)


def _save_model(
    merged: PreTrainedModel | None,
    tokenizer: PreTrainedTokenizerBase,
    config: SFTConfig,
    out: Path,
    *,
    dtype: str,
) -> None:
    """The model that every other tool loads, and the tokenizer as it came; by the first process."""
    for name in BESIDE_WEIGHTS:
        for folder in ("adapter", "model", "checkpoints"):
            (out / folder / name).unlink(missing_ok=True)
    whole = out / "model"
    if config.tune == "lora" and not config.merged:
        return
    if config.tune == "lora":
        if merged is None:  # loaded anew, as anyone would
            adapter = str(out / "adapter")
            merged, _ = load_model(config.model, device="cpu", dtype=dtype, adapter=adapter)
        merged.save_pretrained(str(whole))
    tokenizer.save_pretrained(str(whole))
