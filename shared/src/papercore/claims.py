"""Claims: what a reproduction promises before it runs, and the verdict on each promise.

A package declares `CLAIMS` statically; a run yields estimates; `judge` compares them. Nothing here
reads files or imports more than the standard library.

    verdict = judge(claim, {"accuracy_16x": Estimate(0.81, 0.75, 0.86, 200, "wilson")})
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

from papercore.errors import DataError

__all__ = [
    "Bar",
    "Claim",
    "Estimate",
    "Kind",
    "Method",
    "Op",
    "Origin",
    "Status",
    "Verdict",
    "claims_document",
    "estimate_to_json",
    "judge",
    "judge_all",
    "verdict_from_json",
    "verdict_to_json",
]

Method: TypeAlias = Literal["wilson", "bootstrap", "clustered", "paired", "exact"]
Op: TypeAlias = Literal[">=", "<="]
Kind: TypeAlias = Literal["effect", "mechanism", "control", "exact"]
Origin: TypeAlias = Literal["read", "second_hand", "unread"]
Status: TypeAlias = Literal["held", "missed", "not_measured"]

SCHEMA = 1
"""Version of the layout of `claims.json`."""


@dataclass(frozen=True)
class Estimate:
    """A measured number with its interval."""

    value: float
    lo: float
    hi: float
    n: int
    """How many independent units (examples, pairs or clusters) the number rests on."""
    method: Method
    """How the interval was made; `exact` means that there is no sampling error."""

    def text(self) -> str:
        """The number as a reader sees it, for instance `0.81 [0.75, 0.86], n=200` or `1,920`."""
        if self.method == "exact" and self.n == 1:
            return f"{self.value:,.0f}" if self.value.is_integer() else f"{self.value:.3g}"
        interval = "" if self.method == "exact" else f" [{self.lo:.3g}, {self.hi:.3g}]"
        return f"{self.value:.3g}{interval}, n={self.n}"


@dataclass(frozen=True)
class Bar:
    """A threshold that one metric must reach."""

    metric: str
    op: Op
    value: float
    excludes_zero: bool = False
    """The interval must also lie wholly on one side of zero."""

    def text(self) -> str:
        """The bar as a reader sees it, for instance `accuracy_16x >= 0.75`."""
        suffix = ", interval excludes 0" if self.excludes_zero else ""
        return f"{self.metric} {self.op} {self.value:g}{suffix}"


@dataclass(frozen=True)
class Claim:
    """A statement of the paper, and the bars that our reproduction of it must reach."""

    id: str
    statement: str
    source: str
    """Where the paper says it: section, table, figure or equation."""
    paper: float | None
    """The paper's own number, if there is one."""
    origin: Origin
    """How we know `paper`; an `unread` value is never shown as a comparison."""
    kind: Kind
    planted: bool
    """The effect is built into the toy world, so it shows the machinery, not nature."""
    bars: tuple[Bar, ...]

    @property
    def comparable(self) -> float | None:
        """The paper's number if it may stand beside ours, else None."""
        return None if self.origin == "unread" else self.paper


@dataclass(frozen=True)
class Verdict:
    """What a run says about a claim."""

    claim: Claim
    estimates: dict[str, Estimate]
    """The measured metrics that the claim's bars name."""
    status: Status


def judge(claim: Claim, estimates: Mapping[str, Estimate], *, quick: bool = False) -> Verdict:
    """Compare a claim with what was measured.

    Args:
        claim: The claim to judge.
        estimates: All metrics of the run; those that no bar names are ignored.
        quick: The run was too small to say anything: the verdict is `not_measured`.

    Returns:
        `held` if every bar holds, `missed` if one does not, `not_measured` if a metric is absent.
        NaN never holds.
    """
    used = {bar.metric: estimates[bar.metric] for bar in claim.bars if bar.metric in estimates}
    status: Status
    if quick or not claim.bars or any(bar.metric not in used for bar in claim.bars):
        status = "not_measured"
    elif all(_holds(bar, used[bar.metric]) for bar in claim.bars):
        status = "held"
    else:
        status = "missed"
    return Verdict(claim=claim, estimates=used, status=status)


def judge_all(
    claims: Iterable[Claim], estimates: Mapping[str, Estimate], *, quick: bool = False
) -> tuple[Verdict, ...]:
    """`judge` each claim, in order."""
    return tuple(judge(claim, estimates, quick=quick) for claim in claims)


def _holds(bar: Bar, estimate: Estimate) -> bool:
    reached = (
        estimate.value >= bar.value if bar.op == ">=" else estimate.value <= bar.value
    )  # both comparisons are false for NaN
    if not bar.excludes_zero:
        return reached
    return reached and (estimate.lo > 0 or estimate.hi < 0)


def claims_document(
    verdicts: Iterable[Verdict], *, package: str, version: str, seed: int, quick: bool
) -> dict[str, object]:
    """The content of `claims.json`."""
    return {
        "schema": SCHEMA,
        "package": package,
        "version": version,
        "seed": seed,
        "mode": "quick" if quick else "full",
        "claims": [verdict_to_json(verdict) for verdict in verdicts],
    }


def estimate_to_json(estimate: Estimate) -> dict[str, object]:
    """An estimate as strict JSON: a number that is not finite becomes null."""
    return {
        "value": _finite(estimate.value),
        "lo": _finite(estimate.lo),
        "hi": _finite(estimate.hi),
        "n": estimate.n,
        "method": estimate.method,
    }


def verdict_to_json(verdict: Verdict) -> dict[str, object]:
    """A verdict as strict JSON."""
    claim = verdict.claim
    return {
        "claim": {
            "id": claim.id,
            "statement": claim.statement,
            "source": claim.source,
            "paper": claim.paper,
            "origin": claim.origin,
            "kind": claim.kind,
            "planted": claim.planted,
            "bars": [
                {
                    "metric": bar.metric,
                    "op": bar.op,
                    "value": bar.value,
                    "excludes_zero": bar.excludes_zero,
                }
                for bar in claim.bars
            ],
        },
        "estimates": {name: estimate_to_json(e) for name, e in verdict.estimates.items()},
        "status": verdict.status,
    }


def verdict_from_json(document: Mapping[str, object]) -> Verdict:
    """Read back what `verdict_to_json` wrote; null in an estimate becomes NaN.

    Raises:
        DataError: The document is not a verdict.
    """
    from pydantic import TypeAdapter, ValidationError

    estimates = document.get("estimates")
    if not isinstance(estimates, Mapping):
        raise DataError("not a verdict: 'estimates' is missing")
    restored = {
        name: {key: math.nan if item is None else item for key, item in dict(estimate).items()}
        for name, estimate in estimates.items()
    }
    try:
        return TypeAdapter(Verdict).validate_python({**document, "estimates": restored})
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise DataError(f"not a verdict: {where}: {first['msg']}") from None


def _finite(number: float) -> float | None:
    return number if math.isfinite(number) else None
