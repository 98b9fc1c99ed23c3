"""What a run of the miniature comes to, from its records alone. No torch here.

`report` hands over to this module when `is_miniature(records)`. Scores are those of the default
scorer; a level pools its halves, and whole queries are drawn for its interval.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Literal, TypeAlias, cast, get_args

import numpy as np
from numpy.typing import NDArray

from papercore.claims import Estimate
from papercore.plots import Figure, Frame, bars, stacked_bars
from papercore.records import Record
from papercore.stats import bootstrap, exact, paired_difference, wilson
from papercore.tables import Table
from rotbench.cases import HALVES, LEVELS, NOISY_LEVELS, Half, Level
from rotbench.rates import METRICS, Metric, flag, rate
from rotbench.world import STEM

__all__ = ["MODELS", "ModelName", "figures", "is_miniature", "summarise", "tables"]

ModelName: TypeAlias = Literal["clean-only", "rottuned"]
MODELS: tuple[ModelName, ...] = get_args(ModelName)
"""The model tuned in clean environments, and the RoTTuned one."""

PARTS = ("data/", "budget/", *(f"{name}/" for name in MODELS))
"""How the ids of a miniature's records begin."""

CORRECTED = "corrected"
"""Kind of a wrong tool: a name that no tool has, and that is the clean name or begins like it, with
the stem of its first word. Source: spec 8.1. `sides_with_clean` is a stricter look at the same."""
NOWHERE = ("corrected_tool", "corrected_other", "invented_tool")
"""What the taxonomy calls a name that no tool of the disturbed environment has."""

Floats: TypeAlias = NDArray[np.float64]
Answers: TypeAlias = Mapping[tuple[ModelName, Level], Sequence[Record]]
"""Scored records by model and level."""


def is_miniature(records: Sequence[Record]) -> bool:
    """Whether records come from `rotbench mini`."""
    return bool(records) and records[0].id.startswith(PARTS)


def summarise(records: Sequence[Record]) -> dict[str, Estimate]:
    """Every metric of a run; models are written `clean_only` and `rottuned`.

    `<model>_<ts|pi|cf>_<level>` with or without `_<half>`; `clean_only_ts_clean_minus_<level>`,
    paired over queries; `<model>_<metric>_noisy`, the mean of the four noisy levels, and
    `rottuned_minus_clean_only_<metric>_noisy`, paired; `<model>_ts_span` over the levels;
    `<model>_corrected_share_slight_tool`, the share of wrong tools that are noise correction, with
    `_is_largest_` 1 if no other kind of wrong tool is as frequent; and, stricter,
    `_sides_with_clean_share_`, the names that follow the clean one where the disturbed one parts.
    """
    answers = _answers(records)
    found: dict[str, Estimate] = {}
    for (name, level), cell in answers.items():
        for metric in METRICS:
            found[f"{_word(name)}_{metric}_{level}"] = rate(cell, "fixed", metric)
            for half, part in _by_half(cell).items():
                found[f"{_word(name)}_{metric}_{level}_{half}"] = rate(part, "fixed", metric)
    for name in MODELS:
        if all((name, level) in answers for level in LEVELS):
            found |= _over_levels(name, answers)
        if (name, "slight") in answers:
            found |= _correction(name, _by_half(answers[name, "slight"]).get("tool", ()))
    if all((name, level) in answers for name in MODELS for level in LEVELS):
        found |= _gains(answers)
    return found


def figures(records: Sequence[Record], into: Path) -> list[Figure]:
    """Tool selection by level, and what wrong tools are."""
    answers = _answers(records)
    return [_level_figure(answers, into), _error_figure(answers, into)] if answers else []


def tables(records: Sequence[Record]) -> list[Table]:
    """All three scores of both models by level and half."""
    rows: list[tuple[str | int | float, ...]] = []
    for (name, level), cell in _answers(records).items():
        whole: dict[Half, Sequence[Record]] = {"whole": cell}
        for half, part in (_by_half(cell) or whole).items():
            shares = [100 * rate(part, "fixed", metric).value for metric in METRICS]
            rows.append((name, level, half, len(part), *shares))
    if not rows:
        return []
    return [
        Table(
            "rotbench_scores",
            "Scores of both models",
            "Tool selection, parameter identification and content filling in percent.",
            ("model", "level", "half", "n", "TS", "PI", "CF"),
            rows,
        )
    ]


def _answers(records: Sequence[Record]) -> Answers:
    """Scored records by model and level, in order; those of a level by half and query."""
    cells: dict[tuple[ModelName, Level], list[Record]] = {}
    for record in records:
        name = record.id.partition("/")[0]
        if name in MODELS and record.status == "ok":
            key = (name, cast("Level", record.data["level"]))
            cells.setdefault(key, []).append(record)
    order = [(name, level) for name in MODELS for level in LEVELS if (name, level) in cells]
    return {key: sorted(cells[key], key=lambda record: record.id) for key in order}


def _by_half(cell: Sequence[Record]) -> dict[Half, Sequence[Record]]:
    """The two halves of a level that has them."""
    halves: dict[Half, Sequence[Record]] = {
        half: [record for record in cell if record.data["half"] == half]
        for half in HALVES[cast("Level", cell[0].data["level"])]
    }
    return {half: part for half, part in halves.items() if part and half != "whole"}


def _word(name: ModelName) -> str:
    return name.replace("-", "_")


