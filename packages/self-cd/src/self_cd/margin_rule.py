"""The margin rule: which refusals a strength keeps, from refusal margins alone. No torch here.

    found = calibrate_margins(harmless, harmful, keep=0.99, seed=0)
    found.upper        # the largest alpha that keeps 99 % of the true refusals

A question with the margin m' in the plain context and m' + d with the safety prompt has, under the
contrast, the margin m' - (alpha - 1) d, and is refused where that is above zero. A true refusal is
a harmful question that the plain context refuses, an over-refusal a harmless one that the safety
prompt refuses.

Source: ours (spec 2.8); the paper has no rule. It looks at the first answer token: what comes later
can still turn an answer, so measure the chosen strength with `self-cd sweep`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from papercore.claims import Estimate
from papercore.errors import DataError
from papercore.stats import bootstrap
from self_cd.config import MAX_ALPHA

__all__ = [
    "CURVE_ALPHAS",
    "PAPER_ALPHA",
    "RELEASE",
    "Calibration",
    "Point",
    "SideMargins",
    "calibrate_margins",
    "margins_at",
    "refused_at",
    "strength_that_keeps",
    "strength_that_releases",
]

PAPER_ALPHA = 2.5
"""Source: 2401.17633, recommended for all models."""
RELEASE = 0.5
"""Share of the over-refusals that `lower` releases. Ours."""
FEW = 30
"""Fewer true refusals than this give no bound worth the name. Ours."""
SATURATED = 10.0
"""A harmful set that loses nothing up to here cannot show a loss. Ours."""
CURVE_ALPHAS = tuple(step / 4 for step in range(25))
"""Strengths of the predicted curves: 0 to 6."""
_LIMIT = 1e6
"""Larger margins, infinite ones too, count as this: no strength tells them apart."""
_DECIMALS = 1000.0
_SLACK = 1e-6

Floats: TypeAlias = NDArray[np.float64]


@dataclass(frozen=True)
class SideMargins:
    """Refusal margins of the questions of one side, in one order."""

    plain: Sequence[float] = ()
    emphasis: Sequence[float] = ()


@dataclass(frozen=True)
class Point:
    """What a strength is predicted to do.

    Attributes:
        harmless: Refused share of the harmless questions; NaN without any.
        harmful: Refused share of the harmful ones.
        kept: Share of the true refusals that is still refused.
    """

    alpha: float
    harmless: float
    harmful: float
    kept: float


@dataclass(frozen=True)
class Calibration:
    """What strengths do to a model's refusals.

    Attributes:
        keep: Share of the true refusals that was to be kept.
        upper: Largest strength that keeps it, rounded down to three decimals and at most MAX_ALPHA;
            None if there is no true refusal, and so nothing to tell by.
        upper_interval: Its bootstrap interval over questions. With few questions it is too narrow,
            since no draw holds a question weaker than the weakest one.
        lower: Smallest strength that releases half of the over-refusals, rounded up; None if none
            up to MAX_ALPHA does, or there is none to release.
        lower_interval: Its bootstrap interval.
        num_true: True refusals.
        num_over: Over-refusals.
        curve: Predictions by strength.
        warnings: What a user must know before using the numbers.
    """

    keep: float
    upper: float | None
    upper_interval: tuple[float, float]
    lower: float | None
    lower_interval: tuple[float, float]
    num_harmful: int
    num_true: int
    num_harmless: int
    num_over: int
    curve: tuple[Point, ...]
    warnings: tuple[str, ...]

    @property
    def empty(self) -> bool:
        """Whether no strength both releases half of the over-refusals and keeps enough."""
        return self.upper is None or self.lower is None or self.lower > self.upper


def calibrate_margins(
    harmless: SideMargins,
    harmful: SideMargins,
    *,
    keep: float = 0.99,
    seed: int = 0,
    alpha: float = PAPER_ALPHA,
    alphas: Sequence[float] = CURVE_ALPHAS,
) -> Calibration:
    """Which strengths keep true refusals, and which release over-refusals.

    Args:
        harmless: Margins of harmless questions.
        harmful: Margins of harmful questions.
        keep: Share of the true refusals to keep.
        seed: Of the bootstrap.
        alpha: The strength to warn about if it lies outside.
        alphas: Strengths of the curve.

    Raises:
        DataError: A margin is NaN, or the two contexts have different numbers of questions.
    """
    if not 0.0 < keep <= 1.0:
        raise DataError(f"keep={keep} is no share: give a number above 0, at most 1")
    released, kept = _checked(harmless), _checked(harmful)
    breaking_N = _breaking(*_where(kept, kept[0] > 0))
    freeing_N = _breaking(*_where(released, released[1] > 0))
    upper = bootstrap(lambda drawn: strength_that_keeps(drawn, keep), breaking_N, seed=seed)
    lower = bootstrap(strength_that_releases, freeing_N, seed=seed)
    return Calibration(
        keep=keep,
        upper=None if math.isnan(upper.value) else upper.value,
        upper_interval=(upper.lo, upper.hi),
        lower=None if not lower.value <= MAX_ALPHA else lower.value,
        lower_interval=(lower.lo, lower.hi),
        num_harmful=len(kept[0]),
        num_true=len(breaking_N),
        num_harmless=len(released[0]),
        num_over=len(freeing_N),
        curve=tuple(_point(one, released, kept) for one in alphas),
        warnings=tuple(_warnings(released, kept, upper, lower, keep=keep, alpha=alpha)),
    )


def margins_at(plain: ArrayLike, emphasis: ArrayLike, alpha: float) -> Floats:
    """Margins under the contrast: m' - (alpha - 1) d."""
    plain_N, emphasis_N = _pair(plain, emphasis)
    margins: Floats = plain_N - (alpha - 1.0) * (emphasis_N - plain_N)
    return margins


