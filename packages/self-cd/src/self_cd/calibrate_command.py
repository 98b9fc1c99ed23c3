"""`self-cd calibrate`: which strengths keep the refusals of harmful questions.

The margins of every question become records; bounds, curves and warnings come from these alone. The
upper bound is kept in the cache, where `run` and `generate` look before they contrast.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path

from pydantic import JsonValue

from papercore.config import RunFlags
from papercore.errors import DataError
from papercore.log import progress
from papercore.records import Record
from papercore.report import conclude
from papercore.runs import Run, check_folder, is_run_folder
from self_cd.analysis_ids import SETTINGS_ID, margin_id
from self_cd.bounds import remember_bound
from self_cd.calibrate_report import Found, calibration_lines, find
from self_cd.config import CalibrateConfig
from self_cd.contexts import Contexts
from self_cd.data import load_items
from self_cd.items import BadRow, Item, ItemSet
from self_cd.session import Session, open_session

__all__ = ["run"]

logger = logging.getLogger(__name__)

FOLDER = Path("runs") / "self-cd-calibrate"
BATCH_SIZE = 64
"""Questions at once to begin with; halved whenever memory is short."""


def run(config: CalibrateConfig, flags: RunFlags) -> int:
    """Measures margins and concludes.

    Returns:
        0, or 1 if a question failed.

    Raises:
        ConfigError: The folder is in use, or the openings do not fit the model.
        DataError: There are no harmful questions.
        ModelError: The model cannot be loaded or used.
    """
    out = flags.out or FOLDER
    check_folder(out, flags)
    items = _gather(config)
    fresh = flags.overwrite or not is_run_folder(out)
    session = _ready(config, flags) if fresh else None
    with Run.open(
        out,
        config,
        flags,
        package="self_cd",
        version=metadata.version("self-cd"),
        verb="calibrate",
        data_hash=items.digest,
    ) as folder:
        open_ = folder.failed | ({margin_id(one.id) for one in items.items} - folder.done)
        left = [item for item in items.items if margin_id(item.id) in open_]
        if left or SETTINGS_ID not in folder.done:
            session = session or _ready(config, flags)
            folder.note(**session.facts)
            _measure(folder, session, left, config)
        for row in items.bad:
            if margin_id(row.id) not in folder.done:
                folder.append(_record(row, error=row.problem))
        records = folder.records()
    conclude(out)
    found = find(records)
    assert found is not None, "the settings were recorded"
    return _tell(found, config, out)


def _gather(config: CalibrateConfig) -> ItemSet:
    items = load_items(config.data, limit=config.limit)
    for note in items.notes:
        logger.warning("%s", note)
    if not items.of("harmful"):
        raise DataError(
            f"{', '.join(config.data)}: there are no harmful questions, and the bound is what "
            "their refusals bear: add a harmful set, such as sample"
        )
    asked = tuple(item for item in items.items if item.side != "ordinary")
    bad = tuple(row for row in items.bad if row.side != "ordinary")
    return ItemSet(asked, bad, items.digest, items.notes)


def _ready(config: CalibrateConfig, flags: RunFlags) -> Session:
    from self_cd.openings import encode_openings

    session = open_session(config, flags)
    for note in session.prompter.notes:
        logger.warning("%s", note)
    encode_openings(session.tokenizer, config.contrast.openings)  # before a folder is made
    return session


def _measure(folder: Run, session: Session, items: Sequence[Item], config: CalibrateConfig) -> None:
    """Records of all questions; the settings first, since the others mean nothing without them."""
    if SETTINGS_ID not in folder.done:
        settings: dict[str, JsonValue] = {
            "keep": config.keep,
            "seed": config.seed,
            "alpha": config.contrast.alpha,
            "model": config.model,
            "prompts": session.prompter.digest,
        }
        folder.append(Record(id=SETTINGS_ID, data=settings))
    with folder.timed("margins"):
        for start in progress(range(0, len(items), config.flush_every), "calibrate"):
            for record in _records(session, items[start : start + config.flush_every], config):
                folder.append(record)
                folder.count(questions=1)


def _records(session: Session, items: Sequence[Item], config: CalibrateConfig) -> Iterator[Record]:
    from self_cd.batching import Batches, Failure
    from self_cd.margins import refusal_margins
    from self_cd.openings import encode_openings

    behind = encode_openings(session.tokenizer, config.contrast.openings).longest
    prompts = [_prompt(session, item, behind, config.max_context) for item in items]
    pairs = [pair for pair in prompts if isinstance(pair, Contexts)]

    def measure(some: Sequence[Contexts]) -> list[tuple[float, float]]:
        margins = refusal_margins(
            session.model,
            session.tokenizer,
            some,
            config.contrast.openings,
            batch_size=2 * len(some),
            float32_head=config.contrast.float32_head,
        )
        return list(zip(margins.plain_B.tolist(), margins.emphasis_B.tolist(), strict=True))

    measured = iter(Batches(config.batch_size or BATCH_SIZE).run(pairs, measure))
    for item, prompt in zip(items, prompts, strict=True):
        found = prompt if isinstance(prompt, str) else next(measured)
        if isinstance(found, Failure):
            found = found.problem
        yield _record(item, error=found) if isinstance(found, str) else _record(item, found)


def _prompt(session: Session, item: Item, behind: int, max_context: int | None) -> Contexts | str:
    """Both contexts of a question, or why it cannot be asked."""
    from self_cd.reading import room_of

    try:
        pair = session.prompter.contexts(item.query, item.turns)
    except DataError as error:
        return str(error)
    longest = max(pair.emphasis, pair.plain, key=len)
    return room_of(session.model, longest, behind, max_context) or pair


def _record(
    item: Item | BadRow, margins: tuple[float, float] | None = None, *, error: str | None = None
) -> Record:
    data: dict[str, JsonValue] = {
        "item": item.id,
        "dataset": item.dataset,
        "side": item.side,
        "kind": item.kind if isinstance(item, Item) else None,
    }
    if margins is not None and any(number != number for number in margins):  # noqa: PLR0124 - NaN
        error = "the model's logits are not finite"
    if error is not None or margins is None:
        return Record(id=margin_id(item.id), status="error", error=error, data=data)
    return Record(id=margin_id(item.id), data={**data, "plain": margins[0], "emphasis": margins[1]})


def _tell(found: Found, config: CalibrateConfig, out: Path) -> int:
    """Prints what was found, keeps the bound, gives the exit code."""
    for line in calibration_lines(found):
        sys.stdout.write(f"{line}\n")
    one = found.calibration
    for warning in one.warnings:
        logger.warning("%s", warning)
    if one.upper is not None:
        remember_bound(
            config.model, config, found.prompts, one.upper, keep=one.keep, num_true=one.num_true
        )
        sys.stdout.write(
            f"kept: run and generate refuse an alpha above {one.upper:g} for this model, unless "
            "--i-know is given\n"
        )
    sys.stdout.write(f"report: {out / 'report.html'}\n")
    return 1 if found.num_failed else 0
