"""A policy on disk: models and adapters in their own formats, and the value head beside them.

write_policy(folder, actor=actor, value_head=value_head, critic=None)
actor, value_head, critic = read_policy(folder)

policy/                  the model, as `save_pretrained` writes it; or, with LoRA,
adapter/                 the adapter
critic/                  a critic's own trunk, or its adapter
value_head.safetensors   weight and bias; says in its metadata which of these there are
"""

from __future__ import annotations

from pathlib import Path
from typing import Final, NamedTuple, cast

from peft import PeftModel
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import AutoModel, AutoModelForCausalLM, PreTrainedModel

from papercore.errors import ConfigError, ModelError
from papercore.rl.lora import quiet_peft, sharing_copy
from papercore.rl.trunk import trunk_of

__all__ = ["Parts", "read_policy", "write_policy"]

_HEAD: Final = "value_head.safetensors"


class Parts(NamedTuple):
    """What a policy consists of."""

    actor: nn.Module
    value_head: nn.Linear
    critic: nn.Module | None


def write_policy(
    folder: Path, *, actor: nn.Module, value_head: nn.Linear, critic: nn.Module | None
) -> None:
    """Writes all parts into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    adapted = isinstance(actor, PeftModel)
    _write_model(folder / ("adapter" if adapted else "policy"), actor)
    if critic is not None:
        _write_model(folder / "critic", critic)
    tensors = {name: one.detach().cpu().contiguous() for name, one in value_head.named_parameters()}
    meta = {
        "policy": "adapter" if adapted else "full",
        "critic": "shared" if critic is None else "separate",
    }
    save_file(tensors, folder / _HEAD, metadata=meta)


def read_policy(folder: Path, *, base: PreTrainedModel | None = None) -> Parts:
    """Reads what `write_policy` wrote.

    Args:
        base: The model that the adapter belongs to, if there is one; it becomes part of the policy.

    Raises:
        ConfigError: A base is missing, or given although there is no adapter.
        ModelError: A part is missing or cannot be read.
    """
    tensors, meta = _read_head(folder / _HEAD)
    adapted, separate = meta.get("policy") == "adapter", meta.get("critic") == "separate"
    if adapted != (base is not None):
        raise ConfigError(
            f"{folder} holds an adapter: give the model that it belongs to as base"
            if adapted
            else f"{folder} holds a whole policy: give no base"
        )
    critic: nn.Module | None = None
    try:
        if base is not None:
            # The copy comes first: it is to share the weights, not the policy's adapter.
            beside = sharing_copy(trunk_of(base)) if separate else None
            actor: nn.Module = _with_adapter(base, folder / "adapter")
            critic = None if beside is None else _with_adapter(beside, folder / "critic")
        else:
            actor = _read_model(AutoModelForCausalLM, folder / "policy")
            critic = _read_model(AutoModel, folder / "critic") if separate else None
    except (OSError, ValueError, TypeError, KeyError, RuntimeError, SafetensorError) as error:
        raise ModelError(f"the policy in {folder} cannot be read: {_one_line(error)}") from error
    weight_1D = tensors["weight"]
    value_head = nn.Linear(weight_1D.shape[1], 1, bias="bias" in tensors)
    value_head.load_state_dict(tensors)
    device = next(actor.parameters()).device
    return Parts(actor, value_head.to(device), critic)


def _write_model(folder: Path, model: nn.Module) -> None:
    if isinstance(model, PeftModel):
        # Embeddings are not trained; peft would look for the base on the hub to see that.
        model.save_pretrained(str(folder), save_embedding_layers=False)
    else:
        cast("PreTrainedModel", model).save_pretrained(folder)


def _read_model(auto: type[AutoModel | AutoModelForCausalLM], folder: Path) -> nn.Module:
    if not (folder / "config.json").is_file():
        raise FileNotFoundError(f"there is no {folder}/config.json")
    model: nn.Module = auto.from_pretrained(
        folder, dtype="auto", use_safetensors=True, trust_remote_code=False
    )
    return model


def _with_adapter(model: PreTrainedModel, folder: Path) -> nn.Module:
    if not (folder / "adapter_model.safetensors").is_file():
        raise FileNotFoundError(f"there is no {folder}/adapter_model.safetensors")
    with quiet_peft():
        return PeftModel.from_pretrained(model, str(folder), is_trainable=True)


def _read_head(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise ModelError(
            f"{path} cannot be read ({_one_line(error)}): give a folder that a policy was saved to"
        ) from error


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
