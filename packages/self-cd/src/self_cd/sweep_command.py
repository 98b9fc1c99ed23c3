"""`self-cd sweep`: refusals at many strengths; each question is read once for all of them."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from papercore.config import RunFlags
from papercore.log import progress
from papercore.report import conclude
from papercore.runs import Run, is_run_folder
from self_cd.answers import answer_id, read_answers
from self_cd.bounds import warn_above
from self_cd.config import SweepConfig
from self_cd.folders import open_run
from self_cd.generation import generate
from self_cd.items import Item, ItemSet
from self_cd.run_command import answered, failed_rows, provenance, tell
from self_cd.session import Session, open_session

__all__ = ["run"]

logger = logging.getLogger(__name__)

METHOD = "self-cd"


def run(config: SweepConfig, flags: RunFlags, out: Path, items: ItemSet) -> int:
    """Answers every question at every strength, judges, reports.

    Returns:
        0, or 1 if a question failed and has no verdict.

    Raises:
        ConfigError: The folder is in use.
        ModelError: The model cannot be loaded or used.
    """
    fresh = flags.overwrite or not is_run_folder(out)
    session = _ready(config, flags) if fresh else None
    with open_run(out, config, flags, verb="sweep", data_hash=items.digest) as folder:
        left = [item for item in items.items if _is_left(item, config, folder)]
        if left:
            session = session or _ready(config, flags)
            folder.note(backend="self_cd", **session.facts)
            _answer(folder, session, left, config)
        for alpha in config.alphas:
            failed_rows(folder, items, METHOD, alpha)
        records = folder.records()
    if left or not (out / "report.html").exists():
        conclude(out)
    num_questions = (len(items.items) + len(items.bad)) * len(config.alphas)
    return tell(read_answers(records), num_questions, out)


def _ready(config: SweepConfig, flags: RunFlags) -> Session:
    session = open_session(config, flags)
    warn_above(config, session.prompter.digest, config.alphas)
    return session


def _is_left(item: Item, config: SweepConfig, folder: Run) -> bool:
    names = [answer_id(item.id, METHOD, alpha) for alpha in config.alphas]
    return any(name not in folder.done or name in folder.failed for name in names)


def _answer(folder: Run, session: Session, items: Sequence[Item], config: SweepConfig) -> None:
    origin = provenance(config, session.prompter.digest)
    starts = range(0, len(items), config.flush_every)
    with folder.timed("answers"):
        for start in progress(starts, "sweep"):
            some = items[start : start + config.flush_every]
            grid = generate(
                session.model,
                session.tokenizer,
                some,
                config.contrast,
                params=config.sampling,
                alphas=config.alphas,
                seed=config.seed,
                batch_size=config.batch_size or "auto",
                max_context=config.max_context,
            )
            for item, row in zip(some, grid, strict=True):
                for alpha, completion in zip(config.alphas, row, strict=True):
                    answer = answered(item, completion, method=METHOD, alpha=alpha, origin=origin)
                    if answer.id not in folder.done or answer.id in folder.failed:
                        folder.append(answer.record())
                        folder.count(answers=1, tokens=answer.new_tok)
