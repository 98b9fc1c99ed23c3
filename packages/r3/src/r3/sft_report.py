"""What a run of `r3 sft` comes to, from its records alone. No torch here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, cast

from pydantic import JsonValue

from papercore.claims import Estimate
from papercore.plots import Figure, Frame, lines_with_intervals
from papercore.records import Record
from papercore.stats import exact
from papercore.tables import Table

__all__ = ["DATA", "RESULT", "figures", "result_lines", "summarise", "tables"]

DATA: Final = "sft/data"
RESULT: Final = "sft/result"

_POINTS = 300
"""Of a curve at most: a run may have thousands of steps."""

Curve = Sequence[tuple[int, float]]


def summarise(records: Sequence[Record]) -> dict[str, Estimate]:
    """Counts and losses; nothing for the records of other commands.

    `first_loss` and `last_loss` are means per target token of one step each; `dev_loss` is that of
    the last weights on dev demonstrations, the mean over batches.
    """
    found: dict[str, Estimate] = {}
    for record in records:
        if record.id in (DATA, RESULT):
            for name, value in record.data.items():
                if isinstance(value, int | float) and not isinstance(value, bool):
                    found[name] = exact(value, 1)
    data = _data(records, RESULT)
    if losses := _curve(data, "losses"):
        found |= {"first_loss": exact(losses[0][1], 1), "last_loss": exact(losses[-1][1], 1)}
    if dev_losses := _curve(data, "dev_losses"):
        found["dev_loss"] = exact(dev_losses[-1][1], 1)
        found["best_dev_loss"] = exact(min(loss for _, loss in dev_losses), 1)
    return found


def figures(records: Sequence[Record], into: Path) -> list[Figure]:
    """Losses by step."""
    data = _data(records, RESULT)
    curves = {"train": _thinned(_curve(data, "losses")), "dev": _curve(data, "dev_losses")}
    series: dict[str, dict[float, Estimate]] = {
        name: {float(step): exact(loss, 1) for step, loss in curve}
        for name, curve in curves.items()
        if curve
    }
    if not series:
        return []
    frame = Frame(
        "losses",
        "Loss by step",
        "Train: mean per target token of each step. Dev: mean over batches. The last weights stay.",
        x="step",
        y="loss, nats per token",
    )
    return [lines_with_intervals(into, frame, series)]


def tables(records: Sequence[Record]) -> list[Table]:
    """None: the summary says it all."""
    del records
    return []


def result_lines(records: Sequence[Record]) -> list[str]:
    """What the terminal says."""
    data, found = _data(records, DATA), summarise(records)
    read = (
        f"{data['demonstrations']:,} demonstrations, {data['tokens']:,} tokens, of which "
        f"{data['target_tokens']:,} bear loss; left out {data['too_long']:,} that were too long"
    )
    lines = [read]
    if "last_loss" in found:
        first, last = found["first_loss"].value, found["last_loss"].value
        dev = f", on dev {found['dev_loss'].value:.3f}" if "dev_loss" in found else ""
        lines.append(f"loss {first:.3f} -> {last:.3f} in {found['steps'].value:.0f} steps{dev}")
    return lines


def _data(records: Sequence[Record], name: str) -> Mapping[str, JsonValue]:
    return next((record.data for record in records if record.id == name), {})


def _curve(data: Mapping[str, JsonValue], name: str) -> Curve:
    return [(step, loss) for step, loss in cast("Sequence[tuple[int, float]]", data.get(name, ()))]


def _thinned(curve: Curve) -> Curve:
    """Every so many points, the last one among them."""
    every = max(1, -(-len(curve) // _POINTS))
    return curve[::-1][::every][::-1]
