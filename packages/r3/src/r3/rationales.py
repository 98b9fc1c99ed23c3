"""Rationales of CoT-Collection for questions that were released without: joined by their texts.

    finder = Finder([("A dog runs.", "An animal moves."), ...])
    finder.find('If "A dog runs.", does this mean that "An animal moves."?')      # 0

CoT-Collection wraps the texts of many data sets in instructions and does not say which example one
came from. An instruction belongs to the example whose two texts, premise and hypothesis or article
and question, both stand in it, whatever their case, blanks and punctuation. No torch here.
"""

from __future__ import annotations

import re
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import TypeAlias

from r3.config import TaskName

__all__ = ["Finder", "belongs"]

Words: TypeAlias = tuple[str, ...]

_WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)?")
ANCHOR = 6
"""Words at the beginning of a first text by which candidates are looked up."""
LONGEST = 60
"""Words of a first text that are compared: articles were cut short."""


def belongs(named: str, task: TaskName) -> bool:
    """Whether the field `task` of CoT-Collection may name this task: `mnli` in any spelling."""
    name = named.lower()
    family, _, level = task.partition("-")
    other = {"high": "middle", "middle": "high"}.get(level)
    return family in name and (other is None or other not in name)


class Finder:
    """Finds examples in instructions."""

    def __init__(self, pairs: Sequence[tuple[str, str] | None]) -> None:
        """Index of examples; those without texts to find them by are never found."""
        self._seconds: dict[Words, list[tuple[Words, int]]] = defaultdict(list)
        self._lengths: dict[Words, set[int]] = defaultdict(set)
        for place, pair in enumerate(pairs):
            first, second = ((), ()) if pair is None else (_words(pair[0]), _words(pair[1]))
            if first and second:
                begin = first[:LONGEST]
                self._seconds[begin].append((second, place))
                self._lengths[begin[:ANCHOR]].add(len(begin))
        self._anchors = sorted({len(anchor) for anchor in self._lengths})

    def find(self, instruction: str) -> int | None:
        """The example with the longest texts that both stand in an instruction, each apart."""
        words = _words(instruction)
        best, size = None, 0
        for at, begin in self._begins(words):
            end = at + len(begin)
            before, behind = _plain(words[:at]), _plain(words[end:])
            for second, place in self._seconds[begin]:
                found = len(begin) + len(second)
                text = _plain(second)
                if found > size and (text in before or text in behind):
                    best, size = place, found
        return best

    def _begins(self, words: Words) -> Iterator[tuple[int, Words]]:
        """Where first texts stand, and these."""
        for at in range(len(words)):
            for anchor in self._anchors:
                for length in self._lengths.get(words[at : at + anchor], ()):
                    begin = words[at : at + length]
                    if begin in self._seconds:
                        yield at, begin


def _plain(words: Words) -> str:
    """Words as a text in which whole words can be looked for."""
    return f" {' '.join(words)} "


def _words(text: str) -> Words:
    """Each word is once in memory: there are half a million examples of few words."""
    return tuple(sys.intern(word) for word in _WORD.findall(text.lower().replace("’", "'")))
