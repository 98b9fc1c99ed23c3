"""Demonstrations in the prompt: the few-shot baseline.

    drawn = draw_shots(prepared.split("train"), 8, seed=0, draw=0)
    prompt_ids(tokenizer, question, prompt, shots=drawn.without(demo))

All questions of a draw see the same demonstrations, in the same order; the paper's baseline is the
mean over five draws (2402.05808, reading notes). No torch here.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from papercore.errors import DataError
from papercore.seeds import fan_out
from r3.config import PromptConfig
from r3.demos import Demo, content_hash
from r3.prompting import SEPARATOR

__all__ = ["Shots", "draw_shots", "stop_strings"]


@dataclass(frozen=True)
class Shots:
    """One draw of demonstrations.

    Attributes:
        demos: Those that are shown, and one in reserve where there are enough.
        num: How many are shown.
    """

    demos: tuple[Demo, ...]
    num: int

    def without(self, question: Demo) -> tuple[Demo, ...]:
        """What is shown with a question: never the question itself.

        Raises:
            DataError: There are too few others.
        """
        asked = content_hash(question)
        shown = tuple(one for one in self.demos if content_hash(one) != asked)[: self.num]
        if len(shown) < self.num:
            raise DataError(
                f"there are only {len(shown)} demonstrations beside question {question.id!r} for "
                f"shots={self.num}: lower it"
            )
        return shown


def draw_shots(demos: Sequence[Demo], num: int, *, seed: int, draw: int) -> Shots:
    """Draws demonstrations of different questions.

    Args:
        demos: Of the train split; those without a solution are passed over.
        num: How many to show.
        seed: Seed of all draws.
        draw: Number of this one; a draw does not depend on how many there are.

    Raises:
        DataError: There are fewer.
    """
    order = [one for one in demos if one.target]
    random.Random(fan_out(seed, f"shots/{draw}")).shuffle(order)
    chosen: dict[str, Demo] = {}
    for one in order:
        if num == 0 or len(chosen) > num:
            break
        chosen.setdefault(content_hash(one), one)
    if len(chosen) < num:
        raise DataError(
            f"the train split has {len(chosen)} different demonstrations, fewer than shots={num}: "
            "lower it"
        )
    return Shots(tuple(chosen.values()), num)


def stop_strings(prompt: PromptConfig) -> tuple[str, ...]:
    """Where the answer of a model that was shown demonstrations ends.

    A model that was never tuned goes on with a question of its own: a line that begins as the
    template does. A template that begins with the question leaves the blank line between
    demonstrations. In a chat the turn ends by itself.
    """
    if prompt.style == "chat":
        return ()
    before = prompt.template.partition("{question}")[0].strip()
    return (f"\n{before.splitlines()[0].strip()}",) if before else (SEPARATOR,)
