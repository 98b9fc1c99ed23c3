"""`self-cd calibrate`: which strengths keep the refusals of harmful questions.

The margins of every question become records; bounds, curves and warnings come from these alone. The
upper bound is kept in the cache, where other commands look before they contrast. One that rests on
few true refusals, or on weights that are no longer there, is shown only.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from pydantic import JsonValue

from papercore.config import RunFlags
from papercore.errors import DataError
from papercore.generate.types import SamplingParams
from papercore.log import progress
from papercore.records import Record
from papercore.report import conclude
from papercore.runs import Run, check_folder, is_run_folder
from self_cd.analysis_ids import SETTINGS_ID, margin_id
from self_cd.bounds import Bound, Kept, remember_bound, weights_of
from self_cd.calibrate_report import Found, calibration_lines, find
from self_cd.checked import checked_id, checked_record, ladder
from self_cd.config import CalibrateConfig
from self_cd.contexts import Contexts
from self_cd.data import load_items
from self_cd.folders import open_run
from self_cd.items import BadRow, Item, ItemSet
from self_cd.margin_rule import FEW
from self_cd.session import Session, open_session

__all__ = ["kept_line", "run"]

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
    with open_run(out, config, flags, verb="calibrate", data_hash=items.digest) as folder:
        open_ = folder.failed | ({margin_id(one.id) for one in items.items} - folder.done)
        left = [item for item in items.items if margin_id(item.id) in open_]
        if left or SETTINGS_ID not in folder.done:
            session = session or _ready(config, flags)
            folder.note(**session.facts)
            _measure(folder, session, left, config)
        for row in items.bad:
            if margin_id(row.id) not in folder.done:
                folder.append(_record(row, error=row.problem))
        found = find(folder.records())
        assert found is not None, "the settings were recorded"
        if config.check_tok and found.calibration.upper is not None:
            asked = _unchecked(folder, items)
            if asked:
                session = session or _ready(config, flags)
                _check(folder, session, asked, config, found.calibration.upper)
            found = find(folder.records())
            assert found is not None
    conclude(out)
    return _tell(found, config, out, items.digest)


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


def _unchecked(folder: Run, items: ItemSet) -> list[Item]:
    """Harmful questions whose answers have not been looked at."""
    open_ = folder.failed | ({checked_id(one.id) for one in items.items} - folder.done)
    return [one for one in items.of("harmful") if checked_id(one.id) in open_]


def _check(
    folder: Run, session: Session, items: Sequence[Item], config: CalibrateConfig, upper: float
) -> None:
    """Answers at strengths up to the margins' bound, judged: what is kept in fact."""
    from self_cd.generation import generate

    alphas = ladder(upper)
    params = SamplingParams(max_new_tokens=config.check_tok)
    with folder.timed("check"):
        for start in progress(range(0, len(items), config.flush_every), "check"):
            some = items[start : start + config.flush_every]
            grid = generate(
                session.model,
                session.tokenizer,
                some,
                config.contrast,
                params=params,
                alphas=alphas,
                seed=config.seed,
                batch_size=config.batch_size or "auto",
                max_context=config.max_context,
            )
            for item, row in zip(some, grid, strict=True):
                folder.append(checked_record(item.id, alphas, row))


def _measure(folder: Run, session: Session, items: Sequence[Item], config: CalibrateConfig) -> None:
    """Records of all questions; the settings first, since the others mean nothing without them."""
    if SETTINGS_ID not in folder.done:
        settings: dict[str, JsonValue] = {
            "keep": config.keep,
            "seed": config.seed,
            "alpha": config.contrast.alpha,
            "model": config.model,
            "prompts": session.prompter.digest,
            "weights": weights_of(config.model, config),
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


def _tell(found: Found, config: CalibrateConfig, out: Path, data: str) -> int:
    """Prints what was found, keeps the bound, gives the exit code."""
    for line in calibration_lines(found):
        sys.stdout.write(f"{line}\n")
    for warning in found.calibration.warnings:
        logger.warning("%s", warning)
    if found.upper is not None:
        sys.stdout.write(f"{_remember(found, config, data, found.upper)}\n")
    sys.stdout.write(f"report: {out / 'report.html'}\n")
    return 1 if found.num_failed else 0


def _remember(found: Found, config: CalibrateConfig, data: str, upper: float) -> str:
    """Keeps the bound where it may be kept, and says so."""
    if found.weights != weights_of(config.model, config):
        return (
            "not remembered: the weights have changed since they were measured: calibrate again "
            "with --overwrite"
        )
    one = found.calibration
    kept = remember_bound(
        config.model,
        config,
        found.prompts,
        upper,
        keep=one.keep,
        num_true=one.num_true,
        data=data,
    )
    return kept_line(Bound(upper, one.keep, one.num_true), kept)


def kept_line(found: Bound, kept: Kept) -> str:
    """What is kept after a calibration that found a bound, and why it may be another one."""
    if found.num_true < FEW:
        line = f"shown, not remembered: {found.num_true} true refusals are fewer than {FEW}"
        if kept.bound is None:
            return line
        return (
            f"{line}; of earlier calibrations stays {kept.bound}; to forget it, delete {kept.path}"
        )
    assert kept.bound is not None
    line = (
        f"kept: run and generate refuse an alpha above {kept.bound} for this model with these "
        "prompts and openings, unless --i-know is given"
    )
    if not kept.num_others:
        return line
    return (
        f"{line}; the smallest of {kept.num_others + 1}, since a calibration replaces only those "
        f"of no larger share and no more true refusals; to forget them, delete {kept.path}"
    )
