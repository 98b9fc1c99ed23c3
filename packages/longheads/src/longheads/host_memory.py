"""Pages on the host that a GPU reads directly: pinned memory of just the size needed (spec 2.10).

    pages = host_pages((1, 8, 512, 256, 128), torch.bfloat16, torch.device("cuda"))

Torch rounds each pinned block up to a power of two (2.13, `CachingHostAllocator.h`), so that a
cache of 64 GiB could take 128. Here memory is mapped as ordinary memory is and then registered with
CUDA. Torch does not follow the copies of such memory, so the device is waited for before it goes.
"""

import logging
import math
import mmap
import weakref
from collections.abc import Sequence

import torch
from torch import Tensor

from papercore.device import free_memory

logger = logging.getLogger(__name__)

PINNED_SHARE = 0.8
"""Of what the host would have free without pinned pages: these cannot be swapped."""

_PORTABLE = 1  # cudaHostRegisterPortable: for every device

_pinned: dict[int, int] = {}
"""Bytes of all pinned pages that are in use, by address."""

_unpinned: weakref.WeakSet[torch.UntypedStorage] = weakref.WeakSet()
"""Pages that should have been pinned; while there are any, the warning has been given."""


def host_pages(shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Zeros on the host, pinned where a CUDA device will read them and the memory is there."""
    size = math.prod(shape) * dtype.itemsize
    if device.type != "cuda" or not size:
        return torch.zeros(*shape, dtype=dtype)
    taken, free = sum(_pinned.values()), free_memory()  # what is pinned is not free any more
    reason = f"{taken / 2**30:.1f} GiB are pinned and {free / 2**30:.1f} GiB free"
    if taken + size <= PINNED_SHARE * (taken + free):
        try:
            return _registered(size, device).view(dtype).view(*shape)
        except (RuntimeError, OSError) as error:
            reason = str(error).splitlines()[0]
    pages = torch.zeros(*shape, dtype=dtype)
    if not _unpinned:
        logger.warning(
            "pages of the cache are not pinned (%s): copies to the GPU will be slower; more free "
            "memory on the host or a shorter text avoids it",
            reason,
        )
    _unpinned.add(pages.untyped_storage())
    return pages


def _registered(size: int, device: torch.device) -> Tensor:
    """Bytes on memory pages of their own, which stay pinned for as long as any view lives."""
    block = mmap.mmap(-1, size, access=mmap.ACCESS_COPY)  # private and anonymous, so zeros
    flat = torch.frombuffer(block, dtype=torch.uint8)
    address = flat.data_ptr()
    cudart = torch.cuda.cudart()  # type: ignore[no-untyped-call]
    code = int(cudart.cudaHostRegister(address, size, _PORTABLE))
    if code:
        _forget_error(device)
        raise RuntimeError(f"CUDA error {code} of cudaHostRegister")
    _pinned[address] = size
    weakref.finalize(flat.untyped_storage(), _unregister, address, device).atexit = False
    return flat


def _unregister(address: int, device: torch.device) -> None:
    _pinned.pop(address, None)
    try:
        torch.cuda.synchronize(device)  # copies of these pages may be under way
    except RuntimeError as error:  # a device that failed copies no more
        logger.debug("pinned pages go while the device is out of order: %s", error)
    torch.cuda.cudart().cudaHostUnregister(address)  # type: ignore[no-untyped-call]


def _forget_error(device: torch.device) -> None:
    """CUDA keeps the error of a call until it is asked, and torch asks after the next kernel."""
    try:
        torch.empty(1, device=device).fill_(1)
    except RuntimeError as error:
        logger.debug("error of cudaHostRegister, asked for: %s", error)
