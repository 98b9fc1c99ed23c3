"""Which pages are on the device: slots per row and KV head, least recently used out first.

No tensors and no device here; the table works on all lanes at once, with numpy.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]

NOWHERE = -1


@dataclass(frozen=True)
class Move:
    """Pages to fetch: from a chunk of a lane into a slot of that lane."""

    lane: Ints
    chunk: Ints
    slot: Ints


class SlotTable:
    """Slots of every lane; a lane is one row and KV head.

    Args:
        lanes: how many.
        slots: pages of a lane that fit on the device.
        chunks: chunks that a lane may have.
    """

    def __init__(self, lanes: int, slots: int, chunks: int) -> None:
        self.slots = slots
        self._clock = 0
        self._slot_of = np.full((lanes, chunks), NOWHERE, dtype=np.int64)
        self._chunk_of = np.full((lanes, slots), NOWHERE, dtype=np.int64)
        self._used = np.zeros((lanes, slots), dtype=np.int64)

    def grow(self, chunks: int) -> None:
        """Makes room for more chunks."""
        more = chunks - self._slot_of.shape[1]
        if more > 0:
            self._slot_of = np.pad(self._slot_of, ((0, 0), (0, more)), constant_values=NOWHERE)

    def select(self, lanes: Ints) -> None:
        """Keeps the given lanes, in the given order; one may come twice."""
        self._slot_of, self._chunk_of, self._used = (
            table[lanes] for table in (self._slot_of, self._chunk_of, self._used)
        )

    def find(self, lane: Ints, chunk: Ints) -> Ints:
        """Slot of each (lane, chunk), or `NOWHERE`."""
        return self._slot_of[lane, chunk]

    def place(self, lane: Ints, chunk: Ints) -> Move:
        """Gives every (lane, chunk) a slot; all of these are different.

        Returns:
            Those that had none; their lanes' least recently used chunks lose theirs.

        Raises:
            ValueError: A lane is asked for more chunks than it has slots.
        """
        self._clock += 1
        slot = self._slot_of[lane, chunk]
        known = slot != NOWHERE
        self._used[lane[known], slot[known]] = self._clock
        order = np.argsort(lane[~known], kind="stable")
        lane, chunk = lane[~known][order], chunk[~known][order]
        lanes, begin, count = np.unique(lane, return_index=True, return_counts=True)
        rank = np.arange(len(lane)) - np.repeat(begin, count)
        if len(rank) and int(rank.max()) >= self.slots:
            raise ValueError("a lane is asked for more chunks than it has slots")
        oldest = np.argsort(self._used[lanes], axis=1, kind="stable")
        slot = oldest[np.repeat(np.arange(len(lanes)), count), rank]
        if np.any(self._used[lane, slot] == self._clock):
            raise ValueError("a lane is asked for more chunks than it has slots")
        self._leave(lane, slot)
        self._slot_of[lane, chunk] = slot
        self._chunk_of[lane, slot] = chunk
        self._used[lane, slot] = self._clock
        return Move(lane, chunk, slot)

    def forget(self, lane: Ints, first: int, last: int) -> None:
        """Takes the chunks `first` to `last` of some lanes off the device: they have changed."""
        part = self._slot_of[lane, first : last + 1]
        which, _ = np.nonzero(part != NOWHERE)
        slot = part[part != NOWHERE]
        self._leave(lane[which], slot)
        self._chunk_of[lane[which], slot] = NOWHERE
        self._used[lane[which], slot] = 0

    def _leave(self, lane: Ints, slot: Ints) -> None:
        gone = self._chunk_of[lane, slot]
        there = gone != NOWHERE
        self._slot_of[lane[there], gone[there]] = NOWHERE
