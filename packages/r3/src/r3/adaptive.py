"""Each demonstration shortens its own prefix as it is solved.

Source: the idea is that of AdaBack (2506.18110): a share of each demonstration is revealed, drawn
from an interval of its own that past rewards narrow. The rule below, on boundaries of steps instead
of shares, is ours. No torch here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

from pydantic import JsonValue

from papercore.errors import DataError
from r3.config import CurriculumConfig
from r3.deck import Deck, Saved, dice, read_dice, restore_dice
from r3.demos import Start
from r3.pools import Drawing, by_demo

__all__ = ["Adaptive"]

_THRESHOLD = 0.5
"""Mean success from which a demonstration counts as solved. Ours; AdaBack tunes its own."""


class Adaptive(Drawing):
    """A search for the shortest prefix from which a demonstration is solved, which never ends.

    All demonstrations come in turn. Each has an interval of its boundaries, at first all of them,
    and starts from one of these, all equally likely. If the mean success of its rollouts reaches
    the threshold, the interval ends at this boundary; if not, it begins behind it. As the policy
    changes, what was found may be outdated: where the lowest boundary of an interval is solved, it
    opens down to the bare question, and where the highest is not, up to the last boundary.

    Unseen demonstrations have the whole interval; none is guessed from others.
    """

    def __init__(self, config: CurriculumConfig, states: Sequence[Start], *, seed: int) -> None:
        super().__init__(config, states)
        self._threshold = _THRESHOLD if config.threshold is None else config.threshold
        demos = by_demo(states)
        self._demos = list(demos.values())
        self._row = {demo: row for row, demo in enumerate(demos)}
        self._low = [0] * len(self._demos)
        self._high = [len(some) - 1 for some in self._demos]
        self._deck = Deck(len(self._demos), seed=seed, name="curriculum")
        self._dice = dice(seed, "boundaries")

    def feedback(self, states: Sequence[Start], successes: Sequence[float]) -> None:
        """Narrows the intervals; rollouts from one state are one mean."""
        super().feedback(states, successes)
        grouped: dict[Start, list[float]] = {}
        for one, success in zip(states, successes, strict=True):
            grouped.setdefault(one, []).append(float(success))
        for one, some in grouped.items():
            row = self._row[one.demo]
            self._narrow(row, self._demos[row].index(one), sum(some) / len(some))

    def interval(self, demo: int) -> tuple[int, int]:
        """Numbers of the first and last boundary that a demonstration may start from now."""
        row = self._row[demo]
        return self._low[row], self._high[row]

    def _narrow(self, row: int, at: int, success: float) -> None:
        low, high, last = self._low[row], self._high[row], len(self._demos[row]) - 1
        if success >= self._threshold:
            self._low[row], self._high[row] = (0 if low >= at else low), at
        else:
            low = min(at + 1, last)
            self._low[row], self._high[row] = low, (high if high >= low else last)

    def _draw(self, num: int) -> list[Start]:
        return [self._start(row) for row in self._deck.take(num)]

    def _start(self, row: int) -> Start:
        low, high = self._low[row], self._high[row]
        return self._demos[row][int(self._dice.integers(low, high + 1))]

    def _save(self) -> Saved:
        return {
            "low": list(self._low),
            "high": list(self._high),
            "deck": self._deck.state(),
            "dice": list(read_dice(self._dice)),
        }

    def _restore(self, state: Mapping[str, JsonValue]) -> None:
        low, high = cast("list[int]", state["low"]), cast("list[int]", state["high"])
        fits = zip(low, high, self._demos, strict=True)
        if not all(0 <= begin <= end < len(some) for begin, end, some in fits):
            raise DataError("an interval is none")
        self._low, self._high = list(low), list(high)
        self._deck.restore(state["deck"])
        restore_dice(self._dice, state["dice"])

    def _tell(self) -> dict[str, JsonValue]:
        num = len(self._demos)
        shares = (some[high].share for some, high in zip(self._demos, self._high, strict=True))
        return {
            "epoch": self._deck.rounds,
            "longest_share": sum(shares) / num,
            "at_question": sum(high == 0 for high in self._high) / num,
        }
