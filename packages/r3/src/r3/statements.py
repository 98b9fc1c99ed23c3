r"""Where a demonstration states its answer: found, and cut off, so that it can be written our way.

    split_statements("He has 9 * 2 = <<9*2=18>>18.\n#### 18", read=str.strip)
    # -> Split(body="He has 9 * 2 = 18.", stated=("18",))

Rationales come with a last line `#### 18`, with a last sentence `The answer is 18.`, with both, or
with neither. No torch here.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["Split", "bare", "split_statements", "without_annotations"]

_ANNOTATION = re.compile(r"<<[^<>=\n]{0,200}=[^<>\n]{0,200}>>")
_MARKED = re.compile(r"(?:^|(?<=[\s.!?]))#{3,4}(?!#)[ \t]*(?P<answer>[^\n#]{1,200})\s*\Z")
_OF = r"(?:[ \t]+(?:to|for)[ \t]+(?:this|the)[ \t]+(?:question|problem))?"
_IS = (
    r"[ \t]+(?:is|would[ \t]+be|should[ \t]+be|must[ \t]+be)[ \t]*:?[ \t]*(?P<answer>[^\n]{1,200}?)"
)
_ANSWER = r"(?:final[ \t]+|correct[ \t]+|right[ \t]+)?answer" + _OF + _IS + r"[ \t]*\Z"
_ALONE = re.compile(
    r"(?:^|(?<=\n)|(?<=[.!?\"'”][ \t]))[ \t]*"
    r"(?:(?:so|thus|therefore|hence|then)[ \t]*,?[ \t]+)?(?:(?:the|our|your)[ \t]+)?" + _ANSWER,
    re.IGNORECASE,
)
_INSIDE = re.compile(r"\b" + _ANSWER, re.IGNORECASE)
_BEFORE = re.compile(
    r"(?P<answer>\"[^\"\n]{1,60}\"|“[^”\n]{1,60}”|'[^'\n]{1,60}'|\(?\b[A-D]\)?)"
    r"[ \t]+(?:is|would[ \t]+be|must[ \t]+be)[ \t]+(?:the|our)[ \t]+"
    r"(?:final[ \t]+|correct[ \t]+|right[ \t]+)?answer[^\n]{0,100}\Z",
    re.IGNORECASE,
)
_SENTENCE = re.compile(r"(?:[.!?][\"')\]”]?[ \t]+|\n)(?=\S)")
_WRAPPING = " \t\"'`*()[]{}“”‘’"
_MAX_STATEMENT = 600
"""Characters at the end in which the statement of an answer is looked for."""


@dataclass(frozen=True)
class Split:
    """A demonstration without the statements of its answer.

    Attributes:
        body: The rationale.
        stated: Every answer that its end stated, the last one first, as it was written.
        inside: Where in `body` a last sentence begins that states the answer among other things and
            therefore stays; None if there is none.
    """

    body: str
    stated: tuple[str, ...] = ()
    inside: int | None = None


def without_annotations(text: str) -> str:
    """The text without GSM8K's calculator annotations, such as `<<48/2=24>>`."""
    return _ANNOTATION.sub("", text)


def split_statements(rationale: str, *, read: Callable[[str], str | None]) -> Split:
    """Cuts the statements of the answer off the end of a rationale.

    A line or sentence that only states the answer is cut off; a sentence that also argues stays,
    and its place is given.

    Args:
        read: Makes of a stated text the answer that it means, or None if it means none: then a
            sentence is no statement. What follows a `####` or `###` always is one.
    """
    body = without_annotations(rationale).strip()
    stated: list[str] = []
    while True:
        marked = _MARKED.search(body, max(0, len(body) - _MAX_STATEMENT))
        alone = _ALONE.search(body, max(0, len(body) - _MAX_STATEMENT))
        if marked is not None:
            stated.append(bare(marked["answer"]))
            body = body[: marked.start()].rstrip()
        elif alone is not None and read(alone["answer"]) is not None:
            stated.append(bare(alone["answer"]))
            body = body[: alone.start()].rstrip()
        else:
            break
    for pattern in (_INSIDE, _BEFORE):
        found = pattern.search(body, max(0, len(body) - _MAX_STATEMENT))
        if found is not None and read(found["answer"]) is not None:
            stated.append(bare(found["answer"]))
            return Split(body, tuple(stated), _sentence_start(body, found.start()))
    return Split(body, tuple(stated))


def bare(stated: str) -> str:
    """A stated answer without quotes, brackets and the full stop around it."""
    before = None
    while stated != before:
        before = stated
        stated = stated.strip(_WRAPPING).rstrip(".!,;:")
    return stated


def _sentence_start(body: str, at: int) -> int:
    """Where the sentence begins that `at` is in."""
    ends = [found.end() for found in _SENTENCE.finditer(body, 0, at + 1)]
    return ends[-1] if ends else 0
