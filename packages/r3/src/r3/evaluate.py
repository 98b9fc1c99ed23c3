"""Which questions a policy solves from the bare question; for looks at the dev questions in RL.

    found = solve(
        policy.actor, dev, verifier_for("gsm8k"), tokenizer,
        sampling=Sampling(512, eos_ids, temperature=0.0), seeds=range(len(dev)), pad_id=0,
    )
    accuracy = sum(one.correct for one in found) / len(found)

`r3 eval` asks any backend instead, see `r3.eval_command`; prompts and verifier are the same.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from papercore.generate.jobs import decode
from papercore.rl.sampling import sample
from papercore.rl.settings import Sampling
from r3.demos import Encoded
from r3.verifiers import Verifier

__all__ = ["Solved", "solve"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Solved:
    """An answer to one question.

    Attributes:
        id: Of the question.
        text: What was written.
        parsed: The answer that was read out of it; None if there was none.
        correct: Whether that is the right one.
        tokens: Generated tokens, the end-of-sequence token included.
        ended: Whether the policy ended it; otherwise it was cut off.
    """

    id: str
    text: str
    parsed: str | None
    correct: bool
    tokens: int
    ended: bool


def solve(
    model: PreTrainedModel,
    encoded: Sequence[Encoded],
    verifier: Verifier,
    tokenizer: PreTrainedTokenizerBase,
    *,
    sampling: Sampling,
    seeds: Sequence[int],
    pad_id: int,
) -> list[Solved]:
    """Answers questions and verifies the answers, in their order.

    Args:
        model: A policy; its weights and its mode are left as they are.
        encoded: The questions; their demonstrations are not looked at.
        verifier: Of their task.
        tokenizer: Reads the answers.
        sampling: How to draw; temperature 0 is greedy.
        seeds: One for each question; without effect where it is greedy.
        pad_id: Fills rows up; any valid id will do.

    Raises:
        DataError: A prompt leaves no room for an answer, or a right answer cannot be read.
        ModelError: The logits are no numbers.
    """
    assert len(seeds) == len(encoded), "one seed for each question"
    if not encoded:
        return []
    prompts = [one.prompt for one in encoded]
    rollouts = sample(model, prompts, seeds, sampling=sampling, pad_id=pad_id)
    texts = [decode(tokenizer, rollout.response) for rollout in rollouts]
    verdicts = verifier.verify_all(
        (text, one.demo.gold) for text, one in zip(texts, encoded, strict=True)
    )
    failed = [verdict.error for verdict in verdicts if verdict.error is not None]
    if failed:
        logger.warning("%d answers count as wrong: %s", len(failed), failed[0])
    found = []
    for one, rollout, text, verdict in zip(encoded, rollouts, texts, verdicts, strict=True):
        found.append(
            Solved(
                id=one.demo.id,
                text=text,
                parsed=verdict.parsed,
                correct=verdict.correct,
                tokens=len(rollout.response),
                ended=rollout.ended,
            )
        )
    return found