def refused_at(side: SideMargins, alpha: float) -> list[bool]:
    """Which questions are predicted to be refused."""
    refused = margins_at(side.plain, side.emphasis, alpha) > 0
    return [bool(one) for one in refused]


def strength_that_keeps(breaking: ArrayLike, keep: float) -> float:
    """Largest strength that keeps a share of refusals, each of which breaks at its own strength.

    Rounded down to three decimals, so that the share is kept at the number itself. NaN without any.
    """
    breaking_N = np.sort(np.asarray(breaking, dtype=np.float64))[::-1]
    if not len(breaking_N):
        return math.nan
    wanted = math.ceil(keep * len(breaking_N) - _SLACK)
    first_lost = min(MAX_ALPHA + 1.0, float(breaking_N[max(wanted, 1) - 1]))
    return min(MAX_ALPHA, max(1.0, math.floor(first_lost * _DECIMALS - _SLACK) / _DECIMALS))


def strength_that_releases(freeing: ArrayLike, share: float = RELEASE) -> float:
    """Smallest strength at which a share of refusals is gone; above MAX_ALPHA if there is none."""
    freeing_N = np.sort(np.asarray(freeing, dtype=np.float64))
    if not len(freeing_N):
        return math.nan
    last = float(freeing_N[max(math.ceil(share * len(freeing_N) - _SLACK), 1) - 1])
    if last > MAX_ALPHA:
        return MAX_ALPHA + 1.0  # finite, so that the bootstrap can interpolate
    return math.ceil(last * _DECIMALS + _SLACK) / _DECIMALS


def _breaking(plain_N: Floats, emphasis_N: Floats) -> Floats:
    """Strength at which each margin reaches zero; infinite where the safety prompt adds nothing."""
    push_N = emphasis_N - plain_N
    pushed_N = push_N > 0
    return np.where(pushed_N, 1.0 + plain_N / np.where(pushed_N, push_N, 1.0), math.inf)


def _where(margins: tuple[Floats, Floats], chosen: NDArray[np.bool_]) -> tuple[Floats, Floats]:
    return margins[0][chosen], margins[1][chosen]


def _checked(side: SideMargins) -> tuple[Floats, Floats]:
    return _pair(side.plain, side.emphasis)


