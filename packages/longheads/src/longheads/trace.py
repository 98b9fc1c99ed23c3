"""Watching and steering what the heads read (spec: recall at the needle, oracle selection).

    with record(handle, positions=[[8191]]) as recorder:
        model(ids)
    recall(recorder.choices, {0: [17]})          # was chunk 17 read for row 0?

Axes: R rows, S selecting heads, T tokens, K slots.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor

from longheads.plugin import Handle


@dataclass(frozen=True)
class Choice:
    """The chunks that the heads of one layer read for one query.

    Attributes:
        layer: index of the layer.
        row: row of the batch.
        position: position of the query in its row.
        heads: the chunks of every head that chooses, ascending; one entry if all read the same.
    """

    layer: int
    row: int
    position: int
    heads: tuple[tuple[int, ...], ...]


@dataclass
class Recorder:
    """Keeps the choices at chosen positions.

    Attributes:
        positions: per row, the positions to keep.
        choices: what was kept so far.
    """

    positions: Sequence[Collection[int]]
    choices: list[Choice] = field(default_factory=list)

    def __call__(self, layer: int, rows: Sequence[int], positions: Tensor, chunks: Tensor) -> None:
        """Takes the choices of one block of queries; see `SelectionSink`."""
        for index, row in enumerate(rows):
            places = positions[index if positions.shape[0] > 1 else 0]
            first, last = int(places[0]), int(places[-1])
            plan = chunks[index if chunks.shape[0] > 1 else 0]
            for position in self.positions[row]:
                if first <= position <= last:
                    picked = plan[:, position - first]
                    self.choices.append(Choice(layer, row, position, _as_tuples(picked)))


def _as_tuples(picked_SK: Tensor) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(c for c in head if c >= 0) for head in picked_SK.tolist())


@contextmanager
def record(handle: Handle, positions: Sequence[Collection[int]]) -> Iterator[Recorder]:
    """Records the choices at the given positions of each row."""
    recorder = Recorder(positions)
    handle.state.sinks.append(recorder)
    try:
        yield recorder
    finally:
        handle.state.sinks.remove(recorder)


@contextmanager
def oracle(
    handle: Handle, chunks: Sequence[Collection[int]], *, layers: Collection[int] | None = None
) -> Iterator[None]:
    """Makes every head of some layers read the given chunks of each row, where it may choose them.

    Args:
        handle: of the enabled model.
        chunks: per row, the chunks that hold the needle.
        layers: layers that are steered; None: the last one.
    """
    steered = {len(handle.state.attentions) - 1} if layers is None else set(layers)

    def boost(layer: int, rows: Sequence[int], masked_RSTC: Tensor) -> Tensor | None:
        if layer not in steered:
            return None
        out = masked_RSTC.clone()
        for index, row in enumerate(rows):
            wanted = [chunk for chunk in chunks[row] if chunk < out.shape[-1]]
            part = out[index, :, :, wanted]
            out[index, :, :, wanted] = torch.where(part.isfinite(), float("inf"), part)
        return out

    previous, handle.state.boost = handle.state.boost, boost
    try:
        yield
    finally:
        handle.state.boost = previous


def recall(choices: Sequence[Choice], needles: Mapping[int, Collection[int]]) -> dict[int, float]:
    """Per layer, the share of (query, needle chunk) pairs that at least one head reads.

    Args:
        choices: what a recorder kept.
        needles: per row, the chunks that hold the needle.
    """
    found: dict[int, list[bool]] = {}
    for choice in choices:
        read = {chunk for head in choice.heads for chunk in head}
        hits = [chunk in read for chunk in needles.get(choice.row, ())]
        found.setdefault(choice.layer, []).extend(hits)
    return {layer: sum(hits) / len(hits) for layer, hits in found.items() if hits}
