"""Log-probabilities, entropies and values of generated tokens, without logits of anything else.

    logps_N, entropy_N = chunked_logps(hidden_ND, head, targets_N, temperature=1.0)
    scores = score_all(policy, rollouts, pad_id=0, temperature=1.0, what=("logps", "reference"))

Axes: B rollouts, N response tokens of all rows, G response tokens of one row (padded on the right),
D hidden width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import Final, Literal, NamedTuple, TypeAlias

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from papercore.rl.batching import micro_batches
from papercore.rl.rollouts import Rollout, pack, padded

__all__ = ["CHUNK_LOGITS", "Part", "Scored", "Scores", "chunked_logps", "score_all"]

CHUNK_LOGITS: Final = 2**26
"""Logits that are held at once: 256 MiB in float32, and a few times that while they are used."""

Part: TypeAlias = Literal["logps", "entropy", "values", "reference"]
"""What `score_all` can compute."""


class Scored(NamedTuple):
    """One forward pass over a packed batch. What was not asked for is an empty tensor.

    Attributes:
        logps_N: Log-probability of each generated token at the given temperature.
        entropy_N: Entropy, in nats, of the distribution that it is drawn from.
        values_N: The critic's value of the state before that token.
        end_values_B: Its value of the state after each rollout's last token.
        ref_logps_N: Log-probability under the reference, without gradient.
    """

    logps_N: Tensor
    entropy_N: Tensor
    values_N: Tensor
    end_values_B: Tensor
    ref_logps_N: Tensor


class Scores(NamedTuple):
    """The same of many rollouts, one row for each, on the CPU. What was not asked for is empty."""

    logps_BG: Tensor
    entropy_BG: Tensor
    values_BG: Tensor
    end_values_B: Tensor
    ref_logps_BG: Tensor


def chunked_logps(
    hidden_ND: Tensor,
    head: Callable[[Tensor], Tensor],
    targets_N: Tensor,
    *,
    temperature: float = 1.0,
    chunk: int = 1024,
    entropy: bool = True,
) -> tuple[Tensor, Tensor]:
    """Log-probability of each target, and entropy of the distribution that it is drawn from.

    Logits exist for `chunk` rows at a time and are computed again in the backward pass, so that no
    tensor of all rows by the vocabulary is held. Softmax is in float32 at least.

    Args:
        head: From hidden states `[n, D]` to logits `[n, V]`.
        temperature: Divides the logits; above 0.
        entropy: Without it the second result is empty.
    """
    score = partial(_score_rows, head=head, temperature=temperature, entropy=entropy)
    rows = list(zip(torch.split(hidden_ND, chunk), torch.split(targets_N, chunk), strict=True))
    if torch.is_grad_enabled() and len(rows) > 1:
        found = [
            checkpoint(score, hidden, targets, use_reentrant=False, preserve_rng_state=False)
            for hidden, targets in rows
        ]
    else:
        found = [score(hidden, targets) for hidden, targets in rows]
    logps, entropies = zip(*found, strict=True)
    return torch.cat(logps), torch.cat(entropies)


@torch.no_grad()
def score_all(
    policy: nn.Module,
    rollouts: Sequence[Rollout],
    *,
    pad_id: int,
    temperature: float = 1.0,
    micro_batch: int = 8,
    what: Collection[Part] = ("logps", "values"),
) -> Scores:
    """Scores rollouts without gradients, those of like length together.

    Args:
        policy: An `ActorCritic`, or one that accelerate has wrapped.
        pad_id: Fills rows up; any valid id will do.
        micro_batch: Rollouts in one forward pass.
        what: What to compute: `logps` and `entropy` of the policy, `values` (`end_values_B` among
            them), and log-probabilities of the `reference`.

    Raises:
        ConfigError: There is no reference.
    """
    device = next(policy.parameters()).device
    size = (len(rollouts), max((len(one.response) for one in rollouts), default=0))
    found = {part: torch.zeros(size) for part in what}
    end_values_B = torch.zeros(len(rollouts) if "values" in what else 0)
    lengths = [len(one.prompt) + len(one.response) for one in rollouts]
    for rows in micro_batches(lengths, max_rows=micro_batch):
        batch = pack([rollouts[row] for row in rows], pad_id=pad_id)
        scored: Scored = policy(
            batch.to(device),
            temperature=temperature,
            actor="logps" in what or "entropy" in what,
            critic="values" in what,
            entropy="entropy" in what,
            reference="reference" in what,
        )
        for part, values_BG in found.items():
            rows_BG = padded(_part(scored, part).float().cpu(), batch.lengths)
            values_BG[rows, : rows_BG.shape[1]] = rows_BG
        if "values" in what:
            end_values_B[rows] = scored.end_values_B.float().cpu()
    empty = torch.zeros(0, 0)
    logps, entropies, values, references = (
        found.get(part, empty) for part in ("logps", "entropy", "values", "reference")
    )
    return Scores(logps, entropies, values, end_values_B, references)


def _score_rows(
    hidden_ND: Tensor,
    targets_N: Tensor,
    *,
    head: Callable[[Tensor], Tensor],
    temperature: float,
    entropy: bool,
) -> tuple[Tensor, Tensor]:
    logits_NV = head(hidden_ND)
    exact = torch.promote_types(logits_NV.dtype, torch.float32)
    logps_NV = (logits_NV.to(exact) / temperature).log_softmax(-1)
    taken_N = logps_NV.gather(-1, targets_N[:, None]).squeeze(-1)
    if not entropy:
        return taken_N, taken_N.new_zeros(0)
    # A token that cannot come has log-probability -inf, and adds nothing.
    finite_NV = logps_NV.clamp(min=torch.finfo(exact).min)
    return taken_N, -(logps_NV.exp() * finite_NV).sum(-1)


def _part(scored: Scored, part: Part) -> Tensor:
    match part:
        case "logps":
            return scored.logps_N
        case "entropy":
            return scored.entropy_N
        case "values":
            return scored.values_N
        case "reference":
            return scored.ref_logps_N
