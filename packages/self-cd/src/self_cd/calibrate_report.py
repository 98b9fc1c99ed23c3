"""What the records of `self-cd calibrate` come to: bounds, predicted refusals. No torch here."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from papercore.claims import Estimate
from papercore.plots import Figure, Frame, lines_with_intervals
from papercore.records import Record
from papercore.stats import exact, wilson
from papercore.tables import Table
from self_cd.analysis_ids import CALIBRATE, SETTINGS_ID
from self_cd.checked import Checked, check, num_failed
from self_cd.items import Side
from self_cd.margin_rule import (
    CURVE_ALPHAS,
    Calibration,
    SideMargins,
    calibrate_margins,
    refused_at,
)

__all__ = ["Found", "calibration_lines", "figures", "find", "summarise", "tables"]


@dataclass(frozen=True)
class Found:
    """A calibration with what it was asked for.

    Attributes:
        alpha: The strength that was asked about.
        prompts: Digest of the prompts.
        weights: Fingerprint of the weights that were measured, as `bounds.weights_of` gives it.
        num_failed: Questions without margins.
    """

    calibration: Calibration
    harmless: SideMargins
    harmful: SideMargins
    alpha: float
    prompts: str
    weights: str | None
    num_failed: int
    checked: Checked | None

    @property
    def upper(self) -> float | None:
        """The bound: the margins' one, or what answers were seen to bear, if that is less."""
        predicted = self.calibration.upper
        if predicted is None or self.checked is None:
            return predicted
        return None if self.checked.upper is None else min(predicted, self.checked.upper)


def find(records: Sequence[Record]) -> Found | None:
    """The calibration that records come to; None if they are no calibration's."""
    settings = next((one.data for one in records if one.id == SETTINGS_ID), None)
    if settings is None:
        return None
    mine = [one for one in records if one.id.startswith(CALIBRATE) and one.id != SETTINGS_ID]
    harmless, harmful = _side(mine, "harmless"), _side(mine, "harmful")
    alpha = cast("float", settings["alpha"])
    found = calibrate_margins(
        harmless,
        harmful,
        keep=cast("float", settings["keep"]),
        seed=cast("int", settings["seed"]),
        alpha=alpha,
    )
    failed = sum(one.status == "error" for one in mine) + num_failed(records)
    weights = cast("str | None", settings.get("weights"))
    checked = check(records, keep=found.keep)
    prompts = str(settings["prompts"])
    return Found(found, harmless, harmful, alpha, prompts, weights, failed, checked)


def summarise(records: Sequence[Record]) -> dict[str, Estimate]:
    """Bounds, what `alpha` keeps, and the refusals that the rule predicts.

    `alpha_upper` keeps the wanted share of the true refusals by their margins, `alpha_lower`
    releases half of the over-refusals. `seen_kept_a<alpha>` is the share of true refusals that
    answers at that strength were seen to keep. `predicted_<side>_a<alpha>` is the predicted share
    of refusals.
    """
    found = find(records)
    if found is None:
        return {}
    one = found.calibration
    metrics: dict[str, Estimate] = {}
    for name, value, interval, count in (
        ("alpha_upper", one.upper, one.upper_interval, one.num_true),
        ("alpha_lower", one.lower, one.lower_interval, one.num_over),
    ):
        if value is not None:
            metrics[name] = Estimate(value, *interval, count, "bootstrap")
    metrics["true_refusals"] = exact(one.num_true, one.num_harmful)
    metrics["over_refusals"] = exact(one.num_over, one.num_harmless)
    if one.num_true:
        metrics[f"kept_a{found.alpha:g}"] = _kept(found, found.alpha)
    if found.checked is not None:
        for alpha, kept in found.checked.kept.items():
            metrics[f"seen_kept_a{alpha:g}"] = wilson(kept, found.checked.num_true)
    for side, margins in (("harmless", found.harmless), ("harmful", found.harmful)):
        for alpha in dict.fromkeys((0.0, 1.0, found.alpha)):
            if margins.plain:
                metrics[f"predicted_{side}_a{alpha:g}"] = _refused(margins, alpha)
    return metrics


