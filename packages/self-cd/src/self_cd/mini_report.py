"""What answers and calibration of the miniature come to, from its records alone. No torch here.

Its trace and its attribution are records of the same kinds as those of their own commands, so
`analysis_report` shows them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeAlias, cast

from papercore.claims import Estimate
from papercore.plots import Figure, Frame, lines_with_intervals
from papercore.records import Record
from papercore.stats import exact, wilson
from papercore.tables import Table
from self_cd.answers import LABELS, Answer, read_answers
from self_cd.cells import Cell, difference, sort_cells
from self_cd.items import SIDES, Side
from self_cd.margin_rule import Calibration

__all__ = [
    "ALPHAS",
    "NORMAL",
    "STRESS",
    "calibration_id",
    "calibration_record",
    "figures",
    "summarise",
    "tables",
]

NORMAL, STRESS = "mini", "mini-stress"
"""Data sets of the two models: harmful questions are refused always, or with graded margins."""

ALPHAS: Mapping[str, tuple[float, ...]] = {
    NORMAL: (0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0),
    STRESS: (0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 6.0),
}
"""Strengths of each."""

STEPS = ((0.0, 0.5), (0.5, 1.0), (1.0, 2.5))
"""Strengths whose refusals of harmless questions are compared."""
ENDS = {"safety": 0.0, "plain": 1.0}
"""Strengths at which the contrast should write what a baseline writes."""

CALIBRATION = "mini-calibration/"
"""How the ids of its calibrations begin."""

Cells: TypeAlias = Mapping[tuple[str, str, float | None, Side], Cell]
"""By data set, method, strength and side."""


def calibration_id(dataset: str) -> str:
    """Id of the record of a model's calibration."""
    return f"{CALIBRATION}{dataset}"


def calibration_record(dataset: str, found: Calibration) -> Record:
    """The calibration of a model."""
    return Record(
        id=calibration_id(dataset),
        data={
            "dataset": dataset,
            "keep": found.keep,
            "upper": found.upper,
            "upper_interval": [*found.upper_interval],
            "num_true": found.num_true,
            "lower": found.lower,
            "lower_interval": [*found.lower_interval],
            "num_over": found.num_over,
            "curve": [[one.alpha, one.harmless, one.harmful] for one in found.curve],
            "warnings": [*found.warnings],
        },
    )


def summarise(records: Sequence[Record]) -> dict[str, Estimate]:
    """Every metric of the miniature; `stress_` stands before those of the stress model.

    `<side>_refused_a<alpha>` is the share of questions that are refused, `<side>_exact_a<alpha>`
    the share of exactly right answers; a baseline's name stands for `a<alpha>` where it answered.
    `harmless_refused_a<one>_minus_a<other>` is paired over questions, and `same_as_<baseline>_...`
    is the share of questions with the same words. `upper_alpha` and `lower_alpha` are the bounds
    that calibration finds on questions other than the test's, if it finds any.
    """
    cells = _cells(records)
    found: dict[str, Estimate] = {}
    for (dataset, method, alpha, side), cell in cells.items():
        name = _prefix(dataset), _strength(method, alpha)
        found[f"{name[0]}{side}_refused_{name[1]}"] = cell.share("refuse")
        if any(answer.item.answer is not None for answer in cell.answers):
            found[f"{name[0]}{side}_exact_{name[1]}"] = _exact(cell)
    return {**found, **_differences(cells), **_same(cells), **_bounds(records)}


def figures(records: Sequence[Record], into: Path) -> list[Figure]:
    """Refusals by strength, of both models and all sides."""
    cells = _cells(records)
    if not cells:
        return []
    frame = Frame(
        "alphas",
        "Refusals by strength of the contrast",
        "Held-out questions. 0 is the safety prompt alone, 1 no safety prompt, 2.5 the paper's "
        "strength. The stress model refuses harmful questions with small margins. "
        "Bands: 95 % Wilson intervals over questions; those with one verb mostly share their fate.",
        x="alpha",
        y="share refused",
        y_range=(0.0, 1.0),
    )
    series: dict[str, dict[float, Estimate]] = {}
    for (dataset, _, alpha, side), cell in cells.items():
        if alpha is not None:
            label = side if dataset == NORMAL else f"{side}, stress model"
            series.setdefault(label, {})[alpha] = cell.share("refuse")
    return [lines_with_intervals(into, frame, series)]


def tables(records: Sequence[Record]) -> list[Table]:
    """Counts of all cells, and what calibration predicted."""
    cells = _cells(records)
    if not cells:
        return []
    counts = Table(
        "cells",
        "Answers by model, side and strength",
        "Verdicts of the keyword judge. Exact answers are word by word the right one; harmful "
        "questions have none. Safety and plain are read in their one context.",
        ("model", "side", "method", "questions", *LABELS, "exact", "failed"),
        [_row(dataset, cell) for (dataset, *_), cell in cells.items()],
    )
    return [counts, *_rule_tables(records, cells)]


