"""`rotbench score`: score answers that were written elsewhere."""

from __future__ import annotations

import hashlib
from importlib import metadata
from pathlib import Path

from papercore.config import RunFlags
from papercore.records import Record
from papercore.report import conclude
from papercore.runs import Run, check_folder
from rotbench.answer_files import Given, read_answers
from rotbench.answers import failed, graded
from rotbench.config import ScoreConfig
from rotbench.data import load_cases
from rotbench.evaluate import tell
from rotbench.grading import Answer
from rotbench.tasks import Task, order

__all__ = ["run", "score"]

FOLDER = Path("runs") / "rotbench-score"
ADVICE = "their answers are missing in the file: ask for them where it comes from, and score again"


def run(config: ScoreConfig, flags: RunFlags) -> int:
    """Scores, reports, prints the table of `eval`.

    Returns:
        0, or 1 if the answers hold failed requests, which have no score.

    Raises:
        ConfigError: The run folder is in use.
        DataError: Answers and cases do not fit together.
    """
    out = flags.out or FOLDER
    check_folder(out, flags)
    cases, data_hash = load_cases(config.data, config.turns, config.levels)
    given = read_answers(config.answers, cases)
    tasks = sorted((Task(str(case.key), case) for case in cases), key=order)
    with Run.open(
        out,
        config,
        flags,
        package="rotbench",
        version=metadata.version("rotbench"),
        verb="score",
        data_hash=f"{data_hash}, answers {_digest(given)}",
    ) as folder:
        for task in tasks:
            if task.name not in folder.done:
                folder.append(score(task, given[task.name], config))
        records = folder.records()
    conclude(out)
    return tell(records, len(tasks), config.scoring, out, advice=ADVICE)


def score(task: Task, answer: Answer | str, config: ScoreConfig) -> Record:
    """The record of an answer; a text says why there is none."""
    if isinstance(answer, str):
        return failed(task, answer, mode=config.mode, model=config.model)
    return graded(task, answer, mode=config.mode, model=config.model)


def _digest(given: Given) -> str:
    return hashlib.sha256(repr(sorted(given.items())).encode("utf-8", "replace")).hexdigest()
