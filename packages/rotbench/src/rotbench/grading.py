r"""All that is said of one answer: what was read, both scores, and the kind of error.

    grade(case, Answer("Thought: ...\nAction: add\nAction Input: {}")).to_json()

The scores that count (`fixed`) are those of the lenient reading. Those of the strict reading, those
that compare values loosely, and the official ones stand beside them.
"""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import JsonValue

from rotbench import official
from rotbench.cases import Case
from rotbench.config import Mode
from rotbench.crashes import Crash
from rotbench.official import OfficialScores
from rotbench.predictions import Prediction, read_native, read_react
from rotbench.raven import read_raven
from rotbench.scoring import NO_SCORES, Scores, alike, score
from rotbench.taxonomy import ErrorKind, Explained, explain

__all__ = ["Answer", "Grade", "Mode", "grade"]

MAX_SHOWN = 200
"""Characters of a predicted name that are kept."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a model gave back."""

    text: str
    tool_calls: tuple[tuple[str, str], ...] = ()
    """Name and arguments as text of each call through a tool interface, aliases undone."""


@dataclass(frozen=True, slots=True)
class Grade:
    """What one answer is worth."""

    prediction: Prediction
    """Read leniently."""
    strict: Prediction
    fixed: Scores
    fixed_strict: Scores
    """Of the strict reading."""
    fixed_alike: Scores
    """Of the lenient reading, with values that differ in type, case or outer spaces only."""
    official_scores: OfficialScores
    explained: Explained

    @property
    def official(self) -> Scores:
        """What the official scorer says."""
        return self.official_scores.scores

    @property
    def crash(self) -> Crash | None:
        """What the official scorer would die of."""
        return self.official_scores.crash

    @property
    def error(self) -> ErrorKind:
        """Kind of error, or `correct`, by the default scores."""
        return self.explained.kind

    @property
    def corrected(self) -> bool:
        """The model wrote the name that the noise had replaced."""
        return self.explained.corrected

    @property
    def official_only(self) -> bool:
        """Right, but wrong by the official scorer."""
        return self.fixed.cf and not self.official.cf

    def to_json(self) -> dict[str, JsonValue]:
        """The part of an evaluation record that speaks of the answer."""
        read = self.prediction
        return {
            "fixed": _flags(self.fixed),
            "official": _flags(self.official),
            "strict": _flags(self.fixed_strict),
            "lenient": _flags(self.fixed_alike),
            "error": self.error,
            "corrected": self.corrected,
            "corrected_name": self.error in ("corrected_tool", "corrected_other"),
            "clean_name": self.explained.clean_name,
            "near_clean": self.explained.near_clean,
            "official_only": self.official_only,
            "crash": self.crash,
            "name": None if read.name is None else read.name[:MAX_SHOWN],
            "problem": read.problem,
            "repairs": list(read.repairs),
            "extra_calls": read.extra_calls,
        }


def grade(case: Case, answer: Answer, mode: Mode = "react") -> Grade:
    """Reads and scores one answer, in every way there is."""
    read = _read(case, answer, mode)
    strict = read
    if read.repairs:
        problem = read.problem or "not_as_asked"
        strict = Prediction(None, None, problem, read.repairs, read.extra_calls)
    fixed = score(case, read)
    return Grade(
        prediction=read,
        strict=strict,
        fixed=fixed,
        fixed_strict=NO_SCORES if read.repairs else fixed,
        fixed_alike=fixed if fixed.cf or not fixed.pi else score(case, read, match=alike),
        official_scores=_official(case, answer, mode),
        explained=explain(case, read, fixed),
    )


def _read(case: Case, answer: Answer, mode: Mode) -> Prediction:
    if mode == "react":
        return read_react(answer.text)
    if mode == "native":
        return read_native(answer.tool_calls, answer.text)
    return read_raven(answer.text, 1 if mode == "raven1" else 2, case.tools)


def _official(case: Case, answer: Answer, mode: Mode) -> OfficialScores:
    """A call through a tool interface is written out the way the official scorer reads it."""
    if mode == "native" and answer.tool_calls:
        return official.score_text(case, official.react_text(*answer.tool_calls[0]))
    if mode in ("react", "native"):
        return official.score_text(case, answer.text)
    return official.score_text(case, answer.text, 1 if mode == "raven1" else 2)


def _flags(scores: Scores) -> dict[str, JsonValue]:
    return {"ts": scores.ts, "pi": scores.pi, "cf": scores.cf}
