"""What a run of `judge` comes to, from its records alone. No torch here.

summarise(records)["agreement_keyword/2_sheet:ann"]
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from papercore.claims import Estimate
from papercore.plots import Figure, Frame, heatmap
from papercore.records import Record
from papercore.stats import bootstrap_mean, exact
from papercore.tables import Table
from self_cd.agreement import Agreement, overall, pairwise
from self_cd.answers import LABELS, Label
from self_cd.cells import Cell, sort_cells
from self_cd.verdicts import Judged, read_verdicts

__all__ = ["agreement_lines", "cell_lines", "figures", "ratings", "summarise", "tables"]

MAX_NAME = 28
"""Letters of a judge's name in a figure; models behind an endpoint have long ones."""


def summarise(records: Sequence[Record]) -> dict[str, Estimate]:
    """Shares of refusals and of degenerate answers per judge and cell, and how judges agree.

    `refusal_<judge>_<cell>`, `degenerate_...`, `helpfulness_...` where it was rated (1 to 5);
    with several runs the cell begins with the run's name. `agreement_<judge>_<judge>` and
    `kappa_...` of every two judges, `krippendorff_alpha` of all. `failed` counts verdicts that
    could not be had.
    """
    found: dict[str, Estimate] = {}
    verdicts = read_verdicts(records)
    for judge, run, cell, judged in _cells(verdicts):
        name = f"{judge}_{run}{'_' if run else ''}{cell.name}"
        found[f"refusal_{name}"] = cell.share("refuse")
        found[f"degenerate_{name}"] = cell.share("degenerate")
        helpful = _helpfulness(judged)
        if helpful is not None:
            found[f"helpfulness_{name}"] = helpful
    given = ratings(verdicts)
    for pair in pairwise(given):
        found[f"agreement_{pair.first}_{pair.second}"] = pair.same
        found[f"kappa_{pair.first}_{pair.second}"] = pair.kappa
    if len(given) > 1:
        found["krippendorff_alpha"] = overall(given)
    failed = sum(one.error is not None for one in verdicts)
    if failed:
        found["failed"] = exact(failed, len(verdicts))
    return found


def figures(records: Sequence[Record], into: Path) -> list[Figure]:
    """For each data set and side the refusals by method and judge; and how every two agree."""
    verdicts = read_verdicts(records)
    drawn = [
        _side_figure(dataset, side, cells, into)
        for (dataset, side), cells in _by_side(verdicts).items()
    ]
    given = ratings(verdicts)
    return [*drawn, _agreement_figure(given, into)] if len(given) > 1 else drawn


def tables(records: Sequence[Record]) -> list[Table]:
    """Refusals by judge; agreement of every two judges with the counts behind it."""
    verdicts = read_verdicts(records)
    if not verdicts:
        return []
    refusals = Table(
        "judges",
        "Refusals by judge",
        "Intervals: 95 %, Wilson. Degenerate answers are neither refusals nor answers. "
        "Helpfulness: mean of the rated answers, 1 to 5.",
        ("judge", "run", "data set", "side", "method", "n", "refused", "lo", "hi", "degenerate",
         "helpfulness"),
        [_row(*one) for one in _cells(verdicts)],
    )  # fmt: skip
    pairs = pairwise(ratings(verdicts))
    if not pairs:
        return [refusals]
    return [refusals, _agreement_table(pairs)]


def ratings(verdicts: Sequence[Judged]) -> dict[str, dict[Hashable, Label]]:
    """Judge -> answer -> label, judges by name."""
    found: dict[str, dict[Hashable, Label]] = {}
    for one in verdicts:
        if one.judge is not None and one.label is not None:
            found.setdefault(one.judge, {})[(one.run, one.record)] = one.label
    return dict(sorted(found.items()))


def cell_lines(verdicts: Sequence[Judged]) -> list[list[str]]:
    """Refusals by judge as rows of text, with a head, harmful questions beside harmless ones."""
    head = ["judge", "run", "data set", "side", "method", "refused", "95 % interval", "degenerate",
            "n"]  # fmt: skip
    rows = [head]
    for judge, run, cell, judged in _cells(verdicts):
        refused, broken = cell.share("refuse"), cell.share("degenerate")
        where = [judge, run, cell.dataset, cell.side, cell.who]
        shares = [percent(refused.value), interval(refused), percent(broken.value)]
        helpful = _helpfulness(judged)
        rated = [] if helpful is None else [f"helpfulness {helpful.text()}"]
        rows.append([*where, *shares, str(refused.n), *rated])
    widest = max(len(row) for row in rows)
    one_run = not any(row[1] for row in rows[1:])
    whole = [[*row, *[""] * (widest - len(row))] for row in rows]
    return [[row[0], *row[2:]] if one_run else row for row in whole]


def agreement_lines(verdicts: Sequence[Judged]) -> list[str]:
    """How judges agree, one line for every two and one for all; always with n."""
    given = ratings(verdicts)
    if len(given) < 2:
        return []
    lines = [
        f"{pair.first} and {pair.second}: {percent(pair.same.value)} the same "
        f"[{interval(pair.same)}], kappa {_kappa(pair.kappa)}, n={pair.n}"
        for pair in pairwise(given)
    ]
    alpha = overall(given)
    return [*lines, f"all: Krippendorff's alpha {_kappa(alpha)}, n={alpha.n}"]


