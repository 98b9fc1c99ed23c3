"""Our settings as those of TRL's trainers, whose steps are optimizer steps.

    shared = arguments_of(config, folder, model, total_steps=500)
    args = GRPOConfig(**shared, **grpo_arguments(config))

One step of ours has `ppo.epochs * ppo.minibatches` of theirs.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import torch
from peft import LoraConfig
from transformers import PreTrainedModel

from papercore.device import choose_dtype
from papercore.errors import ConfigError
from papercore.trainers import adapter_for, num_processes
from r3.config import TrainConfig
from r3.train_setup import WAIT

__all__ = ["adapter_of", "arguments_of", "grpo_arguments"]

_SCHEDULES: Final = {
    "constant": "constant_with_warmup",
    "linear": "linear",
    "cosine": "cosine",
}


def arguments_of(
    config: TrainConfig, folder: Path, model: PreTrainedModel, *, total_steps: int
) -> dict[str, Any]:
    """What the configs of both trainers take.

    Args:
        config: Ours.
        folder: Of checkpoints.
        model: As it is loaded; its dtype and device say in what is computed.
        total_steps: Of the whole run, in our steps.

    Raises:
        ConfigError: The rollouts do not divide among processes and minibatches.
    """
    ppo = config.ppo
    updates = ppo.epochs * ppo.minibatches
    device_rows = _rows_per_update(config)
    micro = max(size for size in range(1, config.micro_batch + 1) if device_rows % size == 0)
    on_cpu = model.device.type == "cpu"
    computes_in = model.dtype
    if computes_in is torch.float32 and config.dtype == "auto":
        computes_in = choose_dtype("auto", model.device).value
    return {
        "output_dir": str(folder),
        "max_steps": total_steps * updates,
        "learning_rate": config.learning_rate,
        "lr_scheduler_type": _SCHEDULES[config.schedule],
        "warmup_steps": config.warmup * updates,
        "weight_decay": config.weight_decay,
        "max_grad_norm": ppo.grad_clip,
        "per_device_train_batch_size": micro,
        "gradient_accumulation_steps": device_rows // micro,
        "generation_batch_size": config.rollouts,
        "num_generations": config.samples,
        "num_iterations": ppo.epochs,
        "shuffle_dataset": False,  # the plan has its order
        "max_completion_length": config.max_new_tokens,
        "temperature": config.temperature,
        "top_p": 1.0,
        "top_k": 0,
        "min_p": None,
        "repetition_penalty": 1.0,
        "beta": ppo.beta,
        "epsilon": ppo.clip,
        "mask_truncated_completions": config.reward.truncated == "mask",
        "disable_dropout": True,
        "gradient_checkpointing": False,
        "use_vllm": config.vllm,
        "vllm_max_model_length": config.max_length if config.vllm else None,
        "bf16": not on_cpu and computes_in is torch.bfloat16,
        "fp16": not on_cpu and computes_in is torch.float16,
        "use_cpu": on_cpu,
        "seed": config.seed,
        "data_seed": config.seed,
        "logging_steps": 1,
        "logging_nan_inf_filter": False,  # a loss that is no number would be shown as the mean
        "save_strategy": "steps",
        "save_steps": config.save_steps * updates,
        "save_total_limit": config.keep_checkpoints,
        "report_to": "none",
        "disable_tqdm": True,
        "dataloader_pin_memory": not on_cpu,
        "ddp_find_unused_parameters": False,
        "ddp_timeout": int(WAIT.total_seconds()),
    }


def grpo_arguments(config: TrainConfig) -> dict[str, Any]:
    """What only that of GRPO takes."""
    cap = config.ppo.is_cap
    found: dict[str, Any] = {
        # The mean over each rollout's tokens and then over rollouts, or over all tokens alike.
        "loss_type": "grpo" if config.ppo.reduction == "sequence" else "dapo",
        "scale_rewards": "group",
        "entropy_coef": config.ppo.entropy_coef,
        "vllm_importance_sampling_correction": cap is not None,
    }
    if cap is not None:
        found |= {
            "vllm_importance_sampling_mode": "token_truncate",
            "vllm_importance_sampling_clip_max": cap,
        }
    return found


def _rows_per_update(config: TrainConfig) -> int:
    """Rollouts of one optimizer step on one device.

    Raises:
        ConfigError: They do not divide.
    """
    processes = num_processes()
    parts = processes * config.ppo.minibatches
    if config.rollouts % parts:
        raise ConfigError(
            f"rollouts={config.rollouts} is no multiple of {processes} processes times "
            f"ppo.minibatches={config.ppo.minibatches}: change one"
        )
    return config.rollouts // parts


def adapter_of(config: TrainConfig, model: PreTrainedModel) -> LoraConfig | None:
    """The shape of the adapter; None where all weights are trained.

    Raises:
        ModelError: The model has none of the layers that get one.
    """
    if config.tune == "full":
        return None
    lora = config.lora
    return adapter_for(model, name=config.model, r=lora.r, alpha=lora.alpha, targets=lora.targets)
