"""Adapters for policy and critic: low-rank changes of one frozen base.

    actor = with_lora(model, LoraSpec(r=16, alpha=32.0, targets=("q_proj", "v_proj")))

Policy and critic do not take turns on one module, as peft's several adapters do: the critic is a
second module over the same weights. So both may be in one backward pass, and nothing has to be
switched while activations are computed again.

Source: LoRA, 2106.09685.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar, cast

from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.tuners_utils import BaseTuner
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from papercore.errors import ConfigError

if TYPE_CHECKING:
    from papercore.rl.actor_critic import ActorCritic

__all__ = ["LoraSpec", "adapter_off", "merged", "quiet_peft", "sharing_copy", "with_lora"]

M = TypeVar("M", bound=nn.Module)


@dataclass(frozen=True)
class LoraSpec:
    """The shape of an adapter.

    Attributes:
        r: Rank.
        alpha: The adapter's output is scaled by alpha / r.
        targets: Names of the layers that get one.
    """

    r: int = 16
    alpha: float = 32.0
    targets: tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "o_proj")


def with_lora(model: PreTrainedModel, spec: LoraSpec) -> PeftModel:
    """Freezes a model and puts an adapter into it, which changes nothing at first.

    Its weights are float32 if the model's are half precision, and drawn from torch's own generator.

    Raises:
        ConfigError: The model has no such layers.
    """
    config = LoraConfig(
        r=spec.r,
        lora_alpha=int(spec.alpha) if spec.alpha == int(spec.alpha) else cast("int", spec.alpha),
        target_modules=list(spec.targets),
        task_type="CAUSAL_LM" if model.can_generate() else "FEATURE_EXTRACTION",
        fan_in_fan_out=any(isinstance(one, Conv1D) for one in model.modules()),  # GPT-2
    )
    try:
        with quiet_peft():
            found = get_peft_model(model, config)
    except ValueError as error:
        reason = " ".join(str(error).split())[:200]
        raise ConfigError(
            f"lora targets {', '.join(spec.targets)} do not fit {type(model).__name__}: {reason}"
        ) from error
    return cast("PeftModel", found)


@contextmanager
def quiet_peft() -> Iterator[None]:
    """Keeps peft 0.21 from warning of what it does itself: it asks for a renamed property."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*is_gradient_checkpointing.*", FutureWarning)
        yield


def sharing_copy(model: M) -> M:
    """A module of its own over the same parameters: no copy of the weights."""
    return copy.deepcopy(model, {id(one): one for one in model.parameters()})


@contextmanager
def adapter_off(model: PeftModel) -> Iterator[None]:
    """The model without its adapter; which parameters require gradients stays as it was."""
    before = [(one, one.requires_grad) for one in model.parameters()]
    tuner = cast("BaseTuner", model.base_model)
    tuner.disable_adapter_layers()  # turns their gradients off too, and then on again
    try:
        yield
    finally:
        tuner.enable_adapter_layers()
        for parameter, required in before:
            parameter.requires_grad_(required)


def merged(policy: ActorCritic) -> PreTrainedModel:
    """The policy as a plain model: a copy with the adapter merged in, or the model itself.

    The policy is left as it is.
    """
    actor = policy.actor
    if not isinstance(actor, PeftModel):
        return actor
    return cast("PreTrainedModel", copy.deepcopy(actor).merge_and_unload())
