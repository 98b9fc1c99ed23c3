"""A batch of prompts that a model continues token by token: its cache, masks and positions.

    decoder = Decoder(model, prompts, pad_id=0)
    logits_BV = decoder.first_logits_BV
    ...
    logits_BV = decoder.step(tokens_B, going_B)

Equal prompts are read once, and their cache is copied. A batch of prompts of one length needs no
mask. Where a model's cache cannot be taken row by row, all tokens are read again for each new one.

Axes: U different prompts, B rows, T tokens so far, V vocabulary.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Sequence
from functools import cache
from typing import cast

import torch
from torch import Tensor
from transformers import Cache, PreTrainedModel

__all__ = ["Decoder"]

logger = logging.getLogger(__name__)


class Decoder:
    """Feeds tokens to a model and keeps what it has read.

    Attributes:
        first_logits_BV: Of the token after each prompt.
    """

    def __init__(
        self, model: PreTrainedModel, prompts: Sequence[tuple[int, ...]], *, pad_id: int
    ) -> None:
        self._model = model
        self._takes = inspect.signature(type(model).forward).parameters.keys()
        places = {prompt: place for place, prompt in enumerate(dict.fromkeys(prompts))}
        self._ids_BT, self._mask_BT = _left_padded(list(places), pad_id, model.device)
        self._is_padded = not bool(self._mask_BT.all())
        self._positions_B = self._mask_BT.sum(1)
        self._cache: Cache | None = None
        logits_UV = self._read_all(use_cache=True)
        rows_B = torch.tensor([places[prompt] for prompt in prompts], device=model.device)
        self.first_logits_BV = logits_UV[rows_B]
        if len(places) < len(prompts):
            self.keep(rows_B)

    def step(self, tokens_B: Tensor, going_B: Tensor) -> Tensor:
        """Reads one more token of each row; logits of the next.

        Args:
            going_B: Rows that go on. The others get no further, whatever they read and draw.
        """
        tokens_B1 = tokens_B[:, None]
        self._mask_BT = torch.cat([self._mask_BT, going_B[:, None].long()], 1)
        if self._cache is None:
            self._ids_BT = torch.cat([self._ids_BT, tokens_B1], 1)
            return self._read_all(use_cache=False)
        logits_BV = self._read(tokens_B1, self._positions_B[:, None], use_cache=True)
        self._positions_B = self._positions_B + going_B
        return logits_BV

    def keep(self, rows: Tensor) -> None:
        """Goes on with these rows only, each as often as it is named."""
        self._mask_BT = self._mask_BT[rows]
        self._positions_B = self._positions_B[rows]
        if self._cache is None:
            self._ids_BT = self._ids_BT[rows]
        else:
            self._cache.reorder_cache(cast("torch.LongTensor", rows))

    def _read_all(self, *, use_cache: bool) -> Tensor:
        positions_BT = (self._mask_BT.cumsum(1) - 1).clamp(min=0)
        return self._read(self._ids_BT, positions_BT, use_cache=use_cache)

    def _read(self, ids_BT: Tensor, positions_BT: Tensor, *, use_cache: bool) -> Tensor:
        """Logits after the last token; what the model remembers goes into the cache."""
        beside: dict[str, object] = {}
        if "logits_to_keep" in self._takes:
            beside["logits_to_keep"] = 1
        if self._is_padded:
            beside["attention_mask"] = self._mask_BT
            if "position_ids" in self._takes:
                beside["position_ids"] = positions_BT
        if self._cache is not None:
            beside["past_key_values"] = self._cache
        outputs = self._model(input_ids=ids_BT, use_cache=use_cache, **beside)
        if use_cache and self._cache is None:
            self._cache = self._usable(getattr(outputs, "past_key_values", None))
        return cast("Tensor", outputs.logits[:, -1])

    def _usable(self, found: object) -> Cache | None:
        if isinstance(found, Cache):
            return found
        _say_slow(type(self._model).__name__)
        return None


@cache
def _say_slow(name: str) -> None:
    """Once for each class of models."""
    logger.warning(
        "%s has no cache whose rows can be taken apart: rollouts read all tokens again for each "
        "new one, which is slow",
        name,
    )


def _left_padded(
    prompts: Sequence[tuple[int, ...]], pad_id: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    width = max(map(len, prompts))
    ids = [[pad_id] * (width - len(one)) + list(one) for one in prompts]
    mask = [[0] * (width - len(one)) + [1] * len(one) for one in prompts]
    return torch.tensor(ids, device=device), torch.tensor(mask, device=device)
