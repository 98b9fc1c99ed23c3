"""`rotbench train`: RoTTuning's last step, LoRA tuning on augmented trajectories, by trl and peft.

Paper 2401.08326, section on RoTTuning: LLaMA-2-7B base, frozen, an adapter, linearly interpolated
positions, 5 epochs. The loss is on the tokens of every turn of the assistant (assumed, as in the
training of ToolBench). Every default says in `TrainConfig` where it comes from.

The run folder holds `adapter/` (safetensors), `model/` if `merged`, `checkpoints/`, the loss of
each step in `metrics.jsonl`, and in the records what was trained on and what was left out.

Under `accelerate launch` each process trains; the first one writes the folder.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import nullcontext
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pydantic import JsonValue

from papercore.config import RunFlags
from papercore.records import Record, read_records
from papercore.report import conclude
from papercore.runs import Run, check_folder, read_identity
from papercore.terminal import say, shown
from rotbench.augment_command import paths_of
from rotbench.config import TrainConfig
from rotbench.training_report import TRAIN_PREFIX

if TYPE_CHECKING:
    from rotbench.training_set import TrainingSet

__all__ = ["run"]

FOLDER = Path("runs") / "train"
RESULT: Final = f"{TRAIN_PREFIX}result"
EXIT_LEFT_OUT = 1
_MAX_SHOWN = 10


def run(config: TrainConfig, flags: RunFlags) -> int:
    """`rotbench train`.

    Returns:
        0, or 1 if rows of the data were no trajectories; the rest was trained on all the same.

    Raises:
        ConfigError: Settings do not fit together, or not to the machine.
        DataError: The data cannot be read, or hold nothing to train on.
        ModelError: The base cannot be loaded.
    """
    out = flags.out or FOLDER
    writes = int(os.environ.get("RANK", "0")) == 0
    if writes:
        check_folder(out, flags)
    paths = paths_of(config.data)
    if flags.resume and _finished(out):
        if writes:
            # Refuses other settings. The data are not encoded once more: that takes the tokenizer.
            _open(out, config, flags, read_identity(out).data_hash).close()
            if not (out / "report.html").exists():
                conclude(out)
        say(f"{shown(str(out))} is finished")
        return 0
    # trl reports its use to a server of its makers; we send nothing that nobody asked for.
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    # Everything heavy comes after what a user can get wrong.
    from papercore.models import describe
    from rotbench.base_model import load_base
    from rotbench.trainer import tune
    from rotbench.training_set import read_training_set

    model, tokenizer = load_base(config, flags.device)
    data = read_training_set(paths, tokenizer, config)
    opening = _open(out, config, flags, data.data_hash) if writes else nullcontext()
    with opening as opened:
        if opened is not None:
            opened.note(**describe(model))
            _record_data(opened, data)
        result = tune(model, tokenizer, data, config, out, opened)
        if opened is not None:
            opened.append(Record(id=RESULT, data={**result}))
    if writes:
        conclude(out)
        _tell(out, data, result)
    return EXIT_LEFT_OUT if data.problems else 0


def _open(out: Path, config: TrainConfig, flags: RunFlags, data_hash: str | None) -> Run:
    return Run.open(
        *(out, config, flags),
        package="rotbench",
        version=metadata.version("rotbench"),
        verb="train",
        data_hash=data_hash,
    )


def _finished(out: Path) -> bool:
    return any(record.id == RESULT for record in read_records(out / "records.jsonl"))


def _record_data(opened: Run, data: TrainingSet) -> None:
    """What is trained on, and each row that is not."""
    counts: dict[str, JsonValue] = {**data.counts}
    records = [Record(id=f"{TRAIN_PREFIX}data", data=counts)]
    records += [
        Record(id=f"{TRAIN_PREFIX}row/{one.place}", status="skipped", error=one.reason)
        for one in data.problems
    ]
    for record in records:
        if record.id not in opened.done:
            opened.append(record)


def _tell(out: Path, data: TrainingSet, result: Mapping[str, float]) -> None:
    counts = data.counts
    say(
        f"{counts['sequences']:,} sequences, {counts['tokens']:,} tokens, of which "
        f"{counts['loss_tokens']:,} bear loss; left out {counts['skipped']:,} that were too long, "
        f"cut {counts['cut']:,}"
    )
    say(f"loss {result['first_loss']:.3f} -> {result['last_loss']:.3f} in {result['steps']} steps")
    for problem in data.problems[:_MAX_SHOWN]:
        say(f"left out {shown(problem.place)}: {shown(problem.reason, 200)}")
    if len(data.problems) > _MAX_SHOWN:
        say(f"left out {len(data.problems)} rows in all; records.jsonl names each")
    made = [name for name in ("adapter", "model") if (out / name).is_dir()]
    say("saved: " + ", ".join(shown(str(out / name)) for name in made))
