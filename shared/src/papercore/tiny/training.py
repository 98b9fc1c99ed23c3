"""The training loop of the miniatures: a few phases, AdamW, loss on chosen tokens only.

    result = fit(model, batches, schedule=[Phase(300, warmup=50), Phase(700, decay="cosine")])

Paper-scale training goes through `transformers.Trainer` and trl; this loop is for models that train
in seconds on one CPU core, in phases that a trainer cannot express.
"""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel

from papercore.errors import ModelError

IGNORE = -100
"""Label of a token that bears no loss, as everywhere in torch and transformers."""

Batch = Mapping[str, Tensor]
Loss = Callable[[nn.Module, Batch], Tensor]


@dataclass(frozen=True)
class Phase:
    """One phase of training, with an AdamW of its own.

    Attributes:
        steps: Optimizer steps.
        lr: Peak learning rate.
        warmup: Steps of linear warm-up from 0; they count towards `steps`.
        decay: After the warm-up: stay at `lr`, or follow half a cosine down.
        final_fraction: Where the cosine ends, as a fraction of `lr`.
        clip: Largest gradient norm; `None` does not clip.
    """

    steps: int
    lr: float = 2e-3
    warmup: int = 0
    decay: Literal["constant", "cosine"] = "constant"
    final_fraction: float = 0.0
    weight_decay: float = 0.0
    betas: tuple[float, float] = (0.9, 0.95)
    clip: float | None = 1.0

    def lr_at(self, step: int) -> float:
        """Learning rate of a step of this phase, counted from 0."""
        if step < self.warmup:
            return self.lr * (step + 1) / self.warmup
        if self.decay == "constant":
            return self.lr
        progress = (step - self.warmup) / max(1, self.steps - self.warmup)
        cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
        return self.lr * (self.final_fraction + (1 - self.final_fraction) * cosine)


@dataclass(frozen=True)
class FitResult:
    """What a training run did.

    Attributes:
        steps: Optimizer steps over all phases.
        losses: Loss of each step, before its update.
        cpu_s: CPU seconds of this process, batches and callbacks included.
        tokens: Tokens that were read (padding not counted where the batch has an attention mask).
        stopped: Whether `until` ended the run before its schedule did.
    """

    steps: int
    losses: tuple[float, ...]
    cpu_s: float
    tokens: int
    stopped: bool


class Batches(Protocol):
    """Source of batches: a pure function of phase and step, so that a run can be repeated."""

    def __call__(self, phase: int, step: int, /) -> Batch:
        """Batch of a step, counted from 0 within its phase."""
        ...


def fit(
    model: nn.Module,
    batches: Batches,
    *,
    schedule: Sequence[Phase],
    until: Callable[[int, nn.Module], bool] | None = None,
    on_step: Callable[[int, float], None] | None = None,
    loss: Loss | None = None,
) -> FitResult:
    """Trains a model in place through the phases of a schedule and leaves it in evaluation mode.

    The same model, batches and schedule give the same weights bit for bit under one torch thread.

    Args:
        model: Any module; with the default loss a transformers causal language model.
        batches: `batches(phase, step)` gives `input_ids` with `labels` or `weights` (see
            `token_loss`) and whatever else the model's forward takes, on any device.
        schedule: The phases, each with a fresh AdamW over the parameters that require gradients.
        until: `until(steps done, model)` in evaluation mode after each step; true ends the run.
        on_step: `on_step(steps done, loss)` after each step.
        loss: Scalar loss of a batch, `token_loss` by default.

    Raises:
        ModelError: A loss or a gradient is not finite; the message names the step.
    """
    started = time.process_time()
    losses: list[float] = []
    num_tokens, stopped = 0, False
    device = next(model.parameters()).device
    for step, optimizer, phase, given in _steps(model, batches, schedule):
        model.train()
        batch = {name: value.to(device) for name, value in given.items()}
        losses.append(_update_(model, optimizer, phase, (loss or token_loss)(model, batch), step))
        num_tokens += _num_tokens(batch)
        if on_step is not None:
            on_step(step, losses[-1])
        if until is not None:
            model.eval()
            if stopped := until(step, model):
                break
    model.eval()
    cpu_s = time.process_time() - started
    return FitResult(len(losses), tuple(losses), cpu_s, num_tokens, stopped)


