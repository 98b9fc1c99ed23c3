"""Where a model runs and with what numbers: device, dtype, seeds, memory and time.

    choice = choose_device("auto")
    seed_everything(0)
    with timed(choice.device) as timer: ...

Every choice carries its reason, so that a run folder can say why it ran as it did.
"""

import logging
import random
import resource
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Generic, Literal, TypeVar

import numpy as np
import psutil
import torch
from accelerate.utils import find_executable_batch_size
from accelerate.utils.memory import clear_device_cache, should_reduce_batch_size

from papercore.errors import ModelError
from papercore.seeds import fan_out as fan_out  # noqa: PLC0414 - callers know it from here

logger = logging.getLogger(__name__)

T = TypeVar("T")
DTypeName = Literal["auto", "float32", "bfloat16", "float16"]

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


EVERY_GPU = "cuda:all"
"""Name of all CUDA devices together."""


@dataclass(frozen=True)
class Choice(Generic[T]):
    """A value that was chosen, why, and whether it is less than what was asked for."""

    value: T
    reason: str
    fallback: bool = False


def choose_device(requested: str = "auto") -> Choice[torch.device]:
    """Device to run on: `auto` takes the first CUDA device if there is one, else the CPU.

    `cuda:all` is for a model whose layers are spread over all CUDA devices; its inputs go to the
    first one.

    Raises:
        ModelError: The name is no device, or this machine has none of that kind or number.
    """
    if requested == "auto":
        if torch.cuda.is_available():
            return Choice(
                torch.device("cuda", 0), f"CUDA device 0: {torch.cuda.get_device_name(0)}"
            )
        return Choice(torch.device("cpu"), "no CUDA device is visible")
    if requested == EVERY_GPU:
        first = torch.device("cuda", 0)
        _require_present(first)
        count = torch.cuda.device_count()
        return Choice(first, f"the first of {count} CUDA devices that share the layers")
    try:
        device = torch.device(requested)
    except RuntimeError:
        raise ModelError(
            f"unknown device {requested!r}: use auto, cpu, cuda, cuda:N or cuda:all"
        ) from None
    _require_present(device)
    return Choice(device, "asked for")


def choose_dtype(
    requested: str, device: torch.device, model_dtype: torch.dtype | None = None
) -> Choice[torch.dtype]:
    """Dtype to load weights in.

    `auto` is float32 on a CPU, elsewhere bfloat16 or what the model was saved in. A dtype
    that the device cannot compute in is replaced: that is logged once and marked as a fallback.

    Args:
        requested: `auto`, `float32`, `bfloat16` or `float16`.
        device: Where the model will run.
        model_dtype: What its weights are saved in, if known.

    Raises:
        ModelError: The name is no dtype.
    """
    if requested == "auto":
        return _auto_dtype(device, model_dtype)
    if requested not in _DTYPES:
        raise ModelError(f"unknown dtype {requested!r}: use auto, " + ", ".join(_DTYPES))
    dtype = _DTYPES[requested]
    if dtype is torch.bfloat16 and not _computes_bfloat16(device):
        return _fall_back(torch.float16, f"{device} does not compute in bfloat16: using float16")
    return Choice(dtype, "asked for")


def seed_everything(seed: int) -> None:
    """Seeds Python, NumPy and torch on all devices, each from its own branch of one seed."""
    random.seed(fan_out(seed, "python"))
    # Libraries draw from NumPy's global state, whatever we do ourselves.
    np.random.seed(fan_out(seed, "numpy") % 2**32)  # noqa: NPY002
    torch.manual_seed(fan_out(seed, "torch"))


def generator(seed: int, name: str, device: torch.device | str = "cpu") -> torch.Generator:
    """Random generator of a named purpose."""
    return torch.Generator(device=device).manual_seed(fan_out(seed, name))


