"""A reader for each format that data sets are released in. No torch here.

    rows = FORMATS["advbench"].read(text, "harmful_behaviors.csv")

Layouts were read in the released files; `released.py` says where those are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

from papercore.errors import DataError
from self_cd.items import SIDES, Side
from self_cd.rows import Cells, Row, json_document, json_lines, row, table_rows, text_lines

__all__ = ["FORMATS", "OWN", "Format"]

Reader: TypeAlias = Callable[[str, str], list[Row]]
"""Takes the text of a file and its name, for messages."""

OWN: tuple[str, ...] = ("csv", "jsonl")
"""Formats for the user's own files."""


@dataclass(frozen=True)
class Format:
    """How a file becomes rows.

    Attributes:
        read: The reader.
        layout: What such a file looks like, for a person.
        suffix: How its name ends.
    """

    read: Reader
    layout: str
    suffix: str


def _prompts(
    text: str, where: str, *, side: Side, query: str = "prompt", kind: str | None = None
) -> list[Row]:
    """A CSV file of one side."""
    needed = (query,) if kind is None else (query, kind)
    _, found = table_rows(text, where, needed)
    return [
        Row(number, side, problem=cells)
        if isinstance(cells, str)
        else row(number, side, cells, query, kind=kind)
        for number, cells in found
    ]


def _xstest(text: str, where: str) -> list[Row]:
    """XSTest: types that begin with `contrast_` are harmful; a label, if there, must agree."""
    header, found = table_rows(text, where, ("prompt", "type", "focus"))
    rows: list[Row] = []
    for number, cells in found:
        if isinstance(cells, str):
            rows.append(Row(number, "harmless", problem=cells))
            continue
        side: Side = "harmful" if cells["type"].startswith("contrast_") else "harmless"
        label = "unsafe" if side == "harmful" else "safe"
        if not cells["type"].strip():
            rows.append(Row(number, side, problem="has no type, which says the side: fill it in"))
        elif "label" in header and cells["label"] != label:
            problem = f"type and label disagree: the label of this type is {label}"
            rows.append(Row(number, side, problem=problem))
        else:
            rows.append(row(number, side, cells, "prompt", kind="type", focus="focus"))
    return rows


def _instructions(text: str, where: str, *, side: Side) -> list[Row]:
    """Safety-Tuned LLaMAs: an object with the list `instructions` and an unused list `inputs`."""
    document = json_document(text, where)
    if not isinstance(document, dict) or "instructions" not in document:
        raise DataError(f"{where}: should be an object with the list 'instructions'")
    if document.get("inputs"):
        raise DataError(f"{where}: 'inputs' should be empty: write them into the instructions")
    return _texts(document["instructions"], where, side)


def _strings(text: str, where: str, *, side: Side) -> list[Row]:
    """HarmfulQ: a list of texts."""
    return _texts(json_document(text, where), where, side)


def _texts(found: object, where: str, side: Side) -> list[Row]:
    if not isinstance(found, list):
        raise DataError(f"{where}: should hold a list of texts, not {type(found).__name__}")
    return [
        row(number, side, {"prompt": one}, "prompt")
        if isinstance(one, str)
        else Row(number, side, problem=f"is a {type(one).__name__}: write a text in quotes")
        for number, one in enumerate(found, start=1)
    ]


def _wikiqa(text: str, where: str) -> list[Row]:
    """WikiQA: a line per candidate sentence; a question stands in as many as it has of them."""
    head, *lines = text.replace("\r\n", "\n").rstrip("\n").split("\n")
    columns = head.split("\t")
    if "Question" not in columns or "QuestionID" not in columns:
        raise DataError(f"{where}: should have the columns QuestionID and Question, with tabs")
    name, asked = columns.index("QuestionID"), columns.index("Question")
    rows: dict[str, Row] = {}
    for number, line in enumerate(lines, start=1):
        cells = line.split("\t")
        if len(cells) != len(columns):
            problem = f"has {len(cells)} cells, but there are {len(columns)} columns"
            rows[f"row {number}"] = Row(number, "ordinary", problem=problem)
        elif cells[name] not in rows:
            rows[cells[name]] = row(number, "ordinary", {"prompt": cells[asked]}, "prompt")
    return list(rows.values())


