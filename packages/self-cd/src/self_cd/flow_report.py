"""What the records of `self-cd attribute` come to: flow by layer, perplexity. No torch here."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray

from papercore.claims import Estimate
from papercore.plots import Figure, Frame, heatmap, lines_with_intervals
from papercore.records import Record
from papercore.stats import bootstrap, bootstrap_mean
from papercore.tables import Table
from self_cd.analysis_ids import CONTEXTS, FLOW, PPL, Context
from self_cd.items import SIDES, Side
from self_cd.trace_report import label

__all__ = ["attribution_lines", "figures", "summarise", "tables"]

SHOWN = {"plain": "plain", "safety": "safety prompt"}
MAX_TOKENS = 14
"""Tokens that a heat map has room for."""
MAX_LAYERS = 40
MAX_TICKS = 16


def summarise(records: Sequence[Record]) -> dict[str, Estimate]:
    """Flow of the focus words and perplexity of the refusal.

    `flow_share_<side>_<context>_layer<l>` is the focus word's share of the flow from the question's
    tokens to the last token of the prompt, `flow_focus_<side>_<context>` and `flow_others_...` the
    mean flow from a token over all layers, `refusal_ppl_<context>` the perplexity of the refusal,
    and `refusal_ppl_<side>_<context>` that behind questions of one side.
    """
    found: dict[str, Estimate] = {}
    for side in SIDES:
        for context in CONTEXTS:
            if group := _group(records, side, context):
                for layer in range(_num_layers(group)):
                    name = f"flow_share_{side}_{context}_layer{layer}"
                    found[name] = _mean(group, "share", layer)
                for key in ("focus", "others"):
                    found[f"flow_{key}_{side}_{context}"] = _mean(group, key, None)
    return found | _perplexities(records)


def figures(records: Sequence[Record], into: Path) -> list[Figure]:
    """Flow and share by layer of both sides and contexts, and one question token by token."""
    drawn = [
        _by_layer(
            into,
            records,
            "focus",
            Frame(
                "attribution",
                "Information flow from the focus word to the last prompt token",
                "Mean over the focus word's tokens of |sum over heads of attention times "
                "gradient|. An answer that the model is sure of has little flow. "
                "Bands: 95 % bootstrap intervals over questions.",
                x="layer",
                y="flow",
            ),
        ),
        _by_layer(
            into,
            records,
            "share",
            Frame(
                "attribution_share",
                "Share of the focus word in the flow from the question",
                "Flow from the focus word's tokens, of that from all tokens of the question to the "
                "last prompt token. Bands: 95 % bootstrap intervals over questions.",
                x="layer",
                y="share",
                y_range=(0.0, 1.0),
            ),
        ),
    ]
    return [figure for figure in drawn if figure is not None] + _maps(records, into)


def _by_layer(into: Path, records: Sequence[Record], key: str, frame: Frame) -> Figure | None:
    series: dict[str, dict[float, Estimate]] = {}
    for side in SIDES:
        for context in CONTEXTS:
            if group := _group(records, side, context):
                series[f"{side}, {SHOWN[context]}"] = {
                    float(layer): _mean(group, key, layer) for layer in range(_num_layers(group))
                }
    if not series:
        return None
    num_layers = max(len(points) for points in series.values())
    gap = -(-num_layers // MAX_TICKS)
    names = [str(layer) if layer % gap == 0 else "" for layer in range(num_layers)]
    return lines_with_intervals(into, replace(frame, x_names=names), series)


def tables(records: Sequence[Record]) -> list[Table]:
    """Flow and perplexity by side and context."""
    rows = [
        row
        for side in SIDES
        for context in CONTEXTS
        if (row := _row(records, side, context)) is not None
    ]
    if not rows:
        return []
    header = (
        "side",
        "context",
        "questions",
        "without focus",
        "failed",
        "focus flow",
        "other flow",
        "focus share",
        "refusal perplexity",
    )
    caption = (
        "Flow from a token to the last prompt token, mean over layers. Questions without a focus "
        "word have no flow; failed ones count nowhere."
    )
    return [Table("attribution", "Flow and perplexity", caption, header, rows)]


def attribution_lines(records: Sequence[Record]) -> list[str]:
    """The table as lines of text."""
    found = tables(records)
    if not found:
        return ["nothing was measured"]
    rows = [
        [f"{cell:.4g}" if isinstance(cell, float) else str(cell) for cell in row]
        for row in (found[0].header, *found[0].rows)
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def _group(records: Sequence[Record], side: Side, context: Context) -> list[Record]:
    """Flows of one side in one context."""
    return [one for one in _of(records, FLOW, side, context) if one.status == "ok"]


def _of(
    records: Sequence[Record], prefix: str, side: Side | None, context: Context
) -> list[Record]:
    return [
        one
        for one in records
        if one.id.startswith(prefix)
        and one.data.get("context") == context
        and side in (None, one.data["side"])
    ]


def _num_layers(group: Sequence[Record]) -> int:
    return min(len(_list(one, "focus")) for one in group)


def _mean(group: Sequence[Record], key: str, layer: int | None) -> Estimate:
    """Mean over questions, of one layer or of all; questions without such tokens are left out."""
    values = [
        _list(one, key)[layer] if layer is not None else float(np.mean(_list(one, key)))
        for one in group
    ]
    return bootstrap_mean([value for value in values if math.isfinite(value)])


def _list(record: Record, key: str) -> list[float]:
    return cast("list[float]", record.data[key])


def _perplexities(records: Sequence[Record]) -> dict[str, Estimate]:
    found: dict[str, Estimate] = {}
    for context in CONTEXTS:
        for side in (None, *SIDES):
            estimate = _perplexity(records, side, context)
            if estimate is not None:
                middle = "" if side is None else f"{side}_"
                found[f"refusal_ppl_{middle}{context}"] = estimate
    return found


def _perplexity(records: Sequence[Record], side: Side | None, context: Context) -> Estimate | None:
    """Exp of the mean over all tokens; whole questions are drawn."""
    mine = [one for one in _of(records, PPL, side, context) if one.status == "ok"]
    if not mine:
        return None
    nll = [number for one in mine for number in _list(one, "nll")]
    groups = [one.id for one in mine for _ in _list(one, "nll")]
    return bootstrap(_exp_mean, nll, groups=groups)


def _exp_mean(nll: NDArray[np.float64]) -> float:
    return float(np.exp(nll.mean()))


def _row(
    records: Sequence[Record], side: Side, context: Context
) -> tuple[str | int | float, ...] | None:
    flows = _of(records, FLOW, side, context)
    surprises = _of(records, PPL, side, context)
    if not flows and not surprises:
        return None
    group = _group(records, side, context)
    measures = [
        _mean(group, key, None).value if group else math.nan for key in ("focus", "others", "share")
    ]
    perplexity = _perplexity(records, side, context)
    failed = {one.data["item"] for one in (*flows, *surprises) if one.status == "error"}
    return (
        side,
        SHOWN[context],
        len(group),
        sum(one.status == "skipped" for one in flows),
        len(failed),
        *measures,
        math.nan if perplexity is None else perplexity.value,
    )


def _maps(records: Sequence[Record], into: Path) -> list[Figure]:
    """Token by layer, of the question whose flow was kept token by token."""
    mapped = [one for one in records if one.id.startswith(FLOW) and one.data.get("map") is not None]
    kept = {cast("str", one.data["context"]): one for one in mapped[:2]}
    top = max((max(map(max, rows)) for one in kept.values() if (rows := _rows(one))), default=0.0)
    return [_map(into, context, one, top) for context, one in kept.items()]


def _rows(record: Record) -> list[list[float]]:
    """Layers by tokens, as far as there is room."""
    rows = cast("list[list[float]]", record.data["map"])
    return [row[:MAX_TOKENS] for row in rows[:MAX_LAYERS]]


def _map(into: Path, context: str, record: Record, top: float) -> Figure:
    rows = _rows(record)
    focus = set(cast("list[int]", record.data["focus_places"]))
    texts = cast("list[str]", record.data["tokens"])[:MAX_TOKENS]
    columns = [
        f"{place}{'*' if place in focus else ''} {label(text, 8)}"
        for place, text in enumerate(texts)
    ]
    frame = Frame(
        f"flow_map_{context}",
        f"Flow from the tokens of one question, {SHOWN[context]}",
        "To the last prompt token, by layer. A star marks the focus word.",
        x="token",
        y="layer",
        y_range=(0.0, top or 1.0),
    )
    names = [str(layer) for layer in range(len(rows))]
    return heatmap(into, frame, rows=names, columns=columns, values=rows)
