"""A causal language model as its two halves: the trunk's hidden states, and the head's logits.

    hidden_BTD = hidden_states(trunk_of(model), batch)
    logits_NV = Head(model)(hidden_BTD[batch.row_N, batch.at_N - 1])

The head is the model's own forward pass with the trunk taken out, so that whatever its class does
around the head (Gemma's soft cap, Cohere's and Granite's scale) is done here too.

Axes: B rows, T tokens, N chosen positions, D hidden width, V vocabulary.
"""

from __future__ import annotations

import copy
from typing import cast

import torch
from peft import PeftModel
from torch import Tensor, nn
from transformers import PreTrainedModel

from papercore.errors import ModelError
from papercore.rl.rollouts import Packed

__all__ = ["Head", "hidden_states", "hidden_width", "plain_model", "require_halves", "trunk_of"]


def plain_model(model: nn.Module) -> PreTrainedModel:
    """The transformers model itself, where peft has put adapters into it."""
    found = model.get_base_model() if isinstance(model, PeftModel) else model
    return cast("PreTrainedModel", found)


def trunk_of(model: nn.Module) -> PreTrainedModel:
    """The part of a causal language model below its output head.

    Raises:
        ModelError: It has no such part.
    """
    plain = plain_model(model)
    return cast("PreTrainedModel", getattr(plain, _trunk_name(plain)))


def hidden_width(model: nn.Module) -> int:
    """Width of the hidden states that the output head reads."""
    plain = plain_model(model)
    head = plain.get_output_embeddings()  # type: ignore[no-untyped-call]
    width = getattr(head, "in_features", None) or plain.config.get_text_config().hidden_size
    return int(width)


def hidden_states(trunk: nn.Module, batch: Packed) -> Tensor:
    """What the head would read, at every position: `[B, T, D]`."""
    outputs = trunk(input_ids=batch.ids_BT, attention_mask=batch.mask_BT, use_cache=False)
    return cast("Tensor", outputs[0])


class Head:
    """From hidden states to logits, as the class of a model does it.

    Parameters are the model's own, and its head is called as a module, so that hooks of sharded
    training see it. To be made anew for each pass: it does not follow a model that is changed.
    """

    def __init__(self, model: nn.Module) -> None:
        plain = plain_model(model)
        self._forward = type(plain).forward
        # A shallow copy shares everything with the model but what is replaced in the copy.
        self._shell = copy.copy(plain)
        name = _trunk_name(plain)
        passage = _Passage(getattr(plain, name))
        vars(self._shell)["_modules"] = {**dict(plain.named_children()), name: passage}

    def __call__(self, hidden_ND: Tensor) -> Tensor:
        """Logits `[N, V]` of hidden states `[N, D]`."""
        outputs = self._forward(self._shell, inputs_embeds=hidden_ND[None], use_cache=False)
        return cast("Tensor", outputs.logits[0])


@torch.no_grad()
def require_halves(model: nn.Module) -> None:
    """Checks on three tokens that trunk and head together are the model.

    A model whose weights are not here yet, as ZeRO-3 leaves them, is taken at its word.

    Raises:
        ModelError: They are not.
    """
    plain, trunk = plain_model(model), trunk_of(model)
    if any(one.is_meta or one.numel() == 0 for one in plain.parameters()):
        return
    ids_BT = torch.arange(3, device=plain.device)[None]
    try:
        hidden_TD = trunk(input_ids=ids_BT, use_cache=False)[0][0]
        found_TV = Head(plain)(hidden_TD)
    except (AttributeError, TypeError, RuntimeError, ValueError) as error:
        raise ModelError(_not_halves(plain, " ".join(str(error).split())[:200])) from error
    wanted_TV = plain(input_ids=ids_BT, use_cache=False).logits[0]
    if not torch.allclose(found_TV, wanted_TV, rtol=1e-3, atol=1e-3, equal_nan=True):
        raise ModelError(_not_halves(plain, "its logits are not those of its head"))


def _trunk_name(plain: PreTrainedModel) -> str:
    names = (plain.base_model_prefix, "model")  # Llama4 has another prefix than its trunk's name
    found = [name for name in names if isinstance(getattr(plain, name, None), nn.Module)]
    if not found or plain.get_output_embeddings() is None:  # type: ignore[no-untyped-call]
        raise ModelError(f"{type(plain).__name__} has no output head: load a causal language model")
    return found[0]


def _not_halves(model: PreTrainedModel, reason: str) -> str:
    return (
        f"{type(model).__name__} does not divide into trunk and head ({reason}): "
        "use a decoder-only model of another class"
    )


class _Passage(nn.Module):
    """Stands in for a trunk: what goes in as embeddings comes out as hidden states."""

    def __init__(self, trunk: nn.Module) -> None:
        super().__init__()
        vars(self)["_trunk"] = trunk  # no module of this one

    def __getattr__(self, name: str) -> Tensor | nn.Module:
        found: Tensor | nn.Module = getattr(vars(self)["_trunk"], name)
        return found

    @property
    def decoder(self) -> _Passage:
        """OPT calls the decoder within its trunk."""
        return self

    def forward(self, *_: object, inputs_embeds: Tensor, **__: object) -> _Outputs:
        return _Outputs(inputs_embeds)


class _Outputs:
    """Outputs of a trunk that has nothing but hidden states."""

    def __init__(self, hidden_BTD: Tensor) -> None:
        self.last_hidden_state = hidden_BTD

    def __getattr__(self, name: str) -> None:
        return None

    def __getitem__(self, index: int | slice) -> Tensor | tuple[Tensor, ...]:
        return (self.last_hidden_state,)[index]
