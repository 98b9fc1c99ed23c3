"""Runs side by side: rows of a table, and paired differences. No torch here.

    rows = rows_of(verdicts)  # of one judge
    compared = differences(rows)

A row is compared with plain, over the same questions; a row with disturbed questions (`run
--perturb`) is compared with the raw row of its method, question by question.
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


Question = tuple[str, str]


@dataclass(frozen=True)
class Row:
    """One method at one strength in one run.

    Attributes:
        name: Method, strength and perturbation; with model and run where these are needed to tell
            it apart.
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
    def perturb(self) -> str | None:
        """Where its questions were disturbed; None for raw ones."""
        return _perturb(self.judged)

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

    def refusals(self, dataset: str, side: Side, *, by_id: bool) -> dict[Question, float]:
        """Question -> 1 for a refusal, 0 for anything else, where there is a verdict.

        Args:
            dataset: Of this data set.
            side: Of this side.
            by_id: Questions are the same by their id alone, whatever their words.
        """
        return {
            _question(one, by_id): float(one.label == "refuse")
            for one in self.judged
            if (one.dataset, one.side) == (dataset, side) and one.label is not None
        }


@dataclass(frozen=True)
class Difference:
    """A row minus a plain or raw one, over the questions that both answered.

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
    """Every row minus the one that it is to be compared with, if there is one.

    A raw row that is not plain itself is compared with a plain one of the same model, a disturbed
    row with the raw one of the same model, method and strength, or for want of it with a plain one
    that was disturbed alike. Of several it is the one of the same run, else the one that shares
    most questions.
    """
    found: list[tuple[Row, Row, str, Side, Estimate, float]] = []
    for row in rows:
        against = _against(row, rows)
        if against is None:
            continue
        for dataset, side in row.cells:
            pair = _paired(row, against, dataset, side)
            if pair is not None:
                found.append((row, against, dataset, side, *pair))
    adjusted = holm([p_value for *_, p_value in found])
    return [Difference(*one, adjust) for one, adjust in zip(found, adjusted, strict=True)]


def _paired(row: Row, against: Row, dataset: str, side: Side) -> tuple[Estimate, float] | None:
    by_id = _by_id(row, against)
    ours = row.refusals(dataset, side, by_id=by_id)
    theirs = against.refusals(dataset, side, by_id=by_id)
    common = sorted(ours.keys() & theirs.keys())
    if not common:
        return None
    a, b = [ours[one] for one in common], [theirs[one] for one in common]
    return paired_difference(a, b), mcnemar(a, b).p_value


def _against(row: Row, rows: Sequence[Row]) -> Row | None:
    """The row to compare with; None if none has a question in common."""
    same = [one for one in rows if one.model == row.model]
    if row.perturb is not None:
        raw = _closest(row, [one for one in same if one.perturb is None and _alike(row, one)])
        if raw is not None:
            return raw
    if row.is_plain:
        return None
    return _closest(row, [one for one in same if one.is_plain and one.perturb == row.perturb])


def _alike(row: Row, other: Row) -> bool:
    ours, theirs = row.judged[0], other.judged[0]
    return (ours.method, ours.alpha) == (theirs.method, theirs.alpha)


def _closest(row: Row, candidates: Sequence[Row]) -> Row | None:
    """The first one of the same run, else the first that shares most questions."""
    ranked = [
        (one.run_hash == row.run_hash, _num_common(row, one), -place, one)
        for place, one in enumerate(candidates)
    ]
    usable = [one for one in ranked if one[1]]
    return max(usable, key=lambda one: one[:3])[3] if usable else None


def _num_common(row: Row, other: Row) -> int:
    by_id = _by_id(row, other)
    asked = {_question(one, by_id) for one in row.judged if one.label is not None}
    return sum(_question(one, by_id) in asked for one in other.judged if one.label is not None)


def _by_id(row: Row, other: Row) -> bool:
    """Whether words differ on purpose: one of the two was disturbed."""
    return (row.perturb is None) != (other.perturb is None)


def _question(one: Judged, by_id: bool) -> Question:
    return (one.item, "" if by_id else one.asked)


def _names(groups: Sequence[Sequence[Judged]]) -> list[str]:
    """Method and strength, with as much else as tells the rows apart."""
    names = [_who(judged) for judged in groups]
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


def _who(judged: Sequence[Judged]) -> str:
    one, perturb = judged[0], _perturb(judged)
    strength = "" if one.alpha is None else f"@{one.alpha:g}"
    return f"{one.method}{strength}{'' if perturb is None else '+'}{perturb or ''}"


def _perturb(judged: Sequence[Judged]) -> str | None:
    """Where a run disturbed its questions; rows that are no questions may not know."""
    return next((one.perturb for one in judged if one.perturb is not None), None)


def _model(judged: Sequence[Judged]) -> str:
    """Whose answers these are; answers that failed may not know."""
    known = [one.model for one in judged if one.label is not None]
    return (known or [judged[0].model])[0]
