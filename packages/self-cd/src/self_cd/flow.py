"""Information flow by attention: how much each token's part in a layer moves the loss.

    flow = information_flow(model, context, target)
    flow.from_LT[layer, token]      # to the last token of the context

Source: 2401.17633, section 3, a Taylor expansion; the exact formula from memory, that of "label
    words are anchors" (2305.14160): I(i, j) = | sum over heads of A(i, j) dL/dA(i, j) | per layer.
Deviation: the paper does not say whose loss; here the mean over the target's first tokens.

The attention is computed by a function of our own, registered with transformers and taken away
again: the arithmetic of transformers' eager attention in float32, whose probabilities are in the
graph. Axes: B batch, H heads, G key-value heads, T prompt tokens, S tokens that are read, K target
tokens, L layers, D head width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.masking_utils import eager_mask

from papercore.errors import DataError, ModelError
from self_cd.head import Float32Head
from self_cd.paired import check_model

__all__ = ["Flow", "Recorder", "information_flow", "recorded_attention"]

NAME = "self_cd_flow"
"""Name of the attention function in transformers' registries."""
IGNORED = frozenset(
    {
        "cache_position",
        "is_causal",
        "output_attentions",
        "output_hidden_states",
        "position_ids",
        "return_dict",
        "sliding_window",  # the mask has it
        "use_cache",
    }
)
"""What models hand to attention functions beside what changes the arithmetic."""


@dataclass(frozen=True)
class Flow:
    """Flow to the last token of a context.

    Attributes:
        from_LT: From every token of the context, in float64 on the CPU; not negative.
        loss: Mean loss of the target tokens.
    """

    from_LT: Tensor
    loss: float


@dataclass
class Recorder:
    """Attention probabilities of one forward pass, by layer; each is part of the graph."""

    probs_BHSS: dict[int, Tensor] = field(default_factory=dict)


_RECORDER: ContextVar[Recorder | None] = ContextVar("self_cd_flow_recorder", default=None)


def information_flow(
    model: PreTrainedModel,
    context: Sequence[int],
    target: Sequence[int],
    *,
    float32_head: bool = True,
) -> Flow:
    """Flow from every token of a context to its last one, for the loss of a target behind it.

    Raises:
        DataError: Context or target is empty, or the loss is not finite.
        ModelError: The attention of this model cannot be recorded.
    """
    if not context or not target:
        raise DataError("there is no flow without a context and a target: one of them is empty")
    device = model.device
    ids_1S = torch.tensor([[*context, *target[:-1]]], device=device)
    target_K = torch.tensor(list(target), device=device)
    head = Float32Head(model) if float32_head else None
    with recorded_attention(model) as recorder, torch.enable_grad():
        if head is None:
            logits_1SV = model(input_ids=ids_1S, use_cache=False).logits
        else:
            with head.attached():
                logits_1SV = model(input_ids=ids_1S, use_cache=False).logits
        probs = _by_layer(model, recorder)
        logits_KV = logits_1SV[0, len(context) - 1 :]
        loss = F.cross_entropy(_widened(logits_KV), target_K.to(logits_KV.device))
        if not bool(loss.isfinite()):
            raise DataError("the model's logits are not finite: there is no loss to explain")
        slopes = torch.autograd.grad(loss, probs)
    last, width = len(context) - 1, len(context)
    from_LT = torch.stack(
        [
            (prob_BHSS * slope_BHSS)[0, :, last, :width].sum(0).abs().detach().double().cpu()
            for prob_BHSS, slope_BHSS in zip(probs, slopes, strict=True)
        ]
    )
    return Flow(from_LT, float(loss.detach()))


@contextmanager
def recorded_attention(model: PreTrainedModel) -> Iterator[Recorder]:
    """Within the block the model's attention is ours, and no weight asks for a gradient.

    Raises:
        ModelError: Its attention cannot be exchanged.
    """
    check_model(model)
    AttentionInterface.register(NAME, _attend)
    AttentionMaskInterface.register(NAME, eager_mask)
    before = model.config._attn_implementation
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    recorder = Recorder()
    token = _RECORDER.set(recorder)
    try:
        if model._can_set_attn_implementation():  # noqa: SLF001 - the public setter only warns
            model.set_attn_implementation(NAME)
        if model.config._attn_implementation != NAME:
            raise ModelError(
                f"{type(model).__name__} has an attention of its own, which cannot be recorded: "
                "take a model that uses transformers' attention functions"
            )
        for weight in trained:
            weight.requires_grad = False  # spares the memory of their gradients
        yield recorder
    finally:
        _RECORDER.reset(token)
        for weight in trained:
            weight.requires_grad = True
        if model.config._attn_implementation == NAME:
            model.set_attn_implementation(before)


def _attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    softcap: float | None = None,
    **options: object,
) -> tuple[Tensor, Tensor]:
    """Eager attention; called by the model.

    Shapes:
        query: [B, H, S, D].
        key, value: [B, G, S, D], where G divides H.
        returns: [B, S, H, D] and the probabilities [B, H, S, S].
    """
    unknown = sorted(n for n, given in options.items() if n not in IGNORED and given is not None)
    if unknown or dropout:
        raise ModelError(
            f"{type(module).__name__} computes attention with {', '.join(unknown) or 'dropout'}, "
            "which the recording does not know: take another model"
        )
    groups = query.shape[1] // key.shape[1]
    query_BHSD, key_BGSD, value_BGSD = (_widened(one) for one in (query, key, value))
    key_BHSD, value_BHSD = (one.repeat_interleave(groups, dim=1) for one in (key_BGSD, value_BGSD))
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    scores_BHSS = query_BHSD @ key_BHSD.transpose(-1, -2) * scale
    if softcap is not None:
        scores_BHSS = (scores_BHSS / softcap).tanh() * softcap
    if attention_mask is not None:
        scores_BHSS = scores_BHSS + attention_mask.to(scores_BHSS.dtype)
    probs_BHSS = scores_BHSS.softmax(-1)
    if torch.is_grad_enabled() and not probs_BHSS.requires_grad:
        probs_BHSS.requires_grad_()  # the first layer, where the graph begins
    recorder = _RECORDER.get()
    if recorder is not None:
        recorder.probs_BHSS[_layer(module)] = probs_BHSS
    mixed_BHSD = probs_BHSS @ value_BHSD
    return mixed_BHSD.transpose(1, 2).contiguous().to(query.dtype), probs_BHSS


def _layer(module: nn.Module) -> int:
    layer = getattr(module, "layer_idx", None)
    if not isinstance(layer, int):
        raise ModelError(f"{type(module).__name__} does not say which layer it is")
    return layer


def _by_layer(model: PreTrainedModel, recorder: Recorder) -> list[Tensor]:
    count = model.config.get_text_config(decoder=True).num_hidden_layers
    if sorted(recorder.probs_BHSS) != list(range(count)):
        raise ModelError(
            f"{type(model).__name__}: attention was recorded in {len(recorder.probs_BHSS)} of "
            f"{count} layers: the others have none, and flow is by attention"
        )
    return [recorder.probs_BHSS[layer] for layer in range(count)]


def _widened(tensor: Tensor) -> Tensor:
    """In float32, or in float64 if it is."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))
