"""Draws tokens from logits by given uniform numbers: an exact, repeatable choice for each row.

    uniforms_BG = uniforms([7, 8], 32)
    tokens_B, logps_B = draw(logits_BV, uniforms_BG[:, 0], temperature=1.0)

The token is where the cumulative distribution passes the number. It is computed in float64, where
rounding in the sum of a large vocabulary is far below any probability that matters.

Axes: B rows, G tokens of a row, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

__all__ = ["draw", "uniforms"]


def uniforms(seeds: Sequence[int], num: int) -> Tensor:
    """Uniform numbers from 0 up to 1, those of each row from its own seed: `[B, num]`, float64.

    A row's first numbers are the same however many are asked for.

    Args:
        seeds: Whole numbers from 0 on, of any size.
    """
    found_BG = np.empty((len(seeds), num))
    for row, seed in enumerate(seeds):
        found_BG[row] = np.random.Generator(np.random.Philox(seed)).random(num)
    return torch.from_numpy(found_BG)


def draw(logits_BV: Tensor, uniforms_B: Tensor, *, temperature: float) -> tuple[Tensor, Tensor]:
    """A token of each row and its log-probability, NaN if the row's logits are not finite.

    Args:
        temperature: Divides the logits; 0 takes the most likely token, whose log-probability is
            then that of temperature 1.
    """
    # Apple's GPUs have no float64.
    near_BV = logits_BV.cpu() if logits_BV.device.type == "mps" else logits_BV
    wide_BV = near_BV.double()
    probs_BV = (wide_BV if temperature in (0, 1) else wide_BV / temperature).softmax(-1)
    if temperature == 0:
        tokens_B = near_BV.argmax(-1)
    else:
        below_BV = probs_BV.cumsum(-1)
        # A number below 1 times the total is rounded to less than the total, so there is a token.
        wanted_B = uniforms_B.to(near_BV.device) * below_BV[:, -1]
        places_B1 = torch.searchsorted(below_BV, wanted_B[:, None], right=True)
        tokens_B = places_B1.squeeze(-1).clamp(max=logits_BV.shape[-1] - 1)
    logps_B = probs_BV.gather(-1, tokens_B[:, None]).squeeze(-1).log()
    return tokens_B.to(logits_BV.device), logps_B.float().to(logits_BV.device)
