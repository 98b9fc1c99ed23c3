"""What the noise did to a case that somebody else disturbed: read off from its clean version.

    changes = observed(case)                      # for a released noisy case
    changes.tools[3].operator                     # "omission"

Tools stand at the same places and descriptions never change, so names can be matched by place.
Which operator made a name is known exactly but for union, where a name is judged by its looks.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from rotbench.cases import Case, Half, Level, Tool
from rotbench.changes import Addendum, Changes, Rename, ToolChange
from rotbench.operators import Operator, bound

__all__ = ["observed", "operator_of"]

_QUOTED = re.compile(r'"([^"]*)"[^"]*\Z')
_EDITS = 1 / 3


def observed(case: Case) -> Changes:
    """The changes between a case and its origin; a clean case has none."""
    level, half = case.key.level, case.key.half
    if case.origin is None:
        return Changes(level, half, tuple(ToolChange(t.name, t.name) for t in case.tools))
    pairs = list(zip(case.origin.tools, case.tools, strict=True))
    old, new = [a.name for a, _ in pairs], [b.name for _, b in pairs]
    exchanged = _exchanged(old, new, level, half)
    lost = len(set(old)) - len(set(new)) + new.count("")
    changes: list[ToolChange] = []
    for before, after in pairs:
        renames, added, missing = _parameters(before, after, level, half)
        operator = _operator(before.name, after.name, level, exchanged)
        changes.append(ToolChange(before.name, after.name, operator, renames, added))
        lost += missing
    return Changes(level, half, tuple(changes), collisions=max(0, lost))


def operator_of(old: str, new: str) -> Operator | None:
    """The operator that most likely turned one name into the other, exchange apart."""
    if old == new:
        return None
    if new == old[::-1]:
        return "reversal"
    most = max(1, bound(len(old), _EDITS) - 1)
    if 0 < len(old) - len(new) <= most and _within(new, old):
        return "omission"
    if 0 < len(new) - len(old) <= most and _within(old, new):
        return "insertion"
    if len(old) == len(new) and sum(a != b for a, b in zip(old, new, strict=True)) <= most:
        return "substitution"
    return "nonsense"


def _operator(old: str, new: str, level: Level, exchanged: bool) -> Operator | None:
    if old == new:
        return None
    if exchanged:
        return "exchange"
    if level == "slight":
        return _by_length(old, new)
    if level == "medium":
        return "reversal" if new == old[::-1] else "nonsense"
    return operator_of(old, new)


def _by_length(old: str, new: str) -> Operator:
    if len(new) == len(old):
        return "substitution"
    return "omission" if len(new) < len(old) else "insertion"


def _exchanged(old: Sequence[str], new: Sequence[str], level: Level, half: Half) -> bool:
    """Whether names changed places: the same names before and after."""
    if level == "heavy":
        return True
    return half == "whole" and Counter(old) == Counter(new)


def _parameters(
    before: Tool, after: Tool, level: Level, half: Half
) -> tuple[tuple[Rename, ...], Addendum | None, int]:
    """Renamed parameters, the added one, and how many were lost because two got one name."""
    old, new = list(before.parameters), list(after.parameters)
    texts = [_text(before, name) for name in old]
    kept = [_text(after, name) for name in new]
    added = None
    if len(new) > len(old) and kept[: len(old)] == texts:
        found = _QUOTED.search(kept[-1])
        added = Addendum(new.pop(), found[1] if found else "")
        kept.pop()
    if kept == texts:
        pairs, lost = list(zip(old, new, strict=True)), 0
    else:
        pairs, lost = _matched(
            list(zip(old, texts, strict=True)), list(zip(new, kept, strict=True))
        )
    exchanged = _exchanged(old, new, level, half)
    renames = [
        Rename(a, b, operator)
        for a, b in pairs
        if (operator := _operator(a, b, level, exchanged)) is not None
    ]
    return tuple(renames), added, lost


def _matched(
    old: Sequence[tuple[str, str]], new: Sequence[tuple[str, str]]
) -> tuple[list[tuple[str, str]], int]:
    """Pairs parameters by their descriptions where one overwrote another."""
    pairs: list[tuple[str, str]] = []
    left = list(new)
    for name, text in old:
        match = next((one for one in left if one[1] == text), None)
        if match is not None:
            left.remove(match)
            pairs.append((name, match[0]))
    return pairs, len(old) - len(pairs)


def _text(tool: Tool, name: str) -> str:
    return str(tool.parameters[name].get("description", ""))


def _within(short: str, long: str) -> bool:
    """Whether the letters of one are left when letters of the other are taken out."""
    rest = iter(long)
    return all(letter in rest for letter in short)