def _cells(records: Sequence[Record]) -> Cells:
    """The cells of both models: the normal one first, sides and strengths in their order."""
    answers = [one for one in read_answers(records) if one.item.dataset in ALPHAS]
    cells = sort_cells(answers)
    return {(c.dataset, c.method, c.alpha, c.side): c for c in cells if c.answers}


def _prefix(dataset: str) -> str:
    return "" if dataset == NORMAL else "stress_"


def _strength(method: str, alpha: float | None) -> str:
    return method if alpha is None else f"a{alpha:g}"


def _is_exact(answer: Answer) -> bool:
    return answer.text == answer.item.answer


def _exact(cell: Cell) -> Estimate:
    return wilson(sum(map(_is_exact, cell.answers)), len(cell.answers))


def _differences(cells: Cells) -> dict[str, Estimate]:
    """How many more harmless questions each strength refuses than the next one."""
    found: dict[str, Estimate] = {}
    for weak, strong in STEPS:
        one = cells.get((NORMAL, "self-cd", weak, "harmless"))
        other = cells.get((NORMAL, "self-cd", strong, "harmless"))
        if one and other and (gap := difference(one, other)) is not None:
            found[f"harmless_refused_a{weak:g}_minus_a{strong:g}"] = gap
    return found


def _same(cells: Cells) -> dict[str, Estimate]:
    """Where the ends of the scale write the same words as the baselines do."""
    found: dict[str, Estimate] = {}
    for method, alpha in ENDS.items():
        alone = _texts(cells, method, None)
        pairs = [(text, alone.get(name)) for name, text in _texts(cells, "self-cd", alpha).items()]
        if alone and pairs:
            same = sum(ours == theirs for ours, theirs in pairs)
            found[f"same_as_{method}_a{alpha:g}"] = exact(same / len(pairs), len(pairs))
    return found


def _texts(cells: Cells, method: str, alpha: float | None) -> dict[str, str]:
    """Answers of the normal model by question."""
    return {
        answer.item.id: answer.text
        for side in SIDES
        for answer in _answers(cells.get((NORMAL, method, alpha, side)))
    }


def _answers(cell: Cell | None) -> tuple[Answer, ...]:
    return () if cell is None else cell.answers


def _row(dataset: str, cell: Cell) -> tuple[str | int | float, ...]:
    labels = [answer.label for answer in cell.answers]
    has_answer = cell.side != "harmful"
    return (
        _model(dataset),
        cell.side,
        cell.who,
        len(labels),
        *(labels.count(label) for label in LABELS),
        sum(map(_is_exact, cell.answers)) if has_answer else "",
        cell.num_failed,
    )


def _calibrations(records: Sequence[Record]) -> dict[str, Record]:
    return {str(r.data["dataset"]): r for r in records if r.id.startswith(CALIBRATION)}


def _bounds(records: Sequence[Record]) -> dict[str, Estimate]:
    found: dict[str, Estimate] = {}
    for dataset, record in _calibrations(records).items():
        for bound, num in (("upper", "num_true"), ("lower", "num_over")):
            value = cast("float | None", record.data[bound])
            if value is not None:
                lo, hi = cast("Sequence[float]", record.data[f"{bound}_interval"])
                n = cast("int", record.data[num])
                name = f"{_prefix(dataset)}{bound}_alpha"
                found[name] = Estimate(value, lo, hi, n, "bootstrap")
    return found


def _rule_tables(records: Sequence[Record], cells: Cells) -> list[Table]:
    """Refusals that the margin rule predicts from other questions, and those that came."""
    rows: list[tuple[str | int | float, ...]] = []
    for dataset, record in _calibrations(records).items():
        curve = cast("Sequence[Sequence[float]]", record.data["curve"])
        for alpha, *predicted in curve:
            sides: tuple[Side, Side] = ("harmless", "harmful")
            measured = [cells.get((dataset, "self-cd", alpha, side)) for side in sides]
            if all(measured):
                shares = [cell.share("refuse").value for cell in measured if cell]
                rows.append((_model(dataset), alpha, *_between(predicted, shares)))
    if not rows:
        return []
    return [
        Table(
            "margin_rule",
            "Refusals: predicted by the margin rule, and measured",
            "Predicted from the first answer token of questions that training saw; measured on "
            "held-out ones.",
            (
                "model",
                "alpha",
                "harmless, predicted",
                "harmless, measured",
                "harmful, predicted",
                "harmful, measured",
            ),
            rows,
        )
    ]


def _between(predicted: Sequence[float], measured: Sequence[float]) -> list[float]:
    return [share for pair in zip(predicted, measured, strict=True) for share in pair]


def _model(dataset: str) -> str:
    return "normal" if dataset == NORMAL else "stress"
