"""`longheads passkey`: at which lengths and depths does a model find a hidden key (spec 3.1).

A trial passes if the tokens that follow the prompt are exactly those of the key. Trials go round
the lengths, so that `--limit` takes some of every length; a trial that fails becomes a record, the
run goes on, and `--resume` tries it again.
"""

import logging
from pathlib import Path

from longheads import cache_report
from longheads.config import PasskeyConfig
from longheads.continuation import Continuation, Settings, continue_prompt
from longheads.passkey_prompts import Trial, check_lengths, trial_id, write_trial
from longheads.passkey_report import accuracy_table
from longheads.session import Session, answer, open_run, open_session, tell
from papercore.config import RunFlags
from papercore.device import is_out_of_memory, release_memory
from papercore.errors import PaperError
from papercore.log import progress
from papercore.records import Record
from papercore.report import conclude
from papercore.runs import Run

logger = logging.getLogger(__name__)

EXIT_FAILED = 1


def run(config: PasskeyConfig, flags: RunFlags, out: Path) -> int:
    """Runs the trials and prints the table of accuracies.

    Returns:
        0, or 1 if a trial failed.

    Raises:
        ConfigError: A length is too short for the prompt, or the window does not fit the model.
        ModelError: The model cannot be loaded or used.
    """
    with open_session(config, flags) as session:
        check_lengths(session.tokenizer, config)
        with open_run(out, config, flags, "passkey") as folder:
            folder.note(**session.facts)
            _run_trials(session, config, folder)
            records = folder.records()
    conclude(out)
    for line in accuracy_table(records):
        answer(line)
    failed = [record for record in records if record.status == "error"]
    if failed:
        tell(
            f"{len(failed)} of {len(records)} trials failed, first: {failed[0].error}; --resume "
            "tries them again"
        )
    for line in cache_report.lines(records):
        tell(line)
    tell(f"report: {out / 'report.html'}")
    return EXIT_FAILED if failed else 0


def planned(config: PasskeyConfig) -> list[tuple[int, int]]:
    """Length and number of every trial, in the order in which they run."""
    everything = [(length, index) for index in range(config.trials) for length in config.lengths]
    return everything[: config.limit]


def depth_bin(depth: float, num_bins: int) -> int:
    """Row of the heat map that a depth belongs to."""
    return min(int(depth * num_bins), num_bins - 1)


def _run_trials(session: Session, config: PasskeyConfig, folder: Run) -> None:
    done = folder.done - folder.failed
    left = [pair for pair in planned(config) if trial_id(*pair) not in done]
    for length, index in progress(left, "passkey"):
        with folder.timed(f"length {length}"):
            record = _attempt(session, config, length, index)
        folder.count(trials=1, tokens=int(str(record.data.get("num_tok", 0))))
        folder.append(record)


def _attempt(session: Session, config: PasskeyConfig, length: int, index: int) -> Record:
    """One trial; a failure becomes its record."""
    try:
        trial = write_trial(
            session.tokenizer, config.task, length=length, index=index, seed=config.seed
        )
        settings = Settings(len(trial.expected_ids), prefill_tok=config.prefill_tok)
        written = continue_prompt(
            session.model, trial.ids, handle=session.handle, settings=settings
        )
        return _record(session, config, trial, written)
    except (PaperError, RuntimeError, ValueError) as error:
        short = is_out_of_memory(error)
        problem = "out of memory" if short else " ".join(f"{error}".split()) or type(error).__name__
        logger.warning("trial %s failed: %s", trial_id(length, index), problem)
    if short:
        release_memory()
    return Record(
        id=trial_id(length, index),
        status="error",
        error=problem,
        data={"length": length, "trial": index, "method": config.method},
    )


def _record(session: Session, config: PasskeyConfig, trial: Trial, written: Continuation) -> Record:
    chunk_len, predicted = config.longheads.chunk_len, written.token_ids
    return Record(
        id=trial.id,
        data={
            "length": trial.length,
            "trial": trial.index,
            "method": config.method,
            "num_tok": len(trial.ids),
            "depth": trial.depth,
            "depth_bin": depth_bin(trial.depth, config.depth_bins),
            "depth_bins": config.depth_bins,
            "expected": trial.expected,
            "expected_ids": [*trial.expected_ids],
            "predicted": str(session.tokenizer.decode(list(predicted))),
            "predicted_ids": [*predicted],
            "correct": predicted == trial.expected_ids,
            "needle_chunks": [*trial.needle_chunks(chunk_len)],
            "key_split": trial.key_split(chunk_len),
            "cache": dict(written.cache),
        },
    )
