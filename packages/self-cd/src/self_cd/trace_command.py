"""`self-cd trace`: both contexts and their contrast, token by token.

The table goes to stdout. With `--out` the run folder has one line per token in `records.jsonl`, and
the report has the picture.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence

from papercore.config import RunFlags
from papercore.records import Record
from papercore.report import conclude
from papercore.runs import Run, check_folder, is_run_folder
from self_cd.analysis_ids import TRACE
from self_cd.bounds import warn_above
from self_cd.commands import read_query
from self_cd.config import TraceConfig
from self_cd.folders import open_run
from self_cd.items import Item, query_hash
from self_cd.session import Session, open_session
from self_cd.trace_report import trace_lines

__all__ = ["run"]

logger = logging.getLogger(__name__)

DATASET = "query"
ITEM = "query/0"


def run(config: TraceConfig, flags: RunFlags) -> int:
    """Answers a question and shows every token of the answer.

    Raises:
        ConfigError: The folder is in use, or the openings of a guard do not fit the model.
        DataError: The question cannot be asked.
        GenerationError: The model's logits are not finite.
        ModelError: The model cannot be loaded or used.
    """
    query = read_query(config)
    if flags.out is not None:
        check_folder(flags.out, flags)
        if flags.resume and is_run_folder(flags.out) and (kept := _kept(config, flags, query)):
            _show(kept)
            conclude(flags.out)
            return 0
    session = open_session(config, flags)
    for note in session.prompter.notes:
        logger.warning("%s", note)
    strengths = (config.contrast.alpha, *config.contrast.schedule)
    warn_above(config, session.prompter.digest, strengths)
    records = _trace(config, session, query)
    _show(records)
    if flags.out is None:
        return 0
    # The folder is made last, so that a failure leaves nothing behind.
    with _open(config, flags, query) as folder:
        folder.note(**session.facts)
        for record in records:
            if record.id not in folder.done:
                folder.append(record)
    conclude(flags.out)
    sys.stderr.write(f"run folder: {flags.out}\n")
    return 0


def _trace(config: TraceConfig, session: Session, query: str) -> list[Record]:
    from self_cd.trace import trace_records

    found = trace_records(
        session.model,
        session.tokenizer,
        Item(ITEM, DATASET, "ordinary", query),
        config.contrast,
        params=config.sampling,
        top=config.top,
        seed=config.seed,
        max_context=config.max_context,
    )
    return list(found)


def _kept(config: TraceConfig, flags: RunFlags, query: str) -> list[Record]:
    """The trace that a folder holds; a process that died left all of it or nothing worth having."""
    with _open(config, flags, query) as folder:
        return [one for one in folder.records() if one.id.startswith(TRACE)]


def _open(config: TraceConfig, flags: RunFlags, query: str) -> Run:
    assert flags.out is not None
    return open_run(flags.out, config, flags, verb="trace", data_hash=query_hash([query]))


def _show(records: Sequence[Record]) -> None:
    for line in trace_lines(records):
        sys.stdout.write(f"{line}\n")
