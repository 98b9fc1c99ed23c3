"""The paired difference between two evaluations of the same questions. No torch here.

    other = read_other(Path("runs/eval-rl"), data_hash=prepared.digest, split="dev", name="rl")
    found = compare(answers, other)

Both runs answered the same questions, so the questions that only one of them got right say more
than the two accuracies do.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from pydantic import JsonValue

from papercore.claims import Estimate
from papercore.errors import ConfigError
from papercore.records import Record, read_records
from papercore.runs import read_identity
from papercore.stats import mcnemar, paired_difference
from r3.eval_answers import AGAINST_PREFIX, Answer, read_answers
from r3.eval_scores import by_question

__all__ = ["Against", "Comparison", "compare", "names_of", "read_against", "read_other"]


@dataclass(frozen=True)
class Against:
    """Another evaluation.

    Attributes:
        name: Of its run folder.
        model: What was evaluated.
        right: Question -> share of right answers.
    """

    name: str
    model: str
    right: Mapping[str, float]

    def record(self) -> Record:
        """As a record."""
        right: dict[str, JsonValue] = {**self.right}
        data: dict[str, JsonValue] = {"name": self.name, "model": self.model, "right": right}
        return Record(id=f"{AGAINST_PREFIX}{self.name}", data=data)


@dataclass(frozen=True)
class Comparison:
    """Ours against another one, over the questions that both answered.

    Attributes:
        other: The other one.
        ours: Our accuracy on these questions.
        theirs: Theirs.
        difference: Ours minus theirs, with its interval.
        only_ours: Questions that we got right more often.
        only_theirs: Questions that they got right more often.
        p_value: McNemar's exact test; NaN where a question has several answers.
    """

    other: Against
    ours: float
    theirs: float
    difference: Estimate
    only_ours: int
    only_theirs: int
    p_value: float


def read_other(folder: Path, *, data_hash: str, split: str, name: str) -> Against:
    """Reads another evaluation of the same split of the same data.

    Args:
        name: What to call it.

    Raises:
        ConfigError: It is another kind of run, or tested other questions.
        DataError: It is no run folder.
    """
    identity = read_identity(folder)
    if (identity.package, identity.verb) != ("r3", "eval"):
        raise ConfigError(
            f"--against {folder} is a run of `{identity.package} {identity.verb}`: give run "
            "folders of `r3 eval`"
        )
    theirs = (identity.data_hash, identity.config.get("split"))
    if theirs != (data_hash, split):
        what = "another split" if theirs[0] == data_hash else "other prepared data"
        raise ConfigError(f"--against {folder} tested {what}: nothing can be paired")
    answers = read_answers(read_records(folder / "records.jsonl"))
    right = by_question(one for one in answers if one.error is None)
    if not right:
        raise ConfigError(f"--against {folder} holds no answers: go on with it by --resume first")
    return Against(name, str(identity.config.get("model")), right)


def names_of(folders: Sequence[Path]) -> list[str]:
    """A short name of each folder; equal ones are numbered."""
    names: list[str] = []
    for folder in folders:
        name = folder.resolve().name
        alike = sum(one == name or one.startswith(f"{name}-") for one in names)
        names.append(f"{name}-{alike + 1}" if name in names else name)
    return names


def read_against(records: Iterable[Record]) -> list[Against]:
    """The other evaluations among records."""
    return [
        Against(
            name=str(record.data["name"]),
            model=str(record.data["model"]),
            right=cast("Mapping[str, float]", record.data["right"]),
        )
        for record in records
        if record.id.startswith(AGAINST_PREFIX)
    ]


def compare(answers: Sequence[Answer], other: Against) -> Comparison | None:
    """Ours against another one; None if no question was answered by both."""
    right = by_question(one for one in answers if one.error is None)
    both = [name for name in right if name in other.right]
    if not both:
        return None
    ours, theirs = [right[name] for name in both], [other.right[name] for name in both]
    binary = set(ours) | set(theirs) <= {0.0, 1.0}
    return Comparison(
        other=other,
        ours=sum(ours) / len(both),
        theirs=sum(theirs) / len(both),
        difference=paired_difference(ours, theirs),
        only_ours=sum(a > b for a, b in zip(ours, theirs, strict=True)),
        only_theirs=sum(a < b for a, b in zip(ours, theirs, strict=True)),
        p_value=mcnemar(ours, theirs).p_value if binary else math.nan,
    )
