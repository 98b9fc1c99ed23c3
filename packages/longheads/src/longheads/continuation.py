"""Reading a long prompt piece by piece, and writing what follows.

    written = continue_prompt(model, ids, handle=handle, settings=Settings(max_new_tokens=5))

The prompt goes through `generate` of transformers with chunked prefill, so that activations need
the memory of one piece, and logits are computed at the last place only. The cache has room for
everything from the start.
"""

import copy
import logging
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn
from transformers import DynamicCache, GenerationConfig, PreTrainedModel
from transformers.cache_utils import Cache
from transformers.generation.streamers import BaseStreamer
from transformers.modeling_outputs import CausalLMOutputWithPast

from longheads.offload import offload_facts
from longheads.plugin import Handle, enabled
from papercore.errors import ModelError
from papercore.generate.defaults import without_defaults

KEPT = "logits_to_keep"

MOST_AHEAD = 20
"""Tokens that an assistant writes ahead if its checkpoint says nothing; transformers' default."""


@dataclass(frozen=True)
class Settings:
    """How to read and write.

    Attributes:
        max_new_tokens: tokens to write at most.
        prefill_tok: tokens per forward pass while the prompt is read.
        temperature: 0 takes the most likely token.
        eos_ids: tokens that end the text; none: exactly `max_new_tokens` are written.
        min_new_tokens: tokens before which the text does not end.
    """

    max_new_tokens: int
    prefill_tok: int = 4096
    temperature: float = 0.0
    eos_ids: frozenset[int] = frozenset()
    min_new_tokens: int = 0


@dataclass(frozen=True)
class Continuation:
    """What a model wrote, and how long that took.

    Attributes:
        token_ids: new tokens, the one that ended the text included.
        finish_reason: `stop` if a token ended the text, else `length`.
        prefill_s: seconds until the logits after the prompt were there.
        decode_s: seconds from then on.
        cache: how a cache on the host did: bytes, and the hit rate if a page was asked for; empty
            without offloading.
    """

    token_ids: tuple[int, ...]
    finish_reason: Literal["stop", "length"]
    prefill_s: float
    decode_s: float
    cache: Mapping[str, float | bool] = field(default_factory=dict)

    @property
    def tokens_per_s(self) -> float | None:
        """Speed of writing; None if only the token that the prefill gave was written."""
        written = len(self.token_ids) - 1
        return written / self.decode_s if written and self.decode_s > 0 else None


def continue_prompt(
    model: PreTrainedModel,
    ids: Sequence[int],
    *,
    handle: Handle | None,
    settings: Settings,
    streamer: BaseStreamer | None = None,
    assistant: PreTrainedModel | None = None,
) -> Continuation:
    """Reads a prompt and writes on.

    Args:
        model: a loaded model.
        ids: tokens of the prompt.
        handle: of LongHeads, if it is enabled on the model.
        settings: how to read and write.
        streamer: gets the new tokens as they come.
        assistant: a smaller model of the same tokenizer that writes ahead; what is written is what
            the model would have written alone.

    Raises:
        ModelError: The logits are not finite, or a token id is outside of the vocabulary.
    """
    check_ids(model, ids)
    cache = new_cache(model, handle, capacity_tok=len(ids) + settings.max_new_tokens)
    ids_1T = torch.tensor([list(ids)], device=model.device)
    watch = _Watch(cache, prompt_tok=len(ids))
    started = time.perf_counter()
    with (
        without_defaults(model),
        _watched(model, assistant, watch),
        _in_pieces(model, settings.prefill_tok),
        _held_back(model, assistant),
        _without_reminder(),
        torch.no_grad(),
    ):
        output_1T = model.generate(  # type: ignore[operator]
            input_ids=ids_1T,
            attention_mask=torch.ones_like(ids_1T),
            past_key_values=cache,
            generation_config=_generation_config(settings),
            streamer=streamer,
            assistant_model=assistant,
        )
    new = tuple(output_1T[0, len(ids) :].tolist())  # reading the tokens waits for the device
    ended = time.perf_counter()
    stopped = bool(new) and new[-1] in settings.eos_ids
    return Continuation(
        token_ids=new,
        finish_reason="stop" if stopped else "length",
        prefill_s=watch.first_s - started,
        decode_s=ended - watch.first_s,
        cache=_known(offload_facts(cache)),
    )


def read(
    model: PreTrainedModel, ids: Sequence[int], *, handle: Handle | None, prefill_tok: int
) -> None:
    """Reads a prompt and writes nothing; for recorders of what is read.

    Raises:
        ModelError: The logits are not finite, or a token id is outside of the vocabulary.
    """
    check_ids(model, ids)
    cache = new_cache(model, handle, capacity_tok=len(ids))
    ids_1T = torch.tensor([list(ids)], device=model.device)
    with torch.no_grad():
        _read_into(model, cache, ids_1T, prefill_tok)


def _read_into(model: PreTrainedModel, cache: Cache, ids_1T: Tensor, prefill_tok: int) -> None:
    for start in range(0, ids_1T.shape[1], prefill_tok):
        part_1T = ids_1T[:, start : start + prefill_tok]
        out = model(input_ids=part_1T, past_key_values=cache, logits_to_keep=1)
        _check_finite(out.logits)