def percent(share: float) -> str:
    """A share as a person reads it."""
    return "-" if math.isnan(share) else f"{100 * share:.1f} %"


def interval(found: Estimate) -> str:
    """The bounds of a share in percent."""
    return f"{100 * found.lo:.1f} to {100 * found.hi:.1f}" if found.n else "-"


def _kappa(found: Estimate) -> str:
    if math.isnan(found.value):
        return "undefined, as only one label was given" if found.n else "undefined"
    return f"{found.value:.2f} [{found.lo:.2f} to {found.hi:.2f}]"


def _cells(verdicts: Sequence[Judged]) -> Iterator[tuple[str, str, Cell, list[Judged]]]:
    """Judge, run (empty if there is one only), cell, and the cell's verdicts."""
    several = len({one.run for one in verdicts}) > 1
    groups: dict[tuple[str, str], list[Judged]] = {}
    for one in verdicts:
        groups.setdefault((str(one.judge), one.run), []).append(one)
    for (judge, run), judged in sorted(groups.items()):
        for cell in sort_cells([one.answer for one in judged]):
            key = (cell.method, cell.alpha, cell.dataset, cell.side)
            within = [j for j in judged if (j.method, j.alpha, j.dataset, j.side) == key]
            yield judge, run if several else "", cell, within


def _helpfulness(judged: Sequence[Judged]) -> Estimate | None:
    rated = [one.fact("helpfulness") for one in judged]
    numbers = [float(value) for value in rated if isinstance(value, int | float)]
    return bootstrap_mean(np.array(numbers)) if numbers else None


def _row(judge: str, run: str, cell: Cell, judged: Sequence[Judged]) -> list[str | int | float]:
    refused, helpful = cell.share("refuse"), _helpfulness(judged)
    numbers = (refused.value, refused.lo, refused.hi, cell.share("degenerate").value)
    rated = "" if helpful is None else helpful.value
    return [judge, run, cell.dataset, cell.side, cell.who, refused.n, *numbers, rated]


def _agreement_table(pairs: Sequence[Agreement]) -> Table:
    kinds = [(x, y) for x in LABELS for y in LABELS]
    return Table(
        "agreement",
        "Agreement of judges",
        "Over the answers that both judged. Kappa: Cohen's, with a bootstrap interval. The last "
        "columns count answers by the first and the second judge's label.",
        ("first", "second", "n", "same", "lo", "hi", "kappa", "kappa lo", "kappa hi",
         *(f"{x}, {y}" for x, y in kinds)),
        [
            (pair.first, pair.second, pair.n, *_bounds(pair.same), *_bounds(pair.kappa),
             *(pair.counts[kind] for kind in kinds))
            for pair in pairs
        ],
    )  # fmt: skip


def _bounds(found: Estimate) -> tuple[float, float, float]:
    return found.value, found.lo, found.hi


Side = tuple[str, str]
Rows = dict[str, dict[str, float]]


def _by_side(verdicts: Sequence[Judged]) -> dict[Side, Rows]:
    """Data set and side -> method -> judge -> share of refusals."""
    found: dict[Side, Rows] = {}
    for judge, run, cell, _ in _cells(verdicts):
        row = f"{cell.who}{', ' if run else ''}{run}"
        rows = found.setdefault((cell.dataset, cell.side), {})
        rows.setdefault(row, {})[judge] = cell.share("refuse").value
    return found


def _side_figure(dataset: str, side: str, cells: Rows, into: Path) -> Figure:
    judges = sorted({judge for row in cells.values() for judge in row})
    frame = Frame(
        f"refusals_{dataset}_{side}".replace("/", "_"),
        f"Refusals by judge: {dataset}, {side}",
        "Share of the answers that each judge calls a refusal; blank where it judged none.",
        y="method",
        y_range=(0.0, 1.0),
    )
    values = [[row.get(judge, math.nan) for judge in judges] for row in cells.values()]
    return heatmap(
        into, frame, rows=list(cells), columns=[_short(one) for one in judges], values=values
    )


def _agreement_figure(given: Mapping[str, Mapping[Hashable, Label]], into: Path) -> Figure:
    judges = list(given)
    same = {(pair.first, pair.second): pair.same.value for pair in pairwise(given)}
    values = [
        [1.0 if a == b else same.get((a, b), same.get((b, a), math.nan)) for b in judges]
        for a in judges
    ]
    frame = Frame(
        "agreement",
        "Agreement of judges",
        "Share of the answers with the same label, over those that both judged.",
        y="judge",
        y_range=(0.0, 1.0),
    )
    names = [_short(one) for one in judges]
    return heatmap(into, frame, rows=names, columns=names, values=values)


def _short(name: str) -> str:
    return name if len(name) <= MAX_NAME else f"{name[: MAX_NAME - 1]}…"