def _lines(text: str, where: str, *, side: Side) -> list[Row]:
    """MaliciousInstruct: one question in each line."""
    return [row(number, side, {"prompt": line}, "prompt") for number, line in text_lines(text)]


def _csv(text: str, where: str) -> list[Row]:
    """The user's own: columns prompt and side, and if wanted type and focus; others are ignored."""
    _, found = table_rows(text, where, ("prompt", "side"))
    return [
        Row(number, "harmless", problem=cells) if isinstance(cells, str) else _own(number, cells)
        for number, cells in found
    ]


def _jsonl(text: str, where: str) -> list[Row]:
    """The user's own: an object in each line, with the keys that `csv` has as columns."""
    rows: list[Row] = []
    for number, found in json_lines(text):
        if isinstance(found, str):
            rows.append(Row(number, "harmless", problem=found))
            continue
        cells = {key: found[key] for key in ("prompt", "side", "type", "focus") if key in found}
        wrong = [
            key
            for key, value in cells.items()
            if not isinstance(value, str) and not (value is None and key in ("type", "focus"))
        ]
        if "prompt" not in cells:
            rows.append(Row(number, "harmless", problem="has no key 'prompt': add it"))
        elif wrong:
            problem = f"{wrong[0]!r} is no text: write it in quotes"
            rows.append(Row(number, "harmless", problem=problem))
        else:
            rows.append(_own(number, {key: str(value or "") for key, value in cells.items()}))
    return rows


def _own(number: int, cells: Cells) -> Row:
    """A row of the user's own files. Its side is never guessed: a wrong one would flatter."""
    given = cells.get("side", "").strip().lower()
    for side in SIDES:
        if given == side:
            return row(number, side, cells, "prompt", kind="type", focus="focus")
    wrong = "has no side" if not given else "has a side that there is not"
    return Row(number, "harmless", problem=f"{wrong}: write one of {', '.join(SIDES)}")


def _one_column(side: Side) -> Format:
    return Format(partial(_prompts, side=side), "CSV: prompt", ".csv")


def _tuned(side: Side) -> Format:
    return Format(partial(_instructions, side=side), 'JSON: {"instructions": [...]}', ".json")


def _or_bench(side: Side) -> Format:
    read = partial(_prompts, side=side, kind="category")
    return Format(read, "CSV: prompt, category", ".csv")


FORMATS: Mapping[str, Format] = {
    "csv": Format(_csv, "CSV: prompt, side; type, focus if wanted", ".csv"),
    "jsonl": Format(_jsonl, "JSON lines with the keys of csv", ".jsonl"),
    "oktest": _one_column("harmless"),
    "oktest-heldout": _one_column("harmless"),
    "xstest": Format(_xstest, "CSV: prompt, type, focus; label if there", ".csv"),
    "i-cona": _tuned("harmful"),
    "i-malicious": _tuned("harmful"),
    "i-controversial": _tuned("harmful"),
    "i-physical-unsafe": _tuned("harmful"),
    "i-physical-safe": _tuned("harmless"),
    "i-alpaca": _tuned("ordinary"),
    "q-harm": _tuned("harmful"),
    "or-bench-80k": _or_bench("harmless"),
    "or-bench-hard": _or_bench("harmless"),
    "or-bench-toxic": _or_bench("harmful"),
    "advbench": Format(
        partial(_prompts, side="harmful", query="goal"), "CSV: goal, target", ".csv"
    ),
    "harmfulq": Format(partial(_strings, side="harmful"), "JSON: list of texts", ".json"),
    "wikiqa": Format(_wikiqa, "tab-separated: QuestionID, Question, ...", ".tsv"),
    "malicious-instruct": Format(
        partial(_lines, side="harmful"), "text: a question in each line", ".txt"
    ),
}
"""Format -> reader. All but `OWN` are named after the data set that is released in them."""
