"""Runs side by side: rows of a table, and paired differences against plain. No torch here.

rows = rows_of(verdicts)  # of one judge
compared = differences(rows)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from papercore.claims import Estimate
from papercore.stats import holm, mcnemar, paired_difference
from self_cd.cells import PLAIN_ALPHA, Cell, sort_cells
from self_cd.items import Side
from self_cd.verdicts import Judged

__all__ = ["Difference", "Row", "differences", "rows_of", "without_verdict"]


@dataclass(frozen=True)
class Row:
    """One method at one strength in one run.

    Attributes:
        name: Method and strength; with model and run where these are needed to tell it apart.
        cells: Data set and side -> counts.
    """

    name: str
    model: str
    judged: tuple[Judged, ...]
    cells: Mapping[tuple[str, Side], Cell]

    @property
    def is_plain(self) -> bool:
        """Whether this is the plain context alone, which others are compared with."""
        first = self.judged[0]
        return first.method == "plain" or (first.method, first.alpha) == ("self-cd", PLAIN_ALPHA)

    @property
    def run_hash(self) -> str:
        """Hash of its run."""
        return self.judged[0].run_hash

    @property
    def num_without(self) -> int:
        """Answers without a verdict."""
        return sum(without_verdict(cell) for cell in self.cells.values())

    def judged_on(self, side: Side) -> bool:
        """Whether a question of this side has a verdict."""
        return any(one.side == side and one.label is not None for one in self.judged)

    def refusals(self, dataset: str, side: Side) -> dict[tuple[str, str], float]:
        """Question -> 1 for a refusal, 0 for anything else, where there is a verdict."""
        return {
            (one.item, one.asked): float(one.label == "refuse")
            for one in self.judged
            if (one.dataset, one.side) == (dataset, side) and one.label is not None
        }


@dataclass(frozen=True)
class Difference:
    """A row minus a plain one, over the questions that both answered.

    Attributes:
        estimate: Difference of the shares of refusals; its n counts pairs.
        p_value: McNemar's exact test.
        holm: The same, adjusted over all differences of the table.
    """

    row: Row
    against: Row
    dataset: str
    side: Side
    estimate: Estimate
    p_value: float
    holm: float


def without_verdict(cell: Cell) -> int:
    """Answers that failed or that nobody judged."""
    return cell.num_failed + sum(answer.label is None for answer in cell.answers)


def rows_of(verdicts: Sequence[Judged]) -> list[Row]:
    """A row per run, method and strength, in the order in which they come."""
    groups: dict[tuple[str, str, float | None], list[Judged]] = {}
    for one in verdicts:
        groups.setdefault((one.run_hash, one.method, one.alpha), []).append(one)
    names = _names(list(groups.values()))
    return [
        Row(
            name,
            _model(judged),
            tuple(judged),
            {(cell.dataset, cell.side): cell for cell in sort_cells([j.answer for j in judged])},
        )
        for name, judged in zip(names, groups.values(), strict=True)
    ]


def differences(rows: Sequence[Row]) -> list[Difference]:
    """Every row that is not plain itself minus a plain one with the same model and questions.

    Of several plain rows it is the one of the same run, else the one that shares most questions.
    """
    found: list[tuple[Row, Row, str, Side, Estimate, float]] = []
    for row in rows:
        against = None if row.is_plain else _plain_of(row, rows)
        if against is None:
            continue
        for dataset, side in row.cells:
            pair = _paired(row, against, dataset, side)
            if pair is not None:
                found.append((row, against, dataset, side, *pair))
    adjusted = holm([p_value for *_, p_value in found])
    return [Difference(*one, adjust) for one, adjust in zip(found, adjusted, strict=True)]


def _paired(row: Row, against: Row, dataset: str, side: Side) -> tuple[Estimate, float] | None:
    ours, theirs = row.refusals(dataset, side), against.refusals(dataset, side)
    common = sorted(ours.keys() & theirs.keys())
    if not common:
        return None
    a, b = [ours[one] for one in common], [theirs[one] for one in common]
    return paired_difference(a, b), mcnemar(a, b).p_value


def _plain_of(row: Row, rows: Sequence[Row]) -> Row | None:
    """The plain row to compare with; None if none has a question in common."""
    candidates = [
        (one.run_hash == row.run_hash, _num_common(row, one), -place, one)
        for place, one in enumerate(rows)
        if one.is_plain and one.model == row.model
    ]
    usable = [one for one in candidates if one[1]]
    return max(usable, key=lambda one: one[:3])[3] if usable else None


def _num_common(row: Row, other: Row) -> int:
    asked = {(one.item, one.asked) for one in row.judged if one.label is not None}
    return sum((one.item, one.asked) in asked for one in other.judged if one.label is not None)


def _names(groups: Sequence[Sequence[Judged]]) -> list[str]:
    """Method and strength, with as much else as tells the rows apart."""
    names = [_who(judged[0]) for judged in groups]
    models = [_model(judged) for judged in groups]
    if len(set(models)) > 1:
        names = [f"{name} {model}" for name, model in zip(names, models, strict=True)]
    names = _told_apart(names, [judged[0].run for judged in groups])
    return _told_apart(names, [judged[0].run_hash[:8] for judged in groups])


def _told_apart(names: Sequence[str], more: Sequence[str]) -> list[str]:
    """Names that occur twice get what tells them apart."""
    counts = Counter(names)
    return [
        f"{name} ({one})" if counts[name] > 1 else name
        for name, one in zip(names, more, strict=True)
    ]


def _who(one: Judged) -> str:
    return one.method if one.alpha is None else f"{one.method}@{one.alpha:g}"


def _model(judged: Sequence[Judged]) -> str:
    """Whose answers these are; answers that failed may not know."""
    known = [one.model for one in judged if one.label is not None]
    return (known or [judged[0].model])[0]
