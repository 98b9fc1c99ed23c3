"""The scores of one call: tool selection, parameter identification, content filling.

For a gold call (t*, a*) and a predicted one (t, a): TS is t = t*; PI is TS and the same keys; CF is
PI and the same values. A case takes the best of its golds.

    score_call(case, Call("add", {"a": "1"})).cf

Deviation: the official scorer counts an answer with an empty object of arguments as wrong even
where the gold is empty, gives the right tool nothing if its arguments cannot be read, and drops
wildcards from the prediction while it compares. All are mended here; `official` has them as they
are. An answer that names no tool scores 0 in both.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Final, NamedTuple, TypeAlias

from pydantic import JsonValue

from rotbench.cases import ANY_VALUE, Call, Case
from rotbench.predictions import Prediction

__all__ = [
    "FINISH",
    "NO_SCORES",
    "Match",
    "Scores",
    "alike",
    "finish_name",
    "same",
    "score",
    "score_call",
    "special_names",
    "wrong_keys",
]

Match: TypeAlias = Callable[[JsonValue, JsonValue], bool]

FINISH = "finish"
"""What the prompt calls the finishing tool, at every level."""

_NUMERAL = re.compile(r"-?(?:0|[1-9]\d{0,39})(?:\.\d{1,40})?", re.ASCII)


class Scores(NamedTuple):
    """Whether tool, parameters and values are right; each implies the one before."""

    ts: bool
    pi: bool
    cf: bool


NO_SCORES: Final = Scores(ts=False, pi=False, cf=False)


def score(case: Case, prediction: Prediction, *, match: Match | None = None) -> Scores:
    """Scores what was read from an answer; arguments that cannot be read leave the tool's score."""
    if prediction.name is None:
        return NO_SCORES
    if prediction.arguments is None:
        selected = score_call(case, Call(prediction.name, {})).ts
        return Scores(ts=selected, pi=False, cf=False)
    return score_call(case, Call(prediction.name, prediction.arguments), match=match)


def score_call(case: Case, call: Call, *, match: Match | None = None) -> Scores:
    """Scores a call against all golds, each metric at its best.

    A literal `finish` counts as the environment's last tool, whatever that is called there, since
    the prompt goes on to call it so. Source: official scorer.

    Args:
        case: Holds the golds and the environment.
        call: The predicted one.
        match: How values are compared; `same` if not given.
    """
    match = match or same
    ts = pi = False
    finish = finish_name(case)
    for gold in case.golds:
        if gold.name != call.name and not (call.name == FINISH and gold.name == finish):
            continue
        ts = True
        if gold.arguments.keys() == call.arguments.keys():
            pi = True
            if not wrong_keys(case, gold, call.arguments, match):
                return Scores(ts=True, pi=True, cf=True)
    return Scores(ts=ts, pi=pi, cf=False)


def wrong_keys(
    case: Case, gold: Call, arguments: Mapping[str, JsonValue], match: Match
) -> list[str]:
    """Common keys with another value than the gold's.

    A gold value `None` (as text) takes every value, and those of the special tools are free.
    """
    if gold.name in special_names(case):
        return []
    return [
        key
        for key, wanted in gold.arguments.items()
        if key in arguments and wanted != ANY_VALUE and not match(arguments[key], wanted)
    ]


def special_names(case: Case) -> tuple[str, ...]:
    """What the special tools are called here; by their place, since their names change too."""
    return tuple(tool.name for tool in case.tools[len(case.tools) - case.num_special :])


def finish_name(case: Case) -> str | None:
    """What the finishing tool is called here, if there is one."""
    return case.tools[-1].name if case.num_special and case.tools else None


def same(given: JsonValue, wanted: JsonValue) -> bool:
    """Equal as JSON values: 1 is 1.0, but neither is "1" or true.

    Deviation: official code has Python's equality, in which `true` equals 1.
    """
    if isinstance(given, bool) or isinstance(wanted, bool):
        return given is wanted
    if isinstance(given, dict) and isinstance(wanted, dict):
        return given.keys() == wanted.keys() and all(same(given[key], wanted[key]) for key in given)
    if isinstance(given, list) and isinstance(wanted, list):
        return len(given) == len(wanted) and all(map(same, given, wanted))
    return given == wanted


def alike(given: JsonValue, wanted: JsonValue) -> bool:
    """Equal apart from case, surrounding spaces, and numbers or truth written as text."""
    if isinstance(given, dict) and isinstance(wanted, dict):
        return given.keys() == wanted.keys() and all(
            alike(given[key], wanted[key]) for key in given
        )
    if isinstance(given, list) and isinstance(wanted, list):
        return len(given) == len(wanted) and all(map(alike, given, wanted))
    return _plain(given) == _plain(wanted)


def _plain(value: JsonValue) -> object:
    if isinstance(value, bool):
        return str(value).casefold()
    if isinstance(value, int | float):
        value = repr(value)
    if isinstance(value, str):
        text = value.strip().casefold()
        return Decimal(text) if _NUMERAL.fullmatch(text) else text
    return value
