"""`longheads trace`: which head of which layer reads which chunk, at the last tokens of a prompt.

`records.jsonl` of the run folder has one line per layer, query head and position with the chunks
that were read, the forced ones (first, latest, own) included; the report has the picture and the
recall of the needle.
"""

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from longheads.architectures import find_parts
from longheads.config import TraceConfig
from longheads.continuation import read
from longheads.session import Session, answer, open_run, open_session, tell
from longheads.texts import Encoded, encode, token_places, warn_unknown
from longheads.trace import Choice, record
from longheads.trace_report import PROMPT_ID, recall_table
from papercore.config import RunFlags
from papercore.errors import ModelError
from papercore.records import Record
from papercore.report import conclude


def run(config: TraceConfig, flags: RunFlags, out: Path, text: str, starts: Sequence[int]) -> int:
    """Reads a prompt and writes down what every head read.

    Args:
        config: the command's settings.
        flags: the run's flags.
        out: the run folder.
        text: the prompt.
        starts: where the needle begins in it.

    Raises:
        ModelError: The model cannot be loaded or used.
    """
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
    return hashlib.sha256(text.encode()).hexdigest()


def _needle_chunks(encoded: Encoded, starts: Sequence[int], config: TraceConfig) -> list[int]:
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
