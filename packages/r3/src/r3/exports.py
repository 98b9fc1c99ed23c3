"""What a finished training run leaves: `model/`, `adapter/`, `critic/`.

    names = export_run(out, setup, config, result, accelerator)

`model/` is what every other tool loads. `critic/` is read by `ActorCritic.load`: beside the value
head and a critic of its own it has a link to the policy.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import torch
from accelerate import Accelerator
from transformers import PreTrainedTokenizerBase

from papercore.rl.actor_critic import ActorCritic
from papercore.rl.checkpoints import load_weights
from papercore.rl.lora import merged
from papercore.rl.parallel import is_first, is_sharded
from papercore.trainers import quiet
from r3.config import TrainConfig
from r3.loop import TrainResult, kept_weights
from r3.train_setup import build_policy, load_start
from r3.train_step import Setup

__all__ = ["export", "export_run"]


def export_run(
    out: Path,
    setup: Setup,
    config: TrainConfig,
    result: TrainResult,
    accelerator: Accelerator | None,
) -> list[str]:
    """Writes the kept weights of a run; to be called by all processes.

    Returns:
        Names of the folders; none in all processes but the first.
    """
    names: list[str] = []
    if is_first(accelerator):
        sharded = is_sharded(setup.policy)
        policy = _rebuilt(out, config, result) if sharded else setup.policy
        with quiet():
            names = export(out, policy, setup.tokenizer)
    if accelerator is not None:
        accelerator.wait_for_everyone()
    return names


def _rebuilt(out: Path, config: TrainConfig, result: TrainResult) -> ActorCritic:
    """The kept weights in one process, read back from the run folder."""
    model, _ = load_start(config, "cpu")
    policy = build_policy(config, model)
    optimizer = torch.optim.AdamW(policy.groups(lr=config.learning_rate))
    load_weights(kept_weights(out, result), policy=policy, optimizer=optimizer)
    return policy


def export(out: Path, policy: ActorCritic, tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """Writes the folders, each as a whole; those of a killed session are replaced.

    Args:
        out: The run folder.
        policy: Not sharded.
        tokenizer: Goes beside the model.

    Returns:
        Their names.
    """
    staged = out / ".policy.tmp"
    shutil.rmtree(staged, ignore_errors=True)
    policy.save(staged)
    adapted = (staged / "adapter").is_dir()
    if adapted:
        _replace(out / "adapter", lambda folder: _move(staged / "adapter", folder))
        _replace(out / "model", lambda folder: _save_merged(policy, folder, tokenizer))
    else:
        _replace(out / "model", lambda folder: _save_model(staged / "policy", folder, tokenizer))
    link, target = ("adapter", "../adapter") if adapted else ("policy", "../model")

    def write_critic(folder: Path) -> None:
        _move(staged, folder)
        (folder / link).symlink_to(target)

    _replace(out / "critic", write_critic)
    return ["model", "adapter", "critic"] if adapted else ["model", "critic"]


def _save_merged(policy: ActorCritic, folder: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    merged(policy).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _save_model(saved: Path, folder: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    _move(saved, folder)
    tokenizer.save_pretrained(folder)


def _move(source: Path, target: Path) -> None:
    target.rmdir()
    source.rename(target)


def _replace(folder: Path, write: Callable[[Path], object]) -> None:
    """Writes a folder beside its place, then puts it there."""
    beside = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir()
    write(beside)
    shutil.rmtree(folder, ignore_errors=True)
    beside.rename(folder)
