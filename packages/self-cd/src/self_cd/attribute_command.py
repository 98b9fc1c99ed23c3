"""`self-cd attribute`: how the focus word drives the answer, layer by layer.

Per question and context a record of the flow and one of the refusal's perplexity. Source:
2401.17633, section 3 and table 3.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from papercore.config import RunFlags
from papercore.errors import DataError
from papercore.log import progress
from papercore.records import Record
from papercore.report import conclude
from papercore.runs import Run, check_folder, is_run_folder
from self_cd.analysis_ids import CONTEXTS, flow_id, ppl_id
from self_cd.config import AttributeConfig
from self_cd.data import load_items
from self_cd.flow_report import attribution_lines
from self_cd.folders import open_run
from self_cd.items import BadRow, Item, ItemSet
from self_cd.session import Session, open_session

__all__ = ["run"]

logger = logging.getLogger(__name__)

FOLDER = Path("runs") / "self-cd-attribute"


def run(config: AttributeConfig, flags: RunFlags) -> int:
    """Measures flow and perplexity.

    Returns:
        0, or 1 if a question failed; one without a focus word has no flow and does not fail.

    Raises:
        ConfigError: The folder is in use.
        DataError: No question has a focus word.
        ModelError: The model cannot be loaded, or its attention cannot be recorded.
    """
    out = flags.out or FOLDER
    check_folder(out, flags)
    items = _gather(config)
    fresh = flags.overwrite or not is_run_folder(out)
    session = _ready(config, flags) if fresh else None
    with open_run(out, config, flags, verb="attribute", data_hash=items.digest) as folder:
        left = [item for item in items.items if _is_left(item, folder)]
        if left:
            session = session or _ready(config, flags)
            folder.note(**session.facts)
            _measure(folder, session, left, items.items, config)
        for row in items.bad:
            for record in _bad(row):
                if record.id not in folder.done:
                    folder.append(record)
        records = folder.records()
    conclude(out)
    return _tell(records, out)


def _gather(config: AttributeConfig) -> ItemSet:
    items = load_items(config.data, limit=config.limit)
    for note in items.notes:
        logger.warning("%s", note)
    if not any(item.focus for item in items.items):
        raise DataError(
            f"{', '.join(config.data)}: no question has a focus word: take a set that has them, "
            "such as xstest or sample"
        )
    return items


def _ready(config: AttributeConfig, flags: RunFlags) -> Session:
    from self_cd.flow import recorded_attention

    session = open_session(config, flags)
    for note in session.prompter.notes:
        logger.warning("%s", note)
    with recorded_attention(session.model):
        pass  # a model whose attention cannot be recorded is refused before a folder is made
    return session


def _ids(item: str) -> list[str]:
    return [make(item, context) for context in CONTEXTS for make in (flow_id, ppl_id)]


def _is_left(item: Item, folder: Run) -> bool:
    return any(name not in folder.done or name in folder.failed for name in _ids(item.id))


def _measure(
    folder: Run,
    session: Session,
    left: Sequence[Item],
    items: Sequence[Item],
    config: AttributeConfig,
) -> None:
    from self_cd.attribution import Explained, attribution_records

    how = Explained(
        target=config.target,
        target_tok=config.target_tok,
        refusal=config.refusal,
        # chosen among all questions, so that a run that goes on keeps the same one
        mapped=next((one.id for one in items if one.side == "harmless" and one.focus), None),
        batch_size=config.batch_size,
        max_context=config.max_context,
        float32_head=config.contrast.float32_head,
    )
    with folder.timed("attribution"):
        for start in progress(range(0, len(left), config.flush_every), "attribute"):
            some = left[start : start + config.flush_every]
            for record in attribution_records(
                session.model, session.tokenizer, session.prompter, some, how
            ):
                if record.id not in folder.done or record.id in folder.failed:
                    folder.append(record)


def _bad(row: BadRow) -> list[Record]:
    """A row that is no question has records with an error, like a question that fails."""
    return [
        Record(
            id=make(row.id, context),
            status="error",
            error=row.problem,
            data={
                "item": row.id,
                "dataset": row.dataset,
                "side": row.side,
                "context": context,
            },
        )
        for context in CONTEXTS
        for make in (flow_id, ppl_id)
    ]


def _tell(records: Sequence[Record], out: Path) -> int:
    for line in attribution_lines(records):
        sys.stdout.write(f"{line}\n")
    failed = [one for one in records if one.status == "error"]
    if failed:
        sys.stderr.write(
            f"NOT ALL MEASURED: {len({one.data['item'] for one in failed})} questions failed; "
            f"first: {failed[0].id}: {failed[0].error}\n--resume tries them again\n"
        )
    sys.stdout.write(f"report: {out / 'report.html'}\n")
    return 1 if failed else 0
