"""New names for the tools and parameters of one environment, level by level.

Paper 2401.08326, section on environments; `noise` puts them into the case.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from rotbench.cases import Call, Case, Half, Level
from rotbench.changes import Addendum, Changes, Rename, ToolChange
from rotbench.config import NoiseRules
from rotbench.extras import recased
from rotbench.operators import (
    Draw,
    Operator,
    bound,
    made_up,
    medium,
    num_edits,
    sample,
    shuffled,
    slightly,
)

__all__ = ["Naming"]

_TRIES = 50
"""Redraws of a name that is taken, before a longer one is made up."""


class Naming:
    """The names of one environment while they are disturbed. Tools are known by their place."""

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
                new, operator = medium(draw, name, longest, alphabet)
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

    def changes(self, level: Level, half: Half, drawn: tuple[Level, ...]) -> Changes:
        """What came out."""
        columns = (self.names, self.operators, self.renames, self.added)
        tools = [
            ToolChange(tool.name, name, operator, renames, added)
            for tool, name, operator, renames, added in zip(self.case.tools, *columns, strict=True)
        ]
        return Changes(level, half, tuple(tools), drawn, self.collisions)
