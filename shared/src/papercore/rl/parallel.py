"""Several processes as one: sums, shares, and a model that is whole for a while.

    share = shard(config.rollouts, accelerator)
    with whole(policy, accelerator) as module:
        rollouts = sample(module.actor, prompts[share.start : share.stop], ...)

Every function takes `accelerator=None` for one process, and then costs nothing. What is exchanged
are numbers and texts; nothing is pickled. All of them must be called by all processes.

Axes: N values of one process.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import TypeVar

import torch
import torch.distributed as dist
from accelerate import Accelerator
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule

from papercore.errors import ConfigError
from papercore.rl.estimators import Reduce

__all__ = [
    "agree",
    "gather_floats",
    "gather_texts",
    "is_first",
    "is_sharded",
    "reduce_sum",
    "shard",
    "unwrapped",
    "whole",
]

M = TypeVar("M", bound=nn.Module)


def is_first(accelerator: Accelerator | None) -> bool:
    """Whether this process is the one that writes files."""
    return accelerator is None or bool(accelerator.is_main_process)


def shard(num: int, accelerator: Accelerator | None) -> range:
    """This process's share of `num` things: a run of them, as long as the others' or one longer."""
    world, rank = _world(accelerator), _rank(accelerator)
    return range(num * rank // world, num * (rank + 1) // world)


def reduce_sum(accelerator: Accelerator | None) -> Reduce:
    """A function that sums a tensor over all processes, and leaves it on its device."""

    def add(x: Tensor) -> Tensor:
        if _world(accelerator) == 1:
            return x
        total = x.detach().to(_device(accelerator), copy=True)
        dist.all_reduce(total)
        return total.to(x.device)

    return add


def gather_floats(values: Sequence[float], accelerator: Accelerator | None) -> list[float]:
    """The values of all processes, in their order; processes may have different numbers of them."""
    found = torch.tensor(list(values), dtype=torch.float64)
    parts = _gather(found, accelerator)
    return [float(value) for part in parts for value in part.tolist()]


def gather_texts(texts: Sequence[str], accelerator: Accelerator | None) -> list[str]:
    """The texts of all processes, in their order."""
    if _world(accelerator) == 1:
        return list(texts)
    encoded = [text.encode("utf-8", "surrogatepass") for text in texts]
    sizes = _gather(torch.tensor([len(one) for one in encoded], dtype=torch.long), accelerator)
    letters = _gather(_bytes_tensor(b"".join(encoded)), accelerator)
    found: list[str] = []
    for lengths, part in zip(sizes, letters, strict=True):
        content, start = part.numpy().tobytes(), 0
        for length in lengths.tolist():
            found.append(content[start : start + length].decode("utf-8", "surrogatepass"))
            start += length
    return found


def agree(flag: bool, accelerator: Accelerator | None) -> bool:
    """Whether any process says so; the same answer in all of them."""
    votes = reduce_sum(accelerator)(torch.tensor([float(flag)]))
    return bool(votes.item() > 0)


def unwrapped(policy: M, accelerator: Accelerator | None) -> M:
    """The module itself, without what accelerate has put around it."""
    if accelerator is None:
        return policy
    module: M = accelerator.unwrap_model(policy)
    return module


def is_sharded(module: nn.Module) -> bool:
    """Whether FSDP2 has split a module's weights among the processes."""
    return bool(_fsdp_modules(module))


@contextmanager
def whole(policy: M, accelerator: Accelerator | None) -> Iterator[M]:
    """The unwrapped module with all of its weights, for generation and scoring without gradients.

    In one process, under DDP and ZeRO-2, that is the module itself. FSDP2 brings the weights
    together once, for as long as the context is open, so that processes may take different numbers
    of steps inside; this needs room for the whole model on each device. Mixed precision is as in
    the update, for methods other than `forward` too.

    Raises:
        ConfigError: ZeRO-3, which takes the weights apart after every layer.
    """
    module = unwrapped(policy, accelerator)
    precision = nullcontext() if accelerator is None else accelerator.autocast()
    with _gathered(module, accelerator), precision, torch.no_grad():
        yield module


@contextmanager
def _gathered(module: nn.Module, accelerator: Accelerator | None) -> Iterator[None]:
    sharded = _fsdp_modules(module)
    if sharded:
        with _unsharded(sharded, again=_reshards(accelerator)):
            yield
    else:
        _refuse_zero3(accelerator)
        yield


@contextmanager
def _unsharded(sharded: Sequence[FSDPModule], *, again: bool) -> Iterator[None]:
    """Holds FSDP2 modules together: without this each forward pass would be a collective call.

    Args:
        again: Whether passes of training give the weights away after the forward pass.
    """
    # FSDP2 wants its first pass to go through the outermost module, which generation does not do;
    # there is no public way to tell it which one that is (torch 2.13).
    sharded[0]._get_fsdp_state()._lazy_init()  # noqa: SLF001
    for one in sharded:
        one.set_reshard_after_forward(False, recurse=False)
        one.unshard()
    try:
        yield
    finally:
        for one in sharded:
            one.reshard()
            # the outermost keeps its own, as is torch's default: its backward pass begins at once
            one.set_reshard_after_forward(again and one is not sharded[0], recurse=False)


def _fsdp_modules(module: nn.Module) -> list[FSDPModule]:
    """The outermost comes first."""
    return [one for one in module.modules() if isinstance(one, FSDPModule)]


def _refuse_zero3(accelerator: Accelerator | None) -> None:
    plugin = getattr(getattr(accelerator, "state", None), "deepspeed_plugin", None)
    if getattr(plugin, "zero_stage", 0) == 3:
        raise ConfigError(
            "zero_stage=3 keeps no whole model on any device, which rollouts need: use FSDP or "
            "ZeRO-2"
        )


def _reshards(accelerator: Accelerator | None) -> bool:
    plugin = getattr(getattr(accelerator, "state", None), "fsdp_plugin", None)
    return bool(getattr(plugin, "reshard_after_forward", True))


def _gather(values_N: Tensor, accelerator: Accelerator | None) -> list[Tensor]:
    """One-dimensional tensors of all processes, whatever their lengths."""
    world = _world(accelerator)
    if world == 1:
        return [values_N]
    device = _device(accelerator)
    size = torch.tensor([values_N.numel()], device=device)
    sizes = [torch.zeros_like(size) for _ in range(world)]
    dist.all_gather(sizes, size)
    lengths = [int(one.item()) for one in sizes]
    padded = torch.zeros(max(*lengths, 1), dtype=values_N.dtype, device=device)
    padded[: values_N.numel()] = values_N.to(device)
    parts = [torch.empty_like(padded) for _ in range(world)]
    dist.all_gather(parts, padded)
    return [part[:length].cpu() for part, length in zip(parts, lengths, strict=True)]


def _bytes_tensor(content: bytes) -> Tensor:
    if not content:
        return torch.empty(0, dtype=torch.uint8)
    return torch.frombuffer(bytearray(content), dtype=torch.uint8)


def _world(accelerator: Accelerator | None) -> int:
    return 1 if accelerator is None else int(accelerator.num_processes)


def _rank(accelerator: Accelerator | None) -> int:
    return 0 if accelerator is None else int(accelerator.process_index)


def _device(accelerator: Accelerator | None) -> torch.device:
    return torch.device("cpu") if accelerator is None else torch.device(accelerator.device)
