"""Both contexts of several questions as one batch with one cache: one forward pass per token.

    paired = Paired(model, pairs)
    while ...:
        tokens_B = choose(paired.emphasis_BV, paired.plain_BV)
        paired.step(tokens_B)

Rows are padded on the left and have position ids, so every pair gets the logits that it would get
alone, up to rounding. Axes: B pairs, R rows (2B, or B after `drop_emphasis`), T columns,
V vocabulary.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import cast

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.cache_utils import (
    Cache,
    DynamicCache,
    DynamicLayer,
    DynamicSlidingWindowLayer,
)

from papercore.errors import ModelError
from self_cd.contexts import Contexts
from self_cd.growing import GrowingLayer, expand_prefixes, growing_cache
from self_cd.head import Float32Head, dtypes_told
from self_cd.padding import Layout, plan
from self_cd.skinny import SkinnyProducts, is_skinny

__all__ = ["Paired", "check_model"]

OWN_STATE = ("recurrent_gemma",)
"""Values of `config.model_type` that take a cache but keep their state within their modules."""

PASS_TOK, PASS_TOK_GPU = 16, 512
"""What a forward pass costs beside its tokens, in tokens, roughly: it reads all the weights, and on
a GPU it waits for its kernels to be launched."""


class Paired:
    """Pairs that a model reads side by side.

    Attributes:
        emphasis_BV: float32 logits of the next token with the safety prompt, y; None once the plain
            contexts go on alone.
        plain_BV: The same without the safety prompt, y'.
        forwards: Forward passes so far.
        prefilled_tok: Token places that were computed before the first step, padding included.
    """

    emphasis_BV: Tensor | None
    plain_BV: Tensor

    def __init__(
        self,
        model: PreTrainedModel,
        pairs: Sequence[Contexts],
        *,
        share_prefix: bool = True,
        float32_head: bool = True,
    ) -> None:
        """Reads the contexts.

        Raises:
            ModelError: The model cannot read pairs.
        """
        check_model(model)
        assert pairs, "somebody asks for something"
        self.forwards = 0
        self.prefilled_tok = 0
        self._model = model
        self._accepted = _accepted(model)
        self._head = Float32Head(model) if float32_head else None
        fresh = _default_cache(model)
        self._growing = _holds_all_tokens(fresh)
        self._cache: Cache = growing_cache() if self._growing else fresh
        layout = plan(
            pairs,
            share_prefix=share_prefix and self._growing,
            pass_tok=PASS_TOK if model.device.type == "cpu" else PASS_TOK_GPU,
        )
        self._halves = 2
        self._columns = layout.cached
        self._pads = layout.pads
        self._pad_R1 = self._tensor(self._pads)[:, None]
        self._prefill(layout)

    def __len__(self) -> int:
        return len(self._pads) // self._halves

    def step(self, tokens_B: Tensor) -> None:
        """Appends one token to every pair, to both contexts."""
        assert tokens_B.shape == (len(self),), "one token per pair"
        ids_B1 = tokens_B.to(self._model.device)[:, None]
        self._take(self._read(torch.cat([ids_B1] * self._halves)))

    def keep(self, rows: Sequence[int]) -> None:
        """Goes on with these pairs alone, in this order."""
        self._select([half * len(self) + row for half in range(self._halves) for row in rows])

    def repeat(self, times: int) -> None:
        """Puts `times` copies of every pair next to each other."""
        rows = range(len(self._pads))
        self._select([row for row in rows for _ in range(times)])

    def drop_emphasis(self) -> None:
        """Goes on with the plain contexts alone."""
        if self._halves == 2:
            self._halves, num_pairs = 1, len(self)
            self._select(range(num_pairs, 2 * num_pairs))

    def _prefill(self, layout: Layout) -> None:
        known = [self._read_prefix(prefix) if prefix else None for prefix in layout.prefixes]
        if layout.cached:
            emphasis, plain = (None if one is None else one[0] for one in known)
            pads_R = self._pad_R1.squeeze(1)
            self._cache = expand_prefixes((emphasis, plain), pads_R, layout.cached)
        if layout.cached == layout.width:
            last = [one[1].expand(len(self), -1) for one in known if one is not None]
            self._take(torch.cat(last))
        else:
            ids_RT = self._tensor(layout.fresh())
            self.prefilled_tok += ids_RT.numel()
            self._take(self._read(ids_RT))

    def _read_prefix(self, prefix: Sequence[int]) -> tuple[DynamicCache, Tensor]:
        """Keys and values of one half's prefix, and the logits after it, [1, V]."""
        cache = growing_cache()
        self.prefilled_tok += len(prefix)
        return cache, self._forward(self._tensor([prefix]), cache, {})

    def _read(self, ids_RT: Tensor) -> Tensor:
        """Reads the next columns of all rows. Returns [R, V]."""
        start, self._columns = self._columns, self._columns + ids_RT.shape[1]
        columns_T = torch.arange(self._columns, device=ids_RT.device)
        place_RT = columns_T - self._pad_R1
        given = {"position_ids": place_RT[:, start:].clamp(min=0)}
        if max(self._pads) > 0:
            given["attention_mask"] = (place_RT >= 0).long()
        return self._forward(ids_RT, self._cache, given)

    @torch.no_grad()
    def _forward(self, ids_RT: Tensor, cache: Cache, given: dict[str, Tensor]) -> Tensor:
        self.forwards += 1
        options = {"logits_to_keep": 1} | given
        skinny = is_skinny(ids_RT.numel(), self._model.device)
        with (
            dtypes_told(self._model),
            self._head.attached() if self._head else nullcontext(),
            SkinnyProducts() if skinny else nullcontext(),
        ):
            output = self._model(
                input_ids=ids_RT,
                past_key_values=cache,
                use_cache=True,
                return_dict=True,
                **{name: value for name, value in options.items() if name in self._accepted},
            )
        logits_RV: Tensor = output.logits[:, -1].float()
        return logits_RV

    def _take(self, logits_RV: Tensor) -> None:
        halves = torch.split(logits_RV, len(self))
        self.emphasis_BV = halves[0] if self._halves == 2 else None
        self.plain_BV = halves[-1]

    def _select(self, rows: Sequence[int]) -> None:
        """Takes these rows of the batch, and drops columns that are padding in all of them."""
        index_R = self._tensor(rows)
        logits_RV = torch.cat([x for x in (self.emphasis_BV, self.plain_BV) if x is not None])
        pads = [self._pads[row] for row in rows]
        drop = min(pads) if self._growing else 0
        if self._growing:
            for layer in self._cache.layers:
                assert isinstance(layer, GrowingLayer)
                layer.select(index_R, drop=drop)
        else:
            self._cache.reorder_cache(index_R)  # type: ignore[arg-type]  # any integers will do
        self._pads = [pad - drop for pad in pads]
        self._pad_R1 = self._tensor(self._pads)[:, None]
        self._columns -= drop
        self._take(logits_RV.index_select(0, index_R.to(logits_RV.device)))

    def _tensor(self, values: Sequence[int] | Sequence[Sequence[int]]) -> Tensor:
        return torch.tensor(values, device=self._model.device)


