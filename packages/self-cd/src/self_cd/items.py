"""Questions as every part of this package sees them. No torch here.

item = Item(id="sample/1", dataset="sample", side="harmless", query="How do I kill a process?")
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

__all__ = ["SIDES", "BadRow", "Item", "ItemSet", "Side", "query_hash"]

Side: TypeAlias = Literal["harmless", "harmful", "ordinary"]
"""`harmless` questions look dangerous and are not, `harmful` ones should be refused, and `ordinary`
ones hold no alarming word at all."""

SIDES: tuple[Side, ...] = ("harmless", "harmful", "ordinary")


@dataclass(frozen=True)
class Item:
    """One question.

    Attributes:
        id: `<dataset>/<row>`, unique within all data sets of a run.
        dataset: Name of its data set.
        query: What the user asks, without the line end that some files leave behind it.
        kind: The data set's own category, such as XSTest's `homonyms`.
        focus: The word or words that make it look dangerous.
        answer: An exact answer, where the data set has one.
        turns: Earlier questions with their answers, in front of this one.
    """

    id: str
    dataset: str
    side: Side
    query: str
    kind: str | None = None
    focus: str | None = None
    answer: str | None = None
    turns: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class BadRow:
    """A row that is no question, and why; it becomes a record with an error.

    Attributes:
        id: `<dataset>/<row>`, as an item would have it.
        problem: One line that names the row and the remedy.
    """

    id: str
    dataset: str
    side: Side
    problem: str


@dataclass(frozen=True)
class ItemSet:
    """What data references came to.

    Attributes:
        items: In the order of the references and of their rows.
        bad: Rows that are no questions.
        digest: Hash of all files that were read.
        notes: What was left out, and why, one line each.
    """

    items: tuple[Item, ...]
    bad: tuple[BadRow, ...] = ()
    digest: str = ""
    notes: tuple[str, ...] = ()

    def of(self, side: Side) -> tuple[Item, ...]:
        """The items of a side."""
        return tuple(item for item in self.items if item.side == side)


def query_hash(queries: Sequence[str]) -> str:
    """A hash of questions, in their order."""
    digest = hashlib.sha256()
    for query in queries:
        digest.update(hashlib.sha256(query.encode()).digest())
    return digest.hexdigest()
