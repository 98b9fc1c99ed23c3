"""How the two contexts of every question become one left-padded batch. No torch here.

    layout = plan(pairs, share_prefix=True)

A batch has 2B rows: the B contexts with the safety prompt, then the B plain ones, padded on the
left to one width. Each half begins with the same tokens in all its rows, such as the system prompt.
Such a prefix is read once, and its keys and values are copied into the first columns of every row,
behind the padding; only the last columns are read by all rows. The batch is then what it would be
if all of it had been read at once: no hole lies within a row. A single pair is all prefix, and is
read without any padding.

    columns   0 . . . . . . . . 9          cached = 6, width = 10
    row 0     p p p p p p p a b c          p from the prefix; p a b c read
    row 1     . p p p p p p p a b          row 1 reads one token of the prefix again
    row 2     . . . . . q q q d e          a plain row, with the plain prefix
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from self_cd.contexts import Contexts

__all__ = ["Layout", "common_prefix", "plan"]


@dataclass(frozen=True)
class Layout:
    """Where the tokens of a batch lie.

    Attributes:
        rows: Contexts with the safety prompt, then the plain ones.
        prefixes: What the rows of each half begin with; empty if nothing is shared.
        cached: First columns that come from the prefixes.
    """

    rows: tuple[tuple[int, ...], ...]
    prefixes: tuple[tuple[int, ...], tuple[int, ...]]
    cached: int

    @property
    def width(self) -> int:
        """Columns of the batch."""
        return max(len(row) for row in self.rows)

    @property
    def pads(self) -> list[int]:
        """Columns of padding in front of each row."""
        width = self.width
        return [width - len(row) for row in self.rows]

    def fresh(self, pad_id: int = 0) -> list[list[int]]:
        """Token ids of the columns that all rows read."""
        padded = ([pad_id] * pad + list(row) for pad, row in zip(self.pads, self.rows, strict=True))
        return [row[self.cached :] for row in padded]


def plan(pairs: Sequence[Contexts], *, share_prefix: bool, pass_tok: int = 0) -> Layout:
    """Lays out pairs, with shared prefixes if these spare work.

    Args:
        pass_tok: What a forward pass costs beside its tokens, in tokens.
    """
    halves = [pair.emphasis for pair in pairs], [pair.plain for pair in pairs]
    rows = (*halves[0], *halves[1])
    whole = Layout(rows, ((), ()), 0)
    if not share_prefix:
        return whole
    prefixes = common_prefix(halves[0]), common_prefix(halves[1])
    lengths = [len(prefix) for prefix in prefixes for _ in pairs]
    width = whole.width
    cached = width - max(len(row) - known for row, known in zip(rows, lengths, strict=True))
    # no row of a half has more columns of its prefix than the half's longest one
    first, second = (
        prefix[: max(0, cached - (width - max(map(len, half))))]
        for prefix, half in zip(prefixes, halves, strict=True)
    )
    shared = Layout(rows, (first, second), cached)
    return min(whole, shared, key=lambda layout: _cost(layout, pass_tok))


def common_prefix(rows: Iterable[Sequence[int]]) -> tuple[int, ...]:
    """What all rows begin with; a row that goes on differently keeps at least one token."""
    rows = list(rows)
    if all(row == rows[0] for row in rows):
        return tuple(rows[0])
    shortest = min(len(row) for row in rows)
    prefix: list[int] = []
    for tokens in zip(*(row[: shortest - 1] for row in rows), strict=True):
        if len(set(tokens)) > 1:
            break
        prefix.append(tokens[0])
    return tuple(prefix)


def _cost(layout: Layout, pass_tok: int) -> int:
    """Token places that are computed, and forward passes in tokens."""
    places = sum(map(len, layout.prefixes)) + len(layout.rows) * (layout.width - layout.cached)
    passes = sum(map(bool, layout.prefixes)) + (layout.width > layout.cached)
    return places + pass_tok * passes
