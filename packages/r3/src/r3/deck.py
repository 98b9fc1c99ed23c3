"""Things in random order, each as often as it should come, and the same after a resume.

    deck = Deck(5, seed=0)
    deck.take(7)  # all five, then two of the next round

A round is dealt as a whole from the state that the generator has before it, so a saved deck is that
state and a place in the round. No torch here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias, cast

import numpy as np
from numpy.typing import NDArray
from pydantic import JsonValue

from papercore.errors import DataError
from papercore.seeds import fan_out

__all__ = ["Deck", "Saved", "dice", "read_dice", "restore_dice", "whole"]

Saved: TypeAlias = dict[str, JsonValue]
"""A state as JSON."""


class Deck:
    """Numbers below `num`, dealt in rounds.

    Args:
        num: How many there are.
        seed: Of the order.
        name: Of the purpose; decks of one seed and different names have different orders.
        expected: How often each number comes in a round, in expectation; None is once each. The
            numbers of a round differ from that by less than one each, and any run of neighbours
            comes as often as its sum says, up to one. Their sum is the length of a round.
    """

    def __init__(
        self, num: int, *, seed: int, name: str = "deck", expected: Sequence[float] | None = None
    ) -> None:
        assert num > 0, "nothing to deal"
        self._num = num
        self._expected = None if expected is None else np.asarray(expected, dtype=np.float64)
        self._rng = dice(seed, name)
        self._round = 0
        self._before = read_dice(self._rng)
        self._dealt = self._deal()
        self._at = 0

    @property
    def rounds(self) -> float:
        """Rounds that are done, and the share of the next that is."""
        return self._round + self._at / len(self._dealt)

    def take(self, num: int) -> list[int]:
        """The next so many, over the end of a round if need be."""
        taken: list[int] = []
        while len(taken) < num:
            if self._at == len(self._dealt):
                self._before = read_dice(self._rng)
                self._dealt = self._deal()
                self._round, self._at = self._round + 1, 0
            some = self._dealt[self._at : self._at + num - len(taken)]
            taken += some
            self._at += len(some)
        return taken

    def state(self) -> Saved:
        """What `restore` needs."""
        return {"dice": list(self._before), "round": self._round, "at": self._at}

    def restore(self, state: JsonValue) -> None:
        """Goes on where the state was saved.

        Raises:
            DataError: It is no such state.
        """
        if not isinstance(state, dict):
            raise DataError(f"the state of a deck is damaged: {state!r}"[:200])
        try:
            done, at = whole(state["round"]), whole(state["at"])
            restore_dice(self._rng, state["dice"])
            self._before = read_dice(self._rng)
            self._dealt = self._deal()
            if not 0 <= at <= len(self._dealt):
                raise DataError(f"place {at} of a round of {len(self._dealt)}")
        except (KeyError, TypeError) as error:
            raise DataError(f"the state of a deck is damaged: {error}") from None
        self._round, self._at = done, at

    def _deal(self) -> list[int]:
        """One round. Its copies are spread by one random offset over all numbers in a row."""
        if self._expected is None:
            return cast("list[int]", self._rng.permutation(self._num).tolist())
        reached = np.round(np.cumsum(self._expected), 9)  # sums that should be whole are
        upper = np.floor(reached + self._rng.random()).astype(np.int64)
        copies = np.diff(upper, prepend=0)
        dealt: NDArray[np.int64] = np.repeat(np.arange(self._num), copies)
        return cast("list[int]", self._rng.permutation(dealt).tolist())


def dice(seed: int, name: str) -> np.random.Generator:
    """A generator for a named purpose."""
    return np.random.Generator(np.random.PCG64(fan_out(seed, name)))


def read_dice(rng: np.random.Generator) -> list[str]:
    """The state of a generator as JSON; its numbers of 128 bits are text."""
    state = cast("Mapping[str, object]", rng.bit_generator.state)
    inner = cast("Mapping[str, int]", state["state"])
    return [str(one) for one in (inner["state"], inner["inc"], state["has_uint32"])] + [
        str(state["uinteger"])
    ]


def restore_dice(rng: np.random.Generator, saved: JsonValue) -> None:
    """Puts a generator into a state that was read.

    Raises:
        DataError: It is no such state.
    """
    try:
        state, inc, has_half, half = (int(one) for one in cast("list[str]", saved))
        rng.bit_generator.state = {
            "bit_generator": "PCG64",
            "state": {"state": state, "inc": inc},
            "has_uint32": has_half,
            "uinteger": half,
        }
    except (TypeError, ValueError, OverflowError, KeyError) as error:
        raise DataError(f"the state of a random generator is damaged: {error}") from None


def whole(value: JsonValue) -> int:
    """A whole number, not below 0.

    Raises:
        DataError: It is none.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise DataError(f"{value!r} is no count")
    return value
