"""The contrast within `model.generate` of transformers.

    model.generate(
        **plain_inputs, custom_generate=contrastive_decode, emphasis_ids=ids, emphasis_mask=mask
    )

The inputs are the plain contexts; `emphasis_ids` are the same questions with the safety prompt.
Everything else of `generate` acts on the contrasted logits: processors, sampling, stopping.

Axes: B rows, T columns, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol, cast

import torch
from torch import FloatTensor, LongTensor, Tensor
from transformers import (
    GenerationConfig,
    LogitsProcessorList,
    PreTrainedModel,
    StoppingCriteriaList,
)
from transformers.generation.logits_process import UnbatchedClassifierFreeGuidanceLogitsProcessor
from transformers.generation.utils import GenerateDecoderOnlyOutput

from papercore.config import validate
from papercore.errors import GenerationError
from self_cd.config import SelfCDConfig
from self_cd.contexts import Contexts
from self_cd.contrast import contrast
from self_cd.paired import Paired

__all__ = ["Streamer", "contrastive_decode"]


class Streamer(Protocol):
    """What transformers' streamers are."""

    def put(self, value: Tensor) -> None:
        """Takes the prompt, then token after token."""

    def end(self) -> None:
        """Takes notice of the end."""


def contrastive_decode(  # noqa: PLR0913  (transformers gives the arguments)
    model: PreTrainedModel,
    input_ids: Tensor,
    logits_processor: LogitsProcessorList,
    stopping_criteria: StoppingCriteriaList,
    generation_config: GenerationConfig,
    *,
    emphasis_ids: Tensor | None = None,
    emphasis_mask: Tensor | None = None,
    alpha: float = 2.5,
    beta: float = 0.0,
    first_steps: int | None = None,
    adaptive: float | None = None,
    schedule: Sequence[float] = (),
    stream_to: Streamer | None = None,
    synced_gpus: bool = False,
    streamer: Streamer | None = None,
    **model_kwargs: object,
) -> Tensor | GenerateDecoderOnlyOutput:
    """A decoding function for `custom_generate`.

    Args:
        emphasis_ids: Contexts with the safety prompt, one per question, padded on the left.
        emphasis_mask: 0 at their padding; None if there is none.
        alpha: Strength, as the other settings of the same names in `SelfCDConfig`.
        stream_to: Gets prompt and tokens as they come; transformers 5.23 does not hand its own
            argument `streamer` over to functions like this one.

    Returns:
        What `generate` returns: plain contexts with their new tokens.

    Raises:
        GenerationError: Something was asked for that cannot be had with a contrast.
        ConfigError: A setting is out of its range.
        ModelError: The model cannot read pairs.
    """
    settings: dict[str, object] = {
        "alpha": alpha,
        "beta": beta,
        "first_steps": first_steps,
        "adaptive": adaptive,
        "schedule": list(schedule),
    }
    config = validate(SelfCDConfig, settings)
    _refuse(generation_config, logits_processor, model_kwargs, synced_gpus=synced_gpus)
    if emphasis_ids is None:
        raise GenerationError(
            "contrastive_decode needs emphasis_ids: the same questions with the safety prompt"
        )
    mask_BT = model_kwargs.get("attention_mask")
    assert mask_BT is None or isinstance(mask_BT, Tensor)
    max_new_tokens = (generation_config.max_length or 0) - input_ids.shape[1]
    paired = _paired(model, (input_ids, mask_BT), (emphasis_ids, emphasis_mask), max_new_tokens)
    if stream_to is not None:
        stream_to.put(input_ids.cpu())  # as `generate` does for its own streamer
    loop = _Loop(paired, config, logits_processor, stopping_criteria, generation_config)
    return loop.run(input_ids, stream_to if streamer is None else streamer)


