"""How many start values of the miniature a policy solves from the bare question.

data = look(model, tokenizer, prepared, draws=16, seed=0)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, cast

from pydantic import JsonValue
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from papercore.rl.settings import Sampling
from papercore.seeds import fan_out
from r3.cutting import encode_all
from r3.data import Prepared, SplitName
from r3.demos import Demo, Encoded
from r3.evaluate import Solved, solve
from r3.mini_report import GROUPS
from r3.presets import TRAIN
from r3.prompting import pad_id
from r3.verifiers import verifier_for

__all__ = ["look"]

MAX_ROWS: Final = 2048
"""Answers that are generated at once."""

SPLITS: Mapping[str, SplitName] = {"held_out": "test", "trained": "train"}


@dataclass(frozen=True)
class _Asker:
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    prepared: Prepared
    draws: int
    seed: int


def look(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prepared: Prepared,
    *,
    draws: int,
    seed: int,
) -> dict[str, JsonValue]:
    """Asks all start values, held out or not, with the likeliest tokens and with drawn ones.

    A rationale is right in every step, too, if it is the demonstration: an answer can be right
    without, since one wrong chain in a hundred ends on the right value.

    Args:
        model: A policy.
        tokenizer: Of the model.
        prepared: The world.
        draws: Answers to each question with drawn tokens, at temperature 1.
        seed: Of the draws: two policies that are asked with one seed draw alike.

    Returns:
        For each group its `starts`, and in their order the number of right answers: `greedy`,
        `sampled` out of `draws`, and of those right in every step: `greedy_steps`, `sampled_steps`.
    """
    asker = _Asker(model, tokenizer, prepared, draws, seed)
    return {group: _asked(asker, prepared.split(SPLITS[group])) for group in GROUPS}


def _asked(asker: _Asker, demos: Sequence[Demo]) -> dict[str, JsonValue]:
    draws, prepared = asker.draws, asker.prepared
    encoded, _ = encode_all(
        demos, asker.tokenizer, prepared.prompt, TRAIN["tiny"].cut, prepared.task
    )
    greedy = _answers(asker, encoded, [0] * len(encoded), temperature=0.0)
    repeated = [one for one in encoded for _ in range(draws)]
    seeds = [fan_out(asker.seed, f"look/{one.id}/{draw}") for one in demos for draw in range(draws)]
    sampled = _answers(asker, repeated, seeds, temperature=1.0)
    return {
        "starts": [int(one.question) for one in demos],
        "draws": draws,
        "greedy": _sums([right for right, _ in greedy], 1),
        "greedy_steps": _sums([steps for _, steps in greedy], 1),
        "sampled": _sums([right for right, _ in sampled], draws),
        "sampled_steps": _sums([steps for _, steps in sampled], draws),
    }


def _answers(
    asker: _Asker, encoded: Sequence[Encoded], seeds: Sequence[int], *, temperature: float
) -> list[tuple[bool, bool]]:
    """For each answer whether it is right, and whether every step of it is."""
    tokenizer = asker.tokenizer
    found = solve(
        asker.model,
        encoded,
        verifier_for(asker.prepared.task),
        tokenizer,
        sampling=Sampling(
            max_new_tokens=TRAIN["tiny"].max_new_tokens,
            eos_ids=frozenset({cast("int", tokenizer.eos_token_id)}),
            temperature=temperature,
            max_rows=MAX_ROWS,
        ),
        seeds=seeds,
        pad_id=pad_id(tokenizer),
    )
    return [(one.correct, _in_steps(one, whole)) for one, whole in zip(found, encoded, strict=True)]


def _in_steps(found: Solved, wanted: Encoded) -> bool:
    return found.ended and found.text.split() == wanted.demo.target.split()


def _sums(marks: Sequence[bool], size: int) -> list[JsonValue]:
    """Sums of so many neighbours each."""
    return [sum(marks[start : start + size]) for start in range(0, len(marks), size)]
