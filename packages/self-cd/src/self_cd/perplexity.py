"""How surprising a fixed text is behind prompts: the perplexity of a refusal.

    nll = continuation_nll(model, contexts, answer_ids(tokenizer, "I cannot help with that."))
    perplexity(nll)

Source: 2401.17633, table 3 (second hand): LLaMA2-7B on XSTest-Safe, 83.0 without and 21.9 with the
safety prompt. The paper's text of the refusal is not known. Axes: B contexts, K text tokens.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from transformers import PreTrainedModel

from papercore.errors import DataError
from self_cd.reading import Reader, by_length, pad

__all__ = ["continuation_nll", "perplexity"]

BATCH_SIZE = 64


def continuation_nll(
    model: PreTrainedModel,
    contexts: Sequence[Sequence[int]],
    continuation: Sequence[int],
    *,
    batch_size: int = BATCH_SIZE,
    float32_head: bool = True,
) -> list[tuple[float, ...]]:
    """Negative log-probability of every token of a text behind each context, in their order.

    Raises:
        DataError: A context or the text has no tokens.
        ModelError: The model cannot read rows of different length.
    """
    if not continuation:
        raise DataError("the text has no tokens: there is nothing to be surprised at")
    if not all(contexts):
        raise DataError("a context has no tokens: there is nothing that a text could follow")
    reader = Reader(model, float32_head=float32_head)
    found: dict[int, tuple[float, ...]] = {}
    for chosen in by_length(contexts, batch_size):
        rows = [[*contexts[place], *continuation[:-1]] for place in chosen]
        batch = pad(rows, model.device)
        logits_BKV = reader.logits(batch, keep=len(continuation))
        logprobs_BKV = logits_BKV[:, -len(continuation) :].log_softmax(-1)
        wanted_BK1 = torch.tensor([list(continuation)] * len(chosen), device=logits_BKV.device)
        nll_BK = -logprobs_BKV.gather(-1, wanted_BK1[:, :, None]).squeeze(-1).double()
        found |= {
            place: tuple(row) for place, row in zip(chosen, nll_BK.cpu().tolist(), strict=True)
        }
    return [found[place] for place in range(len(contexts))]


def perplexity(nll: Sequence[Sequence[float]]) -> float:
    """Exp of the mean over all tokens of all texts; NaN without any."""
    tokens = [number for row in nll for number in row]
    return math.exp(sum(tokens) / len(tokens)) if tokens else math.nan
