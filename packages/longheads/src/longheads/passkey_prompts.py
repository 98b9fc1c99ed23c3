"""Prompts that hide a number in filler, of an exact length in tokens (spec 3.1).

    trial = write_trial(tokenizer, "passkey", length=4096, index=0, seed=0)

The structure is that of the paper's script: a task, filler, a line that states the key twice,
filler, a question. The sentences are our own. No torch here.

Deviation: the authors cut the filler to 3.75 characters per token and let the length come out as
it may; here the filler is fitted, so that a prompt is never longer than asked and at most
`SLACK_TOK` shorter. The draws follow their rule (seed = trial + characters of filler), with the
run's seed beside it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from longheads import world
from longheads.config import PasskeyConfig
from longheads.texts import Encoded, encode, token_places
from papercore.errors import ConfigError, ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TASK = (
    "One access number is buried somewhere in the idle chatter below. Look out for it and keep it: "
    "you will be asked to repeat it at the end."
)
FILLER = (
    "Rain ran down the window. Boats lay in the harbour. The kettle began to sing. "
    "Someone closed a book. Nobody was in a hurry. "
)
NEEDLE = "The access number is {key}. Keep that in mind. {key} is the access number."
QUESTION = "Which access number was given above? The access number is"

CHARS_PER_TOK = 3.75
"""Source: official passkey script, characters of filler per token."""
MAX_KEY = 50_000
"""Keys are below. Source: official passkey script."""
SLACK_TOK = 3
"""A prompt may be so many tokens shorter than asked, where a tokenizer leaves no better cut."""
WORLD_FACTS = 4
WORLD_REPEATS = 2


@dataclass(frozen=True)
class Trial:
    """A prompt with a hidden key.

    Attributes:
        id: `passkey/<length>/<index>`.
        length: tokens that were asked for.
        index: number of the trial.
        ids: tokens of the prompt.
        expected: the key as text.
        expected_ids: tokens that must follow the prompt.
        depth: where the key stands, from 0 (start) to 1 (end).
        needle: places of the tokens of the line with the key.
        keys: places of the tokens of each statement of the key.
    """

    id: str
    length: int
    index: int
    ids: tuple[int, ...]
    expected: str
    expected_ids: tuple[int, ...]
    depth: float
    needle: tuple[int, ...]
    keys: tuple[tuple[int, ...], ...]

    def needle_chunks(self, chunk_len: int) -> list[int]:
        """Chunks that hold the line with the key."""
        return sorted({place // chunk_len for place in self.needle})

    def key_split(self, chunk_len: int) -> bool:
        """Whether a border between chunks cuts a statement of the key."""
        return any(len({place // chunk_len for place in key}) > 1 for key in self.keys)


def trial_id(length: int, index: int) -> str:
    """Id of a trial's record."""
    return f"passkey/{length}/{index}"


def write_trial(
    tokenizer: "PreTrainedTokenizerBase",
    task: str,
    *,
    length: int,
    index: int,
    seed: int = 0,
) -> Trial:
    """Writes the prompt of a trial; the same arguments give the same prompt.

    Raises:
        ConfigError: The length has no room for the prompt.
        ModelError: The tokenizer does not fit the task.
    """
    num_garbage = int(CHARS_PER_TOK * length)
    rng = np.random.default_rng([index + num_garbage, seed])
    write = _passkey_trial if task == "passkey" else _world_trial
    return write(tokenizer, rng, length, index)


def check_lengths(tokenizer: "PreTrainedTokenizerBase", config: PasskeyConfig) -> None:
    """Refuses lengths that have no room for a prompt, before the first trial.

    Raises:
        ConfigError: The shortest length is too short.
        ModelError: The tokenizer does not fit the task.
    """
    write_trial(tokenizer, config.task, length=min(config.lengths), index=0, seed=config.seed)


def passkey_text(key: int, depth: float, num_filler: int) -> str:
    """The prompt with so many characters of filler, cut at a depth."""
    before = round(depth * num_filler)
    return "\n".join(
        (TASK, _filler(before), NEEDLE.format(key=key), _filler(num_filler - before), QUESTION)
    )


