"""Judges: does an answer refuse, comply, or do neither? No torch here.

    verdicts = KeywordJudge().judge(answers)

`keyword` are rules, `classifier` a sequence classifier, `llm` any model that can be asked, and
`sheet` lets people judge. All give the three classes of `answers.Label`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from pydantic import JsonValue

from self_cd.answers import Answer, Label

__all__ = ["Judge", "Verdict"]


@dataclass(frozen=True)
class Verdict:
    """What a judge makes of an answer.

    Attributes:
        label: None if the judge failed.
        error: Why it failed.
        facts: What else there is to record, such as a score or how much the judge did not see.
        gave_up: The judge's backend takes no more answers for now.
    """

    label: Label | None = None
    error: str | None = None
    facts: tuple[tuple[str, JsonValue], ...] = ()
    gave_up: bool = False


class Judge(Protocol):
    """Whoever judges answers."""

    @property
    def name(self) -> str:
        """Kind and version, and the model if there is one, such as `keyword/2`."""
        ...

    def judge(self, answers: Sequence[Answer]) -> list[Verdict]:
        """A verdict for every answer, in order; one that fails yields an error, no exception."""
        ...
