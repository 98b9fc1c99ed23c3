"""Rouge-L between short texts, fast enough to compare each new query with thousands of others.

    pool = Pool(["find a cheap flight to Rome"])
    pool.nearest("find cheap flights to Rome").score     # 0.73

Rouge-L is the F1 of the longest common subsequence of words (Lin, 2004). The subsequence is found
bit-parallel (Hyyrö, 2004): one row of its table is one Python integer, and the bits of the new text
are shared by all comparisons.

Deviation: words are runs of letters and digits of any script, and an ideograph or a kana is a word
of its own. The usual implementation knows a-z and 0-9 only, so texts in other scripts were empty.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

__all__ = ["Near", "Pool", "lcs_length", "rouge_l", "words"]

_IDEOGRAPHS = r"\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff"
_WORD = re.compile(rf"[{_IDEOGRAPHS}]|[^\W_{_IDEOGRAPHS}]+")


@dataclass(frozen=True, slots=True)
class Near:
    """The most similar text of a pool."""

    score: float
    text: str | None
    """None if the pool is empty."""


class Pool:
    """Texts, and how near a new one is to them. Texts are never removed."""

    def __init__(self, texts: Iterable[str] = ()) -> None:
        self.texts: list[str] = []
        self._words: list[list[str]] = []
        for text in texts:
            self.add(text)

    def add(self, text: str) -> None:
        """Puts a text into the pool."""
        self.texts.append(text)
        self._words.append(words(text))

    def nearest(self, text: str) -> Near:
        """The text of the pool with the highest Rouge-L; of equal ones the first."""
        new = words(text)
        masks = _masks(new)
        best, where = -1.0, -1
        for index, old in enumerate(self._words):
            # the shorter text bounds the subsequence, so most texts need no comparison
            if _f1(min(len(new), len(old)), len(new), len(old)) > best:
                score = _f1(_lcs(masks, len(new), old), len(new), len(old))
                if score > best:
                    best, where = score, index
        return Near(max(best, 0.0), self.texts[where] if where >= 0 else None)


def rouge_l(first: str, second: str) -> float:
    """F1 of the longest common subsequence of words, in [0, 1]; 0 if a text has no words."""
    a, b = words(first), words(second)
    return _f1(lcs_length(a, b), len(a), len(b))


def lcs_length(first: Sequence[str], second: Sequence[str]) -> int:
    """Length of the longest common subsequence."""
    return _lcs(_masks(first), len(first), second)


def words(text: str) -> list[str]:
    """The words that Rouge-L compares, folded to one case."""
    return _WORD.findall(text.casefold())


def _masks(sequence: Sequence[str]) -> Mapping[str, int]:
    """Word -> the places where it stands, as bits."""
    masks: dict[str, int] = {}
    for place, word in enumerate(sequence):
        masks[word] = masks.get(word, 0) | 1 << place
    return masks


def _lcs(masks: Mapping[str, int], length: int, other: Sequence[str]) -> int:
    """Hyyrö's recurrence: zero bits mark the places at which the table grows by one."""
    everything = (1 << length) - 1
    row = everything
    for word in other:
        matched = row & masks.get(word, 0)
        row = (row + matched | row - matched) & everything
    return length - row.bit_count()


def _f1(common: int, first: int, second: int) -> float:
    return 2 * common / (first + second) if first and second else 0.0
