"""What the noise did to a case: an invertible map of names, with the operator behind each.

changes.forward["get_weather"].new       # the disturbed name of a tool
Changes.from_json(changes.to_json()) == changes
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, cast

from pydantic import JsonValue

from papercore.errors import DataError
from rotbench.cases import HALVES, Half, Level
from rotbench.operators import OPERATORS, Operator

__all__ = ["Addendum", "Changes", "Rename", "ToolChange"]


class Rename(NamedTuple):
    """One parameter's new name."""

    old: str
    new: str
    operator: Operator


class Addendum(NamedTuple):
    """A parameter that was added, and the value that its description orders."""

    name: str
    value: str


class ToolChange(NamedTuple):
    """What happened to one tool."""

    old: str
    new: str
    operator: Operator | None = None
    """None if the name is what it was."""
    parameters: tuple[Rename, ...] = ()
    """The parameters that were renamed, in their order."""
    addendum: Addendum | None = None

    @property
    def forward(self) -> Mapping[str, str]:
        """Old name of a renamed parameter -> new name."""
        return {rename.old: rename.new for rename in self.parameters}

    @property
    def backward(self) -> Mapping[str, str]:
        """New name of a renamed parameter -> old name."""
        return {rename.new: rename.old for rename in self.parameters}

    @property
    def changed(self) -> bool:
        """Whether anything about the tool is new."""
        return self.old != self.new or bool(self.parameters) or self.addendum is not None


@dataclass(frozen=True)
class Changes:
    """What happened to an environment."""

    level: Level
    half: Half
    tools: tuple[ToolChange, ...]
    """One per tool, in the environment's order."""
    drawn: tuple[Level, ...] = ()
    """Union: the levels that were drawn for the tools' and for the parameters' names."""
    collisions: int = 0
    """Names that are no longer told apart or were lost, and empty ones; 0 in `strict` mode."""

    @cached_property
    def forward(self) -> Mapping[str, ToolChange]:
        """Old name of a tool -> its change. Of tools that share a name the last one counts.

        Source: the released golds of the environments with two tools `drivers`.
        """
        return {change.old: change for change in self.tools}

    @cached_property
    def backward(self) -> Mapping[str, ToolChange]:
        """New name of a tool -> its change."""
        return {change.new: change for change in self.tools}

    def to_json(self) -> dict[str, JsonValue]:
        """Plain data; tools that nothing happened to stay in, so that places are kept."""
        return {
            "level": self.level,
            "half": self.half,
            "drawn": list(self.drawn),
            "collisions": self.collisions,
            "tools": [_tool_to_json(change) for change in self.tools],
        }

    @classmethod
    def from_json(cls, data: Mapping[str, JsonValue]) -> Changes:
        """Reads what `to_json` wrote.

        Raises:
            DataError: It is something else.
        """
        try:
            level, half = cast("Level", data["level"]), cast("Half", data["half"])
            if half not in HALVES[level]:
                raise ValueError(f"level {level} has no half {half}")
            tools = cast("Sequence[Mapping[str, JsonValue]]", data["tools"])
            return cls(
                level,
                half,
                tuple(_tool_from_json(tool) for tool in tools),
                tuple(cast("Sequence[Level]", data["drawn"])),
                int(cast("int", data["collisions"])),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise DataError(f"this is no map of names as the noise writes it: {error!r}") from None


def _tool_to_json(change: ToolChange) -> dict[str, JsonValue]:
    data: dict[str, JsonValue] = {"old": change.old, "new": change.new}
    if change.operator is not None:
        data["operator"] = change.operator
    if change.parameters:
        data["parameters"] = [
            {"old": one.old, "new": one.new, "operator": one.operator} for one in change.parameters
        ]
    if change.addendum is not None:
        data["addendum"] = {"name": change.addendum.name, "value": change.addendum.value}
    return data


def _tool_from_json(data: Mapping[str, JsonValue]) -> ToolChange:
    renames = cast("Sequence[Mapping[str, JsonValue]]", data.get("parameters", ()))
    added = cast("Mapping[str, JsonValue] | None", data.get("addendum"))
    return ToolChange(
        _text(data["old"]),
        _text(data["new"]),
        _operator(data["operator"]) if "operator" in data else None,
        tuple(
            Rename(_text(one["old"]), _text(one["new"]), _operator(one["operator"]))
            for one in renames
        ),
        None if added is None else Addendum(_text(added["name"]), _text(added["value"])),
    )


def _text(value: JsonValue) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no text")
    return value


def _operator(value: JsonValue) -> Operator:
    if value not in OPERATORS:
        raise ValueError(f"{value!r} is no operator")
    return value
