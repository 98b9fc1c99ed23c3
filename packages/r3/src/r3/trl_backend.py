"""`r3 train --algo grpo|rloo`: TRL's trainers on start states inside demonstrations.

    code = train(config, flags, prepared, Path("runs/train"))

Only what TRL documents is used: trainers and their configs, `reward_funcs`, `rollout_func`, the
tokenizer, callbacks. A step is what it is with algo=ppo: one batch of `rollouts`; TRL counts
optimizer steps, of which one of ours has `ppo.epochs * ppo.minibatches`. The run folder is the same
too, without `critic/`; what TRL does not tell of single rollouts (KL, with RLOO and a KL penalty
also advantages) is missing in it.

Checkpoints are those of transformers: weights as safetensors, optimizer and random state as torch
saves them.
"""

from __future__ import annotations

import copy
import logging
import os
import shutil
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeAlias, cast

import torch
from peft import PeftModel
from transformers import PreTrainedModel, PreTrainedTokenizerBase, PrinterCallback
from trl.trainer.grpo_config import GRPOConfig
from trl.trainer.grpo_trainer import GRPOTrainer
from trl.trainer.rloo_config import RLOOConfig
from trl.trainer.rloo_trainer import RLOOTrainer

from papercore.config import RunFlags
from papercore.errors import ConfigError, ModelError
from papercore.models import describe
from papercore.report import conclude
from papercore.rl.settings import Sampling
from papercore.runs import Run
from papercore.trainers import BESIDE_WEIGHTS, no_telemetry, num_processes, quiet
from r3.config import TrainConfig
from r3.data import Prepared
from r3.loop import CHECKPOINTS, TrainResult
from r3.prompting import pad_id
from r3.sft_base import load_base
from r3.train_command import open_out, otherwise, record_start, result_record, tell, writes
from r3.train_log import StepLog
from r3.train_setup import Ground, evaluator, lay_ground, load_start
from r3.train_state import TrainState
from r3.trl_arguments import adapter_of, arguments_of, grpo_arguments
from r3.trl_keeper import Keeper, last_checkpoint
from r3.trl_options import check_options
from r3.trl_rollouts import Judge, Plan, keyed, plan_starts, rollout_func

__all__ = ["Fitted", "fit", "train"]

logger = logging.getLogger(__name__)

AnyTrainer: TypeAlias = GRPOTrainer | RLOOTrainer


def train(config: TrainConfig, flags: RunFlags, prepared: Prepared, out: Path) -> int:
    """Trains, or goes on with a run; called in each process.

    Returns:
        0.

    Raises:
        ConfigError: The settings ask for what TRL's trainers cannot do, or do not divide among the
            processes.
        DataError: No start state leaves room for an answer.
        ModelError: The model cannot be loaded, or the loss is no number.
    """
    changed = check_options(config)
    _check_vllm(config)
    no_telemetry()
    model, tokenizer = load_start(config, flags.device)
    _check_device(config, model.device)
    ground = lay_ground(config, prepared, tokenizer)
    changed |= _by_size(config, ground)
    facts = describe(model)
    opening = open_out(out, config, flags, prepared) if writes() else nullcontext()
    with opening as opened:
        if opened is not None:
            notes = otherwise(config, prepared, ground, None)
            opened.note(**facts, **notes, **_told(config, changed))
            record_start(opened, prepared, ground)
        fitted = fit(
            *(model, tokenizer, ground, config),
            task=prepared.task,
            out=out,
            run=opened,
            resumes=flags.resume,
        )
        if opened is not None:
            opened.append(result_record(fitted.result))
    if writes():
        conclude(out)
        tell(out, ground, fitted.result, fitted.made)
    return 0


@dataclass(frozen=True)
class Fitted:
    """What training came to.

    Attributes:
        result: Counts, over all sessions.
        made: Names of the folders in the run folder; none in all processes but the first.
    """

    result: TrainResult
    made: list[str]


