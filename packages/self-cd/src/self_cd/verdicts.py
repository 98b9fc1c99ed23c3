"""Verdicts as records, and the run folders whose answers are judged. No torch here.

sources = read_sources([Path("runs/plain"), Path("runs/self-cd")])
judged = judged_of(answer, sources[0], "keyword/2", Verdict("refuse"))
verdicts = read_verdicts(records)
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

from pydantic import JsonValue

from papercore.errors import ConfigError, DataError
from papercore.records import Record, read_records
from papercore.runs import read_identity
from self_cd.answers import Answer, Label, read_answers
from self_cd.items import Item, Side, query_hash
from self_cd.judges import Verdict

__all__ = [
    "Judged",
    "Source",
    "answers_digest",
    "is_verdict",
    "judged_of",
    "read_source",
    "read_sources",
    "read_verdicts",
    "unique_names",
]

PREFIX = "judge/"
PACKAGE = "self_cd"


@dataclass(frozen=True)
class Source:
    """A run folder with answers.

    Attributes:
        name: Its last folder, or more of its path where two runs end alike.
        digest: Hash of what was run.
        model: Who answered, where the answers do not say.
    """

    name: str
    path: Path
    digest: str
    model: str
    answers: tuple[Answer, ...]


@dataclass(frozen=True)
class Judged:
    """What one judge made of one answer.

    Attributes:
        run: Name of the answer's run.
        run_hash: Hash of what was run, by which runs are told apart across folders.
        model: Who answered.
        record: Id of the answer's record in its run.
        asked: Hash of the question, which tells disturbed questions from those they come from.
        judge: Kind and version of the judge; None where nobody judged.
        facts: What else the judge recorded.
        perturb: Where the question was disturbed; None for a raw one.
    """

    run: str
    run_hash: str
    model: str
    record: str
    item: str
    dataset: str
    side: Side
    method: str
    alpha: float | None
    asked: str
    judge: str | None
    label: Label | None
    error: str | None = None
    facts: tuple[tuple[str, JsonValue], ...] = ()
    perturb: str | None = None

    @property
    def id(self) -> str:
        """Id of its record."""
        return f"{PREFIX}{self.judge}/{self.run}/{self.record}"

    @property
    def answer(self) -> Answer:
        """The answer without its texts, as counts need it."""
        item = Item(id=self.item, dataset=self.dataset, side=self.side, query="")
        return Answer(
            item=item,
            method=self.method,
            alpha=self.alpha,
            label=self.label,
            judge=self.judge,
            error=self.error,
        )

    def fact(self, name: str) -> JsonValue:
        """One of the facts; None if it is not there."""
        return dict(self.facts).get(name)

    def as_record(self) -> Record:
        """As a record; a verdict that failed has status `error`."""
        data: dict[str, JsonValue] = {
            "run": self.run,
            "run_hash": self.run_hash,
            "model": self.model,
            "record": self.record,
            "item": self.item,
            "dataset": self.dataset,
            "side": self.side,
            "method": self.method,
            "alpha": self.alpha,
            "asked": self.asked,
            "judge": self.judge,
            "label": self.label,
            "facts": dict(self.facts),
            "perturb": self.perturb,
        }
        status: Literal["ok", "error"] = "ok" if self.error is None else "error"
        return Record(id=self.id, status=status, error=self.error, data=data)


def judged_of(answer: Answer, source: Source, judge: str | None, verdict: Verdict) -> Judged:
    """A verdict with everything that counts and tables need."""
    origin = dict(answer.provenance)
    return Judged(
        run=source.name,
        run_hash=source.digest,
        model=str(origin.get("model", source.model)),
        record=answer.id,
        item=answer.item.id,
        dataset=answer.item.dataset,
        side=answer.item.side,
        method=answer.method,
        alpha=answer.alpha,
        asked=query_hash((answer.item.query,)),
        judge=judge,
        label=verdict.label,
        error=verdict.error,
        facts=verdict.facts,
        perturb=cast("str | None", origin.get("perturb")),
    )


def is_verdict(record: Record) -> bool:
    """Whether a record is a verdict."""
    return record.id.startswith(PREFIX)


def read_verdicts(records: Iterable[Record]) -> list[Judged]:
    """The verdicts among records, those that failed included, in their order."""
    return [_read(record) for record in records if is_verdict(record)]


def read_sources(paths: Sequence[Path], *, limit: int | None = None) -> list[Source]:
    """Run folders with their answers, at most `limit` of each side and strength.

    Raises:
        ConfigError: A folder is given twice.
        DataError: One is no run folder of this package, or holds no answers.
    """
    names = unique_names(paths)
    return [read_source(path, name, limit=limit) for path, name in zip(paths, names, strict=True)]


def read_source(path: Path, name: str, *, limit: int | None = None) -> Source:
    """One run folder with its answers.

    Raises:
        DataError: It is no run folder of this package, or holds no answers.
    """
    identity = read_identity(path)
    if identity.package != PACKAGE:
        raise DataError(f"{path}: is a run of {identity.package}, not of self-cd")
    answers = _limited(read_answers(read_records(path / "records.jsonl")), limit)
    if not answers:
        raise DataError(
            f"{path}: is a run of `self-cd {identity.verb}` and holds no answers: give one of run "
            "or sweep"
        )
    model = str(identity.config.get("model", "unknown"))
    return Source(name, path, identity.hash, model, tuple(answers))


def _limited(answers: Sequence[Answer], limit: int | None) -> list[Answer]:
    """At most so many answers of each cell, as commands limit questions: no side is lost."""
    seen: Counter[tuple[object, ...]] = Counter()
    kept = []
    for one in answers:
        cell = (one.method, one.alpha, one.item.dataset, one.item.side)
        seen[cell] += 1
        if limit is None or seen[cell] <= limit:
            kept.append(one)
    return kept


def unique_names(paths: Sequence[Path]) -> list[str]:
    """The last part of each path, and as much more as tells it from the others.

    Raises:
        ConfigError: A path is given twice.
    """
    whole = [path.expanduser().resolve() for path in paths]
    for path in whole:
        if whole.count(path) > 1:
            raise ConfigError(f"{path} is given twice: give each once")
    depths = [1] * len(whole)
    while True:
        names = ["/".join(p.parts[-n:]) for p, n in zip(whole, depths, strict=True)]
        twice = [place for place, name in enumerate(names) if names.count(name) > 1]
        if not twice:
            return names
        for place in twice:
            depths[place] += 1


def answers_digest(sources: Sequence[Source]) -> str:
    """A hash of all answers, their questions and where they come from."""
    digest = hashlib.sha256()
    for source in sources:
        for one in source.answers:
            said = (source.name, one.id, one.item.query, one.text, str(one.truncated))
            for text in said:
                digest.update(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest())
    return digest.hexdigest()


def _read(record: Record) -> Judged:
    data = record.data
    return Judged(
        run=cast("str", data["run"]),
        run_hash=cast("str", data["run_hash"]),
        model=cast("str", data["model"]),
        record=cast("str", data["record"]),
        item=cast("str", data["item"]),
        dataset=cast("str", data["dataset"]),
        side=cast("Side", data["side"]),
        method=cast("str", data["method"]),
        alpha=cast("float | None", data["alpha"]),
        asked=cast("str", data["asked"]),
        judge=cast("str", data["judge"]),
        label=cast("Label | None", data["label"]),
        error=record.error,
        facts=tuple(cast("dict[str, JsonValue]", data["facts"]).items()),
        perturb=cast("str | None", data.get("perturb")),  # not in records of earlier versions
    )
