"""Checkpoints that a run goes on from bit for bit, and that no crash can leave half-written.

    save_checkpoint(folder, step, policy=policy, optimizer=optimizer, state={"seen": 640})
    if (found := latest_checkpoint(folder)) is not None:
        state = load_checkpoint(found, policy=policy, optimizer=optimizer)

A checkpoint is a folder `step-<n>` of safetensors and JSON: the weights that the optimizer trains,
its state by the name of the parameter, the random states of each process, and what the loop adds.
It is written beside its place, synced and renamed, so that a folder of that name is always whole.
Weights that are not trained (the reference, the base below adapters) are not saved again; their
checksum is, so that no run goes on over another model.

Works for plain modules, DDP and FSDP2. Under DeepSpeed, weights and optimizer are written by
`accelerator.save_state` in DeepSpeed's own format, which holds pickles: read only your own.
"""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final, cast
from weakref import WeakKeyDictionary

import torch
from pydantic import JsonValue
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor

from papercore.errors import DataError
from papercore.rl.parallel import gather_texts, is_first, unwrapped
from papercore.rl.random_state import read_random_state, restore_random_state
from papercore.rl.whole_folder import WholeFolder, remove_whole

if TYPE_CHECKING:
    from accelerate import Accelerator

__all__ = [
    "checkpoint_step",
    "latest_checkpoint",
    "load_checkpoint",
    "load_weights",
    "save_checkpoint",
    "save_weights",
]

SCHEMA: Final = 1
"""Version of the layout of a checkpoint."""

_NAME = re.compile(r"step-(\d{8,})")
_WEIGHTS = "weights.safetensors"
_OPTIMIZER = "optimizer.safetensors"
_META = "checkpoint.json"
_DEEPSPEED = "deepspeed"

_CHECKSUMS: WeakKeyDictionary[nn.Module, int] = WeakKeyDictionary()


def save_checkpoint(
    folder: Path,
    step: int,
    *,
    policy: nn.Module,
    optimizer: torch.optim.Optimizer,
    state: Mapping[str, JsonValue],
    accelerator: Accelerator | None = None,
    keep: int = 2,
) -> Path:
    """Writes `step-<n>` into a folder, and then deletes what is older than the last `keep`.

    To be called by all processes; the first one writes.

    Args:
        folder: Where checkpoints are.
        step: Number of the checkpoint; a later one must have a higher number.
        policy: The module that the optimizer trains, wrapped or not.
        optimizer: Its optimizer.
        state: Anything else that the loop needs to go on: JSON with finite numbers.
        accelerator: Where there are several processes.
        keep: How many checkpoints stay.

    Raises:
        DataError: It could not be written, for instance because the disk is full. All that was
            there before is as it was.
    """
    random_states = gather_texts([read_random_state()], accelerator)
    path = folder / f"step-{step:08d}"
    writing = WholeFolder(path, accelerator)
    meta: dict[str, JsonValue] = {}
    if _is_deepspeed(accelerator):
        together = cast("Accelerator", accelerator)
        writing.together(together, lambda at: together.save_state(str(at / _DEEPSPEED)))
    else:
        tensors, meta = _optimizer_state(policy, optimizer, accelerator)
        writing.tensors(_WEIGHTS, _weights(policy, optimizer, accelerator))
        writing.tensors(_OPTIMIZER, tensors)
    document: dict[str, JsonValue] = {
        "schema": SCHEMA,
        "step": step,
        "state": dict(state),
        "optimizer": meta,
        "fixed": _checksum(policy, optimizer, accelerator),
        "scaler": _scaler_state(accelerator),
        "random": cast("list[JsonValue]", random_states),
    }
    writing.json(_META, document)
    writing.finish()
    if is_first(accelerator):
        for old in _checkpoints(folder)[:-keep]:
            remove_whole(old)
    return path


def latest_checkpoint(folder: Path) -> Path | None:
    """The checkpoint with the highest number; None if there is none."""
    found = _checkpoints(folder)
    return found[-1] if found else None


def checkpoint_step(path: Path) -> int:
    """Number of a checkpoint."""
    found = _NAME.fullmatch(path.name)
    assert found is not None, f"{path} is no checkpoint"
    return int(found[1])