def find_batch_size(function: Callable[[int], T], start: int) -> tuple[T, int]:
    """Calls a function with a batch size that is halved until it fits into memory.

    Returns:
        The function's result and the batch size that it had.

    Raises:
        ModelError: Even a batch of one does not fit.
    """
    size = start

    def halve() -> int:
        nonlocal size
        logger.warning("a batch of %d does not fit into memory: trying %d", size, size // 2)
        size //= 2
        if size == 0:
            raise ModelError("not even a batch of one fits into memory")
        return size

    def attempt(batch_size: int) -> T:
        return function(batch_size)

    result: T = find_executable_batch_size(attempt, start, halve)()
    return result, size


def is_out_of_memory(error: Exception) -> bool:
    """Whether an error says that device or host memory ran out."""
    return isinstance(error, torch.OutOfMemoryError) or bool(should_reduce_batch_size(error))


def release_memory() -> None:
    """Gives back what the allocator of the device keeps for later."""
    clear_device_cache(garbage_collection=True)


class Timer:
    """Wall and CPU seconds between `start` and `stop`; waits for the device at both ends."""

    def __init__(self, device: torch.device | str = "cpu") -> None:
        self.device = torch.device(device)
        self.wall_s = 0.0
        self.cpu_s = 0.0
        self._started: tuple[float, float] | None = None

    def start(self) -> "Timer":
        """Starts or restarts; times add up over several spans."""
        self._synchronize()
        self._started = (time.perf_counter(), time.process_time())
        return self

    def stop(self) -> "Timer":
        """Adds the span since `start`."""
        if self._started is None:
            raise RuntimeError("the timer was not started")
        self._synchronize()
        wall_s, cpu_s = self._started
        self.wall_s += time.perf_counter() - wall_s
        self.cpu_s += time.process_time() - cpu_s
        self._started = None
        return self

    def _synchronize(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


@contextmanager
def timed(device: torch.device | str = "cpu") -> Iterator[Timer]:
    """Times the block under it, after which the timer holds `wall_s` and `cpu_s`."""
    timer = Timer(device).start()
    try:
        yield timer
    finally:
        timer.stop()


def peak_memory(device: torch.device | str = "cpu") -> int:
    """Most bytes held since the start or the last reset: allocated on CUDA, resident on a CPU."""
    device = torch.device(device)
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    status = Path("/proc/self/status")
    if status.exists():  # Linux keeps a mark that can be reset; getrusage does not
        marks = [line.split() for line in status.read_text().splitlines()]
        return next(int(mark[1]) * 1024 for mark in marks if mark[:1] == ["VmHWM:"])
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def reset_peak_memory(device: torch.device | str = "cpu") -> bool:
    """Lets `peak_memory` count from now on; false where the system has no way to."""
    device = torch.device(device)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return True
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def free_memory(device: torch.device | str = "cpu") -> int:
    """Bytes that can still be taken, within the limit of the container where there is one."""
    device = torch.device(device)
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return free + cached
    return min(int(psutil.virtual_memory().available), _free_in_container())


def require_free_memory(num_bytes: int, device: torch.device | str, what: str) -> None:
    """Refuses early what would run out of memory late.

    Raises:
        ModelError: Less than `num_bytes` are free; the message has both numbers.
    """
    free = free_memory(device)
    if num_bytes > free:
        gib, free_gib = num_bytes / 2**30, free / 2**30
        raise ModelError(
            f"{what} needs {gib:.1f} GiB on {device}, which has {free_gib:.1f} GiB free"
        )


def _require_present(device: torch.device) -> None:
    if device.type == "cpu":
        return
    if device.type == "mps" and torch.backends.mps.is_available():
        return
    if device.type != "cuda":
        raise ModelError(f"device {device} is not supported or not present: use cpu or cuda")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if (device.index or 0) >= count:
        raise ModelError(f"device {device} is not present, this machine has {count} CUDA devices")


def _auto_dtype(device: torch.device, model_dtype: torch.dtype | None) -> Choice[torch.dtype]:
    if device.type == "cpu":
        return Choice(torch.float32, "float32 on a CPU")
    if model_dtype is torch.float16:
        return Choice(torch.float16, "the weights are saved in float16")
    if _computes_bfloat16(device):
        return Choice(torch.bfloat16, f"{device} computes in bfloat16")
    return _fall_back(torch.float16, f"{device} does not compute in bfloat16: using float16")


def _computes_bfloat16(device: torch.device) -> bool:
    """Whether the device computes in bfloat16 itself; emulation (CUDA below 8.0) does not count."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    return True


def _fall_back(dtype: torch.dtype, reason: str) -> Choice[torch.dtype]:
    _warn_once(reason)
    return Choice(dtype, reason, fallback=True)


@cache
def _warn_once(message: str) -> None:
    logger.warning("%s", message)


def _free_in_container() -> int:
    """Bytes left below the limit of this process's control group; a huge number without one."""
    root = Path("/sys/fs/cgroup")
    for limit, used in (
        ("memory.max", "memory.current"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
    ):
        try:
            return int((root / limit).read_text()) - int((root / used).read_text())
        except (OSError, ValueError):  # no such file, or the word "max"
            continue
    return sys.maxsize
