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
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from papercore.errors import ConfigError
from rotbench.cases import HALVES, Call, Case, CaseKey, Half, Level, Schema, Tool
from rotbench.changes import Addendum, Changes, Rename, ToolChange
from rotbench.config import NoiseRules
from rotbench.extras import recased, reordered, with_typos
from rotbench.operators import (
    Draw,
    Operator,
    below,
    bound,
    made_up,
    num_edits,
    sample,
    shuffled,
    slightly,
)
from rotbench.operators import medium as medium_name
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

_DRAWN: tuple[Level, ...] = ("slight", "medium", "heavy")
_TRIES = 50
"""Redraws of a name that is taken, before a longer one is made up."""
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
    if "order" in rules.extra:
        case = reordered(case, _draw(seed, case.key, level, half, "order"))
    work = _Work(case, rules, _draw(seed, case.key, level, half))
    drawn: tuple[Level, ...] = ()
    if level == "union":
        drawn = (_DRAWN[below(work.draw, 3)],)
        work.disturb_tools(drawn[0])
        drawn = (drawn[0], _DRAWN[below(work.draw, 3)])
        work.disturb_parameters(drawn[1])
    elif half == "tool":
        work.disturb_tools(level)
    else:
        work.disturb_parameters(level)
    if "casing" in rules.extra:
        work.recase(half)
    noised = work.result(level, half, drawn)
    if "description" in rules.extra:
        draw = _draw(seed, case.key, level, half, "description")
        tools = tuple(with_typos(tool, draw) for tool in noised.case.tools)
        noised = replace(noised, case=replace(noised.case, tools=tools))
    return noised


def _draw(seed: int, key: CaseKey, level: Level, half: Half, purpose: str = "") -> Draw:
    """The random numbers of one disturbed case."""
    name = f"rotbench.noise/{seed}/{key}/{level}/{half}{purpose}".encode()
    return random.Random(int.from_bytes(hashlib.sha256(name).digest()[:16])).random


def _same(tool: Tool) -> ToolChange:
    return ToolChange(tool.name, tool.name)


