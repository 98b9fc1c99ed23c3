"""What runs of `augment`, `expand` and `train` come to, from their records alone. No torch here.

The ids of records say which command wrote them, so a run folder needs no other hint.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, cast

from papercore.claims import Estimate
from papercore.records import Record
from papercore.stats import exact
from papercore.tables import Table
from rotbench.cases import LEVELS

__all__ = [
    "AUGMENT_PREFIX",
    "EXPAND_PREFIX",
    "PREFIXES",
    "TRAIN_PREFIX",
    "is_training",
    "summarise",
    "tables",
]

AUGMENT_PREFIX: Final = "augment/"
EXPAND_PREFIX: Final = "expand/"
TRAIN_PREFIX: Final = "train/"
PREFIXES: Final = (AUGMENT_PREFIX, EXPAND_PREFIX, TRAIN_PREFIX)
"""How the ids of records of these commands begin."""

_AUGMENTED = (
    "rows",
    "trajectories",
    "tools",
    "tools_renamed",
    "parameters",
    "parameters_renamed",
    "parameters_added",
    "collisions",
)


def is_training(records: Sequence[Record]) -> bool:
    """Whether one of these commands wrote the records."""
    return bool(records) and records[0].id.startswith(PREFIXES)


def summarise(records: Sequence[Record]) -> dict[str, Estimate]:
    """The metrics of whatever command wrote the records; nothing for records of others."""
    return {**_augmented(records), **_expanded(records), **_trained(records)}


def tables(records: Sequence[Record]) -> list[Table]:
    """The tables of whatever command wrote the records."""
    cells = list(_ok(records, AUGMENT_PREFIX))
    if not cells:
        return []
    rows: list[tuple[str | int, ...]] = [
        (str(cell["level"]), str(cell["half"]), *(_int(cell.get(name, 0)) for name in _AUGMENTED))
        for cell in (record.data for record in cells)
    ]
    caption = "What the noise did; every row of a level comes from one of its trajectories."
    return [
        Table("augmented", "Augmented trajectories", caption, ("level", "half", *_AUGMENTED), rows)
    ]


def _augmented(records: Sequence[Record]) -> dict[str, Estimate]:
    cells = [record.data for record in _ok(records, AUGMENT_PREFIX)]
    if not cells:
        return {}
    total = sum(_int(cell["rows"]) for cell in cells)
    found = {"rows": exact(total, total)}
    for level in LEVELS:
        rows = sum(_int(cell["rows"]) for cell in cells if cell["level"] == level)
        if rows:
            found[f"share_{level}"] = exact(rows / total, total)
    for kind in ("tools", "parameters"):
        noisy = [cell for cell in cells if cell["level"] != "clean"]
        names = sum(_int(cell[kind]) for cell in noisy)
        renamed = sum(_int(cell.get(f"{kind}_renamed", 0)) for cell in noisy)
        if names:
            found[f"{kind}_renamed"] = exact(renamed / names, names)
    return found


def _expanded(records: Sequence[Record]) -> dict[str, Estimate]:
    rounds = [record.data for record in _ok(records, EXPAND_PREFIX)]
    if not rounds:
        return {}
    accepted = sum(len(cast("list[object]", one["accepted"])) for one in rounds)
    rejected = sum(len(cast("list[object]", one["rejected"])) for one in rounds)
    found = {"queries": exact(accepted, len(rounds)), "prompts": exact(len(rounds), len(rounds))}
    if accepted + rejected:
        found["accepted"] = exact(accepted / (accepted + rejected), accepted + rejected)
    return found


def _trained(records: Sequence[Record]) -> dict[str, Estimate]:
    found: dict[str, Estimate] = {}
    for record in _ok(records, TRAIN_PREFIX):
        for name, value in record.data.items():
            if isinstance(value, int | float) and not isinstance(value, bool):
                found[name] = exact(value, 1)
    return found


def _ok(records: Sequence[Record], prefix: str) -> Iterator[Record]:
    return (one for one in records if one.id.startswith(prefix) and one.status == "ok")


def _int(value: object) -> int:
    return cast("int", value)
