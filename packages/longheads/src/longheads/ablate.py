"""`longheads ablate`: what each part of the method is worth in retrieval (spec 3.4).

The trials are those of `longheads passkey`, with the same prompts for every variant. All variants
read a prompt before the next one is written, so that a run that is stopped has whole comparisons.
Trials that failed are tried again with `--resume`.
"""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from longheads.ablate_report import PREFIX, ablation_table
from longheads.architectures import find_parts
from longheads.config import AblateConfig, LongHeadsConfig
from longheads.continuation import Settings, continue_prompt
from longheads.passkey_prompts import Trial, write_trial
from longheads.plugin import enable
from longheads.session import Session, answer, open_run, open_session, tell
from longheads.trace import Choice, record
from longheads.variants import chosen, variants
from papercore.config import RunFlags, merge, plain, validate
from papercore.device import is_out_of_memory, release_memory
from papercore.errors import PaperError
from papercore.log import progress
from papercore.records import Record
from papercore.report import conclude
from papercore.runs import Run

logger = logging.getLogger(__name__)

EXIT_FAILED = 1


def run(config: AblateConfig, flags: RunFlags, out: Path) -> int:
    """Runs all trials with all variants and prints the table.

    Returns:
        0, or 1 if a trial failed.

    Raises:
        ConfigError: A length is too short for the prompt, the window does not fit the model, or
            there is no such variant.
        ModelError: The model cannot be loaded or used.
    """
    with open_session(config, flags) as session:
        assert session.handle is not None, "the method was checked"
        settings = _settings(session, config)
        _check_lengths(session, config)
        session.handle.disable()  # each variant enables its own
        with open_run(out, config, flags, "ablate") as folder:
            folder.note(**session.facts)
            _run_trials(session, config, settings, folder)
            records = folder.records()
    conclude(out)
    for line in ablation_table(records):
        answer(line)
    failed = [record for record in records if record.status == "error"]
    if failed:
        tell(
            f"{len(failed)} of {len(records)} trials failed, first: {failed[0].error}; --resume "
            "tries them again"
        )
    tell(f"report: {out / 'report.html'}")
    return EXIT_FAILED if failed else 0


def planned(config: AblateConfig) -> list[tuple[int, int]]:
    """Length and number of every trial; each is read by all variants."""
    everything = [(length, index) for index in range(config.trials) for length in config.lengths]
    return everything[: config.limit]


def _settings(session: Session, config: AblateConfig) -> dict[str, LongHeadsConfig]:
    model = find_parts(session.model).config
    grouped = model.num_key_value_heads != model.num_attention_heads
    # as in a session: `seed` moves the drawn chunks too
    seeded = {"seed": config.longheads.seed + config.seed}
    base = validate(LongHeadsConfig, merge(plain(config.longheads), seeded))
    found = variants(base, trained=session.trained, grouped=grouped)
    if not grouped:
        tell("every query head has keys of its own: variants that share in a group are left out")
    return chosen(found, config.variants)


def _check_lengths(session: Session, config: AblateConfig) -> None:
    write_trial(
        session.tokenizer, config.task, length=min(config.lengths), index=0, seed=config.seed
    )
    inside = [length for length in config.lengths if length <= (session.window or 0)]
    if inside:
        logger.warning(
            "lengths %s are inside the window of %s tokens: there nothing is chosen, and variants "
            "with that window read the same",
            *(", ".join(map(str, inside)), session.window),
        )


def _run_trials(
    session: Session, config: AblateConfig, settings: Mapping[str, LongHeadsConfig], folder: Run
) -> None:
    done = folder.done - folder.failed
    left = [
        pair for pair in planned(config) if any(_id(name, *pair) not in done for name in settings)
    ]
    for length, index in progress(left, "ablate"):
        trial = write_trial(
            session.tokenizer, config.task, length=length, index=index, seed=config.seed
        )
        for name, what in settings.items():
            if _id(name, length, index) in done:
                continue
            with folder.timed(name):
                found = _attempt(session, config, trial, name, what)
            folder.count(trials=1, tokens=len(trial.ids))
            folder.append(found)


def _id(name: str, length: int, index: int) -> str:
    return f"{PREFIX}{name}/{length}/{index}"


def _attempt(
    session: Session, config: AblateConfig, trial: Trial, name: str, what: LongHeadsConfig
) -> Record:
    """One trial by one variant; a failure becomes its record."""
    facts = {"variant": name, "length": trial.length, "trial": trial.index}
    reading = Settings(len(trial.expected_ids), prefill_tok=config.prefill_tok)
    try:
        with (
            enable(session.model, what) as handle,
            record(handle, [[len(trial.ids) - 1]]) as recorder,
        ):
            written = continue_prompt(session.model, trial.ids, handle=handle, settings=reading)
    except (PaperError, RuntimeError, ValueError) as error:
        short = is_out_of_memory(error)
        problem = "out of memory" if short else " ".join(f"{error}".split()) or type(error).__name__
        logger.warning("%s failed: %s", _id(name, trial.length, trial.index), problem)
    else:
        at_needle, heads = _at_needle(recorder.choices, trial.needle_chunks(what.chunk_len))
        return Record(
            id=_id(name, trial.length, trial.index),
            data={
                **facts,
                "num_tok": len(trial.ids),
                "depth": trial.depth,
                "expected_ids": [*trial.expected_ids],
                "predicted_ids": [*written.token_ids],
                "correct": written.token_ids == trial.expected_ids,
                "heads_at_needle": at_needle,
                "heads": heads,
            },
        )
    if short:
        release_memory()
    return Record(
        id=_id(name, trial.length, trial.index), status="error", error=problem, data={**facts}
    )


def _at_needle(choices: Sequence[Choice], needle: Sequence[int]) -> tuple[int, int]:
    """How many choosing heads of all layers read a chunk of the needle, and how many there are."""
    read = [bool(set(needle) & set(head)) for choice in choices for head in choice.heads]
    return sum(read), len(read)