def fit(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    ground: Ground,
    config: TrainConfig,
    *,
    task: str,
    out: Path,
    run: Run | None,
    resumes: bool,
) -> Fitted:
    """Trains, and saves what is kept.

    Args:
        model: Changed in place.
        tokenizer: Of the model.
        ground: What is trained on.
        config: How.
        task: For the dev questions.
        out: The run folder.
        run: The same, open; None in all processes but the first.
        resumes: Goes on from the last checkpoint in the folder, if there is one.

    Raises:
        ConfigError: The rollouts do not divide among processes and minibatches, FSDP is of version
            1, or the reward fails for every rollout.
        ModelError: The model lacks the layers that get adapters, the loss is no number, or TRL is
            of a version that does not do as this module needs.
    """
    end = cast("int", tokenizer.eos_token_id)
    _name_reference(model, config, out)
    stops = copy.deepcopy(model.generation_config)
    model.generation_config.eos_token_id = end  # one token ends a rollout, for TRL and for us
    groups = config.rollouts // config.samples
    plan = plan_starts(ground.curriculum, steps=ground.total_steps, groups=groups)
    folder = out / CHECKPOINTS
    found = last_checkpoint(folder) if resumes else None
    with StepLog(run, out if writes() else None) as log, quiet(), _unwarned():
        state = TrainState() if found is None else found.state
        log.begin(state.dump)
        keeper = Keeper(config, plan, log, state, folder, total_steps=ground.total_steps)
        trainer, judge = _trainer(model, tokenizer, ground, plan, config, folder, end=end)
        keeper.attach(
            trainer, judge, evaluator(config, ground.dev, task, tokenizer, trainer.accelerator)
        )
        trainer.add_callback(keeper)
        trainer.remove_callback(PrinterCallback)
        trainer.train(resume_from_checkpoint=None if found is None else str(found.path))
        kept = keeper.keep()
        trainer.accelerator.wait_for_everyone()
        made: list[str] = []
        if trainer.is_world_process_zero():
            (folder / "README.md").unlink(missing_ok=True)
            made = _install(kept, out, config, tokenizer)
            stops.save_pretrained(out / "model")
        trainer.accelerator.wait_for_everyone()
    result = TrainResult(
        steps=state.step,
        tokens=state.tokens,
        dev=tuple(state.dev),
        kept=keeper.kept_step,
        excluded=state.excluded,
        skipped=state.skipped,
    )
    return Fitted(result, made)


def _trainer(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    ground: Ground,
    plan: Plan,
    config: TrainConfig,
    folder: Path,
    *,
    end: int,
) -> tuple[AnyTrainer, Judge]:
    """The trainer of the algorithm, and the reward function that it calls."""
    updates = config.ppo.epochs * config.ppo.minibatches
    prompts = plan.prompts(ground.encoded)
    we_generate = config.algo == "grpo" and not config.vllm
    own = copy.deepcopy(tokenizer) if we_generate else keyed(tokenizer, prompts)
    judge = Judge(
        *(plan, ground.encoded, ground.reward, tokenizer),
        config=config,
        eos_ids=frozenset({end}),
        updates=updates,
        keeper=None if we_generate else own,
    )
    shared: dict[str, Any] = {
        "model": model,
        "reward_funcs": judge,
        "train_dataset": plan.dataset(),
        "processing_class": own,
        "peft_config": adapter_of(config, model),
    }
    arguments = arguments_of(config, folder, model, total_steps=ground.total_steps)
    if config.algo == "rloo":
        trainer: AnyTrainer = RLOOTrainer(args=RLOOConfig(**arguments), **shared)
    else:
        sampling = Sampling(
            max_new_tokens=config.max_new_tokens,
            eos_ids=frozenset({end}),
            temperature=config.temperature,
            max_length=config.max_length,
            max_rows=config.generation_batch,
        )
        roll = rollout_func(
            *(plan, ground.encoded, sampling),
            seed=config.seed,
            pad_id=pad_id(tokenizer),
            updates=updates,
        )
        trainer = GRPOTrainer(
            args=GRPOConfig(**arguments, **grpo_arguments(config)),
            rollout_func=roll if we_generate else None,
            **shared,
        )
    judge.accelerator = trainer.accelerator
    if we_generate and trainer.is_fsdp_enabled and not trainer.accelerator.is_fsdp2:
        raise ConfigError("fsdp_version 1 is not supported here: set fsdp_version: 2")
    return trainer, judge