class _Work:
    """One case while it is being disturbed. Tools are known by their place."""

    def __init__(self, case: Case, rules: NoiseRules, draw: Draw) -> None:
        self.case = case
        self.rules = rules
        self.draw = draw
        self.strict = rules.mode == "strict"
        self.golds = case.golds if self.strict else case.golds[:1]
        self.names = [tool.name for tool in case.tools]
        self.operators: list[Operator | None] = [None] * len(self.names)
        self.renames: list[tuple[Rename, ...]] = [()] * len(self.names)
        self.added: list[Addendum | None] = [None] * len(self.names)
        self.collisions = 0

    # tools

    def disturb_tools(self, level: Level) -> None:
        """New names for tools. In strict mode, tools that share a name go on sharing one."""
        old = list(dict.fromkeys(self.names)) if self.strict else self.names
        last = {name: place for place, name in enumerate(old)}
        must = {last[call.name] for call in self.golds if call.name in last}
        new = list(old)
        operators: list[Operator | None] = [None] * len(old)
        if level == "heavy":
            new, operators = self._exchange_tools(old, must)
        else:
            chosen = {*sample(self.draw, len(old), bound(len(old), self.rules.share)), *must}
            surely = {old[place] for place in must}
            longest = self.rules.nonsense_tool
            for place, name, operator in self._rename(old, chosen, surely, level, longest, ()):
                new[place], operators[place] = name, operator
        if self.strict:
            places = [last[name] for name in self.names]
            self.operators = [operators[place] for place in places]
            self.names = [new[place] for place in places]
        else:
            self.collisions += max(0, len(last) - len(set(new))) + new.count("") - old.count("")
            self.names, self.operators = new, operators

    def _exchange_tools(
        self, old: list[str], must: Collection[int]
    ) -> tuple[list[str], list[Operator | None]]:
        if len(set(old)) < 2:
            return old, [None] * len(old)
        new = shuffled(self.draw, old)
        while any(new[place] == old[place] for place in must):
            new = shuffled(self.draw, old)
        return new, ["exchange" if a != b else None for a, b in zip(old, new, strict=True)]

    # parameters

    def disturb_parameters(self, level: Level) -> None:
        """New names for the parameters of all but the special tools."""
        num_real = max(0, len(self.case.tools) - self.case.num_special)
        keys = self._gold_keys()
        if level == "heavy":
            chosen = set(sample(self.draw, num_real, bound(num_real, self.rules.share)))
            for place in range(num_real):
                if place in chosen or place in keys:
                    self._disturb_heavily(place, keys.get(place, ()))
            return
        anywhere = frozenset(key for call in self.golds for key in call.arguments)
        for place in range(num_real):
            old = list(self.case.tools[place].parameters)
            if old:
                self._disturb_lightly(place, old, keys.get(place, ()), level, anywhere)

    def _gold_keys(self) -> dict[int, Sequence[Call]]:
        """Place of a tool that a gold calls -> these golds."""
        found: dict[int, list[Call]] = {}
        last = {tool.name: place for place, tool in enumerate(self.case.tools)}
        for call in self.golds:
            if self.strict:
                places = [i for i, tool in enumerate(self.case.tools) if tool.name == call.name]
            else:
                places = [last[call.name]] if call.name in last else []
            for place in places:
                found.setdefault(place, []).append(call)
        return dict(found)

    def _disturb_lightly(
        self,
        place: int,
        old: list[str],
        golds: Sequence[Call],
        level: Level,
        anywhere: Collection[str],
    ) -> None:
        keys = {key for call in golds for key in call.arguments} if golds else frozenset[str]()
        chosen: Collection[int] = sample(self.draw, len(old), bound(len(old), self.rules.share))
        if keys:
            chosen = {*chosen, *(i for i, name in enumerate(old) if name in keys)}
        longest = self.rules.nonsense_parameter
        renamed = self._rename(old, chosen, anywhere, level, longest, keys)
        self.renames[place] = tuple([Rename(old[i], name, kind) for i, name, kind in renamed])
        if not self.strict:
            new = list(old)
            for i, name, _ in renamed:
                new[i] = name
            self.collisions += len(old) - len(set(new)) + new.count("") - old.count("")

    def _disturb_heavily(self, place: int, golds: Sequence[Call]) -> None:
        old = list(self.case.tools[place].parameters)
        keys = {key for call in golds for key in call.arguments}
        adds = self.draw() < self.rules.addendum or len(old) < 2
        if self.strict and not adds:
            # Exchange would leave a call as it was that gives none of the tool's parameters.
            adds = any(
                not keys_of.intersection(old) for keys_of in (set(g.arguments) for g in golds)
            )
        if adds:
            self._add(place, old, keys)
            return
        must = [i for i, name in enumerate(old) if name in keys]
        new = shuffled(self.draw, old)
        while any(new[i] == old[i] for i in must):
            new = shuffled(self.draw, old)
        self.renames[place] = tuple(
            [Rename(a, b, "exchange") for a, b in zip(old, new, strict=True) if a != b]
        )

    def _add(self, place: int, old: list[str], keys: Collection[str]) -> None:
        rules, draw = self.rules, self.draw
        name = made_up(draw, rules.nonsense_parameter, rules.alphabet)
        if self.strict:
            name = self._free(name, rules.nonsense_parameter, {*old, *keys})
        elif name in old:
            self.collisions += 1
        value = made_up(draw, rules.addendum_value, rules.alphabet)
        self.added[place] = Addendum(name, value)

    # extras

    def recase(self, half: Half) -> None:
        """Other casing for names that were left as they were, unless that name is taken."""
        tools = self.case.tools
        if half != "parameter":
            taken = {*self.names, *(tool.name for tool in tools)}
            for place, tool in enumerate(tools):
                new = recased(tool.name)
                unique = self.names.count(tool.name) == 1
                if self.names[place] == tool.name and unique and new not in taken:
                    taken.add(new)
                    self.names[place], self.operators[place] = new, "casing"
        if half != "tool":
            for place in range(max(0, len(tools) - self.case.num_special)):
                self._recase_parameters(place)

    def _recase_parameters(self, place: int) -> None:
        renames, added = self.renames[place], self.added[place]
        old = self.case.tools[place].parameters
        done = {one.old for one in renames}
        taken = {*old, *(one.new for one in renames), *([added.name] if added else [])}
        more: list[Rename] = []
        for name in old:
            new = recased(name)
            if name not in done and new not in taken:
                taken.add(new)
                more.append(Rename(name, new, "casing"))
        self.renames[place] = (*renames, *more)

    # names

    def _rename(
        self,
        old: list[str],
        chosen: Collection[int],
        surely: Collection[str],
        level: Level,
        longest: int,
        others: Collection[str],
    ) -> list[tuple[int, str, Operator]]:
        """Place, new name and operator of what changed; strict: none of `old`, `others` or twice.

        Args:
            old: The names.
            chosen: Places of those to change.
            surely: Names that slight edits do not pass over.
            level: slight or medium.
            longest: Longest made-up name.
            others: Further names that are taken.
        """
        draw, alphabet = self.draw, self.rules.alphabet
        taken = {*old, *others} if self.strict else None
        renamed: list[tuple[int, str, Operator]] = []
        for place in sorted(chosen):
            name = old[place]
            if not name:
                continue
            operator: Operator
            if level == "medium":
                new, operator = medium_name(draw, name, longest, alphabet)
                if taken is not None and new in taken:
                    new, operator = self._free(new, longest, taken), "nonsense"
            else:
                edits = num_edits(draw, len(name), self.rules.edits, surely=name in surely)
                if not edits:
                    continue
                new, operator = slightly(draw, name, edits, alphabet)
                if taken is not None and (new in taken or not new):
                    new, operator = self._slightly_free(name, edits, longest, taken)
            if taken is not None:
                taken.add(new)
            if new != name:
                renamed.append((place, new, operator))
        return renamed

    def _slightly_free(
        self, name: str, edits: int, longest: int, taken: Collection[str]
    ) -> tuple[str, Operator]:
        for _ in range(_TRIES):
            renamed, operator = slightly(self.draw, name, edits, self.rules.alphabet)
            if renamed and renamed not in taken:
                return renamed, operator
        return self._free("", longest, taken), "nonsense"

    def _free(self, name: str, longest: int, taken: Collection[str]) -> str:
        """The name, or a made-up one that is not taken; it grows until there is one."""
        tries = 0
        while not name or name in taken:
            name = made_up(self.draw, longest + tries // _TRIES, self.rules.alphabet)
            tries += 1
        return name

    # the end

    def result(self, level: Level, half: Half, drawn: tuple[Level, ...]) -> Noised:
        """The disturbed case."""
        case = self.case
        changes = Changes(
            level,
            half,
            tuple(
                [
                    ToolChange(tool.name, name, operator, renames, added)
                    for tool, name, operator, renames, added in zip(
                        case.tools,
                        self.names,
                        self.operators,
                        self.renames,
                        self.added,
                        strict=True,
                    )
                ]
            ),
            drawn,
            self.collisions,
        )
        key = case.key
        noisy = Case(
            key=CaseKey(key.turn, level, half, key.index),
            query=case.query,
            scenario=case.scenario,
            preamble=case.preamble,
            tools=tuple(
                [_tool(tool, one) for tool, one in zip(case.tools, changes.tools, strict=True)]
            ),
            closing=case.closing,
            steps=rename_steps(case.steps, changes, plain=not self.strict),
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
