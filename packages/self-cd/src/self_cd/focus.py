"""Where the words of a question lie among the tokens of its prompt.

    found = locate(tokenizer, prompter, item, "safety")
    found.focus, found.others       # places of tokens

By characters, never by token ids: a word may be several tokens, may be written with or without a
space in front of it, and may occur in the safety prompt as well, where it does not count.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from papercore.errors import DataError, ModelError
from self_cd.analysis_ids import Context
from self_cd.chat_template import ChatTemplate
from self_cd.items import Item
from self_cd.prompts import Prompter

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["Located", "find_words", "locate"]

STAND_IN = "qzquestionzq"
"""A word that no template writes by itself."""


@dataclass(frozen=True)
class Located:
    """Tokens of a prompt.

    Attributes:
        ids: The prompt.
        focus: Places of the tokens that hold characters of the focus word.
        others: Places of the other tokens of the user's text.
        texts: What each token stands for in the prompt.
    """

    ids: tuple[int, ...]
    focus: tuple[int, ...]
    others: tuple[int, ...]
    texts: tuple[str, ...]


def locate(
    tokenizer: PreTrainedTokenizerBase, prompter: Prompter, item: Item, context: Context
) -> Located:
    """Finds the focus word of a question in one of its contexts.

    Raises:
        DataError: It has no focus word, or the question does not hold it.
        ModelError: The tokenizer cannot tell where its tokens lie.
    """
    if not item.focus or not item.focus.strip():
        raise DataError("the question has no focus word")
    if not tokenizer.is_fast:
        raise ModelError(
            f"the tokenizer {type(tokenizer).__name__} does not tell where its tokens lie: use the "
            "fast one (tokenizer.json)"
        )
    ids = prompter.context(item.query, context, item.turns)
    rendered, start, end = _user_text(tokenizer, prompter, item, context)
    encoded = tokenizer(rendered, add_special_tokens=False, return_offsets_mapping=True)
    if tuple(cast("list[int]", encoded["input_ids"])) != ids:
        raise DataError(
            "the question holds control tokens, so its tokens cannot be found in the text: take "
            "them out"
        )
    spans = cast("list[tuple[int, int]]", encoded["offset_mapping"])
    words = find_words(rendered[start:end], item.focus)
    if not words:
        raise DataError("the question does not hold its focus word")
    focus = {place for low, high in words for place in _tokens(spans, start + low, start + high)}
    others = [place for place in _tokens(spans, start, end) if place not in focus]
    texts = tuple(rendered[low:high] for low, high in spans)
    return Located(ids, tuple(sorted(focus)), tuple(others), texts)


def find_words(text: str, focus: str) -> list[tuple[int, int]]:
    """Every place of a word or words, in any letter case.

    Whole words if there are any, else beginnings of words, else any part of one: the focus `kill`
    is found in `killing`, but not in `skill` as long as the text has one of the others.
    """
    pattern = r"\s+".join(re.escape(word) for word in focus.split())
    for before, after in ((r"(?<!\w)", r"(?!\w)"), (r"(?<!\w)", ""), ("", "")):
        found = re.finditer(before + pattern + after, text, re.IGNORECASE)
        if spans := [match.span() for match in found]:
            return spans
    return []


def _user_text(
    tokenizer: PreTrainedTokenizerBase, prompter: Prompter, item: Item, context: Context
) -> tuple[str, int, int]:
    """The prompt as text, and where in it the question begins and ends."""
    template = ChatTemplate(tokenizer)
    rendered, other = (
        template.render(prompter.messages(query, context, item.turns))
        for query in (item.query, STAND_IN)
    )
    before, _, after = other.rpartition(STAND_IN)
    if not (rendered.startswith(before) and rendered.endswith(after)):
        raise DataError("the chat template rewrites the question: its words cannot be found")
    return rendered, len(before), len(rendered) - len(after)


def _tokens(spans: list[tuple[int, int]], start: int, end: int) -> list[int]:
    """Places of the tokens that hold characters of a stretch of text."""
    return [
        place
        for place, (low, high) in enumerate(spans)
        if low < end and high > start and low < high
    ]
