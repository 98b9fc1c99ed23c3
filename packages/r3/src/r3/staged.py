"""The strict order of stages: one depth after the other, from the answer back to the question.

Source: 2402.05808 (notes), its baseline "vanilla staged RL". The rule by which a stage ends is not
known; steps and threshold are ours. No torch here.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Mapping, Sequence
from typing import cast

from pydantic import JsonValue

from papercore.errors import ConfigError, DataError
from r3.config import CurriculumConfig
from r3.deck import Deck, Saved, whole
from r3.demos import Start
from r3.pools import Drawing, by_demo, shares_of

__all__ = ["Staged"]

logger = logging.getLogger(__name__)


class Staged(Drawing):
    """Stages of start states at one depth; the last one is the bare question and lasts to the end.

    A stage holds one state of every demonstration. Where demonstrations have different numbers of
    shares, those with fewer stay at one for several stages.

    A stage ends after its steps, or before, once the latest `window` rollouts from its states reach
    the threshold. One `draw` is one step.

    Args:
        config: `stage_steps`, `threshold`, `window`.
        states: All start states.
        seed: Of the order within a stage.
        total_steps: Divided evenly if `stage_steps` is None; with fewer steps than stages the first
            stages are left out.
    """

    def __init__(
        self, config: CurriculumConfig, states: Sequence[Start], *, seed: int, total_steps: int
    ) -> None:
        super().__init__(config, states)
        self._seed = seed
        self._stages = _stages(states)
        self._budgets = _budgets(config, len(self._stages), total_steps)
        self._window: deque[float] = deque(maxlen=config.window)
        self._drawn = 0
        self._enter(0)

    @property
    def stage(self) -> int:
        """Number of the stage, from 0, the one nearest to the answer."""
        return self._stage

    def feedback(self, states: Sequence[Start], successes: Sequence[float]) -> None:
        """Takes notice of rollouts from states of this stage; late ones of others do not count."""
        super().feedback(states, successes)
        for one, success in zip(states, successes, strict=True):
            if one in self._members:
                self._window.append(float(success))

    def _draw(self, num: int) -> list[Start]:
        while self._stage + 1 < len(self._stages) and (self._is_over() or self._is_learnt()):
            self._enter(self._stage + 1)
        self._steps += 1
        self._drawn += num
        return [self._stages[self._stage][index] for index in self._deck.take(num)]

    def _enter(self, stage: int) -> None:
        self._stage, self._steps = stage, 0
        self._window.clear()
        self._members = frozenset(self._stages[stage])
        self._deck = Deck(len(self._stages[stage]), seed=self._seed, name=f"stage {stage}")

    def _is_over(self) -> bool:
        return self._steps >= self._budgets[self._stage]

    def _is_learnt(self) -> bool:
        threshold, window = self.config.threshold, self._window
        if threshold is None or len(window) < self.config.window:
            return False
        return sum(window) / len(window) >= threshold

    def _save(self) -> Saved:
        return {
            "stage": self._stage,
            "steps": self._steps,
            "drawn": self._drawn,
            "window": list(self._window),
            "deck": self._deck.state(),
        }

    def _restore(self, state: Mapping[str, JsonValue]) -> None:
        stage = whole(state["stage"])
        if stage >= len(self._stages):
            raise DataError(f"there is no stage {stage}")
        self._enter(stage)
        self._steps, self._drawn = whole(state["steps"]), whole(state["drawn"])
        window = state["window"]
        if not isinstance(window, list):
            raise DataError(f"the window is {window!r}"[:100])
        self._window.extend(float(cast("float", one)) for one in window)
        self._deck.restore(state["deck"])

    def _tell(self) -> dict[str, JsonValue]:
        return {
            "epoch": self._drawn / sum(len(some) for some in self._stages),
            "stage": self._stage + 1,
            "stages": len(self._stages),
            "stage_steps": self._steps,
            "stage_success": sum(self._window) / len(self._window) if self._window else None,
        }


def _stages(states: Sequence[Start]) -> list[list[Start]]:
    """One state of each demonstration for each stage, the stage nearest to the answer first."""
    demos = [shares_of(some) for some in by_demo(states).values()]
    num = max(len(shares) for shares in demos)
    return [[shares[at * len(shares) // num] for shares in demos] for at in reversed(range(num))]


def _budgets(config: CurriculumConfig, stages: int, total_steps: int) -> list[int]:
    """Steps of each stage at most."""
    if config.stage_steps is None:
        ends = [(stage + 1) * total_steps // stages for stage in range(stages)]
        return [end - begin for begin, end in zip([0, *ends], ends, strict=False)]
    before = (stages - 1) * config.stage_steps
    if stages > 1 and before >= total_steps:
        message = (
            f"stage_steps={config.stage_steps}: {stages - 1} stages come before the bare question, "
            f"which {total_steps} steps do not reach"
        )
        if config.threshold is None:
            most = (total_steps - 1) // (stages - 1)
            raise ConfigError(f"{message}: set at most {most}, or more steps")
        logger.warning("%s unless the threshold ends stages before", message)
    return [config.stage_steps] * stages
