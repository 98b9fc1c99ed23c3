"""What the records of `longheads passkey` come to: accuracies, table, heat map. No torch here."""

import math
from collections.abc import Sequence
from pathlib import Path

from papercore.claims import Estimate
from papercore.plots import Figure, Frame, heatmap, lines_with_intervals
from papercore.records import Record
from papercore.stats import wilson

PREFIX = "passkey/"
"""How the ids of these records begin."""


def summarise(records: Sequence[Record]) -> dict[str, Estimate]:
    """Share of trials whose tokens are exactly the key's, per length and over all.

    Trials that failed are left out; they are counted in the summary beside the metrics. Trials
    whose key a chunk border cuts are also given on their own.
    """
    done = _done(records)
    if not done:
        return {}
    found = {f"accuracy/{length}": _accuracy(_of(done, length)) for length in _lengths(done)}
    split = [record for record in done if record.data["key_split"]]
    if split:
        found["accuracy/key_split"] = _accuracy(split)
    return {**found, "accuracy": _accuracy(done)}


def figures(records: Sequence[Record], into: Path) -> list[Figure]:
    """Accuracy against length, and the heat map of depth and length."""
    done = _done(records)
    if not done:
        return []
    lengths = _lengths(done)
    method = str(done[0].data["method"])
    line = {float(length): _accuracy(_of(done, length)) for length in lengths}
    frame = Frame(
        "passkey_accuracy",
        "Key found, by length of the prompt",
        "Share of trials whose tokens are exactly the key's. Band: 95 % Wilson interval.",
        x="tokens",
        y="accuracy",
        log_x=True,
        y_range=(0.0, 1.0),
    )
    return [lines_with_intervals(into, frame, {method: line}), _heatmap(done, lengths, into)]


def accuracy_table(records: Sequence[Record]) -> list[str]:
    """The accuracies as lines of text."""
    lengths = sorted({int(str(record.data["length"])) for record in records if _is_trial(record)})
    lines = [f"{'tokens':>8}  {'found':>7}  {'accuracy':>8}  {'95 % interval':<14}  failed"]
    for length in lengths:
        mine = _of(_done(records), length)
        failed = len(_of([r for r in records if _is_trial(r)], length)) - len(mine)
        right = sum(bool(record.data["correct"]) for record in mine)
        share = wilson(right, len(mine))
        value = "-" if math.isnan(share.value) else f"{share.value:.2f}"
        span = f"{share.lo:.2f} to {share.hi:.2f}"
        lines.append(
            f"{length:>8}  {f'{right}/{len(mine)}':>7}  {value:>8}  {span:<14}  {failed:>6}"
        )
    return lines


def _heatmap(done: Sequence[Record], lengths: Sequence[int], into: Path) -> Figure:
    bins = int(str(done[0].data["depth_bins"]))
    cells = [
        [_mean([r for r in _of(done, length) if r.data["depth_bin"] == row]) for length in lengths]
        for row in range(bins)
    ]
    frame = Frame(
        "passkey_depth",
        "Key found, by depth and length",
        "Share of trials whose tokens are exactly the key's. Blank: no trial fell there.",
        x="tokens",
        y="depth of the key",
        y_range=(0.0, 1.0),
    )
    rows = [f"{row / bins:.0%} to {(row + 1) / bins:.0%}" for row in range(bins)]
    return heatmap(
        into, frame, rows=rows, columns=[str(length) for length in lengths], values=cells
    )


def _is_trial(record: Record) -> bool:
    return record.id.startswith(PREFIX)


def _done(records: Sequence[Record]) -> list[Record]:
    return [record for record in records if _is_trial(record) and record.status == "ok"]


def _of(records: Sequence[Record], length: int) -> list[Record]:
    return [record for record in records if record.data["length"] == length]


def _lengths(records: Sequence[Record]) -> list[int]:
    return sorted({int(str(record.data["length"])) for record in records})


def _accuracy(records: Sequence[Record]) -> Estimate:
    return wilson(sum(bool(record.data["correct"]) for record in records), len(records))


def _mean(records: Sequence[Record]) -> float:
    return _accuracy(records).value if records else math.nan
