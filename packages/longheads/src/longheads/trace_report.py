"""What the records of `longheads trace` come to: recall and picture. No torch here."""

from collections.abc import Sequence
from pathlib import Path
from typing import cast

from longheads.trace_picture import Picture, draw
from papercore.claims import Estimate
from papercore.plots import Figure
from papercore.records import Record
from papercore.stats import wilson

PREFIX = "trace/"
"""How the ids of these records begin."""
PROMPT_ID = "trace/prompt"
"""Id of the record that says what was read."""
MAX_SHOWN = 12
"""Chunks of the needle that the terminal lists."""


def summarise(records: Sequence[Record]) -> dict[str, Estimate]:
    """Per layer, the share of (position, needle chunk) pairs that at least one head read.

    Forced chunks count: a needle in the first or the latest chunk is always read.
    """
    prompt, lines = _parts(records)
    if prompt is None or not prompt.data["has_needle"]:
        return {}
    needle = _ints(prompt, "needle_chunks")
    found = {
        f"recall/layer_{layer}": _recall([x for x in lines if x.data["layer"] == layer], needle)
        for layer in _distinct(lines, "layer")
    }
    return {**found, "recall/any_layer": _recall(lines, needle)}


def figures(records: Sequence[Record], into: Path) -> list[Figure]:
    """The picture: layers and heads against chunks."""
    prompt, lines = _parts(records)
    if prompt is None or not lines:
        return []
    num_tok, chunk_len = _int(prompt, "num_tok"), _int(prompt, "chunk_len")
    num_chunks = -(-num_tok // chunk_len)
    pairs = [
        (layer, head) for layer in _distinct(lines, "layer") for head in _distinct(lines, "head")
    ]
    row_of = {pair: row for row, pair in enumerate(pairs)}
    counts = [[0] * num_chunks for _ in pairs]
    for line in lines:
        for chunk in _ints(line, "chunks"):
            counts[row_of[_int(line, "layer"), _int(line, "head")]][chunk] += 1
    num_positions = len(_distinct(lines, "position"))
    return [
        draw(
            into,
            Picture(
                rows=tuple(pairs),
                shares=tuple(tuple(n / num_positions for n in row) for row in counts),
                marked=tuple(_ints(prompt, "needle_chunks")),
                chunk_len=chunk_len,
                num_positions=num_positions,
            ),
        )
    ]


def recall_table(records: Sequence[Record]) -> list[str]:
    """The recall as lines of text."""
    prompt, lines = _parts(records)
    if prompt is None:
        return []
    num_tok, chunk_len = _int(prompt, "num_tok"), _int(prompt, "chunk_len")
    num_chunks, traced = -(-num_tok // chunk_len), len(_distinct(lines, "position"))
    shown = [f"{num_tok} tokens, {num_chunks} chunks of {chunk_len}, {traced} positions traced"]
    if not prompt.data["has_needle"]:
        return shown
    needle, occurs = _ints(prompt, "needle_chunks"), _int(prompt, "needle_occurs")
    more = ", ..." if len(needle) > MAX_SHOWN else ""
    chunks = ", ".join(str(chunk) for chunk in needle[:MAX_SHOWN])
    times = "once" if occurs == 1 else f"{occurs} times"
    where = "1 chunk" if len(needle) == 1 else f"{len(needle)} chunks"
    shown.append(f"the needle occurs {times}, in {where}: {chunks}{more}")
    shown.append("recall of the needle: (position, needle chunk) pairs that a head read")
    for name, share in summarise(records).items():
        label = name.removeprefix("recall/").replace("_", " ")
        shown.append(
            f"  {label:<10}  {share.value:.2f}  ({share.lo:.2f} to {share.hi:.2f}, n={share.n})"
        )
    return shown


def _parts(records: Sequence[Record]) -> tuple[Record | None, list[Record]]:
    mine = [record for record in records if record.id.startswith(PREFIX)]
    prompt = next((record for record in mine if record.id == PROMPT_ID), None)
    return prompt, [record for record in mine if record.id != PROMPT_ID]


def _recall(lines: Sequence[Record], needle: Sequence[int]) -> Estimate:
    read: dict[int, set[int]] = {}
    for line in lines:
        read.setdefault(_int(line, "position"), set()).update(_ints(line, "chunks"))
    hits = [chunk in chunks for chunks in read.values() for chunk in needle]
    return wilson(sum(hits), len(hits))


def _distinct(lines: Sequence[Record], key: str) -> list[int]:
    return sorted({_int(line, key) for line in lines})


def _int(record: Record, key: str) -> int:
    return cast("int", record.data[key])


def _ints(record: Record, key: str) -> list[int]:
    return cast("list[int]", record.data[key])