def load_checkpoint(
    path: Path,
    *,
    policy: nn.Module,
    optimizer: torch.optim.Optimizer,
    accelerator: Accelerator | None = None,
) -> dict[str, JsonValue]:
    """Puts weights, optimizer and random states back as they were.

    Args:
        path: Of a checkpoint.
        policy: Built as the one that was saved.
        optimizer: Over the same parameters.
        accelerator: Where there are several processes. Random states are restored if there were as
            many then.

    Returns:
        What the loop had added.

    Raises:
        DataError: It is damaged, or of another model.
    """
    document = _read_json(path / _META)
    if document.get("schema") != SCHEMA:
        raise DataError(f"{path} has schema {document.get('schema')}, this reads {SCHEMA}")
    if document["fixed"] != _checksum(policy, optimizer, accelerator):
        raise DataError(
            f"{path}: the model that training started from is not the same any more: restore it, "
            "or start anew with --overwrite"
        )
    if _is_deepspeed(accelerator):
        cast("Accelerator", accelerator).load_state(str(path / _DEEPSPEED))
    else:
        load_weights(path, policy=policy, optimizer=optimizer, accelerator=accelerator)
        meta = cast("dict[str, JsonValue]", document["optimizer"])
        _restore_optimizer(path, policy, optimizer, meta, accelerator)
    _restore_scaler(document["scaler"], accelerator)
    _restore_random(cast("list[str]", document["random"]), accelerator)
    return cast("dict[str, JsonValue]", document["state"])


def save_weights(
    path: Path,
    *,
    policy: nn.Module,
    optimizer: torch.optim.Optimizer,
    accelerator: Accelerator | None = None,
) -> None:
    """Writes the trained weights alone into a folder that is whole or not there; by all processes.

    Raises:
        DataError: They could not be written.
    """
    writing = WholeFolder(path, accelerator)
    writing.tensors(_WEIGHTS, _weights(policy, optimizer, accelerator))
    writing.finish()


def load_weights(
    path: Path,
    *,
    policy: nn.Module,
    optimizer: torch.optim.Optimizer,
    accelerator: Accelerator | None = None,
) -> None:
    """Puts weights back that `save_weights` or `save_checkpoint` wrote.

    Raises:
        DataError: They cannot be read, or are of another model.
    """
    found = _read_tensors(path / _WEIGHTS)
    targets = _trained(policy, optimizer, accelerator)
    if found.keys() != targets.keys():
        odd = min(found.keys() ^ targets.keys())
        raise DataError(f"{path} is of another model: {odd} is only on one side")
    for name, parameter in targets.items():
        if found[name].shape != parameter.shape or found[name].dtype != parameter.dtype:
            raise DataError(
                f"{path} is of another model: {name} is {_shown(found[name])} there and "
                f"{_shown(parameter)} here"
            )
        with torch.no_grad():
            parameter.copy_(_as(found[name], parameter))


def _trained(
    policy: nn.Module, optimizer: torch.optim.Optimizer, accelerator: Accelerator | None
) -> dict[str, nn.Parameter]:
    """The parameters that an optimizer trains, by name.

    Not those that require gradients: peft turns that on and off with its adapters.
    """
    trained = {id(one) for group in optimizer.param_groups for one in group["params"]}
    named = unwrapped(policy, accelerator).named_parameters()
    found = {name: one for name, one in named if id(one) in trained}
    assert found, "the optimizer trains no parameter of the policy"
    return found


def _checksum(
    policy: nn.Module, optimizer: torch.optim.Optimizer, accelerator: Accelerator | None
) -> int:
    """Of the parameters that are not trained; computed once, for they do not change."""
    if _is_deepspeed(accelerator):
        return 0  # each process holds pieces of them only
    module = unwrapped(policy, accelerator)
    if module not in _CHECKSUMS:
        trained = _trained(policy, optimizer, accelerator)
        found = 0
        for name, parameter in module.named_parameters():
            if name not in trained:
                content = _full(parameter.detach()).cpu().contiguous().view(-1).view(torch.uint8)
                found = zlib.crc32(content.numpy().data, zlib.crc32(name.encode(), found))
        _CHECKSUMS[module] = found
    return _CHECKSUMS[module]


def _weights(
    policy: nn.Module, optimizer: torch.optim.Optimizer, accelerator: Accelerator | None
) -> dict[str, Tensor]:
    keep = is_first(accelerator)
    trained = _trained(policy, optimizer, accelerator)
    return {name: _copied(one, keep=keep) for name, one in trained.items()}


