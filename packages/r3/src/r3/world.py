"""The miniature's world: an affine map, applied ten times to a number. No torch here.

    splits, meta = prepared(seed=0)

A question is a start value, its rationale the ten values after it, the answer the last of them.
Some start values are held out: they never begin a demonstration, so what is tested was not shown.
They do occur within demonstrations, as every value does.

Source: spec section 8. Deviations: there all 97 start values were trained on and tested; 500 drawn
demonstrations of them are here each trained one once, which is the same but for their weights.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import numpy as np
from pydantic import JsonValue

from r3.demos import Demo

__all__ = [
    "MODULUS",
    "NUM_HELD_OUT",
    "SLIP",
    "STEPS",
    "Split",
    "chain",
    "draw_split",
    "held_out_demos",
    "prepared",
    "successor",
    "training_demos",
    "tuning_demos",
]

MODULUS: Final = 97
FACTOR: Final = 5
"""A primitive root of the modulus: a slip never comes right by a short cycle."""
SHIFT: Final = 3
STEPS: Final = 10

NUM_HELD_OUT: Final = 32
"""Start values that are tested on only."""

NUM_TUNING: Final = 3000
"""Demonstrations that the weak model is tuned on."""
SLIP: Final = 0.6
"""How often a step of these is one too high, so that the model's favourite step is wrong."""


@dataclass(frozen=True)
class Split:
    """Start values of a seed, rising."""

    trained: tuple[int, ...]
    held_out: tuple[int, ...]


def successor(value: int) -> int:
    """The value after one step."""
    return (FACTOR * value + SHIFT) % MODULUS


def chain(start: int) -> tuple[int, ...]:
    """The values after a start value."""
    values = [start]
    for _ in range(STEPS):
        values.append(successor(values[-1]))
    return tuple(values[1:])


def draw_split(seed: int) -> Split:
    """Which start values are held out."""
    order = np.random.default_rng([seed, 0]).permutation(MODULUS).tolist()
    return Split(tuple(sorted(order[NUM_HELD_OUT:])), tuple(sorted(order[:NUM_HELD_OUT])))


def training_demos(seed: int) -> tuple[Demo, ...]:
    """Right demonstrations for RL, one of each start value that is not held out."""
    return tuple(_demo(f"world_{start}", start, chain(start)) for start in draw_split(seed).trained)


def held_out_demos(seed: int) -> tuple[Demo, ...]:
    """The held-out questions, with right demonstrations."""
    return tuple(
        _demo(f"world_{start}", start, chain(start)) for start in draw_split(seed).held_out
    )


def tuning_demos(seed: int) -> tuple[Demo, ...]:
    """Demonstrations for tuning, in which most steps slip; what follows a slip starts from it."""
    rng = np.random.default_rng([seed, 1])
    trained = draw_split(seed).trained
    starts = rng.integers(0, len(trained), NUM_TUNING).tolist()
    slips = (rng.random((NUM_TUNING, STEPS)) < SLIP).tolist()
    return tuple(
        _demo(f"slipping_{number}", trained[place], _slipping(trained[place], row))
        for number, (place, row) in enumerate(zip(starts, slips, strict=True))
    )


def prepared(seed: int) -> tuple[Mapping[str, tuple[Demo, ...]], dict[str, JsonValue]]:
    """All splits, as `r3 prepare` writes them, and what is noted of them."""
    splits = {
        "train": training_demos(seed),
        "test": held_out_demos(seed),
        "sft": tuning_demos(seed),
    }
    steps_wrong = _share_of_slips(splits["sft"])
    meta: dict[str, JsonValue] = {
        "map": f"x -> {FACTOR} x + {SHIFT} mod {MODULUS}, {STEPS} times",
        "held_out": len(splits["test"]),
        "slip": SLIP,
        "slipped": round(steps_wrong, 4),
    }
    return splits, meta


def _slipping(start: int, slips: Sequence[bool]) -> tuple[int, ...]:
    values = [start]
    for slip in slips:
        values.append((successor(values[-1]) + slip) % MODULUS)
    return tuple(values[1:])


def _demo(name: str, start: int, values: Sequence[int]) -> Demo:
    """The gold answer is the right one, whatever the demonstration says."""
    words = [str(value) for value in values]
    target = " ".join(words)
    at = len(target) - len(words[-1])
    return Demo(name, str(start), target, str(chain(start)[-1]), answer_at=at)


def _share_of_slips(demos: Sequence[Demo]) -> float:
    wrong = 0
    for demo in demos:
        values = [int(word) for word in (demo.question, *demo.target.split())]
        wrong += sum(successor(before) != after for before, after in pairwise(values))
    return wrong / (STEPS * len(demos))