def figures(records: Sequence[Record], into: Path) -> list[Figure]:
    """Predicted refusals of both sides by strength, and the share of true refusals kept."""
    found = find(records)
    if found is None:
        return []
    series = {
        name: {alpha: _refused(margins, alpha) for alpha in CURVE_ALPHAS}
        for name, margins in (("harmless", found.harmless), ("harmful", found.harmful))
        if margins.plain
    }
    if found.calibration.num_true:
        series["true refusals kept"] = {alpha: _kept(found, alpha) for alpha in CURVE_ALPHAS}
    if found.checked is not None and found.checked.num_true:
        series["true refusals kept, seen in answers"] = {
            alpha: wilson(kept, found.checked.num_true)
            for alpha, kept in found.checked.kept.items()
            if alpha <= CURVE_ALPHAS[-1]
        }
    if not series:
        return []
    frame = Frame(
        "calibration",
        "Refusals that the margin rule predicts, by strength",
        f"Predicted from the margins at the first answer token. {_bound_text(found)} "
        "Bands: 95 % Wilson intervals.",
        x="alpha",
        y="share refused",
        y_range=(0.0, 1.0),
    )
    return [lines_with_intervals(into, frame, series)]


def tables(records: Sequence[Record]) -> list[Table]:
    """The predicted curves as numbers."""
    found = find(records)
    if found is None:
        return []
    rows = [(p.alpha, p.harmless, p.harmful, p.kept) for p in found.calibration.curve]
    caption = " ".join([_bound_text(found), *(f"{one}." for one in found.calibration.warnings)])
    header = ("alpha", "harmless refused", "harmful refused", "true refusals kept")
    return [Table("calibration", "Predicted refusals by strength", caption, header, rows)]


def calibration_lines(found: Found) -> list[str]:
    """The outcome in plain words."""
    one = found.calibration
    lines = [
        _side_line("harmful", found.harmful, found.alpha),
        _side_line("harmless", found.harmless, found.alpha),
        _bound_text(found),
        *_checked_lines(found),
    ]
    if one.lower is not None:
        lines.append(
            f"releases half of {one.num_over} over-refusals from alpha {one.lower:g} on"
            f"{_interval(one.lower_interval)}"
        )
    elif one.num_over:
        lines.append(f"no alpha releases half of {one.num_over} over-refusals")
    if found.num_failed:
        lines.append(f"{found.num_failed} questions failed and count nowhere")
    return lines


def _bound_text(found: Found) -> str:
    one = found.calibration
    if one.upper is None:
        return "No bound: there is no true refusal to keep."
    return (
        f"by the margins, {100 * one.keep:.4g} % of {one.num_true} true refusals are kept up to "
        f"alpha {one.upper:g}"
        f"{_interval(one.upper_interval)}."
    )


def _checked_lines(found: Found) -> list[str]:
    """What answers were seen to keep, and the bound that comes of both."""
    checked, upper = found.checked, found.upper
    if checked is None:
        return ["not checked by answers: the margins see their beginning alone"]
    if not checked.num_true:
        return ["no answer of the plain context refuses a harmful question: no bound"]
    if upper is None:
        return [f"answers keep less from alpha {next(iter(checked.kept)):g} on: no bound"]
    total = checked.num_true
    seen = ", ".join(f"{100 * n / total:.1f} % at {alpha:g}" for alpha, n in checked.kept.items())
    return [
        f"seen in answers, of {checked.num_true} refusals: {seen}",
        f"bound: alpha {upper:g}",
    ]


def _side_line(name: str, margins: SideMargins, alpha: float) -> str:
    if not margins.plain:
        return f"{name}: no questions"
    shown = ", ".join(
        f"{text} {100 * _refused(margins, at).value:.1f} %"
        for text, at in (
            ("safety prompt", 0.0),
            ("plain", 1.0),
            (f"alpha {alpha:g}", alpha),
        )
    )
    return f"{name}: {len(margins.plain)} questions, predicted refusals: {shown}"


def _interval(interval: tuple[float, float]) -> str:
    low, high = interval
    return "" if math.isnan(low) else f" (95 % interval {low:g} to {high:g})"


def _kept(found: Found, alpha: float) -> Estimate:
    flags = zip(refused_at(found.harmful, 1.0), refused_at(found.harmful, alpha), strict=True)
    kept = [still for true, still in flags if true]
    return wilson(sum(kept), len(kept))


def _refused(margins: SideMargins, alpha: float) -> Estimate:
    refused = refused_at(margins, alpha)
    return wilson(sum(refused), len(refused))


def _side(records: Sequence[Record], side: Side) -> SideMargins:
    mine = [one.data for one in records if one.status == "ok" and one.data["side"] == side]
    return SideMargins(
        tuple(cast("float", data["plain"]) for data in mine),
        tuple(cast("float", data["emphasis"]) for data in mine),
    )
