"""`rotbench noise`: disturbed versions of tools of your own, each with the map of its names."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from papercore.config import RunFlags, plain
from papercore.errors import ConfigError, DataError
from papercore.files import read_json, write_atomic, write_json
from papercore.terminal import say, shown, table_lines
from rotbench.cases import HALVES, NOISY_LEVELS, Half, Level
from rotbench.changes import Changes
from rotbench.config import NoiseConfig
from rotbench.foreign import (
    Environment,
    Json,
    check_extra,
    illegal_names,
    parse_json,
    read_environment,
    renamed_golds,
    rewritten,
    with_golds,
)
from rotbench.noise import disturb

__all__ = ["ToolFile", "read_tool_file", "run"]

SCHEMA = 1
FOLDER = Path("runs") / "rotbench-noise"
SUMMARY = "noise.json"
NAMES = "names.json"
MAX_FILE_BYTES = 64 << 20
_HEAD = ("variant", "tools", "renamed", "parameters", "renamed", "added", "lost", "illegal")


@dataclass(frozen=True)
class ToolFile:
    """A file with one environment, or with one per line."""

    name: str
    lines: bool
    """Whether each document stands on one line, and so is written on one again."""
    environments: tuple[Environment, ...]
    answers: tuple[dict[str, Json], ...] = ()
    """BFCL: the rows of the file of accepted calls, in the environments' order."""


def run(config: NoiseConfig, flags: RunFlags) -> int:
    """`rotbench noise`.

    Raises:
        ConfigError: The flags do not fit together, or the folder is in use.
        DataError: The file is not what it should be.
    """
    check_extra(config.rules)
    variants = _variants(config)
    if config.tools.name == NAMES:
        raise ConfigError(f"{config.tools}: {NAMES} is what the map of names is called: rename it")
    file = read_tool_file(config.tools, answers=config.answers)
    out = flags.out or FOLDER
    _make_room(out, flags)
    rows = []
    summary: list[dict[str, object]] = []
    for level, half, copy in variants:
        name = f"{level}-{half}-{copy:03d}"
        changes = [
            disturb(one.case, level, half, seed=config.seed + copy, rules=config.rules).changes
            for one in file.environments
        ]
        _write(out / name, file, changes, config, seed=config.seed + copy)
        numbers = _numbers(file, changes)
        summary.append({"variant": name, "level": level, "half": half, **numbers})
        rows.append([name, *(str(number) for number in numbers.values())])
    write_json(
        out / SUMMARY,
        {"schema": SCHEMA, "config": plain(config), "file": file.name, "variants": summary},
    )
    for line in table_lines(_HEAD, rows):
        say(line)
    count = f"{len(variants)} variant{'' if len(variants) == 1 else 's'}"
    say(f"{count} in {shown(str(out))}; names.json of each undoes it")
    if any(cast("int", row["illegal"]) for row in summary):
        say("illegal: names of tools that OpenAI's API refuses (characters, length, twice)")
    return 0


def read_tool_file(path: Path, *, answers: Path | None = None) -> ToolFile:
    """Reads a file with tools.

    Args:
        path: JSON, or JSON lines with tools in each.
        answers: BFCL's file of accepted calls, one row per row of `path`.

    Raises:
        DataError: It is not what it should be; the message names the row.
    """
    rows, lines = _read_rows(path)
    where = [f"{path}: row {number}" if len(rows) > 1 else str(path) for number, _ in rows]
    environments = [
        read_environment(row, index=i, where=place)
        for i, ((_, row), place) in enumerate(zip(rows, where, strict=True))
    ]
    if answers is None:
        return ToolFile(path.name, lines, tuple(environments))
    found = _read_rows(answers)[0]
    if len(found) != len(rows):
        raise DataError(f"{answers}: has {len(found)} rows, but {path} has {len(rows)}")
    checked: list[dict[str, Json]] = []
    for i, (number, row) in enumerate(found):
        place = f"{answers}: row {number}"
        if not isinstance(row, dict) or "ground_truth" not in row:
            raise DataError(f"{place}: has no ground_truth")
        other = rows[i][1]
        if isinstance(other, dict) and row.get("id") != other.get("id"):
            raise DataError(f"{place}: its id is not that of {where[i]}: sort both files alike")
        environments[i] = with_golds(environments[i], row["ground_truth"], place)
        checked.append(row)
    return ToolFile(path.name, lines, tuple(environments), tuple(checked))