class _Loop:
    """Chooses tokens as `generate` does, from contrasted logits."""

    def __init__(
        self,
        paired: Paired,
        config: SelfCDConfig,
        processors: LogitsProcessorList,
        criteria: StoppingCriteriaList,
        generation: GenerationConfig,
    ) -> None:
        self._paired = paired
        self._config = config
        self._processors = processors
        self._criteria = criteria
        self._generation = generation
        ends = any(hasattr(one, "eos_token_id") for one in criteria)
        self._pad = generation._pad_token_tensor if ends else None  # noqa: SLF001 - set by `generate`

    @torch.no_grad()
    def run(
        self, input_ids_BT: Tensor, streamer: Streamer | None
    ) -> Tensor | GenerateDecoderOnlyOutput:
        generation = self._generation
        scores: list[Tensor] = []
        logits: list[Tensor] = []
        unfinished_B = torch.ones(len(input_ids_BT), dtype=torch.bool, device=input_ids_BT.device)
        step = 0
        while True:
            combined_BV = self._combined(step).to(input_ids_BT.device)
            # processors may write into what they are given
            scores_BV = self._processors(cast("LongTensor", input_ids_BT), combined_BV.clone())
            if generation.return_dict_in_generate and generation.output_scores:
                scores.append(scores_BV)
            if generation.return_dict_in_generate and generation.output_logits:
                logits.append(combined_BV)
            tokens_B = self._choose(scores_BV)
            if self._pad is not None:
                tokens_B = torch.where(unfinished_B, tokens_B, self._pad.to(tokens_B.device))
            input_ids_BT = torch.cat([input_ids_BT, tokens_B[:, None]], dim=-1)
            if streamer is not None:
                streamer.put(tokens_B.cpu())
            unfinished_B &= ~self._criteria(input_ids_BT, None)
            if not bool(unfinished_B.any()):
                break
            self._paired.step(tokens_B)
            step += 1
        if streamer is not None:
            streamer.end()
        if not generation.return_dict_in_generate:
            return input_ids_BT
        return GenerateDecoderOnlyOutput(
            sequences=cast("LongTensor", input_ids_BT),
            scores=cast("tuple[FloatTensor]", tuple(scores)) if generation.output_scores else None,
            logits=cast("tuple[FloatTensor]", tuple(logits)) if generation.output_logits else None,
        )

    def _combined(self, step: int) -> Tensor:
        """Contrasted logits; those of the plain contexts after the first steps."""
        paired, config = self._paired, self._config
        if step == config.first_steps:
            paired.drop_emphasis()
        if paired.emphasis_BV is None:
            return paired.plain_BV
        scheduled = config.scheduled(step)
        alpha = config.alpha if scheduled is None else scheduled
        alpha_B = paired.plain_BV.new_full((len(paired),), alpha)
        combined_BV, _ = contrast(
            paired.emphasis_BV,
            paired.plain_BV,
            alpha_B,
            beta=config.beta,
            adaptive=config.adaptive,
        )
        return combined_BV

    def _choose(self, scores_BV: Tensor) -> Tensor:
        if self._generation.do_sample:
            return torch.multinomial(scores_BV.softmax(-1), num_samples=1).squeeze(1)
        return scores_BV.argmax(-1)


def _paired(
    model: PreTrainedModel,
    plain: tuple[Tensor, Tensor | None],
    emphasis: tuple[Tensor, Tensor | None],
    max_new_tokens: int,
) -> Paired:
    """Reads both contexts of every question once, however many answers are wanted of it."""
    ids_BT, emphasis_ids = plain[0], emphasis[0]
    if emphasis_ids.dim() != 2 or len(ids_BT) % max(1, len(emphasis_ids)):
        raise GenerationError(
            f"emphasis_ids of shape {tuple(emphasis_ids.shape)} do not fit {len(ids_BT)} rows of "
            "inputs: give one context with the safety prompt per question"
        )
    # `generate` has repeated the inputs, but not our argument, for num_return_sequences
    times = len(ids_BT) // len(emphasis_ids)
    plain_rows = _rows(ids_BT[::times], None if plain[1] is None else plain[1][::times], "inputs")
    emphasis_rows = _rows(*emphasis, "emphasis_ids")
    pairs = [Contexts(*both) for both in zip(emphasis_rows, plain_rows, strict=True)]
    _check_room(model, pairs, max_new_tokens)
    paired = Paired(model, pairs)
    if times > 1:
        paired.repeat(times)
    return paired