def check_model(model: PreTrainedModel) -> None:
    """Refuses a model that cannot read pairs in one padded batch.

    Raises:
        ModelError: It is no decoder, keeps its state elsewhere, or is in training mode.
    """
    name, accepted = type(model).__name__, _accepted(model)
    if model.training:
        raise ModelError(f"{name} is in training mode, where dropout is random: call model.eval()")
    if getattr(model.config, "is_encoder_decoder", False):
        raise ModelError(f"{name} is an encoder-decoder: the contrast is for decoders")
    if "attention_mask" not in accepted:
        raise ModelError(f"{name} takes no attention_mask: rows of different length need one")
    # as `generate` decides; some models have a class of their own for their cache
    takes = cast("Callable[[], bool]", model._supports_default_dynamic_cache)  # noqa: SLF001
    own = model.config.model_type in OWN_STATE or not takes()
    if own or "past_key_values" not in accepted:
        raise ModelError(
            f"{name} keeps its state outside transformers' caches, where pairs can be neither "
            "padded nor reordered: take another model"
        )


def _accepted(model: PreTrainedModel) -> frozenset[str]:
    """Arguments of the model's forward pass; of the model within, if it is one of peft."""
    find: Callable[[], PreTrainedModel] | None = getattr(model, "get_base_model", None)
    return frozenset(inspect.signature((find() if find else model).forward).parameters)


def _default_cache(model: PreTrainedModel) -> DynamicCache:
    """The cache that the model's `generate` would make."""
    return DynamicCache(config=model.config.get_text_config(decoder=True))


def _holds_all_tokens(cache: DynamicCache) -> bool:
    """Whether all layers are plain attention, whose columns can be copied from row to row.

    Layers with a sliding window are: they may as well keep all columns. Layers with a recurrent
    state, and those that share keys and values with others, are not.
    """
    return all(type(layer) in (DynamicLayer, DynamicSlidingWindowLayer) for layer in cache.layers)
