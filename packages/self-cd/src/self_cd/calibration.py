"""Calibration: which strengths keep a model's true refusals.

    found = calibrate(model, tokenizer, harmless, harmful, keep=0.99)
    found.lower, found.upper

`margins` measures, `margin_rule` concludes. Source: ours (spec 2.8); the paper has no such step.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from papercore.errors import DataError
from self_cd.config import SelfCDConfig
from self_cd.items import Item
from self_cd.margin_rule import Calibration, SideMargins, calibrate_margins
from self_cd.margins import BATCH_SIZE, refusal_margins
from self_cd.prompts import Prompter

__all__ = ["Calibration", "SideMargins", "calibrate", "calibrate_margins", "measure"]


def calibrate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    harmless: Sequence[str | Item],
    harmful: Sequence[str | Item],
    config: SelfCDConfig | None = None,
    *,
    keep: float = 0.99,
    seed: int = 0,
    batch_size: int = BATCH_SIZE,
) -> Calibration:
    """Which strengths keep true refusals of the harmful questions and release the harmless ones.

    Args:
        harmless: Questions that look dangerous and are not.
        harmful: Questions that should be refused.
        config: Prompts and openings; its alpha is the one to warn about.
        keep: Share of the true refusals that must be kept.
        seed: Of the bootstrap.
        batch_size: Contexts that are read at once.

    Raises:
        ConfigError: The openings do not tell refusals and answers apart for this model.
        DataError: A question cannot be asked, or its margin is no number.
        ModelError: The model has no usable chat template, or cannot be read in batches.
    """
    config = config or SelfCDConfig()
    sides = [
        measure(model, tokenizer, questions, config, batch_size=batch_size)
        for questions in (harmless, harmful)
    ]
    return calibrate_margins(*sides, keep=keep, seed=seed, alpha=config.alpha)


def measure(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    questions: Sequence[str | Item],
    config: SelfCDConfig,
    *,
    batch_size: int = BATCH_SIZE,
) -> SideMargins:
    """Margins of questions in both contexts.

    Raises:
        ConfigError: The openings do not tell refusals and answers apart for this model.
        DataError: A question cannot be asked, or its margin is no number.
    """
    prompter = Prompter(tokenizer, config.prompts)
    asked = [(one.query, one.turns) if isinstance(one, Item) else (one, ()) for one in questions]
    pairs = [prompter.contexts(query, turns) for query, turns in asked]
    found = refusal_margins(
        model,
        tokenizer,
        pairs,
        config.openings,
        batch_size=batch_size,
        float32_head=config.float32_head,
    )
    side = SideMargins(tuple(found.plain_B.tolist()), tuple(found.emphasis_B.tolist()))
    for place, numbers in enumerate(zip(side.plain, side.emphasis, strict=True)):
        if any(map(math.isnan, numbers)):
            raise DataError(
                f"question {place + 1}: the model's logits are not finite: leave it out"
            )
    return side