def _read_rows(path: Path) -> tuple[list[tuple[int, Json]], bool]:
    """Numbered documents of a file, and whether each stands on one line."""
    text = _text(path)
    many = [(i, line) for i, line in enumerate(text.split("\n"), start=1) if line.strip()]
    if len(many) > 1:
        # JSON over several lines starts with a line that is no JSON by itself.
        try:
            first = json.loads(many[0][1])
        except (ValueError, RecursionError):
            first = None
        if isinstance(first, dict | list):
            return [(i, parse_json(line, f"{path}: row {i}")) for i, line in many], True
    return [(1, parse_json(text, str(path)))], len(many) == 1


def _text(path: Path) -> str:
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise DataError(f"{path}: is larger than {MAX_FILE_BYTES >> 20} MiB: split it")
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except UnicodeDecodeError:
        raise DataError(f"{path}: is not UTF-8 text: save it as UTF-8") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None


def _variants(config: NoiseConfig) -> list[tuple[Level, Half, int]]:
    levels = NOISY_LEVELS if config.level == "all" else (config.level,)
    chosen = [
        (level, half, copy)
        for level in levels
        for half in HALVES[level]
        if config.half in ("all", half)
        for copy in range(config.copies)
    ]
    if not chosen:
        halves = ", ".join(half for level in levels for half in HALVES[level])
        raise ConfigError(f"level {config.level} has no half {config.half}: it has {halves}")
    return chosen


def _make_room(out: Path, flags: RunFlags) -> None:
    if flags.resume:
        raise ConfigError("there is nothing to --resume: the noise is made anew in no time")
    if out.is_file():
        raise ConfigError(f"{out} is a file: give another --out")
    if not out.is_dir() or not any(out.iterdir()):
        return
    if not (out / SUMMARY).is_file() or "variants" not in read_json(out / SUMMARY):
        raise ConfigError(f"{out} holds something else: give another --out")
    if not flags.overwrite:
        raise ConfigError(f"{out} is not empty: --overwrite replaces it, or give another --out")
    shutil.rmtree(out)


def _write(
    folder: Path, file: ToolFile, changes: Sequence[Changes], config: NoiseConfig, *, seed: int
) -> None:
    documents = [
        rewritten(environment, one)
        for environment, one in zip(file.environments, changes, strict=True)
    ]
    write_atomic(folder / file.name, _dumped(documents, lines=file.lines))
    if file.answers:
        rows: list[Json] = [
            {**row, "ground_truth": renamed_golds(row["ground_truth"], one)}
            for row, one in zip(file.answers, changes, strict=True)
        ]
        write_atomic(folder / f"answers-{file.name}", _dumped(rows, lines=True))
    names = {
        "schema": SCHEMA,
        "seed": seed,
        "rules": plain(config.rules),
        "environments": [one.to_json() for one in changes],
    }
    write_json(folder / NAMES, names)


def _dumped(documents: Sequence[Json], *, lines: bool) -> bytes:
    """Readable JSON; escaped only if it holds what UTF-8 cannot write."""
    for ascii_only in (False, True):
        texts = [
            json.dumps(one, ensure_ascii=ascii_only, indent=None if lines else 2)
            for one in documents
        ]
        try:
            return "".join(f"{text}\n" for text in texts).encode()
        except UnicodeEncodeError:
            continue
        except RecursionError:
            raise DataError("the tools are nested too deeply to be written again") from None
    raise AssertionError("ASCII can always be written")


def _numbers(file: ToolFile, changes: Sequence[Changes]) -> dict[str, int]:
    tools = [tool for one in changes for tool in one.tools]
    return {
        "tools": len(tools),
        "tools_renamed": sum(tool.old != tool.new for tool in tools),
        "parameters": sum(
            len(tool.parameters) for one in file.environments for tool in one.case.tools
        ),
        "parameters_renamed": sum(len(tool.parameters) for tool in tools),
        "added": sum(tool.addendum is not None for tool in tools),
        "lost": sum(one.collisions for one in changes),
        "illegal": sum(len(illegal_names([tool.new for tool in one.tools])) for one in changes),
    }