def _optimizer_state(
    policy: nn.Module, optimizer: torch.optim.Optimizer, accelerator: Accelerator | None
) -> tuple[dict[str, Tensor], dict[str, JsonValue]]:
    """Tensors as `<field>|<parameter>`; plain numbers of the state and settings of the groups."""
    keep = is_first(accelerator)
    tensors: dict[str, Tensor] = {}
    plain: dict[str, JsonValue] = {}
    for name, parameter in _trained(policy, optimizer, accelerator).items():
        for field, value in optimizer.state.get(parameter, {}).items():
            if isinstance(value, Tensor):
                tensors[f"{field}|{name}"] = _copied(value, keep=keep)
            else:
                plain[f"{field}|{name}"] = value
    groups: list[JsonValue] = [
        {key: value for key, value in group.items() if key != "params"}
        for group in optimizer.param_groups
    ]
    return tensors, {"plain": plain, "groups": groups}


def _restore_optimizer(
    path: Path,
    policy: nn.Module,
    optimizer: torch.optim.Optimizer,
    meta: Mapping[str, JsonValue],
    accelerator: Accelerator | None,
) -> None:
    parameters = _trained(policy, optimizer, accelerator)
    groups = cast("list[dict[str, JsonValue]]", meta["groups"])
    for group, saved in zip(optimizer.param_groups, groups, strict=True):
        for key, setting in saved.items():
            group[key] = tuple(setting) if isinstance(setting, list) else setting
    counts_there = _counted_on_device(optimizer)
    optimizer.state.clear()
    for key, value in _read_tensors(path / _OPTIMIZER).items():
        field, _, name = key.partition("|")
        target = parameters[name]
        stays = field == "step" and id(target) not in counts_there
        optimizer.state[target][field] = value if stays else _as(value, target)
    for key, number in cast("dict[str, JsonValue]", meta["plain"]).items():
        field, _, name = key.partition("|")
        optimizer.state[parameters[name]][field] = number


def _counted_on_device(optimizer: torch.optim.Optimizer) -> set[int]:
    """Parameters whose step counter torch wants beside them; usually it stays on the CPU."""
    there = [g for g in optimizer.param_groups if g.get("fused") or g.get("capturable")]
    return {id(one) for group in there for one in group["params"]}


def _scaler_state(accelerator: Accelerator | None) -> JsonValue:
    """Of the loss scale that float16 needs."""
    scaler = None if accelerator is None else accelerator.scaler
    return None if scaler is None else cast("JsonValue", scaler.state_dict())


def _restore_scaler(saved: JsonValue, accelerator: Accelerator | None) -> None:
    scaler = None if accelerator is None else accelerator.scaler
    if scaler is not None and saved is not None:
        scaler.load_state_dict(saved)


def _restore_random(saved: list[str], accelerator: Accelerator | None) -> None:
    world = 1 if accelerator is None else int(accelerator.num_processes)
    if len(saved) == world:
        restore_random_state(saved[0 if accelerator is None else int(accelerator.process_index)])


def _checkpoints(folder: Path) -> list[Path]:
    """Oldest first."""
    if not folder.is_dir():
        return []
    found = [path for path in folder.iterdir() if _NAME.fullmatch(path.name) and path.is_dir()]
    return sorted(found, key=checkpoint_step)


def _read_json(path: Path) -> dict[str, JsonValue]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read: {' '.join(str(error).split())}") from None
    if not isinstance(document, dict):
        raise DataError(f"{path} should hold a JSON object")
    return document


def _read_tensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise DataError(f"{path} cannot be read: {' '.join(str(error).split())}") from None


def _full(tensor: Tensor) -> Tensor:
    """A tensor with all of its values in this process; of FSDP2's, by all processes together."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def _copied(tensor: Tensor, *, keep: bool) -> Tensor:
    """A copy on the CPU that shares its memory with nothing; empty where nobody needs it."""
    values = _full(tensor.detach())
    return values.to("cpu", copy=True).contiguous() if keep else torch.empty(0)


def _as(values: Tensor, target: Tensor) -> Tensor:
    """Values laid out over devices and processes as a target is."""
    placed = values.to(target.device)
    if isinstance(target, DTensor):
        return distribute_tensor(placed, target.device_mesh, target.placements)
    return placed


def _shown(tensor: Tensor) -> str:
    return f"{list(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}"


def _is_deepspeed(accelerator: Accelerator | None) -> bool:
    return accelerator is not None and accelerator.distributed_type == "DEEPSPEED"
