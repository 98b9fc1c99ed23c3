"""Text as it is written, from tokens as they come. No torch here.

pieces = Pieces(partial(decode, tokenizer), stops=("END",))
new = pieces.more(token_ids)
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from papercore.generate.texts import cut_at_stop

__all__ = ["Pieces"]

logger = logging.getLogger(__name__)

UNFINISHED = "\ufffd"
"""What decoders write for the first bytes of a character whose other bytes are still to come."""


class Pieces:
    """Cuts the text of growing token ids into pieces that never have to be taken back.

    The end of the text is held back while it may change: an unfinished character, or what may be
    the beginning of a stop string.
    """

    def __init__(self, decode: Callable[[Sequence[int]], str], *, stops: Sequence[str]) -> None:
        self._decode = decode
        self._stops = stops
        self._sent = ""

    def more(self, token_ids: Sequence[int], *, ended: bool = False) -> str:
        """What is new in the text of all tokens so far; with `ended` nothing is held back."""
        text = cut_at_stop(self._decode(token_ids), self._stops)
        if not ended:
            text = text[: len(text) - _held_back(text, self._stops)]
        if not text.startswith(self._sent):
            if ended and not self._sent.startswith(text):
                logger.warning("the tokenizer changed text that had been written already")
            return ""
        new = text[len(self._sent) :]
        self._sent = text
        return new


def _held_back(text: str, stops: Sequence[str]) -> int:
    """Characters at the end that may still change."""
    whole = text.rstrip(UNFINISHED)
    begun = max(
        (
            length
            for stop in stops
            for length in range(1, min(len(stop), len(whole) + 1))
            if whole.endswith(stop[:length])
        ),
        default=0,
    )
    return len(text) - len(whole) + begun
