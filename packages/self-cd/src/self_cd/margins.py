"""Refusal margins: how much more likely a context is to begin a refusal than an answer.

    margins = refusal_margins(model, tokenizer, pairs, config.openings)
    push_B = margins.push()

The margin of a context is logsumexp over the refusal openings of log P(opening | context), less the
same over the answer openings. With one-token openings it is a difference of logits at the first
answer token, and so the contrast moves it linearly: m' - (alpha - 1) (m - m').

Source: the margin rule is ours; the paper has none. Axes: B contexts, O opening forms, R rows of
openings per context, T prompt tokens, L tokens of a row, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel, PreTrainedTokenizerBase
from transformers.cache_utils import Cache

from self_cd.config import OpeningsConfig
from self_cd.contexts import Contexts
from self_cd.openings import Openings, encode_openings
from self_cd.reading import Batch, Reader, by_length, pad

__all__ = ["Margins", "context_margins", "refusal_margins", "side_margins"]

MAX_ROWS = 128
"""Rows of openings in one forward pass, over all contexts: bounds the memory of logits and keys."""
BATCH_SIZE = 64
"""Contexts at once, as far as `MAX_ROWS` has room for their openings."""


@dataclass(frozen=True)
class Margins:
    """Refusal margins of pairs, in float64 on the CPU; positive ones begin with a refusal."""

    plain_B: Tensor
    emphasis_B: Tensor

    def push(self) -> Tensor:
        """How much the safety prompt moves each pair towards refusal, d."""
        return self.emphasis_B - self.plain_B


def refusal_margins(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    pairs: Sequence[Contexts],
    openings: OpeningsConfig,
    *,
    batch_size: int = BATCH_SIZE,
    float32_head: bool = True,
) -> Margins:
    """Margins of both contexts of every pair.

    Raises:
        ConfigError: The openings do not tell refusals and answers apart for this tokenizer.
    """
    forms = encode_openings(tokenizer, openings)
    contexts = [ids for pair in pairs for ids in (pair.plain, pair.emphasis)]
    margins_B = context_margins(
        model, contexts, forms, batch_size=batch_size, float32_head=float32_head
    )
    return Margins(plain_B=margins_B[0::2], emphasis_B=margins_B[1::2])


def context_margins(
    model: PreTrainedModel,
    contexts: Sequence[Sequence[int]],
    openings: Openings,
    *,
    batch_size: int = BATCH_SIZE,
    float32_head: bool = True,
) -> Tensor:
    """Margin of each context, in their order.

    The guard of the decoding loop asks this of plain contexts.

    Raises:
        DataError: A context has no tokens.
        ModelError: The model cannot read rows of different length.
    """
    reader = Reader(model, float32_head=float32_head)
    out_B = torch.empty(len(contexts), dtype=torch.float64)
    room = max(1, MAX_ROWS // max(1, len(_rows(openings))))
    for chosen in by_length(contexts, min(batch_size, room)):
        batch = pad([contexts[place] for place in chosen], model.device)
        cache = DynamicCache(config=model.config.get_text_config(decoder=True))
        logits_BV = reader.logits(batch, cache=cache, keep=1)[:, -1]
        logprobs_BO = _opening_logprobs(reader, openings, logits_BV, cache, batch.mask_BT)
        out_B[chosen] = side_margins(logprobs_BO.cpu(), openings)
    return out_B


def side_margins(logprobs_BO: Tensor, openings: Openings) -> Tensor:
    """Refusal less answer, from the log-probabilities of all forms; in float64."""
    net_BO = logprobs_BO.double().clone()
    for place in reversed(range(len(openings.forms))):
        parent = openings.forms[place].parent
        if parent is not None:
            # probabilities, not nets: the child's own children stand for other answers
            net_BO[:, parent] = _log_difference(net_BO[:, parent], logprobs_BO[:, place].double())
    refusal_B, answer_B = (
        net_BO[:, openings.places(side)].logsumexp(-1) for side in ("refusal", "answer")
    )
    return refusal_B - answer_B


def _opening_logprobs(
    reader: Reader, openings: Openings, logits_BV: Tensor, cache: Cache, mask_BT: Tensor
) -> Tensor:
    """Log-probability of every form after contexts that were read; uses the cache up: [B, O]."""
    first_BV = logits_BV.log_softmax(-1)
    rows = _rows(openings)
    later_BRLV = _later(reader, rows, cache, mask_BT) if rows else None
    found = []
    for form in openings.forms:
        logprob_B = first_BV[:, form.ids[0]]
        if len(form.ids) > 1:
            assert later_BRLV is not None
            row = next(r for r, ids in enumerate(rows) if ids[: len(form.ids) - 1] == form.ids[:-1])
            for place, token in enumerate(form.ids[1:]):
                logprob_B = logprob_B + later_BRLV[:, row, place, token]
        found.append(logprob_B)
    return torch.stack(found, dim=-1)


def _rows(openings: Openings) -> list[tuple[int, ...]]:
    """What must be read to know all forms: all of them without their last token, each start once.

    A row that another one begins with is left out: the longer one tells the same.
    """
    starts = {form.ids[:-1] for form in openings.forms} - {()}
    return sorted(
        ids for ids in starts if not any(ids == other[: len(ids)] for other in starts - {ids})
    )


def _later(
    reader: Reader, rows: Sequence[tuple[int, ...]], cache: Cache, mask_BT: Tensor
) -> Tensor:
    """Log-probabilities after every token of every row, behind every context: [B, R, L, V]."""
    num_contexts, num_rows = mask_BT.shape[0], len(rows)
    length = max(len(row) for row in rows)
    # padded at their ends, where nothing that counts can see it
    row_RL = torch.tensor([[*row, *[0] * (length - len(row))] for row in rows])
    ids_ML = row_RL.to(mask_BT.device).repeat(num_contexts, 1)
    mask_MT = mask_BT.repeat_interleave(num_rows, 0)
    cache.batch_repeat_interleave(num_rows)
    behind = Batch(ids_ML, torch.cat([mask_MT, torch.ones_like(ids_ML)], dim=-1))
    logprobs_MLV = reader.logits(behind, cache=cache).log_softmax(-1)
    return logprobs_MLV.view(num_contexts, num_rows, *logprobs_MLV.shape[1:])


def _log_difference(whole_B: Tensor, part_B: Tensor) -> Tensor:
    """log(exp(whole) - exp(part)); rounding may make the part as large as the whole."""
    share_B = (part_B - whole_B).clamp(max=0.0)
    return whole_B + torch.log1p(-share_B.exp())
