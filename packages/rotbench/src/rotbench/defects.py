"""What is wrong with a set of cases: found by looking, not by trusting a list.

    for kind, found in by_kind(defects(cases)).items(): ...

A defect does not stop a case from being used: the scores that it bends are what one must know.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

from rotbench.cases import Call, Case, CaseKey, Tool

__all__ = ["KINDS", "Defect", "DefectKind", "defects", "table"]

DefectKind: TypeAlias = Literal[
    "duplicate tools",
    "empty name",
    "lost parameter",
    "unknown gold tool",
    "unknown gold key",
    "missing required key",
    "only empty golds",
    "nothing disturbed",
]
KINDS: tuple[DefectKind, ...] = get_args(DefectKind)


@dataclass(frozen=True, slots=True)
class Defect:
    """One defect of one case."""

    kind: DefectKind
    key: CaseKey
    detail: str


def defects(cases: Iterable[Case]) -> list[Defect]:
    """All defects, in the order of the cases."""
    return [Defect(kind, case.key, detail) for case in cases for kind, detail in _of(case)]


def table(found: Iterable[Defect]) -> dict[tuple[str, DefectKind], int]:
    """(turn/level, kind) -> number of cases that have it."""
    cases = {(f"{one.key.turn}/{one.key.level}", one.kind, one.key) for one in found}
    return dict(Counter((file, kind) for file, kind, _ in cases))


def _of(case: Case) -> Iterator[tuple[DefectKind, str]]:
    names = Counter(tool.name for tool in case.tools)
    for name, number in names.items():
        if number > 1:
            yield "duplicate tools", f"{number} tools are called {name!r}"
    if any(not tool.name or "" in tool.parameters for tool in case.tools):
        yield "empty name", "a tool or a parameter has no name"
    yield from _golds(case)
    if case.origin is not None:
        yield from _against(case, case.origin)


def _golds(case: Case) -> Iterator[tuple[DefectKind, str]]:
    for call in case.golds:
        tools = [tool for tool in case.tools if tool.name == call.name]
        if not tools:
            yield "unknown gold tool", f"there is no tool {call.name!r}"
            continue
        unknown, missing = min((_keys(call, tool) for tool in tools), key=lambda two: len(two[0]))
        if unknown:
            yield "unknown gold key", f"{call.name!r} has no {', '.join(map(repr, unknown))}"
        if missing:
            yield "missing required key", f"{call.name!r} needs {', '.join(map(repr, missing))}"
    if all(not call.arguments for call in case.golds):
        yield "only empty golds", "the official scorer never accepts an empty object"


def _keys(call: Call, tool: Tool) -> tuple[Sequence[str], Sequence[str]]:
    unknown = [key for key in call.arguments if key not in tool.parameters]
    missing = [key for key in tool.required if key not in call.arguments]
    return unknown, missing


def _against(case: Case, origin: Case) -> Iterator[tuple[DefectKind, str]]:
    for before, after in zip(origin.tools, case.tools, strict=True):
        if len(after.parameters) < len(before.parameters):
            yield "lost parameter", f"{before.name!r} has fewer parameters than it had"
    if case.tools == origin.tools:
        yield "nothing disturbed", "its tools are those of the clean case"