def token_loss(model: nn.Module, batch: Batch) -> Tensor:
    """Weighted mean cross entropy of the tokens that bear loss; logits exist for those only.

    Labels are aligned with `input_ids`, as in transformers: the label of a token is scored by the
    logits of the token before it, so the first one never counts. `weights` in place of `labels`
    gives each input token the weight of its own prediction; both together weigh the labels.

    Raises:
        ModelError: The batch has neither labels nor weights, or no token bears loss.
    """
    inputs = {name: value for name, value in batch.items() if name not in ("labels", "weights")}
    labels, weights = _targets(batch)
    scored = torch.zeros_like(labels, dtype=torch.bool)
    scored[:, :-1] = (labels[:, 1:] != IGNORE) & (weights[:, 1:] != 0)
    if not scored.any():
        raise ModelError("no token of the batch bears loss: every label is -100 or has weight 0")
    with logits_at(model, scored):
        logits_NV = model(**inputs, use_cache=False).logits[0].float()
    targets_N = labels[:, 1:][scored[:, :-1]]
    weights_N = weights[:, 1:][scored[:, :-1]].to(logits_NV.dtype)
    nll_N = F.cross_entropy(logits_NV, targets_N, reduction="none")
    return (nll_N * weights_N).sum() / weights_N.sum()


@contextmanager
def logits_at(model: nn.Module, positions_BT: Tensor) -> Iterator[None]:
    """Lets a causal language model compute logits at chosen positions only, while it is open.

    A hook hands the output head the chosen rows of the hidden states, so whatever the model does
    with its logits afterwards (scaling, capping) still happens.

    Shapes:
        positions_BT: Boolean mask over batch and tokens; logits become `[1, chosen, vocabulary]`.
    """
    head = model.get_output_embeddings() if isinstance(model, PreTrainedModel) else None  # type: ignore[no-untyped-call]
    if not isinstance(head, nn.Module):
        raise ModelError(
            f"{type(model).__name__} has no output head: pass a loss of your own to fit"
        )

    def keep(_: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (args[0][positions_BT.to(args[0].device)].unsqueeze(0), *args[1:])

    handle = head.register_forward_pre_hook(keep)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def one_thread() -> Iterator[None]:
    """Lets torch use one thread, so that results repeat bit for bit."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _steps(
    model: nn.Module, batches: Batches, schedule: Sequence[Phase]
) -> Iterator[tuple[int, torch.optim.AdamW, Phase, Batch]]:
    """Yields the number of each step, counted from 1, its optimizer set up, its phase and batch."""
    total = 0
    for index, phase in enumerate(schedule):
        parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        optimizer = torch.optim.AdamW(
            parameters, betas=phase.betas, weight_decay=phase.weight_decay
        )
        for step in range(phase.steps):
            total += 1
            for group in optimizer.param_groups:
                group["lr"] = phase.lr_at(step)
            yield total, optimizer, phase, batches(index, step)


def _update_(
    model: nn.Module, optimizer: torch.optim.AdamW, phase: Phase, loss: Tensor, step: int
) -> float:
    """Makes one optimizer step and returns the loss; nothing is updated when it is not finite."""
    value = loss.item()
    if not math.isfinite(value):
        raise ModelError(
            f"loss is {value} at step {step}: lower the learning rate or check the batch"
        )
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    limit = math.inf if phase.clip is None else phase.clip
    norm = nn.utils.clip_grad_norm_(model.parameters(), limit).item()
    if not math.isfinite(norm):
        raise ModelError(f"gradient norm is {norm} at step {step}: lower the learning rate")
    optimizer.step()
    return value


def _targets(batch: Batch) -> tuple[Tensor, Tensor]:
    labels, weights = batch.get("labels"), batch.get("weights")
    if labels is None and weights is None:
        raise ModelError("a batch needs labels or weights, it has: " + ", ".join(sorted(batch)))
    if labels is None:
        labels = batch["input_ids"]
    return labels, torch.ones_like(labels) if weights is None else weights


def _num_tokens(batch: Batch) -> int:
    """Tokens of a batch; a batch without token ids counts its rows."""
    if "attention_mask" in batch:
        return int(batch["attention_mask"].sum())
    if "input_ids" in batch:
        return batch["input_ids"].numel()
    return len(next(iter(batch.values())))
