"""The random states of a process as a line of JSON: torch, its device, NumPy and Python.

line = read_random_state()
restore_random_state(line)
"""

from __future__ import annotations

import json
import random
from typing import cast

import numpy as np
import torch
from torch import Tensor

__all__ = ["read_random_state", "restore_random_state"]


def read_random_state() -> str:
    """The states of this process."""
    kind, keys, position, has_gauss, gauss = cast(
        "tuple[str, np.ndarray, int, int, float]",
        np.random.get_state(legacy=True),  # noqa: NPY002 - libraries draw from the global state
    )
    device = _device()
    return json.dumps(
        {
            "python": random.getstate(),
            "numpy": [kind, keys.tolist(), position, has_gauss, gauss],
            "torch": _hex(torch.get_rng_state()),
            "device": None if device is None else _hex(device.get_rng_state()),
        }
    )


def restore_random_state(line: str) -> None:
    """Sets the states of this process to those of a line of `read_random_state`.

    A device's state is left alone where there is none to set, or none was read.
    """
    found = json.loads(line)
    version, internal, gauss = found["python"]
    random.setstate((version, tuple(internal), gauss))
    kind, keys, position, has_gauss, cached = found["numpy"]
    state = (kind, np.array(keys, dtype=np.uint32), position, has_gauss, cached)
    np.random.set_state(state)  # noqa: NPY002
    torch.set_rng_state(_bytes(found["torch"]))
    device = _device()
    if device is not None and found["device"] is not None:
        device.set_rng_state(_bytes(found["device"]))


class _Device:
    """The accelerator that torch sees, whatever it is."""

    def __init__(self, kind: torch.device) -> None:
        self._module = torch.get_device_module(kind)

    def get_rng_state(self) -> Tensor:
        return cast("Tensor", self._module.get_rng_state())

    def set_rng_state(self, state: Tensor) -> None:
        self._module.set_rng_state(state)


def _device() -> _Device | None:
    if not torch.accelerator.is_available():
        return None
    kind = torch.accelerator.current_accelerator()
    return None if kind is None else _Device(kind)


def _hex(state: Tensor) -> str:
    return state.numpy().tobytes().hex()


def _bytes(text: str) -> Tensor:
    return torch.frombuffer(bytearray.fromhex(text), dtype=torch.uint8)
