"""One optimizer step from the losses of several micro-batches, in one process or in several.

    stepper = Stepper(policy, optimizer, accelerator, grad_clip=1.0)
    for number, batch in enumerate(batches):
        with stepper.micro_batch(last=number == len(batches) - 1) as backward:
            backward(loss_of(batch))
    grad_norm, applied = stepper.step()

All processes must go through the same micro-batches. Losses are this process's parts of a sum over
all of them: what DDP, FSDP and ZeRO make of gradients is a mean, which is undone here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TypeAlias

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.optim import Optimizer

from papercore.errors import ConfigError, ModelError
from papercore.rl.parallel import agree

__all__ = ["Backward", "Stepper"]

Backward: TypeAlias = Callable[[Tensor], None]


class Stepper:
    """Backward passes, clipping, and a step that is left out if something is not finite."""

    def __init__(
        self,
        policy: nn.Module,
        optimizer: Optimizer,
        accelerator: Accelerator | None,
        *,
        grad_clip: float,
        train_policy: bool = True,
    ) -> None:
        """Checks that the step can be made as asked.

        Args:
            policy: As the accelerator prepared it, if there is one; the optimizer too.
            grad_clip: Largest norm of the gradient of all parameters together.
            train_policy: Otherwise the optimizer's group named `policy` stays as it is.

        Raises:
            ConfigError: The accelerator, or the optimizer's groups, do not allow it.
        """
        self._policy, self._optimizer, self._accelerator = policy, optimizer, accelerator
        self._grad_clip = grad_clip
        self._still = [] if train_policy else _policy_parameters(optimizer)
        self._deepspeed = accelerator is not None and accelerator.distributed_type == "DEEPSPEED"
        self._world = 1 if accelerator is None else int(accelerator.num_processes)
        if accelerator is not None and accelerator.gradient_accumulation_steps != 1:
            raise ConfigError(
                f"gradient_accumulation_steps={accelerator.gradient_accumulation_steps} of the "
                "accelerator: set 1, micro_batch says how gradients are accumulated"
            )
        if self._deepspeed:
            self._check_deepspeed()
        self._clear()

    @property
    def device(self) -> torch.device:
        """Where batches have to be."""
        if self._accelerator is not None:
            return torch.device(self._accelerator.device)
        return next(self._policy.parameters()).device

    @contextmanager
    def micro_batch(self, *, last: bool) -> Iterator[Backward]:
        """Around the forward and backward pass of one micro-batch; gives the backward pass.

        Args:
            last: Whether gradients are brought together after it.
        """
        with self._apart(last=last):
            yield lambda loss: self._backward(loss, last=last)

    def step(self) -> tuple[float, bool]:
        """Changes the parameters, unless a loss or the gradient of any process is not finite.

        Returns:
            The gradient's norm before it was clipped, and whether the step was made.
        """
        for parameter in self._still:
            parameter.grad = None
        norm = self._clip()
        applied = not agree(not (self._finite and math.isfinite(norm)), self._accelerator)
        if self._deepspeed:
            applied = bool(self._policy.was_step_applied())  # type: ignore[operator]
        elif applied or self._lowers_scale(norm):
            self._optimizer.step()
        self._clear()
        return norm, applied

    def _clear(self) -> None:
        """Drops what was accumulated, also by parameters that the optimizer does not hold."""
        self._optimizer.zero_grad()
        self._policy.zero_grad()
        self._finite = True

    def _backward(self, loss: Tensor, *, last: bool) -> None:
        self._finite = self._finite and bool(torch.isfinite(loss))
        scaled = loss * self._world
        if self._accelerator is None:
            scaled.backward()  # type: ignore[no-untyped-call]
            return
        if self._deepspeed:
            self._prepare_engine(last=last)
        self._accelerator.backward(scaled)

    def _apart(self, *, last: bool) -> AbstractContextManager[None]:
        """Keeps gradients in each process; the forward pass has to be inside as well."""
        if last or self._accelerator is None:
            return nullcontext()
        context: AbstractContextManager[None] = self._accelerator.no_sync(self._policy)
        return context

    def _clip(self) -> float:
        parameters = self._policy.parameters()
        if self._accelerator is None:
            return float(nn.utils.clip_grad_norm_(parameters, self._grad_clip))
        norm = self._accelerator.clip_grad_norm_(parameters, self._grad_clip)
        return math.nan if norm is None else float(norm)

    def _lowers_scale(self, norm: float) -> bool:
        """Whether fp16's loss scaler has to see an overflow: it leaves the step out by itself."""
        scaler = None if self._accelerator is None else self._accelerator.scaler
        return scaler is not None and not math.isfinite(norm)

    def _prepare_engine(self, *, last: bool) -> None:
        """Tells DeepSpeed whether to step: it does that within the last backward pass."""
        assert self._accelerator is not None
        self._accelerator.gradient_state._set_sync_gradients(last)  # noqa: SLF001 - as Trainer does
        if last and agree(not self._finite, self._accelerator):
            raise ModelError(
                "the loss is not finite, and DeepSpeed cannot leave a step out: lower the learning "
                "rate, or train without DeepSpeed"
            )

    def _check_deepspeed(self) -> None:
        assert self._accelerator is not None
        config = self._accelerator.state.deepspeed_plugin.deepspeed_config
        if config.get("gradient_clipping") != self._grad_clip:
            raise ConfigError(
                f"gradient_clipping={config.get('gradient_clipping')} in DeepSpeed's config and "
                f"grad_clip={self._grad_clip} differ: set one to the other"
            )
        if self._still:
            raise ConfigError("a critic's warm-up does not work with DeepSpeed: use FSDP or none")


def _policy_parameters(optimizer: Optimizer) -> list[nn.Parameter]:
    found = [group["params"] for group in optimizer.param_groups if group.get("name") == "policy"]
    if not found:
        raise ConfigError(
            "train_policy=False needs an optimizer with a group named 'policy', which it keeps"
        )
    return [parameter for group in found for parameter in group]