def _check_room(model: PreTrainedModel, pairs: Sequence[Contexts], max_new_tokens: int) -> None:
    """Refuses what overflows on one side, where `generate` sees the plain one alone."""
    config = model.config.get_text_config(decoder=True)
    limit = getattr(config, "max_position_embeddings", None)
    for name, side in (("emphasis_ids", "emphasis"), ("inputs", "plain")):
        longest = max(len(getattr(pair, side)) for pair in pairs)
        if limit is not None and longest + max_new_tokens > limit:
            raise GenerationError(
                f"{longest} tokens of {name} and {max_new_tokens} new ones do not fit into the "
                f"model's context of {limit}: shorten the question or set max_new_tokens"
            )


def _rows(ids_BT: Tensor, mask_BT: Tensor | None, name: str) -> list[tuple[int, ...]]:
    """Token ids of each row, without its padding."""
    if mask_BT is None:
        return [tuple(row) for row in ids_BT.tolist()]
    if mask_BT.shape != ids_BT.shape:
        raise GenerationError(
            f"the mask of the {name} has shape {tuple(mask_BT.shape)} but they have "
            f"{tuple(ids_BT.shape)}"
        )
    kept_BT = mask_BT.bool()
    if not bool(kept_BT[:, -1].all()) or bool((kept_BT[:, :-1] & ~kept_BT[:, 1:]).any()):
        raise GenerationError(f"the {name} are not padded on the left: set padding_side='left'")
    return [
        tuple(token for token, is_kept in zip(row, kept, strict=True) if is_kept)
        for row, kept in zip(ids_BT.tolist(), kept_BT.tolist(), strict=True)
    ]


_HANDLED = {"attention_mask", "position_ids", "past_key_values", "logits_to_keep", "use_cache"}


def _refuse(
    generation: GenerationConfig,
    processors: LogitsProcessorList,
    model_kwargs: Mapping[str, object],
    *,
    synced_gpus: bool,
) -> None:
    """Stops rather than ignore something that would change the result."""
    mode = generation.get_generation_mode().value
    if mode not in ("sample", "greedy_search"):
        raise GenerationError(f"contrastive_decode takes one token at a time: it is no {mode}")
    if any(isinstance(one, UnbatchedClassifierFreeGuidanceLogitsProcessor) for one in processors):
        raise GenerationError("guidance_scale is a second contrast: leave it out, and set alpha")
    if generation.cache_implementation not in (None, "dynamic"):
        raise GenerationError(
            f"cache_implementation={generation.cache_implementation!r}: contrastive_decode has a "
            "cache of its own, leave it out"
        )
    if not model_kwargs.get("use_cache", True):
        raise GenerationError("use_cache=False: contrastive_decode always keeps a cache")
    if generation.return_dict_in_generate and (
        generation.output_attentions or generation.output_hidden_states
    ):
        raise GenerationError(
            "output_attentions and output_hidden_states: a contrast has two of each, leave them out"
        )
    if synced_gpus:
        raise GenerationError("contrastive_decode runs on one process: synced_gpus must be off")
    _refuse_inputs(model_kwargs)


def _refuse_inputs(model_kwargs: Mapping[str, object]) -> None:
    cache = model_kwargs.get("past_key_values")
    read = getattr(cache, "get_seq_length", None)
    if read is not None and read():
        raise GenerationError(
            "past_key_values hold tokens: contrastive_decode reads from the start"
        )
    for name, value in model_kwargs.items():
        if name not in _HANDLED and value is not None and value is not False:
            raise GenerationError(f"contrastive_decode does not take {name}: leave it out")
