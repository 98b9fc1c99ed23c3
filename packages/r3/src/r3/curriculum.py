"""Which start states are trained on, and when. No torch here.

    states = starts_for(config, encoded, cut)
    curriculum = curriculum_for(config, states, seed=0, total_steps=500)
    batch = curriculum.draw(32)  # one draw is one training step
    curriculum.feedback(batch, successes)

The paper's R3 is `mixed`: all M start states of all demonstrations in one shuffled pool, without a
schedule. Source: 2402.05808 (notes) and official data.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Protocol

from pydantic import JsonValue

from r3.adaptive import Adaptive
from r3.config import CurriculumConfig, CutConfig
from r3.cutting import starts
from r3.demos import Encoded, Start
from r3.pools import Pool, RandomPool
from r3.staged import Staged

__all__ = ["Curriculum", "curriculum_for", "epoch_length", "starts_for"]


class Curriculum(Protocol):
    """What the training loop asks for start states."""

    def draw(self, num: int) -> list[Start]:
        """Start states of the next training step; may be more than a pass has."""
        ...

    def feedback(self, states: Sequence[Start], successes: Sequence[float]) -> None:
        """How rollouts from these states ended: 1 right, 0 wrong.

        States may be repeated. Rollouts whose reward failed must be left out.
        """
        ...

    def state(self) -> dict[str, JsonValue]:
        """All that `restore` needs to go on with the same draws, as JSON."""
        ...

    def restore(self, state: Mapping[str, JsonValue]) -> None:
        """Goes on from a saved state.

        Raises:
            DataError: The state is damaged, or of another curriculum or other data.
        """
        ...

    def describe(self) -> dict[str, JsonValue]:
        """What to log beside a step.

        `kind`; `epoch`, passes that are done; `share`, mean share of the latest prefixes; for
        `staged` also `stage` of `stages`, `stage_steps` and `stage_success`; for `adaptive`
        `longest_share`, the mean upper end of the intervals, and `at_question`, the share of
        demonstrations that start from the bare question alone.
        """
        ...


def starts_for(config: CurriculumConfig, encoded: Sequence[Encoded], cut: CutConfig) -> list[Start]:
    """The start states that a curriculum draws from.

    `mixed` and `staged` take M of each demonstration, `random` and `adaptive` all of them, whatever
    `cut.states` says, and `vanilla` the bare question.
    """
    if config.kind in {"random", "adaptive"}:
        return starts(encoded, cut.model_copy(update={"states": "all"}))
    found = starts(encoded, cut)
    if config.kind == "vanilla":
        return [replace(one, weight=1) for one in found if one.depth == 0]
    return found


def epoch_length(cut: CutConfig, encoded: Sequence[Encoded]) -> int:
    """Draws of one pass: M of each demonstration, or one of each boundary if `cut.states=all`.

    It is the same for all curricula, so that arms of as many epochs get as many rollouts.
    """
    return sum(one.weight for one in starts(encoded, cut))


def curriculum_for(
    config: CurriculumConfig, states: Sequence[Start], *, seed: int, total_steps: int
) -> Curriculum:
    """The curriculum that a config names.

    Args:
        config: Kind and settings.
        states: As `starts_for` gives them; `vanilla` leaves all but bare questions out.
        seed: Of everything that is drawn.
        total_steps: Of the whole run; `staged` divides it.

    Raises:
        ConfigError: There are no states, or weights or stages do not fit.
    """
    if config.kind == "staged":
        return Staged(config, states, seed=seed, total_steps=total_steps)
    if config.kind == "adaptive":
        return Adaptive(config, states, seed=seed)
    if config.kind == "random":
        return RandomPool(config, states, seed=seed)
    if config.kind == "vanilla":
        states = [replace(one, weight=1) for one in states if one.depth == 0]
    return Pool(config, states, seed=seed)
