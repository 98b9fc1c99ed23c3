"""`self-cd generate`: answer one question.

Only the answer goes to stdout, as it is written; who wrote it and how goes to stderr.
"""

from __future__ import annotations

import logging
import sys

from papercore.config import RunFlags
from papercore.errors import DataError, GenerationError
from papercore.generate.types import Completion
from papercore.report import conclude
from papercore.runs import Run, is_run_folder
from self_cd.answerers import Answerer, answerer_for
from self_cd.answers import Answer, read_answers
from self_cd.bounds import check_bound
from self_cd.config import GenerateConfig, RunAnswersConfig
from self_cd.folders import open_run
from self_cd.generation import stream
from self_cd.items import Item, query_hash
from self_cd.run_command import answered, provenance
from self_cd.session import Session, open_session

__all__ = ["run"]

logger = logging.getLogger(__name__)

DATASET = "query"
ITEM = "query/0"


def run(config: GenerateConfig, flags: RunFlags, query: str) -> int:
    """Answers a question, and keeps a record of it if there is `--out`.

    Raises:
        ConfigError: The strength is above the model's bound.
        DataError: The question cannot be asked.
        ModelError: The model cannot be loaded or used.
    """
    item = Item(ITEM, DATASET, "ordinary", query)
    if flags.out is not None and flags.resume and is_run_folder(flags.out):
        with _open(config, flags, query) as folder:
            kept = [one for one in read_answers(folder.records()) if one.error is None]
        if kept:
            sys.stdout.write(f"{kept[0].text}\n")
            conclude(flags.out)
            return 0
    answer, facts = _answer(config, flags, item)
    if flags.out is None:
        return 0
    # The folder is made last, so that a failure leaves nothing behind.
    with _open(config, flags, query) as folder:
        folder.note(**facts)
        folder.append(answer.record())
    conclude(flags.out)
    sys.stderr.write(f"run folder: {flags.out}\n")
    return 0


def _open(config: GenerateConfig, flags: RunFlags, query: str) -> Run:
    assert flags.out is not None
    return open_run(flags.out, config, flags, verb="generate", data_hash=query_hash([query]))


def _answer(config: GenerateConfig, flags: RunFlags, item: Item) -> tuple[Answer, dict[str, str]]:
    """Writes the answer to stdout; the contrast piece by piece, a baseline at once."""
    if config.method != "self-cd":
        return _baseline_answer(config, flags, item)
    session = open_session(config, flags)
    strengths = (config.contrast.alpha, *config.contrast.schedule)
    check_bound(config, session.prompter.digest, i_know=config.i_know, alphas=strengths)
    completion = _stream(session, config, item)
    origin = provenance(config, session.prompter.digest)
    alpha = config.contrast.alpha
    answer = answered(item, completion, method="self-cd", alpha=alpha, origin=origin)
    return answer, session.facts


def _stream(session: Session, config: GenerateConfig, item: Item) -> Completion:
    pieces = stream(
        session.model,
        session.tokenizer,
        item.query,
        config.contrast,
        params=config.sampling,
        seed=config.seed,
        max_context=config.max_context,
    )
    for piece in pieces:
        sys.stdout.write(piece)
        sys.stdout.flush()
    sys.stdout.write("\n")
    return pieces.completion


def _baseline_answer(
    config: GenerateConfig, flags: RunFlags, item: Item
) -> tuple[Answer, dict[str, str]]:
    shared = {name: getattr(config, name) for name in _SHARED}
    answerer: Answerer = answerer_for(RunAnswersConfig(**shared), flags)
    completion = answerer.answer([item])[0]
    if completion.error is not None:
        wrong = DataError if completion.error_kind == "input" else GenerationError
        raise wrong(completion.error)
    sys.stdout.write(f"{completion.text}\n")
    origin = provenance(config, answerer.digest)
    answer = answered(item, completion, method=config.method, alpha=None, origin=origin)
    return answer, {name: str(value) for name, value in answerer.facts.items()}


_SHARED = sorted(
    (GenerateConfig.model_fields.keys() & RunAnswersConfig.model_fields.keys()) - {"limit"}
)
"""Settings that a question has in common with a data set."""
