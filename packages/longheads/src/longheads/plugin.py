"""Switching LongHeads on and off for a model of transformers.

    with longheads.enable(model, LongHeadsConfig(window=2048)):
        model.generate(...)

or `handle = enable(model)` ... `handle.disable()`. Nothing is patched: an attention function and a
mask function stand in transformers' registries, one hook restarts the rotary positions in every
chunk, and hooks on the decoder open and close each forward pass. `disable` takes all of it away.
"""

import inspect
import logging
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Self

from torch import nn
from torch.utils.hooks import RemovableHandle
from transformers import (
    AttentionInterface,
    AttentionMaskInterface,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.cache_utils import Cache

from longheads.architectures import Parts, all_sliding, find_parts, trained_length
from longheads.caches import make_cache, sliding_windows
from longheads.choice import sliding_slots
from longheads.config import IMPLEMENTATION, LongHeadsConfig
from longheads.engine import STATE_ATTRIBUTE, longheads_attention, untraced
from longheads.intake import adopt, open_step, wants_cache
from longheads.selection import Rules
from longheads.state import ModelState
from papercore.errors import ConfigError, ModelError

logger = logging.getLogger(__name__)


class Handle:
    """LongHeads on one model; a context manager that takes itself away at the end."""

    def __init__(self, model: PreTrainedModel, state: ModelState, previous: str) -> None:
        self.model = model
        self.state = state
        self._previous = previous
        self._hooks: list[RemovableHandle] = []

    @property
    def window(self) -> int:
        """The attention window in tokens."""
        return self.state.window

    def make_cache(self, *, capacity_tok: int = 0) -> Cache:
        """An empty cache for this model, with room for so many tokens."""
        return make_cache(self.model.config, self.state.config, capacity_tok=capacity_tok)

    def disable(self) -> None:
        """Takes LongHeads off the model; calling it twice does no harm."""
        if getattr(self.state.attentions[0], STATE_ATTRIBUTE, None) is not self.state:
            return
        for hook in self._hooks:
            hook.remove()
        self.state.abandon()
        for attention in self.state.attentions:
            delattr(attention, STATE_ATTRIBUTE)
        self.model.set_attn_implementation(self._previous)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.disable()

    def _install_(self) -> None:
        state = self.state
        for attention in state.attentions:
            setattr(attention, STATE_ATTRIBUTE, state)
        signature = inspect.signature(state.decoder.forward)
        whole = [] if self.model is state.decoder else _whole_hooks(state, self.model)
        self._hooks = [
            *whole,
            state.rotary.register_forward_pre_hook(_rotary_hook(state), with_kwargs=True),
            state.decoder.register_forward_pre_hook(
                _opening_hook(state, self.model, signature), with_kwargs=True
            ),
            state.decoder.register_forward_hook(_closing_hook(state), always_call=True),
        ]


def enable(model: PreTrainedModel, config: LongHeadsConfig | None = None) -> Handle:
    """Lets a model read beyond its trained length.

    Args:
        model: a decoder of transformers with rotary positions.
        config: settings; None takes the defaults.

    Returns:
        A handle: a context manager with `disable()`.

    Raises:
        ModelError: for a model that LongHeads is not proved on, or on which it is enabled already.
        ConfigError: for a window that does not fit the model.
    """
    config = config or LongHeadsConfig()
    if not isinstance(getattr(model, "config", None), PreTrainedConfig):
        raise ModelError(
            f"{type(model).__name__} is no model of transformers: give one that it loaded or made"
        )
    parts = find_parts(model)
    if hasattr(parts.attentions[0], STATE_ATTRIBUTE):
        raise ModelError("LongHeads is enabled on this model already: disable it first")
    window = _window(parts, config)
    rules = Rules(window // config.chunk_len, config.keep_first, config.keep_last)
    reaches = [sliding_slots(w, config.chunk_len) for w in sliding_windows(parts.config) if w]
    state = ModelState(
        config=config,
        window=window,
        rules=rules,
        decoder=parts.decoder,
        attentions=parts.attentions,
        rotary=parts.rotary,
        rotary_kinds=parts.rotary_kinds,
        max_slots=max(rules.num_slots, *reaches, 1),
    )
    previous = model.config._attn_implementation
    _register()
    model.set_attn_implementation(IMPLEMENTATION)
    handle = Handle(model, state, previous)
    state.handle = handle
    handle._install_()
    return handle


def disable(model: PreTrainedModel) -> None:
    """Takes LongHeads off a model that `enable` was called on.

    Raises:
        ModelError: if it is not enabled.
    """
    handle = enabled(model)
    if handle is None:
        raise ModelError("LongHeads is not enabled on this model")
    handle.disable()


def enabled(model: PreTrainedModel) -> Handle | None:
    """The handle of a model on which LongHeads is enabled."""
    for module in model.modules():
        state = getattr(module, STATE_ATTRIBUTE, None)
        if isinstance(state, ModelState):
            return state.handle
    return None


def _register() -> None:
    """Makes the implementation known to transformers; the entries do nothing by themselves."""
    AttentionInterface.register(IMPLEMENTATION, longheads_attention)
    AttentionMaskInterface.register(IMPLEMENTATION, _no_mask)


def _no_mask(**_kwargs: object) -> None:
    """Padding reaches the attention function through the forward pass, not through a mask."""


def _window(parts: Parts, config: LongHeadsConfig) -> int:
    trained = trained_length(parts.config)
    try:
        window = config.window_for(trained)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    if window > trained:
        logger.warning(
            "window %d is longer than the %d tokens the model was trained at: positions beyond "
            "that were never seen",
            window,
            trained,
        )
    if all_sliding(parts.config):
        logger.warning("every layer of this model has a sliding window: LongHeads changes nothing")
    return window


# hooks


def _rotary_hook(state: ModelState) -> Callable[..., object]:
    """Restarts the positions in every chunk."""

    @untraced
    def hook(
        module: nn.Module, args: tuple[object, ...], kwargs: dict[str, object]
    ) -> tuple[tuple[object, ...], dict[str, object]] | None:
        step = state.running
        if state.asking_rotary or step is None:
            return None
        if len(args) > 1:
            return (args[0], step.offsets_BT, *args[2:]), kwargs
        return args, {**kwargs, "position_ids": step.offsets_BT}

    return hook


def _opening_hook(
    state: ModelState, model: PreTrainedModel, signature: inspect.Signature
) -> Callable[..., object]:
    """Checks the call, gives it a cache and opens the forward pass."""

    @untraced
    def hook(
        module: nn.Module, args: tuple[object, ...], kwargs: dict[str, object]
    ) -> tuple[tuple[object, ...], dict[str, object]]:
        if model.config._attn_implementation != IMPLEMENTATION:
            raise ModelError(
                f"the attention implementation was set to {model.config._attn_implementation!r} "
                "while LongHeads is enabled: call disable() instead"
            )
        if module.training:
            raise ModelError("LongHeads is for inference: call model.eval() first")
        state.settle()  # a pass that an interrupt left open
        call = signature.bind_partial(*args, **kwargs).arguments
        extra = call.pop("kwargs", {})
        _refuse_attentions({**call, **extra}, model)
        cache = adopt(call.get("past_key_values"), state, model)
        state.begin(open_step(call, cache, state.config))
        if wants_cache(call, model):
            call["past_key_values"] = cache
        return (), {**call, **extra}

    return hook


def _refuse_attentions(call: Mapping[str, object], model: PreTrainedModel) -> None:
    if call.get("output_attentions", getattr(model.config, "output_attentions", False)):
        raise ModelError(
            "output_attentions: LongHeads has no matrix of attention weights; `longheads.trace` "
            "records which chunks every head reads"
        )


def _closing_hook(state: ModelState) -> Callable[..., None]:
    """Closes the forward pass of a decoder that was called alone, or that failed."""

    @untraced
    def hook(module: nn.Module, args: tuple[object, ...], output: object) -> None:
        step = state.running
        if output is None or step is None or not step.inner:
            _close(state, output)

    return hook


def _whole_hooks(state: ModelState, model: nn.Module) -> list[RemovableHandle]:
    """Lets a forward pass last until the whole model is through.

    The output layer needs more memory than the decoder; where it fails, the pass failed.
    """

    @untraced
    def opening(module: nn.Module, args: tuple[object, ...]) -> None:
        state.end(whole=False)  # one that an interrupt left open
        state.announce()

    @untraced
    def closing(module: nn.Module, args: tuple[object, ...], output: object) -> None:
        _close(state, output)

    return [
        model.register_forward_pre_hook(opening),
        model.register_forward_hook(closing, always_call=True),
    ]


def _close(state: ModelState, output: object) -> None:
    """Closes the forward pass; one that failed half-way takes its tokens with it."""
    whole = False
    try:
        if output is not None and state.running is not None:
            state.running.check_finite()
            whole = True
    finally:
        state.end(whole=whole)
