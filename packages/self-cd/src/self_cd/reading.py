"""Reading texts of different length in one batch, for measurements that write nothing.

    batch = pad(contexts, model.device)
    logits_BTV = Reader(model).logits(batch)

Padded on the left, with position ids, so every row gets what it would get alone, up to rounding.
Axes: B rows, T columns, V vocabulary.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.cache_utils import Cache

from papercore.errors import DataError
from self_cd.head import Float32Head, dtypes_told
from self_cd.paired import check_model

__all__ = ["Batch", "Reader", "by_length", "pad", "room_of"]


@dataclass(frozen=True)
class Batch:
    """Rows that are read side by side; `mask_BT` is 1 at tokens and 0 at padding."""

    ids_BT: Tensor
    mask_BT: Tensor


class Reader:
    """A model as measurements use it: without gradients, its output head in float32."""

    def __init__(self, model: PreTrainedModel, *, float32_head: bool = True) -> None:
        """Looks at the model.

        Raises:
            ModelError: It cannot read rows of different length.
        """
        check_model(model)
        self.model = model
        self._accepted = _accepted(model)
        self._head = Float32Head(model) if float32_head else None

    @contextmanager
    def _attached(self) -> Iterator[None]:
        with self._head.attached() if self._head else nullcontext():
            yield

    @torch.no_grad()
    def logits(self, batch: Batch, *, cache: Cache | None = None, keep: int = 0) -> Tensor:
        """Logits of the last `keep` columns, or of all with 0; at least in float32.

        Args:
            batch: With a cache, the columns that it does not hold yet, and a mask of all columns.
            cache: Holds the first columns of the rows; gets the new ones.
            keep: How many columns.

        Shapes:
            returns: [B, T, V].
        """
        width = batch.ids_BT.shape[1]
        places_BT = (batch.mask_BT.cumsum(-1) - 1).clamp(min=0)
        options = {
            "attention_mask": batch.mask_BT,
            "position_ids": places_BT[:, -width:],
            "logits_to_keep": keep,
        }
        with dtypes_told(self.model), self._attached():
            out = self.model(
                input_ids=batch.ids_BT,
                past_key_values=cache,
                use_cache=cache is not None,
                return_dict=True,
                **{name: value for name, value in options.items() if name in self._accepted},
            )
        logits_BTV = cast("Tensor", out.logits)
        return logits_BTV.to(torch.promote_types(logits_BTV.dtype, torch.float32))


def pad(rows: Sequence[Sequence[int]], device: torch.device) -> Batch:
    """Rows as a batch, padded on the left.

    Raises:
        DataError: A row has no tokens.
    """
    if any(not row for row in rows):
        raise DataError("a context has no tokens: there is nothing that an answer could follow")
    width = max(len(row) for row in rows)
    pads = [width - len(row) for row in rows]
    ids = [[0] * count + list(row) for count, row in zip(pads, rows, strict=True)]
    mask = [[0] * count + [1] * (width - count) for count in pads]
    return Batch(torch.tensor(ids, device=device), torch.tensor(mask, device=device))


def by_length(rows: Sequence[Sequence[int]], size: int) -> Iterator[list[int]]:
    """Places of rows in batches of like length, the longest first, where short memory shows."""
    order = sorted(range(len(rows)), key=lambda place: len(rows[place]), reverse=True)
    for start in range(0, len(order), size):
        yield order[start : start + size]


def _accepted(model: PreTrainedModel) -> frozenset[str]:
    """Arguments of the model's forward pass; of the model within, if it is a peft one."""
    unwrap = getattr(model, "get_base_model", None)
    inner = unwrap() if callable(unwrap) else model
    return frozenset(inspect.signature(inner.forward).parameters)


def room_of(
    model: PreTrainedModel, ids: Sequence[int], behind: int, max_context: int | None = None
) -> str | None:
    """Why so many tokens do not fit behind a context; None if they do.

    Args:
        ids: The context.
        behind: Tokens that are read after it.
        max_context: Most tokens; None takes what the model's config says.
    """
    config = model.config.get_text_config(decoder=True)
    limit = max_context or getattr(config, "max_position_embeddings", None)
    if limit is not None and len(ids) + behind > limit:
        return (
            f"{len(ids)} tokens of the prompt and {behind} behind it are more than the context of "
            f"{limit}: shorten the question"
        )
    if beyond := [token for token in ids if not 0 <= token < config.vocab_size]:
        return (
            f"token id {beyond[0]} is outside the model's vocabulary of {config.vocab_size}: the "
            "tokenizer belongs to another model"
        )
    return None
