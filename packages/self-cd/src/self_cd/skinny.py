"""Products of a few rows on a CPU, computed the other way round.

    with SkinnyProducts():
        model(...)

A step reads two rows per pair, and a CPU's libraries compute x W' for two rows at half the speed at
which they read the weights: a pair then costs nearly as much as two single rows. W x' with the same
numbers is bound by the weights alone, so the second row is almost free. Sums may be rounded
differently, as between batches of different sizes.

Measured on an AMD EPYC with torch 2.13 (MKL), one thread: 1.5 to 2.7 times as fast for two rows,
1.0 to 3.0 for three; from four rows on it depends on the shape, and such products are left alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import linear
from torch.overrides import TorchFunctionMode

__all__ = ["SkinnyProducts", "is_skinny"]

ROWS = (2, 3)
MIN_WEIGHTS = 2**18
"""Below that the call itself is what costs."""


def is_skinny(rows: int, device: torch.device) -> bool:
    """Whether a forward pass of so many rows is worth the mode."""
    return rows in ROWS and device.type == "cpu"


class SkinnyProducts(TorchFunctionMode):
    """Replaces `linear` where that is faster, within its block and this thread alone."""

    def __torch_function__(
        self,
        func: Callable[..., object],
        types: Sequence[type],
        args: tuple[object, ...] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        """Called by torch instead of each of its functions."""
        if func is linear and not kwargs and 2 <= len(args) <= 3 and _fits(*args[:2]):
            return _turned(*args)  # type: ignore[arg-type]
        return func(*args, **(kwargs or {}))


def _fits(states: object, weight: object) -> bool:
    if type(weight) not in (nn.Parameter, Tensor) or type(states) is not Tensor:
        return False  # quantized weights are of classes of their own
    assert isinstance(states, Tensor)
    assert isinstance(weight, Tensor)
    return (
        weight.numel() >= MIN_WEIGHTS
        and states.dtype is weight.dtype is torch.float32
        and states.numel() // states.shape[-1] in ROWS
        and states.device.type == weight.device.type == "cpu"
    )


def _turned(states: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """The same as `linear`: (W x')' + b."""
    rows = states.reshape(-1, states.shape[-1])
    product = torch.mm(weight, rows.t()).t()
    product = product if bias is None else product + bias
    return product.contiguous().view(*states.shape[:-1], -1)
