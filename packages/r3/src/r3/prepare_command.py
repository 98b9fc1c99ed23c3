"""`r3 prepare`: read a data set, check it, split it by question.

    r3 prepare --task gsm8k --source train.jsonl --test test.jsonl --out data/gsm8k

The folder is written as a whole or not at all. Rows that cannot be used are counted, named and left
out; the command fails only if nothing is left. No torch here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

from pydantic import JsonValue

from papercore.config import RunFlags, plain
from papercore.errors import ConfigError
from papercore.terminal import say, shown
from r3.assembly import Assembled, assemble
from r3.config import PrepareConfig
from r3.data import check_target, write_prepared
from r3.demos import Demo
from r3.prepare_report import Cutting, cutting_of, load_tokenizer, summary_lines
from r3.tasks import task_named

__all__ = ["FOLDER", "run"]

FOLDER = Path("data")
"""Below it a folder named after the task is written unless `--out` names another."""

WORLD = "world"


def run(config: PrepareConfig, flags: RunFlags) -> int:
    """`r3 prepare`.

    Raises:
        ConfigError: The settings do not fit together, or the folder holds something else.
        DataError: A source cannot be read, or nothing of it can be used.
    """
    if flags.resume:
        raise ConfigError("there is nothing to --resume: `prepare` writes everything or nothing")
    out = flags.out or FOLDER / config.task
    check_target(out, overwrite=flags.overwrite)
    tokenizer = load_tokenizer(config.tokenizer) if config.tokenizer is not None else None
    splits, meta = _world(config) if config.task == WORLD else _read(config)
    cutting = Cutting((), {})
    if tokenizer is not None:
        cutting = cutting_of(
            splits, tokenizer, task=config.task, prompt=config.prompt, cut=config.cut
        )
        cuts: dict[str, JsonValue] = {"tokenizer": config.tokenizer, **cutting.data}
        meta = {**meta, "cuts": cuts}
    prepared = write_prepared(
        *(out,),
        task=config.task,
        prompt=config.prompt,
        splits=splits,
        meta=meta,
        overwrite=flags.overwrite,
    )
    for line in (*summary_lines(prepared), *cutting.lines):
        say(line)
    say(f"written to {shown(str(out))}")
    return 0


def _read(config: PrepareConfig) -> tuple[Mapping[str, Sequence[Demo]], dict[str, JsonValue]]:
    found = assemble(config)
    return found.splits, {**_about(config), **_what_was_left(found)}


def _world(config: PrepareConfig) -> tuple[Mapping[str, Sequence[Demo]], dict[str, JsonValue]]:
    """The miniature's world, which is made and not read.

    Raises:
        ConfigError: Something is asked of it that it does not have.
    """
    given = {
        "source": config.source,
        "test": config.test,
        "rationales": config.rationales,
        "fields": config.fields,
        "dev": config.dev,
    }
    for name, value in given.items():
        if value:
            raise ConfigError(
                f"{name}={value!r} is not for task=world, which is made with splits of its own: "
                "use `r3 prepare tiny`"
            )
    from r3 import world

    splits, meta = world.prepared(config.seed)
    limited = {name: tuple(demos[: config.limit]) for name, demos in splits.items()}
    return limited, {**_about(config), **meta}


def _about(config: PrepareConfig) -> dict[str, JsonValue]:
    """What was asked for, and whose data these are."""
    task = task_named(config.task)
    settings = cast("dict[str, JsonValue]", plain(config))
    wanted = ("seed", "limit", "source", "test", "rationales", "fields", "dev")
    return {
        "settings": {name: settings[name] for name in wanted},
        "source": task.source,
        "licence": task.licence,
        "note": task.note,
    }


def _what_was_left(found: Assembled) -> dict[str, JsonValue]:
    left: list[JsonValue] = [
        {"split": split, "reason": reason, "rows": count, "first": list(found.left.shown[key])}
        for key, count in found.left.counts.most_common()
        for split, reason in [key]
    ]
    return {
        "parts": [dict(origin) for origin in found.origins],
        "left_out": left,
        "notes": list(found.notes),
    }
