"""Draws rollouts from a transformers model, by its own decode loop.

    rollouts = sample(policy.actor, prompts, seeds, sampling=sampling, pad_id=0)

Each row draws from its own seed, so a rollout does not depend on what is generated beside it. Rows
that ended leave the batch. Nothing of the checkpoint's generation settings plays a part.

Axes: B rows of a batch, b those that are still in it, G generated tokens, V vocabulary.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from papercore.errors import ConfigError, ModelError
from papercore.rl.decoding import Decoder
from papercore.rl.drawing import draw, uniforms
from papercore.rl.jobs import Job, jobs_of
from papercore.rl.rollouts import Rollout
from papercore.rl.settings import Sampling
from papercore.rl.trunk import plain_model

__all__ = ["sample"]

logger = logging.getLogger(__name__)

_IDLE_SHARE: Final = 0.25
"""Share of rows that have ended at which they leave the batch: the cache is copied then."""


@torch.no_grad()
def sample(
    model: nn.Module,
    prompts: Sequence[Sequence[int]],
    seeds: Sequence[int],
    *,
    sampling: Sampling,
    pad_id: int,
) -> list[Rollout]:
    """Continues every prompt, in their order.

    A rollout is decided by its own prompt and seed, whatever else is in the batch, up to rounding.
    Equal prompts are read once. A batch that does not fit into memory is generated in halves.

    Args:
        model: Causal language model, with an adapter or without; runs in evaluation mode.
        prompts: Token ids, at least one each.
        seeds: A number from 0 on for each prompt.
        pad_id: Fills rows up on the left; any valid id will do.

    Raises:
        ConfigError: The padding token is none of the model's.
        DataError: A prompt is empty, foreign, or leaves no room below the length limit; a seed is
            negative; or there is not one seed for each prompt.
        ModelError: The model's logits are not finite, or memory is too short for one rollout.
    """
    plain = plain_model(model)
    config = plain.config.get_text_config()
    vocabulary: int = config.vocab_size
    if not 0 <= pad_id < vocabulary:
        raise ConfigError(f"pad_id={pad_id} is no token of the model: 0 to {vocabulary - 1}")
    positions = getattr(config, "max_position_embeddings", None)
    jobs = jobs_of(prompts, seeds, sampling, vocabulary=vocabulary, positions=positions)
    # Like lengths beside each other, and equal prompts; the longest first, in case memory is short.
    jobs.sort(key=lambda job: (-len(job.prompt), job.prompt))
    found: dict[int, Rollout] = {}
    with _evaluating(plain):
        for start in range(0, len(jobs), sampling.max_rows):
            batch = jobs[start : start + sampling.max_rows]
            made = _generate(plain, batch, sampling, pad_id)
            found.update(zip((job.row for job in batch), made, strict=True))
    return [found[row] for row in range(len(jobs))]


def _generate(
    model: PreTrainedModel, jobs: Sequence[Job], sampling: Sampling, pad_id: int
) -> list[Rollout]:
    """Rollouts of a batch; in halves if memory is short."""
    try:
        return _decode(model, jobs, sampling, pad_id)
    except torch.OutOfMemoryError:
        if len(jobs) == 1:
            raise ModelError(
                f"out of memory with one rollout of {len(jobs[0].prompt)} tokens of prompt: "
                "shorten it or use a larger device"
            ) from None
    # Below the handler, whose traceback kept the tensors of the failed batch alive.
    half = len(jobs) // 2
    logger.warning("out of memory: %d rollouts are generated in halves", len(jobs))
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return [
        rollout
        for part in (jobs[:half], jobs[half:])
        for rollout in _generate(model, part, sampling, pad_id)
    ]


def _decode(
    model: PreTrainedModel, jobs: Sequence[Job], sampling: Sampling, pad_id: int
) -> list[Rollout]:
    """Token by token, until every row has ended."""
    most, device = max(job.limit for job in jobs), model.device
    uniforms_BG = uniforms([job.seed for job in jobs], most).to(device)
    limits_B = torch.tensor([job.limit for job in jobs], device=device)
    eos = torch.tensor(sorted(sampling.eos_ids), device=device)
    tokens_BG = torch.zeros(len(jobs), most, dtype=torch.long, device=device)
    logps_BG = torch.zeros(len(jobs), most, device=device)
    lengths_B = torch.zeros_like(limits_B)
    rows_b, going_b = torch.arange(len(jobs), device=device), torch.ones_like(limits_B) > 0
    decoder = Decoder(model, [job.prompt for job in jobs], pad_id=pad_id)
    logits_bV = decoder.first_logits_BV
    for place in range(most):
        tokens_b, logps_b = draw(
            logits_bV, uniforms_BG[rows_b, place], temperature=sampling.temperature
        )
        tokens_BG[rows_b, place], logps_BG[rows_b, place] = tokens_b, logps_b
        lengths_B[rows_b] += going_b
        ended_b = torch.isin(tokens_b, eos) | (limits_B[rows_b] == place + 1) | logps_b.isnan()
        going_b = going_b & ~ended_b
        num_going = int(going_b.sum())
        if num_going == 0:
            break
        if num_going <= (1 - _IDLE_SHARE) * len(rows_b):
            kept = going_b.nonzero().squeeze(1)
            decoder.keep(kept)
            rows_b, tokens_b, going_b = rows_b[kept], tokens_b[kept], going_b[kept]
        logits_bV = decoder.step(tokens_b, going_b)
    return _rollouts(jobs, tokens_BG, logps_BG, lengths_B, sampling.eos_ids)


def _rollouts(
    jobs: Sequence[Job],
    tokens_BG: Tensor,
    logps_BG: Tensor,
    lengths_B: Tensor,
    eos_ids: frozenset[int],
) -> list[Rollout]:
    found = []
    rows = zip(jobs, tokens_BG.tolist(), logps_BG.tolist(), lengths_B.tolist(), strict=True)
    for job, tokens, logps, length in rows:
        if any(logp != logp for logp in logps[:length]):  # noqa: PLR0124 - NaN
            raise ModelError(
                f"the model's logits for prompt {job.row} are not finite at token {length}: "
                "its weights are broken, go back to a checkpoint and lower the learning rate"
            )
        response = tuple(tokens[:length])
        ended = response[-1] in eos_ids
        found.append(Rollout(job.prompt, response, tuple(logps[:length]), ended))
    return found


@contextmanager
def _evaluating(model: PreTrainedModel) -> Iterator[None]:
    """Without dropout; a policy is in evaluation mode already."""
    before = model.training
    model.eval()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        model.train(before)