def new_cache(model: PreTrainedModel, handle: Handle | None, *, capacity_tok: int) -> Cache:
    """An empty cache for a model, with room for so many tokens if LongHeads is enabled on it."""
    if handle is None:
        return DynamicCache(config=model.config)
    return handle.make_cache(capacity_tok=capacity_tok)


class _Watch:
    """Notes when the prompt's logits are there, and stops at logits that are not finite.

    A hook on the model and no logits processor: transformers hands processors to the assistant too.
    """

    def __init__(self, cache: Cache, *, prompt_tok: int) -> None:
        self.first_s = 0.0
        self._cache = cache
        self._prompt_tok = prompt_tok

    def __call__(self, module: nn.Module, args: object, output: CausalLMOutputWithPast) -> None:
        _check_finite(output.logits)  # asks the device for a number: the time below is a true one
        if not self.first_s and self._cache.get_seq_length() >= self._prompt_tok:
            self.first_s = time.perf_counter()


@contextmanager
def _watched(
    model: PreTrainedModel, assistant: PreTrainedModel | None, watch: _Watch
) -> Iterator[None]:
    def other(module: nn.Module, args: object, output: CausalLMOutputWithPast) -> None:
        _check_finite(output.logits, "the assistant's")

    hooks = [model.register_forward_hook(watch)]
    if assistant is not None:
        hooks.append(assistant.register_forward_hook(other))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def _in_pieces(model: PreTrainedModel, prefill_tok: int) -> Iterator[None]:
    """Cuts long passes into pieces; of those with an assistant, transformers does not do so."""

    def cut(
        module: nn.Module, args: tuple[object, ...], kwargs: dict[str, object]
    ) -> tuple[tuple[object, ...], dict[str, object]] | None:
        ids_1T, cache, last = (kwargs.get(name) for name in ("input_ids", "past_key_values", KEPT))
        if not (isinstance(ids_1T, Tensor) and isinstance(cache, Cache) and isinstance(last, int)):
            return None
        if ids_1T.shape[1] <= prefill_tok or not last:
            return None
        _read_into(model, cache, ids_1T[:, :-last], prefill_tok)
        for name in ("input_ids", "position_ids"):
            if isinstance(given := kwargs.get(name), Tensor):
                kwargs = {**kwargs, name: given[..., -last:]}
        return args, kwargs

    hook = model.register_forward_pre_hook(cut, with_kwargs=True, prepend=True)
    try:
        yield
    finally:
        hook.remove()


@contextmanager
def _held_back(model: PreTrainedModel, assistant: PreTrainedModel | None) -> Iterator[None]:
    """Lets an assistant write at most a chunk ahead.

    Tokens that the model rejects are taken back from the caches of both, and a cache of chunks can
    give back no more than that from every length.
    """
    if assistant is None:
        yield
        return
    handles = [handle for one in (model, assistant) if (handle := enabled(one))]
    own = assistant.generation_config
    held = copy.deepcopy(own)
    if handles:
        chunk_len = min(handle.state.config.chunk_len for handle in handles)
        held.num_assistant_tokens = min(own.num_assistant_tokens or MOST_AHEAD, chunk_len)
        held.num_assistant_tokens_schedule = "constant"  # the others let it grow
    assistant.generation_config = held
    try:
        yield
    finally:
        assistant.generation_config = own


def _known(facts: Mapping[str, float | bool]) -> dict[str, float | bool]:
    """Without the hit rate of a cache that was asked for no page."""
    return {name: value for name, value in facts.items() if not math.isnan(value)}


def _check_finite(logits: Tensor | None, whose: str = "the model's") -> None:
    assert logits is not None, "a causal model gives logits"
    if not bool(logits.amax(-1).isfinite().all()):
        raise ModelError(
            f"{whose} logits are not finite (NaN or overflow): check the weights, or take another "
            "--dtype"
        )


def check_ids(model: PreTrainedModel, ids: Sequence[int]) -> None:
    """Refuses tokens that the model does not have.

    Raises:
        ModelError: Model and tokenizer do not belong together.
    """
    size = model.config.get_text_config(decoder=True).vocab_size
    outside = [token for token in ids if not 0 <= token < size]
    if outside:
        raise ModelError(
            f"token id {outside[0]} is outside of the model's vocabulary of {size}: model and "
            "tokenizer do not belong together"
        )


def _generation_config(settings: Settings) -> GenerationConfig:
    ends = sorted(settings.eos_ids)
    sampling = {"temperature": settings.temperature, "top_k": 0} if settings.temperature else {}
    return GenerationConfig(  # type: ignore[no-untyped-call]
        max_new_tokens=settings.max_new_tokens,
        min_new_tokens=settings.min_new_tokens or None,
        do_sample=bool(settings.temperature),
        eos_token_id=ends or None,
        pad_token_id=ends[0] if ends else None,
        prefill_chunk_size=settings.prefill_tok,
        **sampling,
    )


@contextmanager
def _without_reminder() -> Iterator[None]:
    """Silences the reminder of transformers that the text is longer than the trained length.

    The commands say themselves what they do about it.
    """
    reminder = logging.getLogger("transformers.generation.stopping_criteria")
    before = reminder.level
    reminder.setLevel(logging.ERROR)
    try:
        yield
    finally:
        reminder.setLevel(before)
