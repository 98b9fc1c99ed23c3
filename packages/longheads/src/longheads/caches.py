"""Caches for a model: one layer per layer of it, on the device or with its pages on the host."""

from collections.abc import Sequence

from transformers import PreTrainedConfig
from transformers.cache_utils import Cache, DynamicCache

from longheads.cache import LongHeadsLayer
from longheads.config import LongHeadsConfig
from longheads.offload import OffloadedLayer, pool_chunks


class LongHeadsCache(DynamicCache):
    """A cache of which all layers are cropped, or none."""

    def __init__(self, layers: Sequence[LongHeadsLayer]) -> None:
        Cache.__init__(self, layers=list(layers))

    def crop(self, tokens_to_remove: int) -> None:
        """Removes the last tokens of every row; see `LongHeadsLayer.crop`.

        Raises:
            ModelError: A layer cannot take so many back; nothing has changed then.
        """
        for layer in own_layers(self) or ():
            layer.check_crop(tokens_to_remove)
        super().crop(tokens_to_remove)

    @classmethod
    def adopt_(cls, empty: DynamicCache, layers: Sequence[LongHeadsLayer]) -> None:
        """Turns an empty cache that somebody else holds into one."""
        empty.__class__ = cls
        empty.layers = list(layers)
        empty.layer_class_to_replicate = None


def make_layers(
    model_config: PreTrainedConfig, config: LongHeadsConfig, *, capacity_tok: int = 0
) -> list[LongHeadsLayer]:
    """Empty layers for a model.

    Args:
        model_config: config of the language model.
        config: settings of the method.
        capacity_tok: tokens to make room for at once; more is possible, at the price of a copy.
    """
    text = model_config.get_text_config(decoder=True)

    def layer(window: int | None) -> LongHeadsLayer:
        if config.offload and window is None:
            return OffloadedLayer(
                config.chunk_len,
                chunk_rep=config.chunk_rep,
                capacity_tok=capacity_tok,
                pool_chunks=pool_chunks(text, config),
            )
        return LongHeadsLayer(
            config.chunk_len,
            chunk_rep=config.chunk_rep,
            sliding_window=window,
            capacity_tok=capacity_tok,
        )

    return [layer(window) for window in sliding_windows(text)]


def own_layers(cache: Cache) -> list[LongHeadsLayer] | None:
    """The layers of a LongHeads cache; None if it is another kind of cache, or empty."""
    layers = [layer for layer in cache.layers if isinstance(layer, LongHeadsLayer)]
    return layers if layers and len(layers) == len(cache.layers) else None


def make_cache(
    model_config: PreTrainedConfig, config: LongHeadsConfig, *, capacity_tok: int = 0
) -> Cache:
    """An empty cache, to be passed as `past_key_values`; see `make_layers`."""
    return LongHeadsCache(make_layers(model_config, config, capacity_tok=capacity_tok))


def sliding_windows(text_config: PreTrainedConfig) -> list[int | None]:
    """The sliding window of each layer; None for a layer that sees everything."""
    count = text_config.num_hidden_layers
    window = getattr(text_config, "sliding_window", None)
    if window is None or not getattr(text_config, "use_sliding_window", True):
        return [None] * count
    types = getattr(text_config, "layer_types", None) or ["sliding_attention"] * count
    return [window if kind == "sliding_attention" else None for kind in types]
