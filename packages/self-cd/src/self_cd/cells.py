"""Answers sorted into cells, and what a cell comes to. No torch here.

    cells = sort_cells(answers)
    refusals = {cell.name: cell.share("refuse") for cell in cells}

A cell is one method at one strength on one side of one data set.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from papercore.claims import Estimate
from papercore.stats import paired_difference, wilson
from self_cd.answers import Answer, Label
from self_cd.items import SIDES, Side

__all__ = ["PLAIN_ALPHA", "Cell", "difference", "sort_cells", "who"]

PLAIN_ALPHA = 1.0
"""The strength at which the contrast is the plain context alone."""


@dataclass(frozen=True)
class Cell:
    """Answers of one method at one strength on one side of one data set; failed ones are apart."""

    method: str
    alpha: float | None
    dataset: str
    side: Side
    answers: tuple[Answer, ...]
    num_failed: int = 0

    @property
    def who(self) -> str:
        """Method and strength, as figures and tables name them."""
        return who(self.method, self.alpha)

    @property
    def name(self) -> str:
        """As a part of the names of metrics."""
        strength = "" if self.alpha is None else f"_a{self.alpha:g}"
        return f"{self.dataset}_{self.side}_{self.method.replace('-', '_')}{strength}"

    def share(self, label: Label) -> Estimate:
        """Share of the answers with a verdict, with its Wilson interval."""
        judged = [answer.label for answer in self.answers if answer.label is not None]
        return wilson(judged.count(label), len(judged))


def who(method: str, alpha: float | None) -> str:
    """Method and strength, as figures and tables name them."""
    return method if alpha is None else f"{method} {alpha:g}"


def sort_cells(answers: Sequence[Answer]) -> list[Cell]:
    """All cells, harmless before harmful ones; strengths in order."""
    kept: dict[tuple[str, float | None, str, Side], list[Answer]] = {}
    for answer in answers:
        key = (answer.method, answer.alpha, answer.item.dataset, answer.item.side)
        kept.setdefault(key, []).append(answer)
    return sorted((_cell(*key, found) for key, found in kept.items()), key=_order)


def difference(ours: Cell, theirs: Cell, label: Label = "refuse") -> Estimate | None:
    """How much larger our share is, paired over the questions that both answered."""
    other = {a.item.id: a.label for a in theirs.answers if a.label is not None}
    pairs = [
        (float(a.label == label), float(other[a.item.id] == label))
        for a in ours.answers
        if a.label is not None and a.item.id in other
    ]
    return paired_difference([a for a, _ in pairs], [b for _, b in pairs]) if pairs else None


def _cell(
    method: str, alpha: float | None, dataset: str, side: Side, answers: Sequence[Answer]
) -> Cell:
    good = tuple(answer for answer in answers if answer.error is None)
    return Cell(method, alpha, dataset, side, good, len(answers) - len(good))


def _order(cell: Cell) -> tuple[str, int, str, float]:
    alpha = -1.0 if cell.alpha is None else cell.alpha
    return (cell.dataset, SIDES.index(cell.side), cell.method, alpha)
