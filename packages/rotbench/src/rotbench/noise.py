"""Disturbing a case: which names change at a level, and how (paper 2401.08326, environments).

    noised = disturb(case, "slight", "tool", seed=0)
    restore(call, noised.changes)                 # a call of the disturbed case, with its old names

The noise of a case depends on the seed, the case's key, level and half alone, never on its
neighbours, and is the same on every machine and version of Python.

Two modes (`NoiseRules.mode`). `official` has the distributions of the released files.
Deviation: the official generator leaves placeholders in the golds of heavy tool noise and cannot
    read Third_Turn; this one does neither. The text of an added parameter is ours.
`strict`, ours, changes the names of every accepted call (the official one only of the first), gives
no name twice, no old name anew (but for exchange) and none that is empty, so it can be undone.
What no rule can change stays: a call without arguments when parameters are disturbed (but heavy
adds one), the parameters of the special tools, and a gold's key that its tool lacks.
"""

from __future__ import annotations

import hashlib
import random
from dataclasses import dataclass, replace

from papercore.errors import ConfigError
from rotbench.cases import HALVES, Case, CaseKey, Half, Level, Schema, Tool
from rotbench.changes import Addendum, Changes, ToolChange
from rotbench.config import NoiseRules
from rotbench.extras import reordered, with_typos
from rotbench.naming import Naming
from rotbench.operators import Draw, below
from rotbench.rewrite import rename_call, rename_step, rename_steps, restore

__all__ = [
    "DEFAULT_RULES",
    "Changes",
    "Noised",
    "added_schema",
    "disturb",
    "rename_step",
    "restore",
]

DEFAULT_RULES = NoiseRules()

MAX_DRAWS = 32
"""Draws of `strict` noise on tools without an accepted call, none of which has to change, until one
changes a name. A list of one tool has nothing to exchange: it stays as it is."""

_DRAWN: tuple[Level, ...] = ("slight", "medium", "heavy")
_ORDER = 'Always give this parameter, and always set it to "{}".'


@dataclass(frozen=True, slots=True)
class Noised:
    """A disturbed case, and what was done to it."""

    case: Case
    changes: Changes


def disturb(
    case: Case, level: Level, half: Half, *, seed: int = 0, rules: NoiseRules = DEFAULT_RULES
) -> Noised:
    """Disturbs the names of a clean case.

    Args:
        case: A clean case.
        level: How strongly; `clean` leaves the case as it is.
        half: Whose names: one of `HALVES[level]`.
        seed: Another seed gives another disturbed version.
        rules: How.

    Raises:
        ConfigError: The level has no such half, or the case is disturbed already.
    """
    if half not in HALVES.get(level, ()):
        raise ConfigError(f"level {level!r} has no half {half!r}: see rotbench.cases.HALVES")
    if case.origin is not None:
        raise ConfigError(f"case {case.key} is disturbed already: disturb its .clean")
    if level == "clean":
        return Noised(case, Changes(level, half, tuple(_same(tool) for tool in case.tools)))
    noised = _drawn(case, level, half, seed, rules)
    if rules.mode == "official" or case.golds:
        return noised
    for attempt in range(1, MAX_DRAWS):
        if _renames(noised.changes):
            break
        noised = _drawn(case, level, half, seed, rules, f"/{attempt}")
    return noised


def _drawn(
    case: Case, level: Level, half: Half, seed: int, rules: NoiseRules, attempt: str = ""
) -> Noised:
    """One draw of the noise."""
    if "order" in rules.extra:
        case = reordered(case, _draw(seed, case.key, level, half, "order"))
    naming = Naming(case, rules, _draw(seed, case.key, level, half, attempt))
    drawn: tuple[Level, ...] = ()
    if level == "union":
        drawn = (_DRAWN[below(naming.draw, 3)],)
        naming.disturb_tools(drawn[0])
        drawn = (drawn[0], _DRAWN[below(naming.draw, 3)])
        naming.disturb_parameters(drawn[1])
    elif half == "tool":
        naming.disturb_tools(level)
    else:
        naming.disturb_parameters(level)
    if "casing" in rules.extra:
        naming.recase(half)
    noised = _applied(case, naming.changes(level, half, drawn), plain=not naming.strict)
    if "description" in rules.extra:
        draw = _draw(seed, case.key, level, half, "description")
        tools = tuple(
            with_typos(tool, draw, spared=change.addendum and change.addendum.name)
            for tool, change in zip(noised.case.tools, noised.changes.tools, strict=True)
        )
        noised = replace(noised, case=replace(noised.case, tools=tools))
    return noised


def _renames(changes: Changes) -> bool:
    """Whether any name is another one, or new."""
    return any(
        tool.new != tool.old or tool.addendum or any(one.new != one.old for one in tool.parameters)
        for tool in changes.tools
    )


def _draw(seed: int, key: CaseKey, level: Level, half: Half, purpose: str = "") -> Draw:
    """The random numbers of one disturbed case."""
    name = f"rotbench.noise/{seed}/{key}/{level}/{half}{purpose}".encode()
    return random.Random(int.from_bytes(hashlib.sha256(name).digest()[:16])).random


def _same(tool: Tool) -> ToolChange:
    return ToolChange(tool.name, tool.name)


def _applied(case: Case, changes: Changes, *, plain: bool) -> Noised:
    """The case with its new names."""
    key = case.key
    noisy = Case(
        key=CaseKey(key.turn, changes.level, changes.half, key.index),
        query=case.query,
        scenario=case.scenario,
        preamble=case.preamble,
        tools=tuple(
            [_tool(tool, one) for tool, one in zip(case.tools, changes.tools, strict=True)]
        ),
        closing=case.closing,
        steps=rename_steps(case.steps, changes, plain=plain),
        golds=tuple([rename_call(call, changes) for call in case.golds]),
        origin=case,
        num_special=case.num_special,
    )
    return Noised(noisy, changes)


def added_schema(addendum: Addendum) -> Schema:
    """Schema of a parameter that was added; its description orders its value."""
    return {"type": "string", "description": _ORDER.format(addendum.value)}


def _tool(tool: Tool, change: ToolChange) -> Tool:
    """The tool as the disturbed environment shows it; definitions and descriptions stay."""
    if not change.parameters and change.addendum is None:
        return tool if change.new == tool.name else _renamed(tool, change.new)
    names = {rename.old: rename.new for rename in change.parameters}
    parameters: dict[str, Schema] = {
        names.get(name, name): schema for name, schema in tool.parameters.items()
    }
    required = tuple([names.get(name, name) for name in tool.required])
    if change.addendum is not None:
        parameters[change.addendum.name] = added_schema(change.addendum)
        required = (*required, change.addendum.name)
    return Tool(change.new, tool.description, parameters, required)


def _renamed(tool: Tool, name: str) -> Tool:
    return Tool(name, tool.description, tool.parameters, tool.required)
