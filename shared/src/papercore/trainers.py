"""What every use of trl's and transformers' trainers needs around it.

    no_telemetry()
    with quiet():
        trainer = SFTTrainer(model, arguments, peft_config=adapter_for(model, ...))
        trainer.train(resume_from_checkpoint=last_checkpoint(out / "checkpoints"))

The base of a training is loaded onto `own_device(flags.device)`.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

import huggingface_hub
import torch
from transformers import PreTrainedModel, TrainingArguments
from transformers.utils import logging as transformers_logging

from papercore.errors import ModelError

if TYPE_CHECKING:
    from peft import LoraConfig

__all__ = [
    "BESIDE_WEIGHTS",
    "activation_checkpointing",
    "adapter_for",
    "last_checkpoint",
    "no_telemetry",
    "num_processes",
    "own_device",
    "quiet",
]

BESIDE_WEIGHTS: Final = ("training_args.bin", "README.md")
"""A pickle and an empty form, which are saved beside the weights and say nothing that the run
folder does not say."""


def num_processes() -> int:
    """How many processes `accelerate launch` or `torchrun` started; 1 without them."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def own_device(device: str) -> str:
    """This process's device under `accelerate launch`."""
    rank = os.environ.get("LOCAL_RANK")
    return f"cuda:{rank}" if rank and device == "auto" and torch.cuda.is_available() else device


def no_telemetry() -> None:
    """Keeps trl from reporting its use to a server of its makers: nobody asked for that."""
    asked = os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    if asked == "1":  # huggingface_hub reads it once, when it is imported
        huggingface_hub.constants.HF_HUB_DISABLE_TELEMETRY = True


@contextmanager
def quiet() -> Iterator[None]:
    """Without transformers' own bars, and without warnings between it, trl and peft.

    trl 1.16 and peft 0.21 call gradient checkpointing by the name that transformers 5.23 left.
    """
    shown = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*gradient_checkpointing.*", FutureWarning)
            yield
    finally:
        if shown:
            transformers_logging.enable_progress_bar()  # type: ignore[no-untyped-call]


def activation_checkpointing(*, wanted: bool) -> dict[str, Any]:
    """Arguments for gradient checkpointing; transformers 5.23 calls it activation checkpointing."""
    known = {field.name for field in fields(TrainingArguments)}
    name = "activation" if "activation_checkpointing" in known else "gradient"
    return {
        f"{name}_checkpointing": wanted,
        f"{name}_checkpointing_kwargs": {"use_reentrant": False},
    }


def adapter_for(
    model: PreTrainedModel,
    *,
    name: str,
    r: int,
    alpha: float,
    targets: Sequence[str],
    dropout: float = 0.0,
) -> LoraConfig:
    """The shape of LoRA adapters for a model.

    Args:
        name: What the user calls the model.
        targets: Names of the layers that get one.

    Raises:
        ModelError: It has none of a name.
    """
    from peft import LoraConfig

    names = {name.rpartition(".")[2] for name, _ in model.named_modules()}
    missing = [target for target in targets if target not in names]
    if missing:
        raise ModelError(
            f"{name} has no layers {', '.join(missing)}: set --lora.targets to names of its own"
        )
    return LoraConfig(
        r=r,
        lora_alpha=cast("int", alpha),
        lora_dropout=dropout,
        target_modules=list(targets),
        task_type="CAUSAL_LM",
    )


def last_checkpoint(folder: Path) -> str | None:
    """The checkpoint of the latest step that was written to its end."""
    found = [
        (int(path.name.removeprefix("checkpoint-")), path)
        for path in folder.glob("checkpoint-*")
        if (path / "trainer_state.json").is_file()  # written last
    ]
    return str(max(found)[1]) if found else None
