"""How far a score moves between levels.

Source: the paper's spread is the sample standard deviation over the five levels: GPT-4's CF gives
    its 8.14; the span, highest minus lowest, is in its ablation table.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

__all__ = ["sample_sd", "span"]


def sample_sd(values: Sequence[float]) -> float:
    """Sample standard deviation, n - 1 below; NaN for a single value."""
    return statistics.stdev(values) if len(values) > 1 else math.nan


def span(values: Sequence[float]) -> float:
    """Highest minus lowest."""
    return max(values) - min(values)
