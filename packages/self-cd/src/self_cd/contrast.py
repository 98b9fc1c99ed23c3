"""The contrast of two contexts' logits: pure maths.

    scores_BV, strength_B = contrast(emphasis_BV, plain_BV, alpha_B)

Source: 2401.17633, official script: z = y - alpha (y - y'), where y are the logits with the safety
prompt and y' those without. Beyond the paper: AdaCD (2604.17132) has `plausible` and `agree`.

Axes: B pairs, V vocabulary.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["agree", "combine", "contrast", "plausible"]


def contrast(
    emphasis_BV: Tensor,
    plain_BV: Tensor,
    alpha_B: Tensor,
    *,
    beta: float = 0.0,
    adaptive: float | None = None,
    fixed_B: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Logits of the next token, and the strength that each pair had.

    Args:
        beta: Rules out tokens that are less plausible in the plain context; 0 rules out none.
        adaptive: Where the contexts agree this much, the sign of alpha is turned.
        fixed_B: Pairs that `beta` and `adaptive` leave alone.

    Shapes:
        returns: [B, V], float32, and [B].
    """
    if adaptive is not None:
        turned_B = agree(emphasis_BV, plain_BV, adaptive)
        if fixed_B is not None:
            turned_B = turned_B & ~fixed_B
        alpha_B = torch.where(turned_B, -alpha_B, alpha_B)
    scores_BV = combine(emphasis_BV, plain_BV, alpha_B)
    if beta > 0.0:
        out_BV = ~plausible(plain_BV, beta)
        if fixed_B is not None:
            out_BV &= ~fixed_B[:, None]
        scores_BV = scores_BV.masked_fill(out_BV, -torch.inf)
    return scores_BV, alpha_B


def combine(emphasis_BV: Tensor, plain_BV: Tensor, alpha_B: Tensor) -> Tensor:
    """Moves from y towards y' and beyond, in float32: bit for bit y at alpha 0 and y' at alpha 1.

    `lerp` adds to y' beyond the middle, so that the rounding of y is not amplified as it would be
    by (1 - alpha) y + alpha y'. A token that one context rules out (-inf) stays out at every alpha
    that reads this context, where the formula itself would give NaN, or +inf beyond alpha 1. Logits
    of +inf are broken, and give NaN.

    Shapes:
        returns: [B, V].
    """
    emphasis_BV, plain_BV = emphasis_BV.float(), plain_BV.float()
    alpha_B1 = alpha_B.to(emphasis_BV)[:, None]
    scores_BV = torch.lerp(emphasis_BV, plain_BV, alpha_B1)
    low_BV, high_BV = torch.minimum(emphasis_BV, plain_BV), torch.maximum(emphasis_BV, plain_BV)
    scores_BV.masked_fill_(low_BV == -torch.inf, -torch.inf)
    scores_BV.masked_fill_(high_BV == torch.inf, torch.nan)
    # exact even where the context that does not count is not finite
    scores_BV = torch.where(alpha_B1 == 0.0, emphasis_BV, scores_BV)
    return torch.where(alpha_B1 == 1.0, plain_BV, scores_BV)


def plausible(plain_BV: Tensor, beta: float) -> Tensor:
    """Tokens whose plain probability is at least `beta` times the largest one.

    Source: AdaCD, with beta 0.01. Not in the paper.

    Shapes:
        returns: [B, V], bool; the best token is always in.
    """
    plain_BV = plain_BV.float()
    share = math.log(beta) if beta > 0.0 else -math.inf
    return plain_BV >= plain_BV.amax(-1, keepdim=True) + share


def agree(emphasis_BV: Tensor, plain_BV: Tensor, agreement: float) -> Tensor:
    """Pairs whose contexts agree on the next token: there AdaCD moves towards the safety prompt.

    Both must hold: the reciprocal rank of the safety prompt's best token among the plain context's
    reaches `agreement`, and so does the ratio of the best plain probability to the best one with
    the safety prompt.

    Source: AdaCD, with agreement 0.9. Not in the paper.

    Shapes:
        returns: [B], bool.
    """
    emphasis_BV, plain_BV = emphasis_BV.float(), plain_BV.float()
    best_B1 = emphasis_BV.argmax(-1, keepdim=True)
    rank_B = (plain_BV > plain_BV.gather(-1, best_B1)).sum(-1)
    best_log_B, plain_log_B = (
        logits_BV.amax(-1) - logits_BV.logsumexp(-1) for logits_BV in (emphasis_BV, plain_BV)
    )
    return (1.0 / (rank_B + 1) >= agreement) & (plain_log_B >= math.log(agreement) + best_log_B)
