"""Logits in float32 from a model in bfloat16 or float16.

    head = Float32Head(model)
    with head.attached():
        logits = model(...).logits

Such logits are rounded to 8 or 11 bits, which is as much as the differences that the contrast
amplifies. The output head is computed in float32 from a float32 copy of its weights; what the model
does to the logits afterwards, such as scaling or soft-capping, then happens in float32, too.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import torch
from torch import Tensor, nn
from torch.nn.functional import linear
from torch.utils.hooks import RemovableHandle
from transformers import PreTrainedModel

from papercore.errors import ModelError

__all__ = ["Float32Head", "dtypes_told"]

logger = logging.getLogger(__name__)

LOW = (torch.bfloat16, torch.float16)


class Float32Head:
    """Computes a model's output head in float32 while attached; nothing of it stays in the model.

    A head in float32 or better stays as it is. One that is no plain linear layer, such as a
    quantized one, keeps its precision, which is said once.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self._head: nn.Linear | None = None
        self._exact: nn.Module | None = None
        found: nn.Module | None = model.get_output_embeddings()  # type: ignore[no-untyped-call]
        weight = getattr(found, "weight", None)
        if isinstance(weight, Tensor) and weight.dtype in (torch.float32, torch.float64):
            self._exact, self._dtype = found, weight.dtype
            return
        if type(found) is nn.Linear and found.weight.dtype in LOW and not found.weight.is_meta:
            self._head = found
            self._weight = found.weight.detach().float()
            bias: Tensor | None = found.bias
            self._bias = None if bias is None else bias.detach().float()
        else:
            _warn_kept(type(model).__name__, type(found).__name__)

    @contextmanager
    def attached(self) -> Iterator[None]:
        """Takes the head's place within the block."""
        if self._exact is not None:
            # a model in bfloat16 whose head was kept in float32: the head decides
            handle = self._exact.register_forward_pre_hook(
                lambda _, inputs: (inputs[0].to(self._dtype), *inputs[1:])
            )
            with _removed(handle):
                yield
            return
        if self._head is None:
            yield
            return
        hidden: list[Tensor] = []

        def before(_: nn.Module, inputs: tuple[Tensor, ...]) -> Tensor:
            hidden.append(inputs[0])
            return inputs[0][:0]  # no rows, so that the product is not computed twice

        def after(_: nn.Module, __: object, ___: object) -> Tensor:
            states = hidden.pop().to(self._weight.device, torch.float32)
            return linear(states, self._weight, self._bias)

        handles = (
            self._head.register_forward_pre_hook(before),
            self._head.register_forward_hook(after),
        )
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()


@contextmanager
def dtypes_told(model: PreTrainedModel) -> Iterator[None]:
    """Says it in one line if a model fails because its weights are of several dtypes.

    Raises:
        ModelError: It does.
    """
    try:
        yield
    except RuntimeError as error:
        found = Counter(str(one.dtype).removeprefix("torch.") for one in model.parameters())
        if "dtype" not in str(error) or len(found) < 2:
            raise
        shown = ", ".join(f"{count} tensors in {dtype}" for dtype, count in found.items())
        raise ModelError(
            f"the model's weights do not fit together ({shown}): load it in one dtype, or call "
            "model.to(dtype)"
        ) from error


@contextmanager
def _removed(handle: RemovableHandle) -> Iterator[None]:
    try:
        yield
    finally:
        handle.remove()


@cache
def _warn_kept(model: str, head: str) -> None:
    logger.warning(
        "%s: its output head (%s) cannot be computed in float32; the logits keep their rounding",
        *(model, head),
    )
