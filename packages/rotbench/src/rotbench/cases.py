"""What a case is: an environment of tools, a conversation, and the calls that answer it.

A case is read from a released file (`released`), from the sample that ships with the package, or is
made by the noise operators (`noise`). Everything here is plain frozen data: no IO, no rules.

    key = CaseKey.parse("first/slight/tool/007")
    key.query                       # "first/007": the same query at every level
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias, cast, get_args

from pydantic import JsonValue

from papercore.errors import DataError

__all__ = [
    "ANY_VALUE",
    "HALVES",
    "LEVELS",
    "NOISY_LEVELS",
    "NUM_SPECIAL",
    "SCENARIOS",
    "TURNS",
    "Call",
    "Case",
    "CaseKey",
    "Half",
    "Level",
    "Schema",
    "Step",
    "Tool",
    "Turn",
]

Turn: TypeAlias = Literal["first", "third"]
Level: TypeAlias = Literal["clean", "slight", "medium", "heavy", "union"]
Half: TypeAlias = Literal["whole", "tool", "parameter"]
"""What is disturbed: tool names or parameter names. Clean and union have no halves: `whole`."""
Schema: TypeAlias = Mapping[str, JsonValue]
"""JSON schema of one parameter."""

TURNS: tuple[Turn, ...] = get_args(Turn)
LEVELS: tuple[Level, ...] = get_args(Level)
NOISY_LEVELS: tuple[Level, ...] = LEVELS[1:]
HALVES: Mapping[Level, tuple[Half, ...]] = {
    "clean": ("whole",),
    "slight": ("tool", "parameter"),
    "medium": ("tool", "parameter"),
    "heavy": ("tool", "parameter"),
    "union": ("whole",),
}
"""The halves of each level, in the order in which the released files hold them."""

SCENARIOS: Mapping[str, str] = {
    "TG": "Text Generation",
    "RS": "Real-Time Search",
    "DU": "Data Understanding",
    "PL": "Personal Life",
    "AM": "Application Manipulation",
    "IR": "Information Retrieval",
    "FT": "Financial Transactions",
}

ANY_VALUE = "None"
"""A gold argument with this value: the key must be there, its value is free."""

NUM_SPECIAL = 2
"""The last two tools of a released environment ask the user and finish. They are known by their
place only, because their names are disturbed like all others."""


@dataclass(frozen=True, slots=True, order=True)
class CaseKey:
    """Names a case. The released `id` does not: slight, medium and heavy hold each twice."""

    turn: Turn
    level: Level
    half: Half
    index: int
    """Place of the query within its half, so one query has the same index at every level."""

    def __str__(self) -> str:
        return f"{self.turn}/{self.level}/{self.half}/{self.index:03d}"

    @property
    def query(self) -> str:
        """What all disturbed versions of one query share: the cluster for intervals."""
        return f"{self.turn}/{self.index:03d}"

    @classmethod
    def parse(cls, text: str) -> CaseKey:
        """Reads what `str` wrote.

        Raises:
            DataError: It is no key.
        """
        parts = text.split("/")
        if len(parts) == 4 and parts[3].isdecimal():
            turn, level, half = cast("Turn", parts[0]), cast("Level", parts[1]), parts[2]
            if turn in TURNS and level in LEVELS and half in HALVES[level]:
                return cls(turn, level, half, int(parts[3]))
        raise DataError(f"{text!r} is no key of a case: they look like first/slight/tool/007")


@dataclass(frozen=True, slots=True)
class Tool:
    """A tool as the model sees it."""

    name: str
    description: str
    parameters: Mapping[str, Schema]
    """Name -> its schema, in the order in which the model sees them."""
    required: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Call:
    """A call of a tool."""

    name: str
    arguments: Mapping[str, JsonValue]


@dataclass(frozen=True, slots=True)
class Step:
    """One turn of the conversation between the system's text and the answer."""

    role: Literal["user", "assistant", "function"]
    text: str


@dataclass(frozen=True, slots=True)
class Case:
    """One prompt, and the calls that answer it."""

    key: CaseKey
    query: str
    """What the user asked, without the words around it."""
    scenario: str
    preamble: str
    """The system's text before the list of tools, and `closing` behind it, byte for byte."""
    tools: tuple[Tool, ...]
    closing: str
    steps: tuple[Step, ...]
    golds: tuple[Call, ...]
    """Accepted calls; the first one steers the noise."""
    origin: Case | None = field(default=None, repr=False)
    """The clean case that this one is a disturbed version of, tools at the same places."""
    num_special: int = NUM_SPECIAL
    """How many of the last tools are not part of the task proper (ask the user, finish)."""

    @property
    def clean(self) -> Case:
        """The clean case: `origin`, or this one if it is clean itself."""
        return self if self.origin is None else self.origin
