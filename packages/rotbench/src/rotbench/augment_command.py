"""`rotbench augment`: trajectories in, the RoTTuning mixture out.

The run folder holds `trajectories.jsonl`, one record per level and half with what the noise did,
and one record per row that was left out. The file is there as a whole or not at all.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Final, TypeAlias, cast

from pydantic import JsonValue

from papercore.config import RunFlags
from papercore.errors import DataError
from papercore.log import progress
from papercore.records import Record
from papercore.report import conclude
from papercore.runs import Run, check_folder
from papercore.terminal import say, shown, table_lines
from rotbench.augment import Survey, augment_all, survey
from rotbench.cases import HALVES, LEVELS, Half, Level
from rotbench.config import AugmentConfig
from rotbench.data import SAMPLE
from rotbench.layouts import row
from rotbench.training_report import AUGMENT_PREFIX
from rotbench.trajectories import Layout, Trajectory

__all__ = ["FILE", "paths_of", "run"]

FILE: Final = "trajectories.jsonl"
FOLDER = Path("runs") / "augment"
EXIT_LEFT_OUT = 1

Cell: TypeAlias = tuple[Level, Half]
_MAX_SHOWN = 10


def run(config: AugmentConfig, flags: RunFlags) -> int:
    """`rotbench augment`.

    Returns:
        0, or 1 if rows were left out; the rest is written all the same.

    Raises:
        DataError: The file cannot be read, or no row of it is a trajectory.
    """
    out = flags.out or FOLDER
    check_folder(out, flags)
    layout = None if config.layout == "same" else config.layout
    found = survey(paths_of(config.trajectories), layout=layout, limit=config.limit)
    if not found.keys:
        first = f": {found.problems[0].place}: {found.problems[0].reason}" if found.problems else ""
        raise DataError(f"{config.trajectories} holds no trajectory{first}")
    version = metadata.version("rotbench")
    with Run.open(
        *(out, config, flags),
        package="rotbench",
        version=version,
        verb="augment",
        data_hash=found.data_hash,
    ) as opened:
        if not (out / FILE).exists():
            _write(opened, config, found)
        records = opened.records()
    conclude(out)
    _tell(records, found, out / FILE)
    return EXIT_LEFT_OUT if found.problems else 0


def paths_of(trajectories: str) -> tuple[Path, ...]:
    """The files behind `--trajectories` or `--data`.

    Raises:
        DataError: There is none.
    """
    if trajectories == "sample":
        folders = ("Third_Turn", "First_Turn")
        return tuple(SAMPLE / folder / "clean.json" for folder in folders)
    path = Path(trajectories).expanduser()
    if path.is_dir():
        path /= FILE
    if not path.is_file():
        raise DataError(f"{path}: no such file; give a .jsonl or .json file, or sample")
    return (path,)


def _write(opened: Run, config: AugmentConfig, found: Survey) -> None:
    """Gives the file its name when it is whole and all records about it are written."""
    tally: dict[Cell, Counter[str]] = {}
    sources: dict[Cell, set[str]] = {}
    target = opened.folder / FILE
    temporary = target.with_name(f".{FILE}.{os.getpid()}.tmp")
    made = augment_all(found, config.quota, seed=config.seed, rules=config.rules)
    try:
        with opened.timed("augment"), temporary.open("w", encoding="utf-8") as file:
            for one in progress(made, "augment", total=config.quota.total):
                _count(one, tally, sources)
                file.write(_line(one, found.layout))
            file.flush()
            os.fsync(file.fileno())
        for record in _records(tally, sources, found):
            if record.id not in opened.done:
                opened.append(record)
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def _line(trajectory: Trajectory, layout: Layout | None) -> str:
    return json.dumps(row(trajectory, layout), ensure_ascii=False) + "\n"


def _count(
    trajectory: Trajectory, tally: dict[Cell, Counter[str]], sources: dict[Cell, set[str]]
) -> None:
    """Adds what the noise did to one trajectory."""
    assert trajectory.noise is not None, "augment tags everything"
    data = trajectory.noise.data
    cell = (trajectory.noise.level, cast("Half", data["half"]))
    counts = tally.setdefault(cell, Counter())
    counts["rows"] += 1
    counts["tools"] += len(trajectory.tools)
    counts["parameters"] += sum(len(tool.parameters) for tool in trajectory.tools)
    counts["calls"] += len(trajectory.calls)
    sources.setdefault(cell, set()).add(str(data["source"]))
    if "changes" not in data:
        return
    changes = cast("Mapping[str, JsonValue]", data["changes"])
    counts["collisions"] += cast("int", changes["collisions"])
    for tool in cast("list[Mapping[str, JsonValue]]", changes["tools"]):
        counts["tools_renamed"] += tool["old"] != tool["new"]
        counts["parameters_renamed"] += len(cast("list[JsonValue]", tool.get("parameters", [])))
        counts["parameters_added"] += "addendum" in tool


def _records(
    tally: Mapping[Cell, Counter[str]], sources: Mapping[Cell, set[str]], found: Survey
) -> Iterator[Record]:
    for level in LEVELS:
        for half in HALVES[level]:
            counts = tally.get((level, half))
            if counts:
                yield Record(
                    id=f"{AUGMENT_PREFIX}{level}/{half}",
                    data={
                        "level": level,
                        "half": half,
                        "trajectories": len(sources[level, half]),
                        **counts,
                    },
                )
    for problem in found.problems:
        yield Record(
            id=f"{AUGMENT_PREFIX}row/{problem.place}", status="skipped", error=problem.reason
        )


def _tell(records: Iterable[Record], found: Survey, file: Path) -> None:
    cells = [record.data for record in records if record.status == "ok"]
    columns = ("rows", "trajectories", "tools_renamed", "parameters_renamed", "parameters_added")
    rows = [
        [f"{cell['level']} {cell['half']}", *(str(cell.get(column, 0)) for column in columns)]
        for cell in cells
    ]
    head = ["environment", *(column.replace("_", " ") for column in columns)]
    for line in table_lines(head, rows):
        say(line)
    total = sum(cast("int", cell["rows"]) for cell in cells)
    say(f"{total} trajectories from {len(found.keys)}: {shown(str(file))}")
    for problem in found.problems[:_MAX_SHOWN]:
        say(f"left out {shown(problem.place)}: {shown(problem.reason, 200)}")
    if len(found.problems) > _MAX_SHOWN:
        say(f"left out {len(found.problems)} rows in all; records.jsonl names each")
