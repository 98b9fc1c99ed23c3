"""Answers as records: what `run`, `sweep` and the miniature write, and what judges and tables read.

No torch here.

    record = Answer(item=item, method="self-cd", alpha=2.5, text="Use kill.", ...).record()
    answers = read_answers(records)
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias, cast

from pydantic import JsonValue

from papercore.records import Record
from self_cd.items import Item, Side

__all__ = ["LABELS", "Answer", "Label", "answer_id", "is_answer", "read_answers"]

Label: TypeAlias = Literal["refuse", "comply", "degenerate"]
"""`degenerate` answers are empty, endless repetition or no language: neither of the other two."""

LABELS: tuple[Label, ...] = ("refuse", "comply", "degenerate")

PREFIX = "answer/"


@dataclass(frozen=True)
class Answer:
    """One answer with where it came from.

    Attributes:
        item: The question.
        method: Who answered.
        alpha: Strength of the contrast; None for methods with one context.
        text: The answer; empty if `error` says why there is none.
        truncated: Whether it ended at the largest number of tokens.
        provenance: Model, hash of the prompts and the template, settings off their defaults.
        label: What `judge` made of it; None if nobody judged it.
        judge: Name and version of the judge, such as `keyword/1`.
    """

    item: Item
    method: str
    alpha: float | None
    text: str = ""
    truncated: bool = False
    new_tok: int = 0
    prompt_tok: int = 0
    provenance: tuple[tuple[str, JsonValue], ...] = ()
    label: Label | None = None
    judge: str | None = None
    error: str | None = None

    @property
    def id(self) -> str:
        """Id of its record."""
        return answer_id(self.item.id, self.method, self.alpha)

    def judged(self, label: Label, judge: str) -> Answer:
        """This answer with a verdict."""
        return replace(self, label=label, judge=judge)

    def record(self) -> Record:
        """As a record; an answer that failed has status `error`."""
        item = self.item
        data: dict[str, JsonValue] = {
            "item": item.id,
            "dataset": item.dataset,
            "side": item.side,
            "kind": item.kind,
            "focus": item.focus,
            "query": item.query,
            "expected": item.answer,
            "turns": [list(turn) for turn in item.turns],
            "method": self.method,
            "alpha": self.alpha,
            "answer": self.text,
            "truncated": self.truncated,
            "new_tok": self.new_tok,
            "prompt_tok": self.prompt_tok,
            "provenance": dict(self.provenance),
            "label": self.label,
            "judge": self.judge,
        }
        status: Literal["ok", "error"] = "ok" if self.error is None else "error"
        return Record(id=self.id, status=status, error=self.error, data=data)


def answer_id(item: str, method: str, alpha: float | None) -> str:
    """Id of the record of an answer."""
    strength = "" if alpha is None else f"@{alpha:g}"
    return f"{PREFIX}{method}{strength}/{item}"


def is_answer(record: Record) -> bool:
    """Whether a record is an answer."""
    return record.id.startswith(PREFIX)


def read_answers(records: Iterable[Record]) -> list[Answer]:
    """The answers among records, those that failed included, in their order."""
    return [_read(record) for record in records if is_answer(record)]


def _read(record: Record) -> Answer:
    data = record.data
    item = Item(
        id=cast("str", data["item"]),
        dataset=cast("str", data["dataset"]),
        side=cast("Side", data["side"]),
        query=cast("str", data["query"]),
        kind=cast("str | None", data["kind"]),
        focus=cast("str | None", data["focus"]),
        answer=cast("str | None", data["expected"]),
        turns=tuple((one[0], one[1]) for one in cast("Sequence[Sequence[str]]", data["turns"])),
    )
    return Answer(
        item=item,
        method=cast("str", data["method"]),
        alpha=cast("float | None", data["alpha"]),
        text=cast("str", data["answer"]),
        truncated=cast("bool", data["truncated"]),
        new_tok=cast("int", data["new_tok"]),
        prompt_tok=cast("int", data["prompt_tok"]),
        provenance=tuple(cast("dict[str, JsonValue]", data["provenance"]).items()),
        label=cast("Label | None", data["label"]),
        judge=cast("str | None", data["judge"]),
        error=record.error,
    )
