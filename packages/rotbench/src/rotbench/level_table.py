"""The scores of a run as a table for a terminal.

for line in level_lines(records, "fixed"): ...
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import cast

from papercore.claims import Estimate
from papercore.records import Record
from rotbench.cases import LEVELS, TURNS, Level, Turn
from rotbench.rates import METRICS, SCORERS, Scorer, grouped, rate, share
from rotbench.spread import sample_sd, span

__all__ = ["level_lines", "main_error"]

WIDTH = 23


def level_lines(records: Sequence[Record], headline: Scorer = "fixed") -> Iterator[str]:
    """Scores by turn, scorer and level, in percent with 95 % intervals; the headline first."""
    # sorted, so that the drawn intervals do not depend on the order in which answers came
    scored = sorted((r for r in records if r.status == "ok"), key=lambda record: record.id)
    turns = grouped(scored, lambda record: cast("Turn", record.data["turn"]))
    order = sorted(SCORERS, key=lambda scorer: scorer != headline)
    for turn in TURNS:
        for scorer in order if turn in turns else ():
            yield from _block(turn, scorer, turns[turn])
            yield ""


def main_error(records: Sequence[Record]) -> str:
    """The most frequent kind of error and its share of the records; empty if all are right."""
    kinds = Counter(str(r.data["error"]) for r in records if r.data["error"] != "correct")
    if not kinds:
        return ""
    kind, count = min(kinds.items(), key=lambda item: (-item[1], item[0]))
    return f"{kind} {100 * count / len(records):.1f} %"


def _block(turn: str, scorer: Scorer, records: Sequence[Record]) -> Iterator[str]:
    levels = grouped(records, lambda record: cast("Level", record.data["level"]))
    present = [level for level in LEVELS if level in levels]
    yield f"{turn} turn, {scorer} scorer, % [95 % interval]"
    head = "".join(f"{metric.upper():<{WIDTH}}" for metric in METRICS)
    last = "main error" if scorer == "fixed" else ""
    yield f"{'level':<8}{'n':>5}  {head}{'best':<8}{last}".rstrip()
    columns = {m: [rate(levels[level], scorer, m) for level in present] for m in METRICS}
    for place, level in enumerate(present):
        cells = "".join(f"{_percent(columns[m][place]):<{WIDTH}}" for m in METRICS)
        best = share(levels[level], lambda record: _reachable(record, scorer)).value
        error = main_error(levels[level]) if scorer == "fixed" else ""
        line = f"{level:<8}{len(levels[level]):>5}  {cells}{100 * best:<8.2f}{error}"
        yield line.rstrip()
    if len(present) > 1:
        for name, spread in (("sd", sample_sd), ("span", span)):
            cells = "".join(
                f"{100 * spread([e.value for e in columns[m]]):<{WIDTH}.2f}" for m in METRICS
            )
            yield f"{name:<8}{'':>5}  {cells}".rstrip()


def _percent(estimate: Estimate) -> str:
    return f"{100 * estimate.value:.2f} [{100 * estimate.lo:.1f}, {100 * estimate.hi:.1f}]"


def _reachable(record: Record, scorer: Scorer) -> bool:
    """Whether a perfect answer would have been right."""
    best = record.data.get("best")
    return bool(best.get(scorer, True)) if isinstance(best, dict) else True
