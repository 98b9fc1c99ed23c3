"""What stands for a chunk when a head decides which chunks to read (spec 2.2).

Axes: B batch, H query heads, G batch x heads, C chunks, L tokens of a chunk, D head width.
Keys and queries are rotated by their offset inside the chunk (0..L-1), never by their position.

Usage: ``rep_GCD = represent(q_GCLD, k_GCLD, v_GCLD, scale=d**-0.5, kind="attention")``
"""

from typing import Literal

import torch
from torch import Tensor

from longheads.rotary import wide

ChunkRep = Literal["attention", "mean", "minmax", "last", "random"]
"""`attention` is the method, the others ablations; `random` takes the key at one drawn offset."""


def represent(
    query_GCLD: Tensor,
    key_GCLD: Tensor,
    value_GCLD: Tensor,
    *,
    scale: float,
    kind: ChunkRep = "attention",
    seed: int = 0,
) -> Tensor:
    """Summarises complete chunks in key space.

    Shapes:
        returns GC(D), or GC(2D) for `minmax` (upper bounds first, then lower bounds).

    Source: the two steps of the official modeling file; figure 2 of 2402.10685 draws them.
    """
    if kind == "attention":
        return _attended_keys(query_GCLD, key_GCLD, value_GCLD, scale)
    if kind == "mean":
        return key_GCLD.mean(dim=-2)
    if kind == "last":
        return key_GCLD[..., -1, :]
    if kind == "random":
        length = key_GCLD.shape[-2]
        return key_GCLD[..., (seed * 2654435761 + 40503) % length, :]
    return torch.cat([key_GCLD.amax(dim=-2), key_GCLD.amin(dim=-2)], dim=-1)


def score_features(query: Tensor, kind: ChunkRep) -> Tensor:
    """Turns an un-rotated query into the vector whose product with a representation is the score.

    For `minmax` the product is the largest score that any key inside the bounds can reach.
    """
    if kind != "minmax":
        return query
    return torch.cat([query.clamp(min=0), query.clamp(max=0)], dim=-1)


def rep_width(head_width: int, kind: ChunkRep) -> int:
    """Width of one representation."""
    return 2 * head_width if kind == "minmax" else head_width


def _attended_keys(
    query_GCLD: Tensor, key_GCLD: Tensor, value_GCLD: Tensor, scale: float
) -> Tensor:
    """Pools the chunk by attention to itself, then lets the pooled vector attend to its keys."""
    inner_GCLD = _softmax_product(query_GCLD, key_GCLD, value_GCLD, scale)
    pooled_GC1D = wide(inner_GCLD).mean(dim=-2, keepdim=True).to(query_GCLD.dtype)
    return _softmax_product(pooled_GC1D, key_GCLD, key_GCLD, scale).squeeze(-2)


def _softmax_product(query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
    weights = wide(torch.matmul(query, key.transpose(-1, -2))).mul_(scale)
    return torch.matmul(weights.softmax(dim=-1).to(value.dtype), value)
