"""`longheads generate`: read a long prompt, write what follows.

Only the answer goes to stdout; what was read, how fast and through which window goes to stderr.
"""

import hashlib
import logging
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from transformers import PreTrainedModel, TextStreamer

from longheads.config import GenerateConfig
from longheads.continuation import Continuation, Settings, continue_prompt
from longheads.session import Session, answer, open_run, open_session, tell
from longheads.texts import encode, through_chat, warn_unknown
from papercore.config import RunFlags
from papercore.errors import ConfigError, DataError
from papercore.generate.defaults import eos_ids
from papercore.records import Record
from papercore.report import conclude
from papercore.runs import is_run_folder

logger = logging.getLogger(__name__)

RECORD_ID = "generate/0"


def run(config: GenerateConfig, flags: RunFlags, text: str) -> int:
    """Reads a prompt, prints the answer, and keeps a record of it if there is `--out`.

    Raises:
        ModelError: The model cannot be loaded or used, or its logits are not finite.
    """
    digest = hashlib.sha256(text.encode()).hexdigest()
    if flags.out is not None and flags.resume and is_run_folder(flags.out):
        with open_run(flags.out, config, flags, "generate", data_hash=digest) as folder:
            kept = [record for record in folder.records() if record.id == RECORD_ID]
        if kept:
            answer(str(kept[0].data["text"]))
            conclude(flags.out)  # a run that was killed may have come no further than its record
            tell(f"{flags.out} holds this answer already")
            return 0
    with open_session(config, flags) as session, _assistant(session, config, flags) as assistant:
        ids = _prompt_ids(session, text, chat=config.chat)
        _warn_beyond(session, len(ids), config)
        written = _write(session, ids, config, assistant)
        if flags.out is None:
            return 0
        # The folder is made last, so that a failure leaves nothing behind.
        with open_run(flags.out, config, flags, "generate", data_hash=digest) as folder:
            folder.note(**session.facts)
            folder.append(_record(session, ids, written, digest, config))
    conclude(flags.out)
    tell(f"run folder: {flags.out}")
    return 0


class StdoutStreamer(TextStreamer):
    """Writes new text to stdout as soon as its words are complete."""

    def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
        """Writes a piece of text; the line ends with the answer."""
        sys.stdout.write(f"{text}\n" if stream_end else text)
        sys.stdout.flush()


@contextmanager
def _assistant(
    session: Session, config: GenerateConfig, flags: RunFlags
) -> Iterator[PreTrainedModel | None]:
    """The model that writes ahead, reading by the same method."""
    if config.assistant is None:
        yield None
        return
    helper = config.model_copy(update={"model": config.assistant})
    with open_session(helper, flags) as other:
        mine, theirs = session.tokenizer.get_vocab(), other.tokenizer.get_vocab()
        if mine != theirs:
            raise ConfigError(
                f"--assistant {config.assistant} has another vocabulary than {config.model}: it "
                "cannot write ahead for it"
            )
        yield other.model


def _write(
    session: Session,
    ids: Sequence[int],
    config: GenerateConfig,
    assistant: PreTrainedModel | None,
) -> Continuation:
    settings = Settings(
        max_new_tokens=config.max_new_tokens,
        prefill_tok=config.prefill_tok,
        temperature=config.temperature,
        eos_ids=eos_ids(session.model, session.tokenizer),
    )
    streamer = StdoutStreamer(session.tokenizer, skip_prompt=True, skip_special_tokens=True)
    written = continue_prompt(
        session.model,
        ids,
        handle=session.handle,
        settings=settings,
        streamer=streamer,
        assistant=assistant,
    )
    tell(_outcome(session, len(ids), written, config))
    if written.cache:
        tell(_offloaded(written.cache))
    return written


def _prompt_ids(session: Session, text: str, *, chat: bool) -> tuple[int, ...]:
    tokenizer = session.tokenizer
    if not chat:
        ids = encode(tokenizer, text).ids
        warn_unknown(tokenizer, ids)
        return ids
    return through_chat(tokenizer, text)


def _warn_beyond(session: Session, num_tok: int, config: GenerateConfig) -> None:
    """Full attention beyond the trained length is allowed, since that is the comparison."""
    if num_tok + config.max_new_tokens > session.trained and config.method == "full":
        logger.warning(
            "%d tokens are more than the %d the model was trained at, and --method full does not "
            "help it",
            *(num_tok + config.max_new_tokens, session.trained),
        )


def _outcome(session: Session, num_tok: int, written: Continuation, config: GenerateConfig) -> str:
    speed = written.tokens_per_s
    shown = f" ({speed:.1f} tokens/s)" if speed else ""
    window = f", window {session.window}" if session.window else ""
    return (
        f"read {num_tok} tokens in {written.prefill_s:.1f} s, wrote "
        f"{len(written.token_ids)}{shown}; "
        f"method {config.method}{window}, trained length {session.trained}"
    )


def _offloaded(facts: Mapping[str, float | bool]) -> str:
    pinned = "pinned" if facts["pinned"] else "pageable"
    # short texts, and those that the prefill alone answered, ask the pool for nothing
    rate = f", hit rate {facts['hit_rate']:.2f}" if "hit_rate" in facts else ""
    return (
        f"cache on the host: {facts['host_bytes'] / 2**20:.0f} MiB ({pinned}), pool on the device "
        f"{facts['pool_bytes'] / 2**20:.0f} MiB{rate}"
    )


def _record(
    session: Session,
    ids: Sequence[int],
    written: Continuation,
    digest: str,
    config: GenerateConfig,
) -> Record:
    tokens, speed = list(written.token_ids), written.tokens_per_s
    text = session.tokenizer.decode(tokens, skip_special_tokens=True)
    if not isinstance(text, str):
        raise DataError("the tokenizer does not give back text")
    return Record(
        id=RECORD_ID,
        data={
            "method": config.method,
            "prompt_sha256": digest,
            "prompt_tok": len(ids),
            "window_tok": session.window,
            "trained_tok": session.trained,
            "token_ids": [*tokens],
            "text": text,
            "finish_reason": written.finish_reason,
            "prefill_s": round(written.prefill_s, 3),
            "decode_s": round(written.decode_s, 3),
            "tokens_per_s": None if speed is None else round(speed, 2),
            "cache": dict(written.cache),
        },
    )
