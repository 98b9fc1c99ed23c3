"""What a training run knows of itself beside weights and optimizer: part of each checkpoint.

state = TrainState()
state.tokens += 4096
restored = TrainState.read(state.json())
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import cast

from pydantic import JsonValue

__all__ = ["TrainState"]


@dataclass
class TrainState:
    """Counters of a run; over all its sessions.

    Attributes:
        step: Steps done.
        tokens: Tokens generated in rollouts, over all processes.
        excluded: Rollouts without a reward.
        skipped: Optimizer steps left out because something was not finite.
        failing: Steps in a row, the last ones, in which no rollout had a reward.
        stuck: Optimizer steps in a row, the last ones, that were left out.
        dev: Step and accuracy of each look at the dev questions, oldest first.
        dump: Length of the dump of rollouts in bytes.
    """

    step: int = 0
    tokens: int = 0
    excluded: int = 0
    skipped: int = 0
    failing: int = 0
    stuck: int = 0
    dev: list[tuple[int, float]] = field(default_factory=list)
    dump: int = 0

    @property
    def best(self) -> int | None:
        """Step of the best look at the dev questions, the earlier of equal ones.

        The start, step 0, only if every later one is worse.
        """
        if not self.dev:
            return None
        return max(self.dev, key=lambda look: (look[1], look[0] > 0, -look[0]))[0]

    def json(self) -> dict[str, JsonValue]:
        """For a checkpoint."""
        found = asdict(self)
        return {**found, "dev": [list(look) for look in self.dev]}

    @classmethod
    def read(cls, saved: Mapping[str, JsonValue]) -> TrainState:
        """From a checkpoint."""
        state = cls(**{one.name: cast("int", saved[one.name]) for one in fields(cls)})  # type: ignore[arg-type]
        looks = cast("list[tuple[int, float]]", saved["dev"])
        state.dev = [(int(step), float(accuracy)) for step, accuracy in looks]
        return state
