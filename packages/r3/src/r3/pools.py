"""Curricula that take no notice of success: a pool of start states, or any boundary at all.

    pool = Pool(config, states, seed=0)
    pool.draw(32)

Here is also what all curricula have in common: `Drawing` and how states are told apart by
demonstration. No torch here.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from fractions import Fraction
from functools import cache

from pydantic import JsonValue

from papercore.errors import ConfigError, DataError
from r3.config import CurriculumConfig
from r3.deck import Deck, Saved, dice, read_dice, restore_dice
from r3.demos import Start

__all__ = ["Drawing", "Pool", "RandomPool", "by_demo", "shares_of"]


class Drawing(ABC):
    """What all curricula have in common; `r3.curriculum.Curriculum` says what the methods do.

    Args:
        config: Its kind and settings.
        states: The start states that it draws from.
    """

    def __init__(self, config: CurriculumConfig, states: Sequence[Start]) -> None:
        if not states:
            raise ConfigError(
                "there are no start states: prepare data with demonstrations, or raise max_length"
            )
        self.config = config
        self._print = _fingerprint(config, states)
        self._share: float | None = None

    def draw(self, num: int) -> list[Start]:
        """Start states of the next step."""
        assert num > 0, "nothing to draw"
        drawn = self._draw(num)
        self._share = sum(one.share for one in drawn) / num
        return drawn

    def feedback(self, states: Sequence[Start], successes: Sequence[float]) -> None:
        """Takes notice of how rollouts ended; here it does not matter."""
        assert len(states) == len(successes), "one success for each rollout"

    def state(self) -> Saved:
        """All that `restore` needs."""
        return {"kind": self.config.kind, "data": self._print, "share": self._share} | self._save()

    def restore(self, state: Mapping[str, JsonValue]) -> None:
        """Goes on from a saved state.

        Raises:
            DataError: It is damaged, or of another curriculum or other data.
        """
        if state.get("kind") != self.config.kind:
            raise DataError(
                f"the saved curriculum is {state.get('kind')!r}, not {self.config.kind!r}: set it "
                "as it was, or start a new run"
            )
        if state.get("data") != self._print:
            raise DataError(
                "the saved curriculum is of other start states or settings: take the same data, "
                "cut, curriculum and tokenizer, or start a new run"
            )
        share = state.get("share")
        try:
            self._restore(state)
        except (KeyError, TypeError, ValueError, IndexError) as error:
            reason = error if isinstance(error, DataError) else f"{type(error).__name__}: {error}"
            raise DataError(f"the saved curriculum is damaged: {reason}: start a new run") from None
        self._share = float(share) if isinstance(share, int | float) else None

    def describe(self) -> dict[str, JsonValue]:
        """Kind, passes over the data, mean share of the latest prefixes, and what a kind adds."""
        return {"kind": self.config.kind, "share": self._share} | self._tell()

    @abstractmethod
    def _draw(self, num: int) -> list[Start]:
        """What `draw` gives."""

    @abstractmethod
    def _save(self) -> Saved:
        """What `state` holds beside its head."""

    @abstractmethod
    def _restore(self, state: Mapping[str, JsonValue]) -> None:
        """The reverse of `_save`; may raise what comes of damaged states."""

    @abstractmethod
    def _tell(self) -> dict[str, JsonValue]:
        """What `describe` holds beside its head."""


class Pool(Drawing):
    """One shuffled pool without replacement: the paper's mix, and plain RL on bare questions.

    Each of the M shares of each demonstration comes once in a pass. With `weights` a state comes as
    often as its depth is worth, in expectation; a pass stays as long as it is, each depth has its
    part of it up to one draw, and each demonstration has its M draws in expectation.
    """

    def __init__(self, config: CurriculumConfig, states: Sequence[Start], *, seed: int) -> None:
        super().__init__(config, states)
        if config.weights:
            expected = _expected(config.weights, states)
            self._states = sorted(states, key=lambda one: (one.depth, one.demo))
            often = [expected[one] for one in self._states]
            self._deck = Deck(len(self._states), seed=seed, name="curriculum", expected=often)
        else:
            self._states = [one for one in states for _ in range(one.weight)]
            self._deck = Deck(len(self._states), seed=seed, name="curriculum")

    def _draw(self, num: int) -> list[Start]:
        return [self._states[index] for index in self._deck.take(num)]

    def _save(self) -> Saved:
        return {"deck": self._deck.state()}

    def _restore(self, state: Mapping[str, JsonValue]) -> None:
        self._deck.restore(state["deck"])

    def _tell(self) -> dict[str, JsonValue]:
        return {"epoch": self._deck.rounds}


class RandomPool(Drawing):
    """All demonstrations in turn, each from a boundary that is drawn anew, all equally likely."""

    def __init__(self, config: CurriculumConfig, states: Sequence[Start], *, seed: int) -> None:
        super().__init__(config, states)
        self._demos = list(by_demo(states).values())
        self._deck = Deck(len(self._demos), seed=seed, name="curriculum")
        self._dice = dice(seed, "boundaries")

    def _draw(self, num: int) -> list[Start]:
        chosen = [self._demos[index] for index in self._deck.take(num)]
        return [some[int(self._dice.integers(len(some)))] for some in chosen]

    def _save(self) -> Saved:
        return {"deck": self._deck.state(), "dice": list(read_dice(self._dice))}

    def _restore(self, state: Mapping[str, JsonValue]) -> None:
        self._deck.restore(state["deck"])
        restore_dice(self._dice, state["dice"])

    def _tell(self) -> dict[str, JsonValue]:
        return {"epoch": self._deck.rounds}


def by_demo(states: Sequence[Start]) -> dict[int, list[Start]]:
    """The states of each demonstration, from the bare question on."""
    found: dict[int, list[Start]] = {}
    for one in sorted(states, key=lambda one: (one.demo, one.cut)):
        found.setdefault(one.demo, []).append(one)
    return found


def shares_of(states: Sequence[Start]) -> list[Start]:
    """The shares of one demonstration, from the bare question on: each state by its weight."""
    return [one for one in states for _ in range(one.weight)]


def _expected(weights: Sequence[float], states: Sequence[Start]) -> dict[Start, float]:
    """How often each state comes in a pass, in expectation.

    The weights divide a demonstration evenly from the question to the answer. One that has as many
    shares as there are weights gives each share its own; one with fewer, whose deepest states did
    not fit, or with more or fewer boundaries, gives each share the mean of its stretch.
    """
    demos = [shares_of(some) for some in by_demo(states).values()]
    nums = {len(shares) for shares in demos}
    if len(nums) == 1 and nums != {len(weights)}:
        raise ConfigError(
            f"weights has {len(weights)} numbers, but demonstrations have {nums.pop()} start states"
            ": give one for each"
        )
    found = dict.fromkeys(states, 0.0)
    for shares in demos:
        for one, often in zip(shares, _stretched(tuple(weights), len(shares)), strict=True):
            found[one] += often
    return found


@cache
def _stretched(weights: tuple[float, ...], num: int) -> tuple[float, ...]:
    """Weights as `num` numbers that sum up to `num`."""
    exact = [Fraction(weight) for weight in weights]
    found = []
    for share in range(num):
        begin, end = Fraction(share, num) * len(exact), Fraction(share + 1, num) * len(exact)
        found.append(
            sum(
                max(Fraction(0), min(end, Fraction(at + 1)) - max(begin, Fraction(at))) * weight
                for at, weight in enumerate(exact)
            )
        )
    return tuple(float(one * num / sum(exact)) for one in found)


def _fingerprint(config: CurriculumConfig, states: Sequence[Start]) -> str:
    """What must be the same for a saved state to fit: settings and start states."""
    digest = hashlib.sha256(config.model_dump_json().encode())
    for one in states:
        digest.update(f"\n{one.demo} {one.cut} {one.depth} {one.weight}".encode())
    return digest.hexdigest()[:16]
