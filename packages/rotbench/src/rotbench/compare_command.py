"""`rotbench compare`: is one run better than another, case by case?"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from papercore.config import RunFlags
from papercore.errors import DataError
from papercore.records import Record, read_records
from papercore.runs import read_identity
from papercore.tables import Table, write_table
from papercore.terminal import say, table_lines
from rotbench.cases import TURNS
from rotbench.config import CompareConfig
from rotbench.rates import SCORERS, grouped
from rotbench.report_tests import COMPARISON_HEAD, comparison_rows
from rotbench.robustness import model_tests

__all__ = ["comparison", "run"]

logger = logging.getLogger(__name__)


def run(config: CompareConfig, flags: RunFlags) -> int:
    """Prints paired tests of two runs; `--out` gets them as CSV.

    Raises:
        DataError: One is no run of `eval` or `score`, or they have no case in common.
    """
    ours, theirs = _records(config.ours), _records(config.theirs)
    if _data(config.ours) != _data(config.theirs):
        logger.warning(
            "the runs were not given the same files and noise: equal ids may be other cases"
        )
    for path, records in ((config.ours, ours), (config.theirs, theirs)):
        models = ", ".join(sorted({str(record.data["model"]) for record in records}))
        say(f"{path}: {models}, {len(records)} scored cases")
    table = comparison(ours, theirs)
    for line in table_lines(table.header, [[_cell(cell) for cell in row] for row in table.rows]):
        say(line)
    if flags.out is not None:
        say(f"table: {write_table(table, flags.out)}")
    return 0


def comparison(ours: Sequence[Record], theirs: Sequence[Record]) -> Table:
    """First minus second run by turn, scorer, score and level.

    Raises:
        DataError: They have no scored case in common.
    """
    common = {record.id for record in ours} & {record.id for record in theirs}
    if not common:
        raise DataError("the runs have no scored case in common: compare runs over the same data")
    rows: list[list[str | int | float]] = []
    a, b = (grouped(records, lambda record: str(record.data["turn"])) for records in (ours, theirs))
    for turn in TURNS:
        for scorer in SCORERS if turn in a and turn in b else ():
            compared = comparison_rows(model_tests(a[turn], b[turn], scorer))
            rows += [[turn, scorer, *row] for row in compared]
    return Table(
        "comparison",
        "First minus second",
        "Paired by query; Holm's adjustment is over the rows of one turn and scorer.",
        ("turn", "scorer", *COMPARISON_HEAD),
        rows,
    )


def _records(folder: Path) -> list[Record]:
    """The scored records of a run.

    Raises:
        DataError: It is no run of `eval` or `score`.
    """
    identity = read_identity(folder)
    if (identity.package, identity.verb) not in (("rotbench", "eval"), ("rotbench", "score")):
        raise DataError(f"{folder}: is a run of {identity.package} {identity.verb}, not of eval")
    return [r for r in read_records(folder / "records.jsonl") if r.status == "ok"]


def _data(folder: Path) -> tuple[str, object]:
    """The hash of the files that a run read, and the rules of noise that it made itself."""
    identity = read_identity(folder)
    fresh = identity.config.get("noise") == "fresh"
    files = (identity.data_hash or "").partition(",")[0]
    return files, identity.config.get("rules") if fresh else None


def _cell(cell: str | float) -> str:
    return f"{cell:.3g}" if isinstance(cell, float) else str(cell)
