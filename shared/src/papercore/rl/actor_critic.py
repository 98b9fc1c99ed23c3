"""A policy, its critic and its reference in one module.

    policy = ActorCritic.build(model, critic="shared", lora=LoraSpec(r=16))
    scored = policy(batch, temperature=1.0)

One joint pass over a shared trunk gives log-probabilities and values: the hidden state that
predicts a token is the state before it. Dropout is never active, in the update neither, so that
rollouts, old, new and reference log-probabilities are of one network.

Axes: B rollouts, T tokens, N response tokens of all rows, D hidden width.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path
from typing import Literal, Self, cast

import torch
import torch.distributed as dist
from peft import PeftModel
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from transformers import PreTrainedModel

from papercore.errors import ConfigError
from papercore.rl.lora import LoraSpec, adapter_off, sharing_copy, with_lora
from papercore.rl.policy_folder import read_policy, write_policy
from papercore.rl.rollouts import Packed
from papercore.rl.scoring import CHUNK_LOGITS, Scored, chunked_logps
from papercore.rl.trunk import (
    Head,
    hidden_states,
    hidden_width,
    plain_model,
    require_halves,
    trunk_of,
)

__all__ = ["ActorCritic"]

logger = logging.getLogger(__name__)


class ActorCritic(nn.Module):
    """A causal language model, a value head, and optionally a critic and a reference of its own.

    Attributes:
        actor: The policy; with LoRA a `PeftModel`. Hand it to `sample`.
        value_head: From hidden state to value; float32, starts at zero.
        critic: Trunk below the value head, or None where that is the policy's own.
        reference: Frozen copy of the model that training started from, or None.
    """

    actor: PreTrainedModel
    value_head: nn.Linear
    critic: PreTrainedModel | None
    reference: PreTrainedModel | None

    def __init__(
        self,
        actor: nn.Module,
        value_head: nn.Linear,
        *,
        critic: nn.Module | None = None,
        reference: nn.Module | None = None,
    ) -> None:
        """Puts parts together; `build` makes them.

        Raises:
            ModelError: The model does not divide into a trunk and an output head.
        """
        super().__init__()
        require_halves(actor)
        self.actor = cast("PreTrainedModel", actor)
        self.value_head = value_head.float()
        self.critic = cast("PreTrainedModel | None", critic)
        self.reference = cast("PreTrainedModel | None", reference)
        if reference is not None:
            reference.requires_grad_(False)
        self.train(False)
        if any(getattr(one, "gradient_checkpointing", False) for one in actor.modules()):
            logger.warning("gradient checkpointing has no effect: a policy is never in train mode")

    @classmethod
    def build(
        cls,
        model: PreTrainedModel,
        *,
        critic: Literal["shared", "separate"] = "shared",
        lora: LoraSpec | None = None,
        reference: Literal["copy", "none"] = "copy",
        value_bias: bool = True,
        share_base: bool = True,
    ) -> Self:
        """Makes a policy of a loaded model, which becomes part of it.

        Args:
            critic: A value head on the policy's own trunk, or on a copy of the trunk; with LoRA the
                copy shares the frozen weights and has an adapter of its own.
            lora: Train adapters only; the reference is then the model without them, for nothing.
            reference: Without LoRA: keep a frozen copy, or none, where no KL is wanted.
            value_bias: Whether the value head has a bias.
            share_base: With LoRA and a separate critic: one frozen base for both. FSDP cannot shard
                that: give the critic a copy of it there, which is sharded as well.

        Raises:
            ConfigError: The model has none of the layers that `lora` names.
            ModelError: The model does not divide into a trunk and an output head.
        """
        head = _value_head(model, bias=value_bias)
        if lora is None:
            own = copy.deepcopy(trunk_of(model)) if critic == "separate" else None
            kept = copy.deepcopy(model) if reference == "copy" else None
            return cls(model, head, critic=own, reference=kept)
        # The copy comes first: it is to have the weights, not the policy's adapter.
        copied = sharing_copy if share_base else copy.deepcopy
        beside = copied(trunk_of(model)) if critic == "separate" else None
        actor = with_lora(model, lora)
        return cls(actor, head, critic=None if beside is None else with_lora(beside, lora))

    @property
    def has_reference(self) -> bool:
        """Whether there is a reference: a copy, or the model without its adapter."""
        return self.reference is not None or isinstance(self.actor, PeftModel)

    def train(self, mode: bool = True) -> Self:
        """Stays in evaluation mode whatever is asked for: dropout would change the policy."""
        return super().train(False)

    def forward(
        self,
        batch: Packed,
        *,
        temperature: float = 1.0,
        actor: bool = True,
        critic: bool = True,
        entropy: bool = True,
        reference: bool = False,
    ) -> Scored:
        """Scores the generated tokens of a batch: the one entry for every pass.

        Whoever wraps the module for several devices wraps this. Without `actor` the policy's
        parameters get no gradient, those of a shared trunk neither: the warm-up of a critic.

        Args:
            temperature: Divides the logits, as in sampling; above 0.
            actor: Log-probabilities of the policy.
            critic: Values.
            entropy: Entropies of the policy; only with `actor`.
            reference: Log-probabilities of the reference, without gradient.

        Raises:
            ConfigError: There is no reference, or the temperature is not above 0.
        """
        if not temperature > 0:
            raise ConfigError(f"temperature={temperature} is not allowed here: above 0")
        nothing = torch.zeros(0, device=batch.ids_BT.device)
        found = dict.fromkeys(Scored._fields, nothing)
        if actor or (critic and self.critic is None):
            with torch.set_grad_enabled(actor and torch.is_grad_enabled()):
                states_BTD = hidden_states(trunk_of(self.actor), batch)
        else:
            states_BTD = nothing
        if actor:
            found["logps_N"], found["entropy_N"] = _logps(
                self.actor, states_BTD, batch, temperature=temperature, entropy=entropy
            )
        if critic:
            if self.critic is not None:
                states_BTD = hidden_states(plain_model(self.critic), batch)
            found["values_N"], found["end_values_B"] = self._values(states_BTD, batch)
        if reference:
            found["ref_logps_N"] = self._reference_pass(batch, temperature)
        name = "logps_N" if actor else "values_N"
        found[name] = found[name] + self._left_out(actor=actor, critic=critic)
        return Scored(**found)

    def reference_logps(self, batch: Packed, *, temperature: float = 1.0) -> Tensor:
        """Log-probabilities of the generated tokens under the reference: `[N]`, no gradient.

        Raises:
            ConfigError: There is no reference, or the temperature is not above 0.
        """
        with torch.no_grad():
            return self.forward(
                batch, temperature=temperature, actor=False, critic=False, reference=True
            ).ref_logps_N

    def groups(
        self, *, lr: float, critic_lr: float | None = None, weight_decay: float = 0.0
    ) -> list[dict[str, object]]:
        """Parameter groups for an optimizer: `policy` first, then `critic` with the value head.

        Each trained parameter is in exactly one; a shared trunk is the policy's.

        Args:
            lr: Of the policy.
            critic_lr: Of critic and value head; None is that of the policy.
        """
        rates = {"policy": lr, "critic": lr if critic_lr is None else critic_lr}
        params = {
            "policy": list(_trained(self.actor)),
            "critic": [*_trained(self.critic), *_trained(self.value_head)],
        }
        return [
            {"name": name, "params": params[name], "lr": rate, "weight_decay": weight_decay}
            for name, rate in rates.items()
        ]

    def save(self, folder: Path) -> None:
        """Writes `policy/` (with LoRA `adapter/`), `critic/` if separate, `value_head.safetensors`.

        The reference is not written.
        """
        write_policy(folder, actor=self.actor, value_head=self.value_head, critic=self.critic)

    @classmethod
    def load(
        cls,
        folder: Path,
        *,
        base: PreTrainedModel | None = None,
        reference: PreTrainedModel | None = None,
    ) -> Self:
        """Reads what `save` wrote; outputs are equal bit for bit.

        Args:
            base: With LoRA: the model that the adapter belongs to; it becomes part of the policy.
            reference: Without LoRA: a model to freeze as the reference.

        Raises:
            ConfigError: A base is missing, or given although there is no adapter.
            ModelError: A part is missing or cannot be read.
        """
        actor, value_head, critic = read_policy(folder, base=base)
        return cls(actor, value_head, critic=critic, reference=reference)

    def _values(self, states_BTD: Tensor, batch: Packed) -> tuple[Tensor, Tensor]:
        """Values before each generated token, and after the last one of each row."""
        last_B = [end - 1 for end in accumulate(batch.lengths)]
        states_ND = states_BTD[batch.row_N, batch.at_N - 1]
        end_states_BD = states_BTD[batch.row_N[last_B], batch.at_N[last_B]]
        # Mixed precision would compute values of thousands in eight bits.
        with torch.autocast(states_BTD.device.type, enabled=False):
            values = self.value_head(torch.cat([states_ND, end_states_BD]).float()).squeeze(-1)
        # FSDP warns of outputs that are views of one another.
        return values[: len(states_ND)].clone(), values[len(states_ND) :].clone()

    @torch.no_grad()
    def _reference_pass(self, batch: Packed, temperature: float) -> Tensor:
        if self.reference is not None:
            return _reference_logps(self.reference, batch, temperature)
        if not isinstance(self.actor, PeftModel):
            raise ConfigError("this policy has no reference: build it with reference=copy")
        with adapter_off(self.actor):
            return _reference_logps(self.actor, batch, temperature)

    def _left_out(self, *, actor: bool, critic: bool) -> Tensor | float:
        """A zero that depends on the trained parameters which a pass does without.

        DDP waits for a gradient of each.
        """
        if not (torch.is_grad_enabled() and dist.is_available() and dist.is_initialized()):
            return 0.0
        rest = [] if actor else list(_trained(self.actor))
        rest += [] if critic else [*_trained(self.critic), *_trained(self.value_head)]
        # FSDP and ZeRO-3, whose parameters are in pieces, wait for none.
        return sum((0.0 * one.sum() for one in rest if not isinstance(one, DTensor)), 0.0)


def _value_head(model: PreTrainedModel, *, bias: bool) -> nn.Linear:
    head = nn.Linear(hidden_width(model), 1, bias=bias, device=model.device)
    for parameter in head.parameters():
        nn.init.zeros_(parameter)
    return head


def _trained(module: nn.Module | None) -> Iterator[nn.Parameter]:
    if module is not None:
        yield from (one for one in module.parameters() if one.requires_grad)


def _logps(
    model: nn.Module, states_BTD: Tensor, batch: Packed, *, temperature: float, entropy: bool
) -> tuple[Tensor, Tensor]:
    """Log-probabilities and entropies of generated tokens, from a trunk's hidden states."""
    vocabulary = int(plain_model(model).config.get_text_config().vocab_size)
    return chunked_logps(
        states_BTD[batch.row_N, batch.at_N - 1],
        Head(model),
        batch.targets_N,
        temperature=temperature,
        chunk=max(1, CHUNK_LOGITS // vocabulary),
        entropy=entropy,
    )


def _reference_logps(model: nn.Module, batch: Packed, temperature: float) -> Tensor:
    states_BTD = hidden_states(trunk_of(model), batch)
    return _logps(model, states_BTD, batch, temperature=temperature, entropy=False)[0]
