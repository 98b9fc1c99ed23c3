"""Which rollouts go through the model together.

    for rows in micro_batches(lengths, max_rows=8):
        batch = pack([rollouts[row] for row in rows], pad_id=0)

A minibatch is what one optimizer step learns from; its rows are drawn at random. A micro-batch is
what one forward pass holds; it only decides how much of the work is padding.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch

from papercore.errors import ConfigError

__all__ = ["micro_batches", "minibatch_order"]


def micro_batches(lengths: Sequence[int], *, max_rows: int) -> list[list[int]]:
    """Puts rows of like length together, every row once.

    The longest come first, so that a batch for which memory is too short fails at the start.

    Args:
        lengths: Tokens of each row, as many as will go through the model.
        max_rows: Rows of a micro-batch at most.

    Returns:
        Indices of rows; rows of the same length keep their order.
    """
    order = sorted(range(len(lengths)), key=lambda row: -lengths[row])
    return [order[start : start + max_rows] for start in range(0, len(order), max_rows)]


def minibatch_order(num: int, *, minibatches: int, shards: int = 1, seed: int) -> list[list[int]]:
    """Deals rows to minibatches at random, the same number to each or one more.

    Rows are cut into `shards` equal runs, and each run is dealt alike. So several processes that
    hold one run each, and deal it with `shards=1` and the same seed, make the same minibatches
    together as one process that holds all.

    Returns:
        `minibatches` lists of rows, every row in one of them; some are empty if a shard has fewer
        rows than that.

    Raises:
        ConfigError: The rows do not make equal shards.
    """
    if num % shards:
        raise ConfigError(f"{num} rollouts are no multiple of shards={shards}: change one")
    size = num // shards
    order = torch.randperm(size, generator=torch.Generator().manual_seed(seed)).tolist()
    cuts = [size * part // minibatches for part in range(minibatches + 1)]
    return [
        [shard * size + row for shard in range(shards) for row in order[start:end]]
        for start, end in itertools.pairwise(cuts)
    ]
