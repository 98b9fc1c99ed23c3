"""Which stretches of a document are read, and which of their tokens count (spec 3.2 and 8.2).

    plan(10_000, config)        # -> [Stretch(start=0, length=4096, counted={4096: (3840, 4096)})]

A stretch is a text of its own: nothing before it is seen, and LongHeads cuts its chunks from its
first token on. No torch here.

* `window`: stretches of L tokens, `stride` apart, the first at the start of the document. The last
  `stride` tokens of each count, of the first one too; so the first L - stride tokens of a document
  never count, nor do those after the last whole window.
* `block`: stretches of the longest length, side by side. For every L the tokens at places L/2 to
  L - 1 of a stretch count.

A document has fewer long windows than short ones, unless `same_targets` lets every length count the
tokens that the longest one counts. The report gives every document the same weight.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from longheads.config import PerplexityConfig

__all__ = ["Stretch", "described", "plan", "spread"]


@dataclass(frozen=True)
class Stretch:
    """A part of a document that is read on its own.

    Attributes:
        start: place of its first token in the document.
        length: its tokens.
        counted: for each length, the first and the last place (exclusive) in the stretch whose
            tokens count; the first is never 0, since nothing predicts a first token.
    """

    start: int
    length: int
    counted: Mapping[int, tuple[int, int]]

    @property
    def first(self) -> int:
        """The first place that counts for some length."""
        return min(first for first, _ in self.counted.values())


def plan(num_tok: int, config: PerplexityConfig) -> list[Stretch]:
    """The stretches of a document with so many tokens, short lengths first."""
    if config.scheme == "block":
        return _blocks(num_tok, config)
    return [
        stretch
        for length in sorted(config.lengths)
        for stretch in _windows(num_tok, length, config)
    ]


def described(config: PerplexityConfig) -> str:
    """In words: which windows are read."""
    kind = "blocks" if config.scheme == "block" else "windows"
    many = "all" if config.max_windows is None else f"at most {config.max_windows}"
    limit = f"{many} {kind} of a document"
    if config.scheme == "block":
        return limit
    same = ", the same tokens at every length" if config.same_targets else ""
    return f"stride {config.stride}, {limit}{same}"


def spread(count: int, limit: int | None) -> list[int]:
    """At most `limit` of the numbers below `count`: the middles of as many equal parts."""
    if limit is None or limit >= count:
        return list(range(count))
    return [(2 * part + 1) * count // (2 * limit) for part in range(limit)]


def _windows(num_tok: int, length: int, config: PerplexityConfig) -> list[Stretch]:
    stride = config.stride
    first_end = max(config.lengths) if config.same_targets else length
    count = max(0, (num_tok - first_end) // stride + 1)
    ends = [first_end + index * stride for index in spread(count, config.max_windows)]
    counted = {length: (max(1, length - stride), length)}
    return [Stretch(end - length, length, counted) for end in ends]


def _blocks(num_tok: int, config: PerplexityConfig) -> list[Stretch]:
    longest = max(config.lengths)
    counted = {length: (length // 2, length) for length in sorted(config.lengths)}
    indices = spread(num_tok // longest, config.max_windows)
    return [Stretch(index * longest, longest, counted) for index in indices]
