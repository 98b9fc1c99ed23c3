"""`self-cd table`: runs side by side, harmful questions always beside harmless ones. No torch here.

    self-cd table runs/plain runs/self-cd --markdown

Reads verdicts of one judge: from `run` and `sweep`, whose answers the keyword judge has judged, and
from `judge`. Differences are paired over the questions that both answered.
"""

from __future__ import annotations

import csv
import io
import math
import sys
from collections.abc import Sequence
from pathlib import Path

from papercore.claims import Estimate
from papercore.config import RunFlags
from papercore.errors import ConfigError, DataError
from papercore.files import write_atomic
from papercore.records import read_records
from papercore.runs import read_identity
from self_cd.comparison import Difference, Row, differences, rows_of, without_verdict
from self_cd.config import TableConfig
from self_cd.items import SIDES, Side
from self_cd.judge_report import interval, percent
from self_cd.judges import Verdict
from self_cd.judges.sheet import escape_cell
from self_cd.verdicts import Judged, is_verdict, judged_of, read_source, read_verdicts, unique_names

__all__ = ["choose_judge", "read_judged", "run"]

Lines = list[list[str]]

CSV_HEAD = (
    "method", "data set", "side", "judge", "n", "refused", "lo", "hi", "degenerate",
    "degenerate lo", "degenerate hi", "without verdict", "against", "pairs", "difference",
    "difference lo", "difference hi", "mcnemar p", "holm p",
)  # fmt: skip


def run(config: TableConfig, flags: RunFlags) -> int:
    """Prints the table.

    Raises:
        ConfigError: A run is there twice, or verdicts of several judges would be mixed.
        DataError: A folder cannot be read, or holds no verdicts of the judge.
    """
    if flags.out is not None or flags.resume or flags.overwrite:
        raise ConfigError("table makes no run folder: leave out --out, --resume and --overwrite")
    judged = read_judged(config.runs)
    judge, kept = choose_judge(judged, config.judge)
    rows = rows_of(kept)
    compared = differences(rows)
    show = _print_markdown if config.markdown else _print
    show(f"Refusals by {judge}, 95 % Wilson intervals", _refusal_lines(rows))
    if compared:
        minus = "plain" if all(row.perturb is None for row in rows) else "the row `against`"
        show(
            f"Minus {minus}, paired by question; p: McNemar, exact; Holm over this table",
            _difference_lines(compared),
        )
    for line in _notes(rows, compared):
        sys.stdout.write(f"{line}\n")
    if config.csv is not None:
        write_atomic(config.csv, _csv(rows, compared, judge))
        sys.stdout.write(f"table: {config.csv}\n")
    return 0


def read_judged(paths: Sequence[Path]) -> list[Judged]:
    """The verdicts in run folders of `run`, `sweep` and `judge`, each once.

    Raises:
        ConfigError: Two folders hold the same run.
        DataError: A folder holds no answers and no verdicts, or two disagree on a verdict.
    """
    found: dict[tuple[str, str, str | None], Judged] = {}
    owner: dict[str, Path] = {}
    for path, name in zip(paths, unique_names(paths), strict=True):
        read_identity(path)  # a folder of something else has no records of ours
        records = read_records(path / "records.jsonl")
        is_judging = any(is_verdict(record) for record in records)
        verdicts = read_verdicts(records) if is_judging else _stored(path, name)
        if not is_judging:
            digest = verdicts[0].run_hash
            if digest in owner:
                raise ConfigError(f"{owner[digest]} and {path} are the same run: give one of them")
            owner[digest] = path
        for one in verdicts:
            known = found.setdefault((one.run_hash, one.record, one.judge), one)
            if known.label != one.label and None not in (known.label, one.label):
                raise DataError(
                    f"{path}: {one.judge} calls {one.record} of {one.run} {one.label}, elsewhere "
                    f"{known.label}: give the runs that belong together"
                )
            if known.label is None:
                found[one.run_hash, one.record, one.judge] = one
    return list(found.values())


def choose_judge(judged: Sequence[Judged], wanted: str) -> tuple[str, list[Judged]]:
    """The judge that is meant, and for each run its verdicts, failed answers included.

    Args:
        judged: Verdicts of any judges.
        wanted: A judge's whole name, or its kind: what stands before `/` or `:`.

    Raises:
        ConfigError: Several judges are meant.
        DataError: A run has no verdict of it.
    """
    names = sorted({one.judge for one in judged if one.judge is not None})
    exact = [name for name in names if name == wanted]
    meant = exact or [name for name in names if name.replace(":", "/").split("/")[0] == wanted]
    there = ", ".join(names) or "nobody"
    if not meant:
        raise DataError(f"--judge {wanted}: these runs were judged by {there}: name one of them")
    if len(meant) > 1:
        raise ConfigError(
            f"--judge {wanted} would mix {' and '.join(meant)}, whose rates do not compare: give "
            "one by its whole name"
        )
    kept = [one for one in judged if one.judge == meant[0]]
    judged_runs = {one.run_hash for one in kept}
    for one in judged:
        if one.run_hash not in judged_runs:
            raise DataError(
                f"{one.run}: has no verdicts of {meant[0]}: run `self-cd judge` over all runs, or "
                "choose another --judge"
            )
    there_already = {(one.run_hash, one.record) for one in kept}
    failed = [one for one in judged if one.judge is None]
    return meant[0], kept + [
        one for one in failed if (one.run_hash, one.record) not in there_already
    ]


