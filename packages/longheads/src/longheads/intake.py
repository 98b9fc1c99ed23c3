"""What a forward pass is given: checked, and turned into what LongHeads works with.

The cache must be LongHeads' own or empty, padding must not leave holes, positions must not jump.
"""

import weakref
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.cache_utils import Cache, DynamicCache

from longheads.cache import LongHeadsLayer
from longheads.caches import LongHeadsCache, make_cache, make_layers, own_layers
from longheads.config import LongHeadsConfig
from longheads.state import Group, ModelState, Step, plan_groups
from papercore.errors import ModelError


def wants_cache(call: Mapping[str, object], model: PreTrainedModel) -> bool:
    """Whether the caller will see the cache of this forward pass."""
    if call.get("past_key_values") is not None:
        return True
    use_cache = call.get("use_cache")
    return bool(model.config.use_cache if use_cache is None else use_cache)


def adopt(cache: object, state: ModelState, model: PreTrainedModel) -> Cache:
    """Takes a LongHeads cache as it is, turns an empty dynamic one into one, refuses any other."""
    if cache is None:
        cache = make_cache(model.config, state.config)
    if not isinstance(cache, Cache):
        raise ModelError(f"a cache of type {type(cache).__name__} is not supported by LongHeads")
    layers = own_layers(cache)
    if layers is not None:
        _check_own(layers, state)
        return cache
    if not isinstance(cache, DynamicCache) or cache.offloading:
        raise ModelError(
            f"a cache of type {type(cache).__name__} is not supported by LongHeads: leave "
            "cache_implementation alone, or pass handle.make_cache()"
        )
    if cache.get_seq_length():
        raise ModelError(
            "this cache was filled by another attention implementation, its keys have other "
            "positions: start with a new cache"
        )
    layers = make_layers(model.config, state.config)
    _check_own(layers, state)  # makes them this model's
    LongHeadsCache.adopt_(cache, layers)
    return cache


def _check_own(layers: Sequence[LongHeadsLayer], state: ModelState) -> None:
    if len(layers) != len(state.attentions):
        raise ModelError(
            f"the cache has {len(layers)} layers but the model has {len(state.attentions)}"
        )
    choices = state.choices
    for layer in layers:
        owner = layer.owner() if layer.owner else None
        if layer.lengths and owner is not state.decoder:
            raise ModelError("the cache was filled by another model: start with a new cache")
        layer.owner = weakref.ref(state.decoder)
        if layer.choices is not choices:
            made = {"chunk_len": layer.chunk_len, "chunk_rep": layer.chunk_rep}
            _check_choices({**made, **(layer.choices if layer.lengths else {})}, choices)
            layer.choices = choices
        if layer.armed:
            raise ModelError(
                "a forward pass is open with this cache: another thread reads with it, or the pass "
                "was interrupted there; start with a new cache"
            )


def _check_choices(made: Mapping[str, object], now: Mapping[str, object]) -> None:
    """Refuses a cache whose tokens were read under other settings than those to come."""
    other = [name for name, value in made.items() if value != now[name]]
    if other:
        before, after = (", ".join(f"{n}={side[n]}" for n in other) for side in (made, now))
        raise ModelError(
            f"the cache was made with {before} but LongHeads is enabled with {after}: start with a "
            "new cache"
        )


def open_step(call: Mapping[str, object], cache: Cache, config: LongHeadsConfig) -> Step:
    """Describes a forward pass.

    Args:
        call: the arguments of the decoder by name.
        cache: what `adopt` returned.
        config: settings of the method.

    Raises:
        ModelError: for masks and positions that are no padding.
    """
    embeds, ids = call.get("inputs_embeds"), call.get("input_ids")
    source = ids if ids is not None else embeds
    assert isinstance(source, Tensor), "the model checks its own inputs"
    batch, columns = source.shape[:2]
    if not batch or not columns:
        raise ModelError("the prompt is empty: there is no token to read")
    layers = own_layers(cache)
    assert layers, "adopted just now"
    layer = layers[0]
    if any(other.lengths != layer.lengths for other in layers):
        raise ModelError("the layers of the cache hold different texts: start with a new cache")
    lengths = list(layer.lengths) or [0] * batch
    if len(lengths) != batch:
        raise ModelError(f"the cache holds {len(lengths)} rows but the batch has {batch}")
    valid_BT = _valid(call.get("attention_mask"), batch, columns, layer.seen_columns, lengths)
    groups = plan_groups(valid_BT, lengths, columns)
    _check_positions(call.get("position_ids"), groups)
    offsets_BT = torch.zeros(batch, columns, dtype=torch.long, device=source.device)
    for group in groups:
        stretch = torch.arange(group.start, group.start + group.count, device=source.device)
        offsets_BT[list(group.rows), group.column : group.column + group.count] = (
            stretch % config.chunk_len
        )
    return Step(layers, groups, columns, offsets_BT)


def _valid(mask: object, batch: int, columns: int, seen: int, lengths: list[int]) -> Tensor | None:
    """Which of the new columns hold tokens; None: all."""
    if mask is None:
        if seen and any(length != seen for length in lengths):
            raise ModelError("the cache holds padded rows: pass the attention_mask of all columns")
        return None
    if not isinstance(mask, Tensor) or mask.dim() != 2:
        raise ModelError(
            "LongHeads takes a 2-D attention_mask (1 for tokens, 0 for padding) or none"
        )
    if tuple(mask.shape) != (batch, seen + columns):
        raise ModelError(
            f"attention_mask has shape {tuple(mask.shape)}, expected {(batch, seen + columns)}: it "
            "must cover the tokens in the cache and the new ones"
        )
    kept = mask.bool()
    if seen and kept[:, :seen].sum(dim=1).tolist() != lengths:
        raise ModelError("attention_mask differs from the one that the cache was filled with")
    fresh = kept[:, seen:]
    return None if bool(fresh.all()) else fresh.cpu()


def _check_positions(position_ids: object, groups: Sequence[Group]) -> None:
    """Refuses packed sequences, whose positions jump inside a row."""
    if not isinstance(position_ids, Tensor) or position_ids.shape[-1] == 1:
        return
    ids = position_ids.cpu()
    for group in groups:
        for row in group.rows:
            part = ids[row if ids.shape[0] > 1 else 0, group.column : group.column + group.count]
            if bool((part.diff() != 1).any()):
                raise ModelError(
                    f"position_ids of row {row} jump: LongHeads does not take packed sequences"
                )