def fit(count: Callable[[int], int], limit: int, *, guess: float = CHARS_PER_TOK) -> int:
    """The amount of filler with which a prompt just reaches a number of tokens.

    Args:
        count: Tokens of the prompt with so much filler; grows with it, nearly.
        limit: Tokens that must not be passed.
        guess: Filler per token, to begin with.

    Returns:
        An amount `n` with `count(n) <= limit` that is within `SLACK_TOK`, or else cannot be raised
        by one.

    Raises:
        ConfigError: Without filler the prompt is too long already.
    """
    low, low_tok = 0, count(0)
    if low_tok > limit:
        raise ConfigError(
            f"a length of {limit} tokens is too short: the prompt has {low_tok} without filler"
        )
    high = max(1, int((limit - low_tok) * guess))
    while (high_tok := count(high)) <= limit:
        low, low_tok, high = high, high_tok, 2 * high
    while limit - low_tok > SLACK_TOK and high - low > 1:
        share = (limit - low_tok) / (high_tok - low_tok)
        tried = min(max(low + int(share * (high - low)), low + 1), high - 1)
        tok = count(tried)
        if tok > limit:
            high, high_tok = tried, tok
        else:
            low, low_tok = tried, tok
    return low


def _filler(num_chars: int) -> str:
    return (FILLER * (num_chars // len(FILLER) + 1))[:num_chars]


def _passkey_trial(
    tokenizer: "PreTrainedTokenizerBase", rng: np.random.Generator, length: int, index: int
) -> Trial:
    depth, key = float(rng.random()), int(rng.integers(1, MAX_KEY))

    def encoded(num_filler: int) -> Encoded:
        return encode(tokenizer, passkey_text(key, depth, num_filler))

    num_filler = fit(lambda n: len(encoded(n).ids), length)
    text, found = passkey_text(key, depth, num_filler), encoded(num_filler)
    line = NEEDLE.format(key=key)
    # The line may be found by its number: filler and task hold no digits.
    start = text.index(line)
    first, last = start + line.index(str(key)), start + line.rindex(str(key))
    return Trial(
        id=trial_id(length, index),
        length=length,
        index=index,
        ids=found.ids,
        expected=str(key),
        expected_ids=_following(tokenizer, found.ids, text, str(key)),
        depth=depth,
        needle=token_places(found, start, len(line)),
        keys=tuple(token_places(found, place, len(str(key))) for place in (first, last)),
    )


def _world_trial(
    tokenizer: "PreTrainedTokenizerBase", rng: np.random.Generator, length: int, index: int
) -> Trial:
    try:
        layout = world.Layout(length + 1, facts=WORLD_FACTS, questions=1, repeats=WORLD_REPEATS)
    except ValueError as error:
        raise ConfigError(f"a length of {length} tokens is too short: {error}") from None
    documents = world.write_documents(rng, 1, layout)
    words = world.to_text(documents.ids[0])
    text, _, value = words.rpartition(" ")
    ids = encode(tokenizer, text).ids
    expected = _following(tokenizer, ids, text, value)
    if len(ids) != length or len(expected) != 1:
        raise ModelError(
            "task 'world' needs a tokenizer with one token per word of the miniature's world: use "
            "--model tiny:longheads, or --task passkey"
        )
    needle = int(documents.needles[0, 0])
    return Trial(
        id=trial_id(length, index),
        length=length,
        index=index,
        ids=ids,
        expected=value,
        expected_ids=expected,
        depth=float(documents.depths[0, 0]),
        needle=tuple(range(needle, needle + layout.fact_tok)),
        keys=tuple((int(place) - 1, int(place)) for place in documents.values[0, 0]),
    )


def _following(
    tokenizer: "PreTrainedTokenizerBase", ids: tuple[int, ...], text: str, key: str
) -> tuple[int, ...]:
    """Tokens of the key where it follows a prompt after a space."""
    whole = encode(tokenizer, f"{text} {key}").ids
    if whole[: len(ids)] != ids or len(whole) == len(ids):
        raise ModelError(
            "this tokenizer joins the end of the prompt with the key, so that no exact tokens can "
            "be expected"
        )
    return whole[len(ids) :]
