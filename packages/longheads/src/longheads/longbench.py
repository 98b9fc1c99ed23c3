"""`longheads longbench`: LongBench's 16 English sets, answered and scored.

Examples go round the sets, so that `--limit` takes some of every set; one that fails becomes a
record, the run goes on, and `--resume` tries it again. Answers are greedy. What differs from the
released evaluation is listed in docs/longheads.md.
"""

import hashlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from longheads import cache_report
from longheads.config import LongBenchConfig
from longheads.continuation import Continuation, Settings, continue_prompt
from longheads.longbench_data import Example, Loaded
from longheads.longbench_prompts import Asked, ask, fill
from longheads.longbench_report import record_id, score_table
from longheads.longbench_scores import score
from longheads.longbench_sets import SETS, SetName
from longheads.session import Session, answer, open_run, open_session, tell
from papercore.config import RunFlags
from papercore.device import is_out_of_memory, release_memory
from papercore.errors import ModelError, PaperError
from papercore.generate.defaults import eos_ids
from papercore.log import progress
from papercore.records import Record
from papercore.report import conclude
from papercore.runs import Run

logger = logging.getLogger(__name__)

EXIT_FAILED = 1


@dataclass(frozen=True)
class Inputs:
    """What a run reads beside its config.

    Attributes:
        loaded: the examples.
        templates: prompts by set.
        answer_tok: longest answers by set.
        digest: of the prompts and the longest answers.
    """

    loaded: Loaded
    templates: Mapping[SetName, str]
    answer_tok: Mapping[SetName, int]
    digest: str


def run(config: LongBenchConfig, flags: RunFlags, out: Path, inputs: Inputs) -> int:
    """Answers the examples and prints the table of scores.

    Returns:
        0, or 1 if an example failed.

    Raises:
        ConfigError: The window does not fit the model.
        ModelError: The model cannot be loaded or used, or has no chat template for `--chat`.
    """
    digest = hashlib.sha256(f"{inputs.loaded.digest} {inputs.digest}".encode()).hexdigest()
    with open_session(config, flags) as session:
        if config.chat and not getattr(session.tokenizer, "chat_template", None):
            raise ModelError(
                "the model has no chat template: leave out --chat, or take a chat model"
            )
        with open_run(out, config, flags, "longbench", data_hash=digest) as folder:
            folder.note(**session.facts, prompts=str(config.prompts or "ours"))
            _answer_all(session, config, inputs, folder)
            records = folder.records()
    conclude(out)
    for line in score_table(records):
        answer(line)
    failed = [record for record in records if record.status == "error"]
    if failed:
        tell(
            f"{len(failed)} of {len(records)} examples failed, first: {failed[0].error}; --resume "
            "tries them again"
        )
    _tell_of_prompts(records, session.trained, config)
    for line in cache_report.lines(records):
        tell(line)
    tell(f"report: {out / 'report.html'}")
    return EXIT_FAILED if failed else 0


def planned(by_set: Mapping[SetName, Sequence[Example]], limit: int | None) -> list[Example]:
    """The examples in the order in which they run."""
    return list(islice(_round_the_sets(by_set), limit))


def _round_the_sets(by_set: Mapping[SetName, Sequence[Example]]) -> Iterator[Example]:
    for index in range(max(map(len, by_set.values()))):
        for examples in by_set.values():
            yield from examples[index : index + 1]


def _answer_all(session: Session, config: LongBenchConfig, inputs: Inputs, folder: Run) -> None:
    everything = planned(inputs.loaded.by_set, config.limit)
    done = folder.done - folder.failed
    left = [example for example in everything if _id(config, example) not in done]
    for example in progress(left, "longbench"):
        with folder.timed(example.set_name):
            record = _attempt(session, config, inputs, example)
        folder.count(examples=1, tokens=int(str(record.data.get("prompt_tok", 0))))
        folder.append(record)


def _attempt(session: Session, config: LongBenchConfig, inputs: Inputs, example: Example) -> Record:
    """One example; a failure becomes its record."""
    name = example.set_name
    try:
        asked = ask(
            session.tokenizer,
            fill(inputs.templates[name], example),
            truncate_tok=config.truncate_tok,
            chat=config.chat and SETS[name].chat,
        )
        written = _write(session, config, name, asked, inputs.answer_tok[name])
        return _record(session, config, example, asked, written)
    except (PaperError, RuntimeError, ValueError) as error:
        short = is_out_of_memory(error)
        problem = "out of memory" if short else " ".join(f"{error}".split()) or type(error).__name__
        logger.warning("example %s failed: %s", _id(config, example), problem)
    if short:
        release_memory()
    data = _facts(config, example)
    return Record(id=_id(config, example), status="error", error=problem, data=data)


def _write(
    session: Session, config: LongBenchConfig, name: SetName, asked: Asked, answer_tok: int
) -> Continuation:
    """The answer; on a set where it ends with its line, it has at least one token before that."""
    ends, least = eos_ids(session.model, session.tokenizer), 0
    if SETS[name].stops_at_newline:
        ends, least = ends | _newline_ids(session), 1
    settings = Settings(
        answer_tok, prefill_tok=config.prefill_tok, eos_ids=ends, min_new_tokens=least
    )
    return continue_prompt(session.model, asked.ids, handle=session.handle, settings=settings)


def _newline_ids(session: Session) -> frozenset[int]:
    """The token of a line's end, as the released code finds it."""
    return frozenset(session.tokenizer.encode("\n", add_special_tokens=False)[-1:])


def _record(
    session: Session, config: LongBenchConfig, example: Example, asked: Asked, written: Continuation
) -> Record:
    name = example.set_name
    tokens = list(written.token_ids)
    prediction = str(session.tokenizer.decode(tokens, skip_special_tokens=True))
    unknown = session.tokenizer.unk_token_id
    return Record(
        id=_id(config, example),
        data={
            **_facts(config, example),
            "prompt_tok": len(asked.ids),
            "full_tok": asked.full_tok,
            "truncated": asked.truncated,
            "unknown_tok": 0 if unknown is None else asked.ids.count(unknown),
            "answers": [*example.answers],
            "prediction": prediction,
            "new_tok": len(tokens),
            "finish_reason": written.finish_reason,
            "score": score(name, prediction, example.answers, example.classes),
            "cache": dict(written.cache),
        },
    )


def _facts(config: LongBenchConfig, example: Example) -> dict[str, str | int | bool | None]:
    return {
        "set": example.set_name,
        "index": example.index,
        "extended": config.extended,
        "method": config.method,
        "words": example.words,
    }


def _id(config: LongBenchConfig, example: Example) -> str:
    return record_id(example.set_name, example.index, extended=config.extended)


def _tell_of_prompts(records: Sequence[Record], trained: int, config: LongBenchConfig) -> None:
    """Says what was cut, what the model does not know, and what is beyond its training."""
    done = [record.data for record in records if record.status == "ok"]
    cut = sum(bool(data["truncated"]) for data in done)
    if cut:
        tell(f"{cut} of {len(done)} prompts were cut to {config.truncate_tok} tokens")
    unknown = sum(int(str(data["unknown_tok"])) for data in done)
    if unknown:
        tell(f"{unknown} tokens stand for words that this model does not know")
    beyond = sum(int(str(data["prompt_tok"])) > trained for data in done)
    if beyond and config.method == "full":
        tell(
            f"{beyond} of {len(done)} prompts are longer than the {trained} tokens the model was "
            "trained at, and --method full does not help it: --truncate-tok cuts them"
        )
