"""`longheads trace`: which head of which layer reads which chunk, at the last tokens of a prompt.

`records.jsonl` of the run folder has one line per layer, query head and position with the chunks
that were read, the forced ones (first, latest, own) included; the report has the picture and the
recall of the needle.
"""

from collections.abc import Iterator
from pathlib import Path

from longheads.architectures import find_parts
from longheads.baselines import CHOOSERS
from longheads.config import TraceConfig
from longheads.continuation import read
from longheads.session import Session, answer, check_folder, open_run, open_session, tell
from longheads.texts import Encoded, encode, occurrences, read_prompt, token_places, warn_unknown
from longheads.trace import Choice, record
from longheads.trace_report import PROMPT_ID, recall_table
from papercore.config import RunFlags
from papercore.errors import ConfigError, DataError, ModelError
from papercore.records import Record
from papercore.report import conclude

DEFAULT_FOLDER = Path("runs") / "longheads-trace"


def run(config: TraceConfig, flags: RunFlags) -> int:
    """Reads the prompt and writes down what every head read.

    Raises:
        ConfigError: The method reads no chunks.
        DataError: There is no prompt, its file cannot be read, or the needle is not in it.
        ModelError: The model cannot be loaded or used.
    """
    if config.method not in CHOOSERS:
        raise ConfigError(
            f"method {config.method!r} reads no chunks, so there is nothing to trace: use one of "
            f"{', '.join(CHOOSERS)}"
        )
    text = read_prompt(config.prompt, config.prompt_file)
    starts = _needle_starts(text, config.needle)
    out = flags.out or DEFAULT_FOLDER
    check_folder(out, flags)
    with open_session(config, flags) as session:
        encoded = encode(session.tokenizer, text)
        warn_unknown(session.tokenizer, encoded.ids)
        needle = _needle_chunks(encoded, starts, config)
        choices = _trace(session, encoded, config)
        heads = find_parts(session.model).config.num_attention_heads
        with open_run(out, config, flags, "trace", data_hash=_digest(text)) as folder:
            folder.note(**session.facts)
            prompt = _prompt_record(session, encoded, needle, len(starts), config)
            for line in (prompt, *_lines(choices, heads)):
                if line.id not in folder.done:
                    folder.append(line)
            records = folder.records()
    conclude(out)
    for shown in recall_table(records):
        answer(shown)
    tell(f"{len(records) - 1} lines in {out / 'records.jsonl'}, picture in {out / 'report.html'}")
    return 0


def _digest(text: str) -> str:
    import hashlib

    return hashlib.sha256(text.encode()).hexdigest()


def _needle_starts(text: str, needle: str | None) -> list[int]:
    """Where the needle begins, every time; looked for before a model is loaded."""
    if needle is None:
        return []
    if not needle.strip():
        raise DataError("--needle is empty: give a text of the prompt, or leave it out")
    starts = list(occurrences(text, needle))
    if not starts:
        raise DataError(f"--needle {needle!r} does not occur in the prompt")
    return starts


def _needle_chunks(encoded: Encoded, starts: list[int], config: TraceConfig) -> list[int]:
    length = len(config.needle or "")
    places = [place for start in starts for place in token_places(encoded, start, length)]
    return sorted({place // config.longheads.chunk_len for place in places})


def _trace(session: Session, encoded: Encoded, config: TraceConfig) -> list[Choice]:
    assert session.handle is not None, "the method was checked"
    last = len(encoded.ids)
    positions = range(max(0, last - config.last_tok), last)
    with record(session.handle, [positions]) as recorder:
        read(session.model, encoded.ids, handle=session.handle, prefill_tok=config.prefill_tok)
    if not recorder.choices:
        raise ModelError("no layer of this model chooses chunks: every one has a sliding window")
    return recorder.choices


def _prompt_record(
    session: Session, encoded: Encoded, needle: list[int], found: int, config: TraceConfig
) -> Record:
    return Record(
        id=PROMPT_ID,
        data={
            "method": config.method,
            "num_tok": len(encoded.ids),
            "chunk_len": config.longheads.chunk_len,
            "window_tok": session.window,
            "has_needle": config.needle is not None,
            "needle_occurs": found,
            "needle_chunks": [*needle],
        },
    )


def _lines(choices: list[Choice], num_heads: int) -> Iterator[Record]:
    """One record per layer, query head and position; heads that choose together get the same."""
    for choice in sorted(choices, key=lambda one: (one.layer, one.position)):
        together = num_heads // len(choice.heads)
        for head in range(num_heads):
            yield Record(
                id=f"trace/{choice.layer}/{head}/{choice.position}",
                data={
                    "layer": choice.layer,
                    "head": head,
                    "position": choice.position,
                    "chunks": [*choice.heads[head // together]],
                },
            )
