r"""Where the text of a model states its answer.

    stated("Two and two.\n#### 4", marker="####")  # [("4",)]

An answer is stated behind the task's marker, in `\boxed{}`, or by "the answer is". Unlike
`r3.statements`, which reads the end of a demonstration, this looks at a whole text and trusts
nothing in it. Its time grows with the length of the text and no faster. No torch here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

__all__ = ["has_statement", "last_word", "stated"]

_LONGEST = 200
"""Characters of a stated answer at most; of a longer one these and one more are kept, so that
whoever reads it can tell."""

_BOXED = re.compile(r"\\(?:boxed|fbox)\s?\{")
_ANSWER_IS = re.compile(
    r"\banswer(?: (?:to|for) (?:the|this) (?:question|problem))?\s{0,2}(?:is\b|:|=)\s{0,2}[:=]?",
    re.IGNORECASE,
)
_SENTENCE_END = re.compile(r"[.!?](?=\s|\Z)")


def stated(text: str, *, marker: str) -> list[tuple[str, ...]]:
    r"""What stands where an answer is stated, by kind of statement, the strongest kind first.

    Args:
        marker: The task's, such as `####`; empty if it has none.

    Returns:
        For the marker, `\boxed{}` and "the answer is", those that the text has at all: the stated
        texts in their order.
    """
    kinds = (_marked(text, marker), _boxed(text), _said(text))
    return [found for kind in kinds if (found := tuple(kind))]


def has_statement(text: str, *, marker: str) -> bool:
    """Whether a text states an answer, or begins to, even one that nobody can read."""
    return (
        (bool(marker) and marker in text)
        or _BOXED.search(text) is not None
        or _ANSWER_IS.search(text) is not None
    )


def last_word(text: str) -> str | None:
    """The last word of a text that holds a digit."""
    for word in reversed(text[-_LONGEST:].split()):
        if any("0" <= one <= "9" for one in word):
            return word
    return None


def _marked(text: str, marker: str) -> Iterator[str]:
    """Behind each marker: the rest of the line, or the next line where nothing is left of it."""
    if not marker:
        return
    pattern = re.compile(rf"(?<!#){re.escape(marker)}(?!#)")
    found = list(pattern.finditer(text))
    ends = [*(one.start() for one in found[1:]), len(text)]
    for one, end in zip(found, ends, strict=False):
        yield _line(text[one.end() : min(end, one.end() + 2 * _LONGEST)])


def _boxed(text: str) -> Iterator[str]:
    """In each pair of braces, which may hold others."""
    for found in _BOXED.finditer(text):
        inside = text[found.end() : found.end() + _LONGEST + 1]
        depth = 1
        for at, one in enumerate(inside):
            depth += (one == "{") - (one == "}")
            if depth == 0:
                yield inside[:at].strip()
                break


def _said(text: str) -> Iterator[str]:
    """Behind each "the answer is": the rest of the sentence or line."""
    for found in _ANSWER_IS.finditer(text):
        line = _line(text[found.end() : found.end() + 2 * _LONGEST])
        end = _SENTENCE_END.search(line)
        yield line[: end.start()] if end else line


def _line(text: str) -> str:
    """The first line that is not empty, without marks of bold and code around it."""
    return text.lstrip().partition("\n")[0].strip(" \t\r*`")[: _LONGEST + 1]