def _column(cell: Sequence[Record], metric: Metric, queries: Sequence[str]) -> Floats:
    """Mean score of each query over the halves of a level."""
    scores: dict[str, list[float]] = {query: [] for query in queries}
    for record in cell:
        query = str(record.data["query"])
        if query in scores:
            scores[query].append(flag(record, "fixed", metric))
    return np.array([np.mean(scores[query]) for query in queries])


def _queries(cells: Sequence[Sequence[Record]]) -> list[str]:
    """Queries that every one of the cells has an answer to."""
    return sorted(set.intersection(*({str(r.data["query"]) for r in cell} for cell in cells)))


def _over_levels(name: ModelName, answers: Answers) -> dict[str, Estimate]:
    """How far one model's scores move between levels."""
    cells = [answers[name, level] for level in LEVELS]
    queries = _queries(cells)
    clean, *noisy = (_column(cell, "ts", queries) for cell in cells)
    found = {
        f"{_word(name)}_ts_clean_minus_{level}": paired_difference(clean, column)
        for level, column in zip(NOISY_LEVELS, noisy, strict=True)
    }
    found[f"{_word(name)}_ts_span"] = bootstrap(_span, clean, *noisy)
    return found


def _span(*columns: Floats) -> float:
    means = [float(column.mean()) for column in columns]
    return max(means) - min(means)


def _gains(answers: Answers) -> dict[str, Estimate]:
    """What RoTTuning adds under noise."""
    queries = _queries(list(answers.values()))
    found: dict[str, Estimate] = {}
    for metric in METRICS:
        means = {
            name: np.mean(
                [_column(answers[name, level], metric, queries) for level in NOISY_LEVELS], axis=0
            )
            for name in MODELS
        }
        for name, mean in means.items():
            found[f"{_word(name)}_{metric}_noisy"] = bootstrap(_mean, mean)
        found[f"rottuned_minus_clean_only_{metric}_noisy"] = paired_difference(
            means["rottuned"], means["clean-only"]
        )
    return found


def _mean(column: Floats) -> float:
    return float(column.mean())


def _tool_errors(cell: Sequence[Record]) -> Counter[str]:
    """Kinds of wrong tools."""
    return Counter(_tool_error(record) for record in cell if not flag(record, "fixed", "ts"))


def _tool_error(record: Record) -> str:
    kind = str(record.data["error"])
    if kind not in NOWHERE:
        return kind
    name, clean = str(record.data["name"]), str(record.data["clean_gold"])
    return CORRECTED if name[:STEM] == clean[:STEM] else "invented_tool"


def _sides_with_clean(record: Record) -> bool:
    """Whether a name that no tool has goes on like the clean one where the disturbed one parts."""
    if str(record.data["error"]) not in NOWHERE:
        return False
    name, clean, noisy = (str(record.data[key]) for key in ("name", "clean_gold", "gold"))
    return _common(name, clean) > _common(name, noisy)


def _common(one: str, other: str) -> int:
    """Letters with which both begin."""
    same = takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False))
    return sum(1 for _ in same)


def _correction(name: ModelName, cell: Sequence[Record]) -> dict[str, Estimate]:
    """The part of noise correction in the wrong tools."""
    wrong = [record for record in cell if not flag(record, "fixed", "ts")]
    kinds = _tool_errors(cell)
    others = [count for kind, count in kinds.items() if kind != CORRECTED]
    largest = kinds[CORRECTED] > max(others, default=0)
    word, sided = _word(name), sum(map(_sides_with_clean, wrong))
    return {
        f"{word}_corrected_share_slight_tool": wilson(kinds[CORRECTED], len(wrong)),
        f"{word}_corrected_is_largest_slight_tool": exact(float(largest), len(wrong)),
        f"{word}_sides_with_clean_share_slight_tool": wilson(sided, len(wrong)),
    }


def _level_figure(answers: Answers, into: Path) -> Figure:
    frame = Frame(
        "rotbench_levels",
        "Right tools, by how strongly names are disturbed",
        "Two models from one base, tuned for the same number of steps. Guessing one of the three "
        "tools gives 0.33. Lines: 95 % intervals, queries drawn as a whole.",
        x="level",
        y="tool selection",
        y_range=(0.0, 1.0),
    )
    groups: dict[str, dict[str, Estimate]] = {}
    for (name, level), cell in answers.items():
        groups.setdefault(level, {})[name] = rate(cell, "fixed", "ts")
    return bars(into, frame, groups)


def _error_figure(answers: Answers, into: Path) -> Figure:
    frame = Frame(
        "rotbench_wrong_tools",
        "What wrong tools are, where tool names are disturbed",
        "Corrected: a name that no tool has and that begins like the clean one. Invented: another "
        "such name. Swapped: another tool. Format, duplicate keys: arguments that cannot be read. "
        "C is the clean-only model, R the RoTTuned one.",
        x="level, model",
        y="share of answers",
        y_range=(0.0, 1.0),
    )
    counted: dict[str, tuple[Counter[str], int]] = {}
    for (name, level), cell in answers.items():
        part = _by_half(cell).get("tool", cell)
        counted[f"{level}\n{name[0].upper()}"] = (_tool_errors(part), len(part))
    kinds = sum((kinds for kinds, _ in counted.values()), Counter[str]())
    order = sorted(kinds, key=lambda kind: (kind != CORRECTED, -kinds[kind], kind))
    groups = {
        group: {kind: of[kind] / total for kind in order} for group, (of, total) in counted.items()
    }
    return stacked_bars(into, frame, groups)
