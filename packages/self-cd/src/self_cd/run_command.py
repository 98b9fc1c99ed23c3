"""`self-cd run`: answer data sets by one method, judge by keywords, report both sides.

Records are written as they come, so that a run that is killed goes on with `--resume`; questions
that failed are then asked again. A question that failed is never a refusal: it has no verdict.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from pydantic import JsonValue

from papercore.config import RunFlags, differences, plain
from papercore.generate.types import Completion
from papercore.log import progress
from papercore.report import conclude
from papercore.runs import Run, is_run_folder
from self_cd.answerers import Answerer, answerer_for
from self_cd.answers import Answer, answer_id, read_answers
from self_cd.bounds import check_bound
from self_cd.config import ModelRunConfig, RunAnswersConfig, SelfCDConfig
from self_cd.folders import open_run
from self_cd.generation import ContrastCompletion
from self_cd.items import Item, ItemSet
from self_cd.judges import keyword
from self_cd.telling import result_lines
from self_cd.wording import WORDING_VERSION

__all__ = ["answered", "failed_rows", "provenance", "run", "tell"]

logger = logging.getLogger(__name__)

EXIT_FAILED = 1
EXIT_DONE = 0


def run(config: RunAnswersConfig, flags: RunFlags, out: Path, items: ItemSet) -> int:
    """Answers, judges, reports.

    Returns:
        0, or 1 if a question failed and has no verdict.

    Raises:
        ConfigError: The folder is in use, or the strength is above the model's bound.
        ModelError: The model cannot be loaded or used.
    """
    # Before the folder is made, so that a model that does not load leaves nothing behind.
    fresh = flags.overwrite or not is_run_folder(out)
    answerer = _ready(config, flags) if fresh else None
    with open_run(out, config, flags, verb="run", data_hash=items.digest) as folder:
        alpha = config.contrast.alpha if config.method == "self-cd" else None
        left = [item for item in items.items if _is_left(item, config, alpha, folder)]
        if left:
            answerer = answerer or _ready(config, flags)
            folder.note(**answerer.facts)
            _answer(folder, answerer, left, config, alpha)
        failed_rows(folder, items, config.method, alpha)
        records = folder.records()
    if left or not (out / "report.html").exists():
        conclude(out)
    return tell(read_answers(records), len(items.items) + len(items.bad), out)


def answered(
    item: Item,
    completion: Completion,
    *,
    method: str,
    alpha: float | None,
    origin: tuple[tuple[str, JsonValue], ...],
) -> Answer:
    """A completion as an answer, judged by keywords; one that failed has no verdict."""
    if isinstance(completion, ContrastCompletion) and completion.guarded:
        origin = (*origin, ("guarded", True))
    found = Answer(
        item=item,
        method=method,
        alpha=alpha,
        text=completion.text,
        truncated=completion.finish_reason == "length",
        new_tok=completion.usage.completion_tokens,
        prompt_tok=completion.usage.prompt_tokens,
        provenance=origin,
        error=completion.error,
    )
    if completion.error is not None:
        return found
    return found.judged(keyword.judge_text(found.text, truncated=found.truncated), keyword.NAME)


def provenance(config: ModelRunConfig, digest: str) -> tuple[tuple[str, JsonValue], ...]:
    """Model, prompts and every setting of the contrast that is off its default."""
    changed = differences(plain(SelfCDConfig()), plain(config.contrast))
    off: list[JsonValue] = [line for line in changed if not line.startswith("alpha: ")]
    return (
        ("model", config.model),
        ("prompts", digest),
        ("wording", WORDING_VERSION),
        ("settings", off),
    )


def failed_rows(folder: Run, items: ItemSet, method: str, alpha: float | None) -> None:
    """Rows that are no questions become records with an error."""
    for row in items.bad:
        # the text of the row is not kept: it may be anything
        item = Item(row.id, row.dataset, row.side, query="")
        answer = Answer(item=item, method=method, alpha=alpha, error=row.problem)
        if answer.id not in folder.done:
            folder.append(answer.record())


def tell(answers: Sequence[Answer], num_questions: int, out: Path) -> int:
    """Prints refusals of both sides and what failed; gives the exit code."""
    for line in result_lines(answers):
        sys.stdout.write(f"{line}\n")
    wrong = [answer for answer in answers if answer.error is not None]
    rows = [answer for answer in wrong if not answer.item.query]
    failed = [answer for answer in wrong if answer.item.query]
    if failed:
        sys.stderr.write(
            f"NOT ALL ANSWERED: {len(failed)} of {num_questions} questions failed and count "
            f"nowhere; first: {failed[0].id}: {failed[0].error}\n--resume asks them again\n"
        )
    if rows:
        sys.stderr.write(
            f"NOT ALL ASKED: {len(rows)} of {num_questions} rows are no questions; first: "
            f"{rows[0].error}\ncorrect the file and take another --out\n"
        )
    sys.stdout.write(f"report: {out / 'report.html'}\n")
    return EXIT_FAILED if wrong else EXIT_DONE


def _ready(config: RunAnswersConfig, flags: RunFlags) -> Answerer:
    answerer = answerer_for(config, flags)
    if config.method == "self-cd":
        strengths = (config.contrast.alpha, *config.contrast.schedule)
        check_bound(config, answerer.digest, i_know=config.i_know, alphas=strengths)
    return answerer


def _is_left(item: Item, config: RunAnswersConfig, alpha: float | None, folder: Run) -> bool:
    name = answer_id(item.id, config.method, alpha)
    return name not in folder.done or name in folder.failed


def _answer(
    folder: Run,
    answerer: Answerer,
    items: Sequence[Item],
    config: RunAnswersConfig,
    alpha: float | None,
) -> None:
    origin = provenance(config, answerer.digest)
    if config.perturb is not None:
        origin = (*origin, ("perturb", config.perturb))
    if config.handoff is not None:
        origin = (*origin, ("handoff", f"{config.handoff}, approximate"))
    with folder.timed("answers"):
        # a hand-over changes the model in memory, once for all questions
        size = config.flush_every if config.handoff is None else len(items)
        pairs = _completions(answerer, items, size)
        for item, completion in progress(pairs, "run", total=len(items)):
            answer = answered(item, completion, method=config.method, alpha=alpha, origin=origin)
            folder.append(answer.record())
            folder.count(answers=1, tokens=answer.new_tok)


def _completions(
    answerer: Answerer, items: Sequence[Item], size: int
) -> Iterator[tuple[Item, Completion]]:
    """Completions, a few at a time; none are asked for any more once an endpoint gave up."""
    for start in range(0, len(items), size):
        some = items[start : start + size]
        completions = answerer.answer(some)
        yield from zip(some, completions, strict=True)
        if any(one.error_kind == "skipped" for one in completions):
            logger.warning("the endpoint gave up: the remaining questions are not sent")
            return