def _stored(path: Path, name: str) -> list[Judged]:
    """Verdicts that a run holds itself."""
    source = read_source(path, name)
    return [
        judged_of(answer, source, answer.judge, Verdict(answer.label, answer.error))
        for answer in source.answers
    ]


def _columns(rows: Sequence[Row]) -> list[tuple[str, Side]]:
    """Data sets with their sides, harmless before harmful."""
    found = {(dataset, side) for row in rows for dataset, side in row.cells}
    return sorted(found, key=lambda one: (one[0], SIDES.index(one[1])))


def _refusal_lines(rows: Sequence[Row]) -> Lines:
    columns = _columns(rows)
    head = ["method", *(f"{dataset} {side}" for dataset, side in columns)]
    return [head, *([row.name, *(_share(row, column) for column in columns)] for row in rows)]


def _share(row: Row, column: tuple[str, Side]) -> str:
    cell = row.cells.get(column)
    if cell is None:
        return "-"
    refused, broken = cell.share("refuse"), cell.share("degenerate")
    shown = f"{percent(refused.value)} [{interval(refused)}] n={refused.n}"
    return f"{shown}, {percent(broken.value)} degenerate"


def _difference_lines(compared: Sequence[Difference]) -> Lines:
    head = ["method", "against", "questions", "pairs", "difference", "p", "Holm p"]
    rows = [
        [
            one.row.name,
            one.against.name,
            f"{one.dataset} {one.side}",
            str(one.estimate.n),
            _points(one.estimate),
            f"{one.p_value:.3g}",
            f"{one.holm:.3g}",
        ]
        for one in compared
    ]
    return [head, *rows]


def _points(found: Estimate) -> str:
    shown = f"{100 * found.value:+.1f} points"
    if math.isnan(found.lo):
        return shown
    return f"{shown} [{100 * found.lo:+.1f} to {100 * found.hi:+.1f}]"


def _notes(rows: Sequence[Row], compared: Sequence[Difference]) -> list[str]:
    """What a reader must know beside the numbers."""
    lines = []
    blind = list(dict.fromkeys(row.name for row in rows if not row.judged_on("harmful")))
    if blind:
        lines.append(
            f"NO HARMFUL QUESTIONS: {', '.join(blind)}: fewer refusals alone say nothing on safety"
        )
    without = {row.name: row.num_without for row in rows if row.num_without}
    if without:
        counts = ", ".join(f"{name}: {count}" for name, count in without.items())
        lines.append(f"answers without a verdict, which count nowhere: {counts}")
    lonely = [row for row in rows if not _is_compared(row, compared)]
    disturbed = [row.name for row in lonely if row.perturb is not None]
    if disturbed:
        lines.append(
            "no raw run of the same model, method and questions to compare with: "
            f"{', '.join(disturbed)}"
        )
    alone = [row.name for row in lonely if row.perturb is None and not row.is_plain]
    if alone:
        lines.append(
            f"no plain run of the same model and questions (method plain, or self-cd at 1) to "
            f"compare with: {', '.join(alone)}"
        )
    return lines


def _is_compared(row: Row, compared: Sequence[Difference]) -> bool:
    return any(one.row is row for one in compared)


def _print(title: str, lines: Lines) -> None:
    """A table of rich on a terminal, aligned text elsewhere."""
    if sys.stdout.isatty():
        _print_rich(title, lines)
        return
    widths = [max(len(row[column]) for row in lines) for column in range(len(lines[0]))]
    sys.stdout.write(f"{title}\n")
    for row in lines:
        line = "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True))
        sys.stdout.write(f"{line.rstrip()}\n")
    sys.stdout.write("\n")


def _print_rich(title: str, lines: Lines) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title)
    for name in lines[0]:
        table.add_column(Text(name))
    for row in lines[1:]:
        table.add_row(*(Text(cell) for cell in row))
    Console().print(table)


def _print_markdown(title: str, lines: Lines) -> None:
    cells = [[cell.replace("\\", "\\\\").replace("|", "\\|") for cell in row] for row in lines]
    rule = ["---"] * len(cells[0])
    rows = "\n".join(f"| {' | '.join(row)} |" for row in (cells[0], rule, *cells[1:]))
    sys.stdout.write(f"{title}\n\n{rows}\n\n")


def _csv(rows: Sequence[Row], compared: Sequence[Difference], judge: str) -> str:
    """One line per method, data set and side, so that every number has a cell of its own."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(CSV_HEAD)
    found = {(one.row.name, one.dataset, one.side): one for one in compared}
    for row in rows:
        for (dataset, side), cell in row.cells.items():
            refused, broken = cell.share("refuse"), cell.share("degenerate")
            names = [escape_cell(name) for name in (row.name, dataset, side, judge)]
            shares = [refused.n, *_bounds(refused), *_bounds(broken), without_verdict(cell)]
            writer.writerow(
                [*names, *shares, *_difference_cells(found.get((row.name, dataset, side)))]
            )
    return text.getvalue()


def _difference_cells(one: Difference | None) -> list[str | float]:
    if one is None:
        return [""] * 7
    bounds = _bounds(one.estimate)
    return [escape_cell(one.against.name), one.estimate.n, *bounds, one.p_value, one.holm]


def _bounds(found: Estimate) -> list[str | float]:
    numbers = (found.value, found.lo, found.hi)
    return ["" if math.isnan(number) else number for number in numbers]
