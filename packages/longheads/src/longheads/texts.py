"""Texts as users give them, and where a piece of text lies among the tokens.

text = read_prompt(config.prompt, config.prompt_file)
encoded = encode(tokenizer, text)
places = token_places(encoded, text.index("needle"), len("needle"))
"""

import codecs
import gzip
import logging
import sys
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

from papercore.errors import DataError, ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

logger = logging.getLogger(__name__)

STDIN = Path("-")


@dataclass(frozen=True)
class Encoded:
    """A text as tokens.

    Attributes:
        ids: token ids, special tokens of the tokenizer included.
        spans: first and last character (exclusive) of each token; empty for special tokens.
    """

    ids: tuple[int, ...]
    spans: tuple[tuple[int, int], ...]


def read_prompt(prompt: str | None, path: Path | None) -> str:
    """The prompt from the command line, from a file, or for `-` from the standard input.

    Raises:
        DataError: There is none, it is empty, or the file is not text in UTF-8.
    """
    if path == STDIN:
        where = "the standard input"
        text = _decoded(sys.stdin.buffer.read(), where)
    elif path is not None:
        text, where = read_text(path), str(path)
    elif prompt is not None:
        text, where = prompt, "the prompt"
    else:
        raise DataError(
            "there is no prompt: give --prompt TEXT or --prompt-file FILE (-: what is piped in)"
        )
    if not text.strip():
        raise DataError(f"{where} is empty: there is nothing to read")
    return text


def encode(tokenizer: "PreTrainedTokenizerBase", text: str) -> Encoded:
    """Tokens of a text with their places in it; an end-of-sequence token at the end is left out.

    Raises:
        DataError: The text has no tokens.
        ModelError: The tokenizer cannot tell where its tokens lie.
    """
    if not tokenizer.is_fast:
        raise ModelError(
            f"the tokenizer {type(tokenizer).__name__} does not tell where its tokens lie: use the "
            "fast one (tokenizer.json)"
        )
    # verbose=False: a text longer than the trained length is what this package is for.
    answer = tokenizer(text, return_offsets_mapping=True, verbose=False)
    ids = tuple(cast("list[int]", answer["input_ids"]))
    spans = tuple((low, high) for low, high in cast("list[list[int]]", answer["offset_mapping"]))
    if ids and ids[-1] == tokenizer.eos_token_id and spans[-1][0] == spans[-1][1]:
        ids, spans = ids[:-1], spans[:-1]
    if not ids:
        raise DataError("the prompt has no tokens")
    return Encoded(ids, spans)


def warn_unknown(tokenizer: "PreTrainedTokenizerBase", ids: tuple[int, ...]) -> int:
    """Says once how many tokens stand for text that the model has no word for; returns how many."""
    count = 0 if tokenizer.unk_token_id is None else ids.count(tokenizer.unk_token_id)
    if count:
        logger.warning("%d of %d tokens are words that this model does not know", count, len(ids))
    return count


def token_places(encoded: Encoded, start: int, length: int) -> tuple[int, ...]:
    """Places of the tokens that hold characters of a stretch of text."""
    end = start + length
    return tuple(
        place
        for place, (low, high) in enumerate(encoded.spans)
        if low < end and high > start and low < high
    )


def occurrences(text: str, part: str) -> Iterator[int]:
    """Where a part begins in a text, every time it occurs without overlapping itself."""
    start = text.find(part)
    while start >= 0:
        yield start
        start = text.find(part, start + len(part))


def read_text(path: Path) -> str:
    """The text of a file (`.gz` too), without the line ends at its end.

    Raises:
        DataError: There is none, or it is not text in UTF-8.
    """
    try:
        content = path.expanduser().read_bytes()
        if path.name.endswith(".gz"):
            content = gzip.decompress(content)
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise DataError(f"{path} is a directory: give a text file") from None
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: cannot be read: {error}") from None
    return _decoded(content, str(path))


def _decoded(content: bytes, where: str) -> str:
    if b"\0" in content:
        raise DataError(f"{where} is a binary file: give a text file in UTF-8")
    try:
        text = content.removeprefix(codecs.BOM_UTF8).decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{where}: byte {error.start} is not UTF-8 text") from None
    return text.rstrip("\r\n")


def through_chat(tokenizer: "PreTrainedTokenizerBase", prompt: str) -> tuple[int, ...]:
    """Token ids of a user's message in the model's chat template, up to where the answer begins.

    Raises:
        ModelError: There is no template, or it refuses the message.
    """
    from jinja2 import TemplateError

    if not getattr(tokenizer, "chat_template", None):
        raise ModelError("the model has no chat template: leave out --chat, or take a chat model")
    message = [{"role": "user", "content": prompt}]
    try:
        encoded = tokenizer.apply_chat_template(
            message, add_generation_prompt=True, return_dict=True
        )
    except TemplateError as error:
        raise ModelError(f"the model's chat template refuses the prompt: {error}") from error
    return tuple(cast("dict[str, list[int]]", encoded)["input_ids"])
