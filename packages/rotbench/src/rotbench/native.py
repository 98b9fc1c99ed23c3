"""Tools as a model's own tool calls: legal names to send, and the calls that come back.

    toolbox = Toolbox.of(case.tools)
    Request(..., tools=toolbox.specs)
    toolbox.restored(("web_search_2", '{"q": "x"}'))  # with the case's own names again

APIs refuse names that are empty, long, odd or there twice; noise makes all four. Such a name gets
an alias here and its own name back before anything is scored. An alias says a little more than the
name did, so aliasing removes part of the noise: how many there were is recorded with each case.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from pydantic import JsonValue

from papercore.generate.types import ToolSpec
from rotbench.cases import Tool

__all__ = ["Pairs", "RawCall", "Toolbox", "legal_names", "written"]

RawCall: TypeAlias = tuple[str, str]
"""A call as it was written: name, and arguments meant as a JSON object."""

MAX_NAME = 64
"""Source: OpenAI's API reference, names of functions; others allow as much or more."""

_LEGAL = re.compile(rf"[A-Za-z0-9_-]{{1,{MAX_NAME}}}")
_ODD = re.compile(r"[^A-Za-z0-9_-]")
_MAX_ARGUMENTS = 100_000
"""Longer arguments are left as they are; the grader labels them."""


@dataclass(frozen=True, slots=True)
class Toolbox:
    """The tools of a case under legal names."""

    specs: tuple[ToolSpec, ...]
    tools: Mapping[str, str]
    """Alias -> the tool's own name, for every tool."""
    parameters: Mapping[str, Mapping[str, str]]
    """Alias of a tool -> alias of a parameter -> its own name, only where they differ."""

    @classmethod
    def of(cls, tools: Sequence[Tool]) -> Toolbox:
        """Tools with names that every API takes; what was legal and unique stays as it is."""
        aliases = legal_names([tool.name for tool in tools])
        keys = [
            dict(zip(legal_names(tool.parameters), tool.parameters, strict=True)) for tool in tools
        ]
        specs = tuple(
            _spec(tool, alias, names)
            for tool, alias, names in zip(tools, aliases, keys, strict=True)
        )
        changed = {
            alias: {key: own for key, own in names.items() if key != own}
            for alias, names in zip(aliases, keys, strict=True)
        }
        own = {alias: tool.name for alias, tool in zip(aliases, tools, strict=True)}
        return cls(specs, own, {alias: names for alias, names in changed.items() if names})

    @property
    def num_aliases(self) -> int:
        """How many names of tools and parameters could not be sent as they are."""
        tools = sum(alias != own for alias, own in self.tools.items())
        return tools + sum(map(len, self.parameters.values()))

    def disguised(self, name: str, arguments: Mapping[str, JsonValue]) -> RawCall:
        """A call of the case as a model would have to write it; an unknown name is made legal."""
        alias = next((alias for alias, own in self.tools.items() if own == name), None)
        if alias is None:
            return legal_names([name])[0], json.dumps(arguments, ensure_ascii=False)
        back = {own: key for key, own in self.parameters.get(alias, {}).items()}
        renamed = {back.get(key, key): value for key, value in arguments.items()}
        return alias, json.dumps(renamed, ensure_ascii=False)

    def restored(self, call: RawCall) -> RawCall:
        """A call that a model wrote, under the case's own names; an invented name stays."""
        alias, arguments = call
        renamed = self.parameters.get(alias)
        own = self.tools.get(alias, alias)
        return own, _with_keys(arguments, renamed) if renamed else arguments


class Pairs(list[tuple[str, object]]):
    """An object with its keys as they were written, a key that is there twice included."""


def written(value: object) -> str:
    """JSON of a value that was read with `object_pairs_hook=Pairs`."""
    if isinstance(value, Pairs):
        pairs = (f"{json.dumps(key)}: {written(item)}" for key, item in value)
        return "{" + ", ".join(pairs) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(written, value)) + "]"
    return json.dumps(value, ensure_ascii=False)


def legal_names(names: Iterable[str]) -> list[str]:
    """Names that an API takes, each once; those that are legal and come first stay."""
    wanted = list(names)
    taken = {name for name in wanted if _LEGAL.fullmatch(name)}
    given: set[str] = set()
    found = []
    for name in wanted:
        alias = name if name in taken and name not in given else _free(name, taken | given)
        given.add(alias)
        found.append(alias)
    return found


def _free(name: str, taken: set[str]) -> str:
    stem = _ODD.sub("_", name)[: MAX_NAME - 4] or "unnamed"
    if stem not in taken:
        return stem
    return next(alias for n in range(2, 10_000) if (alias := f"{stem}_{n}"[:MAX_NAME]) not in taken)


def _spec(tool: Tool, alias: str, names: Mapping[str, str]) -> ToolSpec:
    legal = {own: key for key, own in names.items()}
    parameters: dict[str, JsonValue] = {
        "type": "object",
        "properties": {legal[own]: dict(schema) for own, schema in tool.parameters.items()},
        "required": [legal.get(own, own) for own in tool.required],
    }
    return ToolSpec(name=alias, description=tool.description, parameters=parameters)


def _with_keys(arguments: str, names: Mapping[str, str]) -> str:
    """The arguments with keys of the object renamed; unreadable ones stay."""
    if len(arguments) > _MAX_ARGUMENTS:
        return arguments
    try:
        read = json.loads(arguments, object_pairs_hook=Pairs)
        if not isinstance(read, Pairs):
            return arguments
        return written(Pairs((names.get(key, key), value) for key, value in read))
    except (ValueError, RecursionError):
        return arguments
