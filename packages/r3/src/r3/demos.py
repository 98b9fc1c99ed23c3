r"""Questions with a demonstrated rationale, and the states inside one from which a rollout starts.

    demo = Demo(id="gsm8k_0", question="...", target="Two and two is four.\n#### 4", gold="4",
                answer_at=22)

No torch here.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

__all__ = ["Demo", "Encoded", "Start", "content_hash"]


@dataclass(frozen=True)
class Demo:
    """One question, and a demonstration of its solution if there is one.

    Attributes:
        id: Unique within a task.
        question: What is asked, as the task words it; options of a choice are part of it.
        target: What the model should write: the rationale and then the statement of the answer.
            Empty for a question without a demonstration, which can be tested on only.
        gold: The right answer, in the form that the task's verifier compares with.
        answer_at: Where in `target` the statement of the answer begins, in characters. No rollout
            starts behind it.
    """

    id: str
    question: str
    target: str
    gold: str
    answer_at: int = 0


@dataclass(frozen=True)
class Encoded:
    """A demonstration as token ids, for one tokenizer.

    Attributes:
        demo: What was encoded.
        prompt: The rendered question.
        target: The demonstration, its end-of-sequence token included.
        cuts: Where rollouts may start: numbers of target tokens that the prompt already holds, one
            for each segment of the rationale, rising, the first one 0.
    """

    demo: Demo
    prompt: tuple[int, ...]
    target: tuple[int, ...]
    cuts: tuple[int, ...]


@dataclass(frozen=True)
class Start:
    """A state from which a rollout starts: a question and the beginning of its demonstration.

    Attributes:
        demo: Index of the demonstration.
        cut: Tokens of the demonstration that the prompt holds; 0 is the bare question.
        depth: Number of the state among those of its demonstration, from 0, the bare question.
        share: How much of the demonstration the prompt holds, 0 to 1: 0 is the bare question.
        weight: In how many of the M equal shares of a demonstration this state stands; cuts that
            fall together are one state of a higher weight.
    """

    demo: int
    cut: int
    depth: int
    share: float
    weight: int = 1


def content_hash(demo: Demo) -> str:
    """SHA-256 of what is asked, however it is spaced; the same question is the same content."""
    return hashlib.sha256(" ".join(demo.question.split()).encode()).hexdigest()
