"""`longheads perplexity`: how well a model predicts long documents (spec 3.2 and 8.2).

`windows` says what is read and what counts, `losses` reads, and every window becomes a record. A
window that fails becomes one too and is tried again with `--resume`; a model whose losses are not
finite ends the run.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import cast

from transformers import PreTrainedTokenizerBase

from longheads.config import PerplexityConfig
from longheads.corpus import Corpus, Document
from longheads.losses import token_losses
from longheads.perplexity_report import DOCUMENT_PREFIX, PREFIX, perplexity_table
from longheads.session import Session, answer, open_run, open_session, tell
from longheads.texts import warn_unknown
from longheads.windows import Stretch, described, plan
from papercore.config import RunFlags
from papercore.device import is_out_of_memory, release_memory
from papercore.errors import DataError, ModelError
from papercore.log import progress
from papercore.records import Record
from papercore.report import conclude
from papercore.runs import Run

logger = logging.getLogger(__name__)

EXIT_FAILED = 1


def run(
    config: PerplexityConfig, flags: RunFlags, out: Path, corpus: Corpus, data_hash: str
) -> int:
    """Reads the documents and prints the table of perplexities.

    Returns:
        0, or 1 if a window failed.

    Raises:
        DataError: No document is long enough, or the data changed since the run began.
        ModelError: The model cannot be loaded or used, or its losses are not finite.
    """
    with open_session(config, flags) as session:
        _check_bos(session.tokenizer, config)
        _check_length(session.tokenizer, corpus, config)
        with open_run(out, config, flags, "perplexity", data_hash=data_hash) as folder:
            folder.note(**session.facts, data=corpus.origin)
            _read_documents(session, config, corpus, folder)
            records = folder.records()
    conclude(out)
    for line in perplexity_table(records, described(config)):
        answer(line)
    missing = sorted(set(config.lengths) - {record.data.get("length") for record in records})
    if missing:
        shown = ", ".join(map(str, missing))
        tell(f"no document was long enough for {shown} tokens: there is no row of that length")
    failed = [record for record in records if record.status == "error"]
    if failed:
        tell(
            f"{len(failed)} windows failed and are left out, first: {failed[0].error}; --resume "
            "tries them again"
        )
    tell(f"report: {out / 'report.html'}")
    return EXIT_FAILED if failed else 0


def tokenize(tokenizer: PreTrainedTokenizerBase, text: str, bos: str) -> tuple[int, ...]:
    """Tokens of a document; an end-of-sequence token behind the text is left out."""
    special = bos == "document"
    # verbose=False: a text longer than the trained length is what this package is for.
    answer = tokenizer(text, add_special_tokens=special, verbose=False)
    ids = tuple(cast("list[int]", answer["input_ids"]))
    return ids[:-1] if special and ids and ids[-1] == tokenizer.eos_token_id else ids


def text_of(ids: Sequence[int], stretch: Stretch, first_id: int | None) -> tuple[int, ...]:
    """Tokens of a stretch; `first_id`, if given, takes the place of the first one."""
    taken = tuple(ids[stretch.start : stretch.start + stretch.length])
    return taken if first_id is None else (first_id, *taken[1:])


def _check_bos(tokenizer: PreTrainedTokenizerBase, config: PerplexityConfig) -> None:
    if config.bos == "window" and tokenizer.bos_token_id is None:
        raise ModelError("the tokenizer has no BOS token: use --bos document or --bos none")


def _check_length(
    tokenizer: PreTrainedTokenizerBase, corpus: Corpus, config: PerplexityConfig
) -> None:
    """Refuses texts that are all too short, before there is a run folder."""
    longest = 0
    for document in corpus:
        ids = tokenize(tokenizer, document.text, config.bos)
        if len(ids) >= config.needed_tok and plan(len(ids), config):
            warn_unknown(tokenizer, ids)
            return
        longest = max(longest, len(ids))
    raise DataError(
        f"no document is long enough: the longest has {longest} tokens, and "
        f"{max(config.needed_tok, min(config.lengths))} are needed; give shorter --lengths or "
        "longer texts"
    )


def _read_documents(
    session: Session, config: PerplexityConfig, corpus: Corpus, folder: Run
) -> None:
    before = {record.id: record for record in folder.records()}
    used = 0
    for document in corpus:
        if used == config.limit:
            break
        ids = tokenize(session.tokenizer, document.text, config.bos)
        described = _describe(document, len(ids), config)
        if described.id not in before:
            folder.append(described)
        elif before[described.id].data["sha256"] != described.data["sha256"]:
            raise DataError(
                f"{document.name} is another text than when this run began: use --overwrite"
            )
        if described.status == "ok":
            used += 1
            _read_document(session, config, document, ids, folder)


def _describe(document: Document, num_tok: int, config: PerplexityConfig) -> Record:
    short = num_tok < config.needed_tok
    return Record(
        id=f"{DOCUMENT_PREFIX}{document.index}",
        status="skipped" if short else "ok",
        error=f"{num_tok} tokens, fewer than {config.needed_tok}" if short else None,
        data={"name": document.name, "num_tok": num_tok, "sha256": document.sha256},
    )


def _read_document(
    session: Session,
    config: PerplexityConfig,
    document: Document,
    ids: Sequence[int],
    folder: Run,
) -> None:
    done = folder.done - folder.failed
    left = [
        stretch
        for stretch in plan(len(ids), config)
        if any(_id(length, document, stretch) not in done for length in stretch.counted)
    ]
    for stretch in progress(left, f"document {document.index}"):
        with folder.timed(f"length {stretch.length}"):
            records = list(_attempt(session, config, document, ids, stretch))
        folder.count(windows=1, tokens=stretch.length)
        for record in records:
            if record.id not in done:
                folder.append(record)


def _id(length: int, document: Document, stretch: Stretch) -> str:
    return f"{PREFIX}{length}/{document.index}/{stretch.start}"


def _attempt(
    session: Session,
    config: PerplexityConfig,
    document: Document,
    ids: Sequence[int],
    stretch: Stretch,
) -> Iterator[Record]:
    """The records of a stretch, one for each length; a failure becomes all of them."""
    try:
        sums = _sums(session, config, ids, stretch)
        problem = None
    except ModelError:  # it would fail on every window
        raise
    except (RuntimeError, ValueError) as error:
        sums = {}
        short = is_out_of_memory(error)
        problem = "out of memory" if short else " ".join(f"{error}".split()) or type(error).__name__
        logger.warning("window at token %d of %s failed: %s", stretch.start, document.name, problem)
    if problem == "out of memory":
        release_memory()
    for length, (first, last) in stretch.counted.items():
        yield Record(
            id=_id(length, document, stretch),
            status="error" if problem else "ok",
            error=problem,
            data={
                "length": length,
                "document": document.index,
                "start": stretch.start,
                "method": config.method,
                "scheme": config.scheme,
                "scored_tok": last - first,
                "nll": sums.get(length),
            },
        )


def _sums(
    session: Session, config: PerplexityConfig, ids: Sequence[int], stretch: Stretch
) -> Mapping[int, float]:
    """Sum of the losses that count, for each length."""
    bos = session.tokenizer.bos_token_id if config.bos == "window" else None
    losses_T = token_losses(
        session.model,
        text_of(ids, stretch, cast("int | None", bos)),
        first=stretch.first,
        handle=session.handle,
        prefill_tok=config.prefill_tok,
    )
    return {
        length: float(losses_T[first - stretch.first : last - stretch.first].sum())
        for length, (first, last) in stretch.counted.items()
    }
