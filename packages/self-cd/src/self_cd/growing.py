"""A key-value cache that grows in place: a step writes one column instead of copying all of them.

    cache = growing_cache()
    model(..., past_key_values=cache)

The layers of transformers' `DynamicCache` are joined anew at every token, which reads and writes
the whole cache. These keep spare columns behind the tokens, and give out views.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import DynamicCache, DynamicLayer

__all__ = ["GrowingLayer", "expand_prefixes", "growing_cache"]

SPARE_TOK = 64
"""Columns that are added whenever there are no more: one copy of the cache per so many tokens."""


class GrowingLayer(DynamicLayer):  # type: ignore[no-untyped-call]
    """Keys and values of one layer, with spare columns behind them.

    Also for layers with a sliding window: these keep all columns, and the mask hides the old ones.
    """

    def __init__(self, **_: object) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._stores: list[Tensor] = []

    def update(
        self,
        key_states: Tensor,
        value_states: Tensor,
        *args: Any,
        **kwargs: Any,
    ) -> tuple[Tensor, Tensor]:
        """Writes new columns behind the old ones; called by the model's attention."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        start = self.get_seq_length()
        self.keys, self.values = (
            self._write(place, states, start)
            for place, states in enumerate((key_states, value_states))
        )
        return self.keys, self.values

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Takes these rows, as often as they are named."""
        self.select(beam_idx)

    def select(self, rows: Tensor, *, drop: int = 0) -> None:
        """Takes these rows, without the first `drop` columns."""
        if not self.get_seq_length():
            return
        self.keys, self.values = (
            states[..., drop:, :].index_select(0, rows.to(states.device))
            for states in _states(self)
        )
        self._stores = []

    def _write(self, place: int, states: Tensor, start: int) -> Tensor:
        end = start + states.shape[-2]
        if len(self._stores) <= place or self._stores[place].shape[-2] < end:
            self._grow(place, states, end)
        store = self._stores[place]
        store[..., start:end, :] = states
        return store[..., :end, :]

    def _grow(self, place: int, states: Tensor, columns: int) -> None:
        store = states.new_empty((*states.shape[:-2], columns + SPARE_TOK, states.shape[-1]))
        if columns_known := self.get_seq_length():
            store[..., :columns_known, :] = _states(self)[place]
        self._stores[place : place + 1] = [store]


def growing_cache() -> DynamicCache:
    """An empty cache of such layers; the model's attention adds one per layer."""
    cache = DynamicCache()
    cache.layer_class_to_replicate = GrowingLayer
    return cache


def expand_prefixes(
    prefixes: tuple[DynamicCache | None, DynamicCache | None], pads: Tensor, columns: int
) -> DynamicCache:
    """The first columns of a batch whose halves begin with the same tokens each.

    Axes: R rows (both halves), B rows of one half, C columns.

    Args:
        prefixes: What was read of each half's prefix, one row each; None if the prefix is empty.
        pads: Columns of padding in front of each row.
        columns: How many to fill. Padding holds something finite, which the mask hides.
    """
    known = [None if one is None else [_states(layer) for layer in one.layers] for one in prefixes]
    some = next(states for states in known if states is not None)
    place_RC = (torch.arange(columns, device=pads.device) - pads[:, None]).clamp(min=0)
    halves = torch.split(place_RC, len(pads) // 2)
    cache = growing_cache()
    for index, like in enumerate(some):
        parts = [
            [_copied(one[index][kind] if one else None, like[kind], place_BC) for kind in (0, 1)]
            for one, place_BC in zip(known, halves, strict=True)
        ]
        keys, values = (torch.cat(pair) for pair in zip(*parts, strict=True))
        cache.update(keys, values, index)
    return cache


def _copied(states: Tensor | None, like: Tensor, place_BC: Tensor) -> Tensor:
    """These columns of one row's keys or values; zeros where there is no such row."""
    if states is None:
        _, heads, _, width = like.shape
        return like.new_zeros((len(place_BC), heads, place_BC.shape[1], width))
    return states[0][:, place_BC.to(states.device)].transpose(0, 1)


def _states(layer: object) -> tuple[Tensor, Tensor]:
    """Keys and values of a layer that has some."""
    assert isinstance(layer, DynamicLayer)
    assert layer.keys is not None
    assert layer.values is not None
    return layer.keys, layer.values
