"""How many trajectories each environment gets, and which ones: exact, and blind to their order.

    plan = deal(digests, Quota(clean=100, slight=30), seed=0)
    plan[7]            # the places that trajectory 7 takes: ((clean, whole, 0), (slight, tool, 0))

Each level ranks all trajectories by a hash of (seed, level, trajectory) and takes them in that
order, from the start again when there are fewer than it needs. So a trajectory's places depend on
the seed and on the set of trajectories, not on their order in the file.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from papercore.errors import DataError
from rotbench.cases import HALVES, LEVELS, Half, Level
from rotbench.config import Quota

__all__ = ["Place", "cells", "deal", "shares"]


@dataclass(frozen=True, slots=True)
class Place:
    """One augmented version of a trajectory."""

    level: Level
    half: Half
    repetition: int
    """Counts the versions of this trajectory in this half of this level, from 0: each has noise of
    its own."""


def cells(quota: Quota) -> dict[tuple[Level, Half], int]:
    """The quota by level and half; of an odd number the tool half has one more.

    Deviation: the paper gives numbers per level only. Half of the slight, medium and heavy ones
    disturb tools and half parameters, as in the released test data.
    """
    split: dict[tuple[Level, Half], int] = {}
    for level in LEVELS:
        halves = HALVES[level]
        for index, half in enumerate(halves):
            split[level, half] = (quota.of(level) + len(halves) - 1 - index) // len(halves)
    return split


def deal(digests: Sequence[bytes], quota: Quota, *, seed: int) -> list[tuple[Place, ...]]:
    """The places of every trajectory, level by level.

    Args:
        digests: A digest of each trajectory's content; all differ.
        quota: How many places there are.
        seed: Another seed ranks the trajectories in another way.

    Raises:
        DataError: There are places but no trajectories.
    """
    if not digests and quota.total:
        raise DataError("there is no trajectory to fill the quota with")
    places: list[list[Place]] = [[] for _ in digests]
    split = cells(quota)
    for level in LEVELS:
        counts = {half: split[level, half] for half in HALVES[level]}
        if any(counts.values()):
            ranked = _ranked(digests, f"{seed}/{level}/".encode())
            _deal_level_(places, ranked, level, counts)
    return [tuple(own) for own in places]


def shares(quota: Quota) -> dict[Level, float]:
    """The part of the mixture that each level is."""
    return {level: quota.of(level) / quota.total for level in LEVELS}


def _deal_level_(
    places: list[list[Place]], ranked: Sequence[int], level: Level, counts: Mapping[Half, int]
) -> None:
    """The second half goes on where the first stopped: they share none while there are enough."""
    start = 0
    for half, count in counts.items():
        for taken in range(count):
            index = ranked[(start + taken) % len(ranked)]
            places[index].append(Place(level, half, taken // len(ranked)))
        start += count


def _ranked(digests: Sequence[bytes], salt: bytes) -> list[int]:
    """Indices of the trajectories, in an order that only their content and the salt decide."""

    def rank(index: int) -> bytes:
        return hashlib.blake2b(salt + digests[index], digest_size=16).digest()

    return sorted(range(len(digests)), key=rank)