def _name_reference(model: PreTrainedModel, config: TrainConfig, out: Path) -> None:
    """Lets TRL find the weights that the KL penalty compares with: it loads them by name."""
    if config.ppo.beta and config.tune == "full" and not model.config.name_or_path:
        rank = os.environ.get("RANK", "0")  # nobody waits for anybody yet
        folder = out / CHECKPOINTS / f"reference-{rank}"
        model.save_pretrained(str(folder))
        model.config.name_or_path = str(folder)


def _install(
    kept: Path, out: Path, config: TrainConfig, tokenizer: PreTrainedTokenizerBase
) -> list[str]:
    """Makes the kept weights `model/`, or `adapter/` and, merged, `model/`."""
    names = ["model"] if config.tune == "full" else ["adapter", "model"]
    if kept.is_dir():
        for name in names:
            shutil.rmtree(out / name, ignore_errors=True)
        for name in BESIDE_WEIGHTS:
            (kept / name).unlink(missing_ok=True)
        kept.rename(out / names[0])
    elif not (out / names[0]).is_dir():  # a session that was killed here has moved them already
        raise ModelError(f"{kept} is gone: it held the weights to keep; start over")
    if config.tune == "lora":
        # Loaded anew, as anyone would: also where processes share the weights out.
        base, _ = load_base(config, "cpu")
        merged = PeftModel.from_pretrained(base, str(out / "adapter")).merge_and_unload()
        cast("PreTrainedModel", merged).save_pretrained(str(out / "model"))
    tokenizer.save_pretrained(str(out / "model"))
    return names


def _by_size(config: TrainConfig, ground: Ground) -> dict[str, str]:
    """What is done otherwise where TRL itself generates: there are other limits."""
    found: dict[str, str] = {}
    if config.algo == "rloo" and not config.vllm:
        longest = max(len(one.prompt) + one.cuts[-1] for one in ground.encoded)
        if longest + config.max_new_tokens > config.max_length:
            found["max_length"] = "it limits prompts, and max_new_tokens alone the rollouts"
        if config.rollouts > config.generation_batch:
            found["generation_batch"] = "all rollouts of a step are generated at once"
    return found


def _told(config: TrainConfig, changed: Mapping[str, str]) -> dict[str, str]:
    """Says once what is done otherwise than asked; for the run folder."""
    if not changed:
        return {}
    text = "; ".join(f"{key}: {how}" for key, how in changed.items())
    logger.warning("algo=%s does otherwise than asked: %s", config.algo, text)
    return {"otherwise": text}


def _check_vllm(config: TrainConfig) -> None:
    if config.vllm and find_spec("vllm") is None:
        raise ModuleNotFoundError("No module named 'vllm'", name="vllm")


def _check_device(config: TrainConfig, device: torch.device) -> None:
    """Transformers would spread one process over all GPUs that it sees, which TRL cannot do."""
    alone = num_processes() == 1
    count = torch.cuda.device_count()
    if device.type == "cuda" and alone and count > 1:
        raise ConfigError(
            f"algo={config.algo} in one process sees {count} GPUs: start it by `accelerate "
            "launch`, or set CUDA_VISIBLE_DEVICES to one of them"
        )


@contextmanager
def _unwarned() -> Iterator[None]:
    """Without the warning that `rollout_func` is experimental, and reports of unpaid rollouts.

    We test its contract; what TRL writes of rollouts without a reward is their whole text.
    """
    loggers = [logging.getLogger(f"trl.trainer.{name}_trainer") for name in ("grpo", "rloo")]
    for one in loggers:
        one.addFilter(_is_no_report)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*rollout_func.*experimental.*", UserWarning)
            yield
    finally:
        for one in loggers:
            one.removeFilter(_is_no_report)


def _is_no_report(record: logging.LogRecord) -> bool:
    return "All reward functions returned None" not in str(record.msg)