def _pair(plain: ArrayLike, emphasis: ArrayLike) -> tuple[Floats, Floats]:
    plain_N = np.asarray(plain, dtype=np.float64)
    emphasis_N = np.asarray(emphasis, dtype=np.float64)
    if plain_N.shape != emphasis_N.shape or plain_N.ndim != 1:
        raise DataError(
            f"margins: {plain_N.shape} plain ones and {emphasis_N.shape} with the safety prompt: "
            "give one of each per question"
        )
    if np.isnan(plain_N).any() or np.isnan(emphasis_N).any():
        raise DataError("margins: one is NaN: leave out questions whose logits are not finite")
    return plain_N.clip(-_LIMIT, _LIMIT), emphasis_N.clip(-_LIMIT, _LIMIT)


def _point(alpha: float, harmless: tuple[Floats, Floats], harmful: tuple[Floats, Floats]) -> Point:
    refused_N = margins_at(*harmful, alpha) > 0
    return Point(
        alpha=alpha,
        harmless=_share(margins_at(*harmless, alpha) > 0),
        harmful=_share(refused_N),
        kept=_share(refused_N[harmful[0] > 0]),
    )


def _share(flags_N: NDArray[np.bool_]) -> float:
    return float(flags_N.mean()) if len(flags_N) else math.nan


def _warnings(
    harmless: tuple[Floats, Floats],
    harmful: tuple[Floats, Floats],
    upper: Estimate,
    lower: Estimate,
    *,
    keep: float,
    alpha: float,
) -> list[str]:
    """Plain sentences, the weightiest first."""
    return [
        *_warn_of_bound(harmless, harmful, upper, lower, keep=keep, alpha=alpha),
        *_warn_of_data(harmless, harmful, upper, lower, keep=keep),
    ]


def _warn_of_bound(
    harmless: tuple[Floats, Floats],
    harmful: tuple[Floats, Floats],
    upper: Estimate,
    lower: Estimate,
    *,
    keep: float,
    alpha: float,
) -> list[str]:
    found = []
    at = _point(alpha, harmless, harmful)
    if upper.value < alpha:
        found.append(
            f"alpha {alpha:g} is outside: it keeps {at.kept:.1%} of the true refusals, and up to "
            f"{upper.value:g} are {keep:.4g} kept"
        )
    if lower.value > alpha:
        found.append(f"alpha {alpha:g} releases less than half of the over-refusals")
    if lower.value > upper.value:
        found.append("no alpha both releases half of the over-refusals and keeps enough refusals")
    return found


def _warn_of_data(
    harmless: tuple[Floats, Floats],
    harmful: tuple[Floats, Floats],
    upper: Estimate,
    lower: Estimate,
    *,
    keep: float,
) -> list[str]:
    num_harmful, num_true = len(harmful[0]), upper.n
    found = []
    if not num_harmful:
        found.append("there are no harmful questions: what a strength costs cannot be told")
    elif not num_true:
        found.append(
            f"the plain context refuses none of {num_harmful} harmful questions, so there is no "
            "refusal to keep: the model is unsafe as it is, or the openings are not its own"
        )
    elif num_true < FEW:
        found.append(f"only {num_true} true refusals: with fewer than {FEW} the bound is a guess")
    elif num_true < num_harmful / 2:
        found.append(
            f"the plain context refuses only {num_true} of {num_harmful} harmful questions: from "
            "alpha 1 on the others are answered whatever the bound"
        )
    if num_true and num_true * (1.0 - keep) < 1.0 - _SLACK and keep < 1.0:
        found.append(
            f"{keep:.4g} of {num_true} true refusals are all of them: the weakest one alone sets "
            "the bound"
        )
    if num_true and _point(SATURATED, harmless, harmful).harmful == 1.0:
        found.append(
            f"no harmful question is lost up to alpha {SATURATED:g}: these are refused so firmly "
            "that they cannot show a loss; add harder ones"
        )
    if len(harmless[0]) and not lower.n:
        found.append("the safety prompt refuses no harmless question: there is nothing to release")
    return found
