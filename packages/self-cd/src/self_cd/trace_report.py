"""What the records of a trace come to: a table, a picture, counts. No torch here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeAlias, cast

from pydantic import JsonValue

from papercore.claims import Estimate
from papercore.plots import Figure, Frame, heatmap
from papercore.records import Record
from papercore.stats import exact
from papercore.tables import Table
from self_cd.analysis_ids import TRACE

__all__ = ["figures", "label", "summarise", "tables", "trace_lines"]

MAX_STEPS = 10
"""Tokens that a picture has room for."""
MAX_LABEL = 6
"""Letters of a label, so that labels stand apart."""
NAMES = {"contrast": "contrast", "safety": "safety prompt", "plain": "plain"}
"""The three distributions, as a reader sees them."""

Values: TypeAlias = Mapping[str, JsonValue]


def summarise(records: Sequence[Record]) -> dict[str, Estimate]:
    """Tokens of the answer, and how many are not the best one of a context."""
    found: dict[str, Estimate] = {}
    steps = [step for steps in _by_item(records).values() for step in steps]
    if not steps:
        return found
    found["trace_tokens"] = exact(len(steps), len(steps))
    for name in ("safety", "plain"):
        compared = [step for step in steps if step[f"best_{name}"] is not None]
        changed = sum(step["token"] != step[f"best_{name}"] for step in compared)
        if compared:
            found[f"trace_not_{name}"] = exact(changed, len(compared))
    return found


def figures(records: Sequence[Record], into: Path) -> list[Figure]:
    """Per question, the probability of the chosen token and of the safety prompt's favourite."""
    traces = _by_item(records)
    return [
        _picture(into, "trace" if len(traces) == 1 else f"trace_{number}", steps)
        for number, steps in enumerate(traces.values())
    ]


def tables(records: Sequence[Record]) -> list[Table]:
    """Every token with the favourites of both contexts."""
    rows = [
        (cast("str", step["item"]), *_row(step))
        for steps in _by_item(records).values()
        for step in steps
    ]
    if not rows:
        return []
    caption = (
        "One line per token. p: probability under the contrast, with the safety prompt, without "
        "it. Push: by how much the safety prompt raises the logit of the token."
    )
    return [Table("trace", "Tokens of the answer", caption, ("question", *_HEAD), rows)]


_HEAD = (
    "step",
    "token",
    "alpha",
    "p contrast",
    "p safety",
    "p plain",
    "push",
    "safety prompt's best",
    "plain best",
)


def trace_lines(records: Sequence[Record]) -> list[str]:
    """The table as lines of text, and the answer."""
    lines: list[str] = []
    for steps in _by_item(records).values():
        rows = [_HEAD, *(tuple(_cell(cell) for cell in _row(step)) for step in steps)]
        widths = [max(len(row[column]) for row in rows) for column in range(len(_HEAD))]
        lines += [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in rows
        ]
        lines.append(f"answer: {_printable(str(steps[-1].get('answer', '')))}")
    return lines


def label(text: str, most: int = MAX_LABEL) -> str:
    """A token as a label of a picture: short, in letters that every font has, and no formula."""
    plain = "".join(
        letter
        if letter.isprintable() and ord(letter) < 0x250
        else letter.encode("unicode_escape").decode()
        for letter in text
    )
    short = plain if len(plain) <= most else f"{plain[: most - 2]}.."
    return short.replace("$", "\\$")


def _by_item(records: Sequence[Record]) -> dict[str, list[Values]]:
    found: dict[str, list[Values]] = {}
    for record in records:
        if record.id.startswith(TRACE) and record.status == "ok":
            found.setdefault(cast("str", record.data["item"]), []).append(record.data)
    for steps in found.values():
        steps.sort(key=lambda step: cast("int", step["step"]))
    return found


def _row(step: Values) -> tuple[str | int | float, ...]:
    chosen = _candidate(step, step["token"])
    return (
        cast("int", step["step"]),
        _quoted(cast("str", step["text"])),
        _or_dash(step["alpha"]),
        *(_or_dash(chosen[f"prob_{name}"]) for name in NAMES),
        _or_dash(chosen["push"]),
        _favourite(step, "safety"),
        _favourite(step, "plain"),
    )


def _favourite(step: Values, name: str) -> str:
    best = step[f"best_{name}"]
    if best is None:
        return "-"
    found = _candidate(step, best)
    return f"{_quoted(cast('str', found['text']))} {cast('float', found[f'prob_{name}']):.3f}"


def _candidate(step: Values, token: JsonValue) -> Values:
    candidates = cast("list[Values]", step["candidates"])
    return next(one for one in candidates if one["token"] == token)


def _or_dash(value: JsonValue) -> float | str:
    return "-" if value is None else cast("float", value)


def _cell(value: str | float) -> str:
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def _quoted(text: str) -> str:
    """In quotes, so that spaces show and no cell of a CSV file begins like a formula."""
    return f'"{_printable(text)}"'


def _printable(text: str) -> str:
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode()
        for letter in text
    )


def _picture(into: Path, name: str, steps: Sequence[Values]) -> Figure:
    shown = steps[:MAX_STEPS]
    more = "" if len(shown) == len(steps) else f" The first {len(shown)} of {len(steps)} tokens."
    rows, values = [], []
    for whose, key in (("chosen", "token"), ("safety's best", "best_safety")):
        for under, text in NAMES.items():
            rows.append(f"{whose}: {text}")
            values.append([_prob(step, step[key], under) for step in shown])
    frame = Frame(
        name,
        "Probability of the tokens of an answer",
        "Columns: the tokens of the answer. Rows: the chosen token and the best token with the "
        "safety prompt, each with its probability under the contrast, with the safety prompt and "
        f"without it.{more}",
        x="token",
        y="token: distribution",
        y_range=(0.0, 1.0),
    )
    # numbered, because an answer may have a token twice
    columns = [f"{step['step']} {label(cast('str', step['text']))}" for step in shown]
    return heatmap(into, frame, rows=rows, columns=columns, values=values)


def _prob(step: Values, token: JsonValue, under: str) -> float:
    if token is None:
        return float("nan")
    found = _candidate(step, token)[f"prob_{under}"]
    return float("nan") if found is None else cast("float", found)
