"""`r3 train`: reinforcement learning from start states inside demonstrations.

The run folder holds `model/` (merged where adapters were trained, beside `adapter/`), `critic/`,
`checkpoints/`, `rollouts.jsonl`, the numbers of each step in `metrics.jsonl`, and in the records
the counts by depth, the dev questions, and what was left out. A run that was killed at any moment
goes on from its last checkpoint with `--resume`, to the same weights.

Under `accelerate launch` or `torchrun` each process trains; the first one writes the folder.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from contextlib import nullcontext
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Final

from papercore.config import RunFlags, config_hash
from papercore.errors import ConfigError
from papercore.records import Record, read_records
from papercore.refs import parse_ref
from papercore.report import conclude
from papercore.runs import Run, check_folder, read_identity
from papercore.terminal import say, shown
from r3.config import TrainConfig
from r3.data import Prepared, read_prepared
from r3.folders import open_run
from r3.made_models import check_trained
from r3.programs import open_sandbox
from r3.rewards import reward_for
from r3.tasks import task_named
from r3.train_report import RESULT, START, result_lines

if TYPE_CHECKING:
    from accelerate import Accelerator

    from r3.loop import TrainResult
    from r3.train_setup import Ground

__all__ = ["FOLDER", "run"]

logger = logging.getLogger(__name__)

FOLDER: Final = Path("runs") / "train"


def run(config: TrainConfig, flags: RunFlags) -> int:
    """`r3 train`.

    Returns:
        0.

    Raises:
        ConfigError: Settings do not fit together, or not to the data, the model or the machine.
        DataError: The prepared data cannot be read, or a checkpoint cannot be written.
        ModelError: The model cannot be loaded, or training went out of bounds.
    """
    out = flags.out or FOLDER
    if writes():
        check_folder(out, flags)
    prepared = read_prepared(config.data)
    _check(config, flags, prepared)
    going_on = flags.resume and (out / "config.json").exists()
    if going_on and writes() and not _is_run_of(out, config, prepared):
        open_out(out, config, flags, prepared).close()  # refuses other settings
    if flags.resume and _finished(out):
        if writes():
            if not (out / "report.html").exists():
                conclude(out)
            say(f"{shown(str(out))} is finished: its model is {shown(str(out / 'model'))}")
        return 0
    # trl and accelerate may report their use to their makers; nobody asked for that.
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    # Everything heavy comes after what a user can get wrong.
    if config.algo != "ppo":
        from r3.trl_backend import train as train_with_trl

        return train_with_trl(config, flags, prepared, out)
    return _train(config, flags, prepared, out)


def _train(config: TrainConfig, flags: RunFlags, prepared: Prepared, out: Path) -> int:
    from papercore.models import describe
    from r3.exports import export_run
    from r3.loop import Setup, train
    from r3.train_setup import build_policy, evaluator, lay_ground, load_start, open_accelerator

    model, tokenizer = load_start(config, flags.device)
    ground = lay_ground(config, prepared, tokenizer)
    accelerator = open_accelerator(config, model.device)
    facts = describe(model)
    setup = Setup(
        policy=build_policy(config, model),
        tokenizer=tokenizer,
        encoded=ground.encoded,
        curriculum=ground.curriculum,
        reward=ground.reward,
        evaluate=evaluator(config, ground.dev, prepared.task, tokenizer, accelerator),
    )
    opening = open_out(out, config, flags, prepared) if writes() else nullcontext()
    with opening as opened:
        if opened is not None:
            opened.note(**facts, **otherwise(config, prepared, ground, accelerator))
            record_start(opened, prepared, ground)
        result = train(
            *(setup, config),
            total_steps=ground.total_steps,
            run=opened,
            out=out,
            accelerator=accelerator,
        )
        made = export_run(out, setup, config, result, accelerator)
        if opened is not None:
            opened.append(result_record(result))
    if writes():
        conclude(out)
        tell(out, ground, result, made)
    return 0


def _check(config: TrainConfig, flags: RunFlags, prepared: Prepared) -> None:
    """Refuses early what would be refused late."""
    check_trained(config.model)
    parse_ref(config.model, loads=True)  # refuses a folder that is not there
    if flags.device == "cuda:all":
        raise ConfigError("--device cuda:all is for answering: start `accelerate launch` to train")
    demo = prepared.split("train")[0]
    outcome = reward_for(prepared.task, config.reward, config.sandbox).score(demo.target, demo)
    if outcome.error is not None:
        logger.warning(
            "%s fails on the demonstration of %r (%s): rollouts for which it does are left out",
            *(_what_judges(config), demo.id, outcome.error),
        )


def _what_judges(config: TrainConfig) -> str:
    own = config.reward.function
    return "the sandbox" if own is None else f"reward.function={own}"


def otherwise(
    config: TrainConfig, prepared: Prepared, ground: Ground, accelerator: Accelerator | None
) -> dict[str, str | float | bool | None]:
    """What is done otherwise than asked: said once, and kept in the run folder."""
    found: dict[str, str | float | bool | None] = {}
    if config.keep == "best" and not ground.dev:
        found["keep"] = "last, because there are no dev questions to choose by"
    if config.tune == "lora" and config.lora.dropout:
        found["lora_dropout"] = "none: RL uses none"
    for name, reason in found.items():
        logger.warning("%s: %s", name.replace("_", "."), reason)
    if prepared.edited:
        found["data_edited"] = ", ".join(prepared.edited)
    if task_named(prepared.task).verifier == "program":
        found["sandbox"] = open_sandbox(config.sandbox).level
    if accelerator is not None:
        found["processes"] = int(accelerator.num_processes)
        found["parallel"] = str(accelerator.distributed_type.value)
        found["mixed_precision"] = str(accelerator.mixed_precision)
    return found


def record_start(opened: Run, prepared: Prepared, ground: Ground) -> None:
    """Writes down what is trained on, and what was left out."""
    record = Record(id=START, data={"task": prepared.task, **ground.counts})
    if record.id not in opened.done:
        opened.append(record)


def result_record(result: TrainResult) -> Record:
    """What training came to."""
    return Record(
        id=RESULT,
        data={
            "steps": result.steps,
            "tokens": result.tokens,
            "kept": result.kept,
            "excluded": result.excluded,
            "skipped": result.skipped,
            "dev": [list(look) for look in result.dev],
        },
    )


def tell(out: Path, ground: Ground, result: TrainResult, made: Sequence[str]) -> None:
    """Says it on the terminal."""
    counts = ground.counts
    say(
        f"{counts['demos']:,} demonstrations, {counts['states']:,} start states; "
        f"{counts['states_too_long']:,} more were left out, for they leave no room for an answer"
    )
    for line in result_lines(read_records(out / "records.jsonl")):
        say(line)
    if result.skipped:
        say(f"{result.skipped:,} optimizer steps were left out: loss or gradient was no number")
    say(f"kept: the weights after step {result.kept} of {result.steps}")
    if result.kept == 0:
        say("NO STEP WAS BETTER ON THE DEV QUESTIONS: training began with these weights")
    say("saved: " + ", ".join(shown(str(out / name)) for name in made))
    say(f"report: {shown(str(out / 'report.html'))}")


def writes() -> bool:
    """Whether this process is the one that writes the run folder."""
    return int(os.environ.get("RANK", "0")) == 0


def open_out(out: Path, config: TrainConfig, flags: RunFlags, prepared: Prepared) -> Run:
    """The run folder, new or gone on with."""
    return open_run(out, config, flags, verb="train", data_hash=prepared.digest)


def _is_run_of(out: Path, config: TrainConfig, prepared: Prepared) -> bool:
    """Whether a finished run is of these settings; to open it would be one more session of it."""
    found = read_identity(out)
    digest = config_hash(config, version=metadata.version("r3"), data_hash=prepared.digest)
    return (found.package, found.verb, found.hash) == ("r3", "train", digest)


def _finished(out: Path) -> bool:
    return any(record.id == RESULT for record in read_records(out / "records.jsonl"))
