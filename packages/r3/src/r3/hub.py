"""Data sets on the hub, through the library `datasets`: whole, never by their own code.

    for part in hub_parts("openai/gsm8k:main"):
        rows = part.rows()

A reference is `<owner>/<name>`, and behind it if wanted `:<config>`, `@<revision>` and `#<split>`.
No torch here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from papercore.errors import DataError
from r3.rows import Row

if TYPE_CHECKING:
    from datasets import Dataset

__all__ = ["HubPart", "HubRef", "hub_parts", "parse_hub", "rows_of"]

_REF = re.compile(
    r"(?P<id>[\w.-]+/[\w.-]+)(?::(?P<config>[\w.-]+))?(?:@(?P<revision>[\w./-]+))?"
    r"(?:#(?P<split>\w+))?"
)

CONVERTED = "refs/convert/parquet"
"""Branch of a data set on which the hub keeps it as parquet."""
_SCRIPTED = frozenset({"kaist-ai/CoT-Collection"})
"""Data sets whose main branch is code, which is never run: their parquet branch is read."""


@dataclass(frozen=True)
class HubRef:
    """A reference to a data set, its parts apart."""

    id: str
    config: str | None = None
    revision: str | None = None
    split: str | None = None


@dataclass(frozen=True)
class HubPart:
    """One split of a data set on the hub.

    Attributes:
        split: Its name there.
        count: Its rows.
        fingerprint: What the library calls its content.
        rows: Reads them.
    """

    split: str
    count: int
    fingerprint: str
    rows: Callable[[], Iterator[Row]]


def parse_hub(ref: str) -> HubRef | None:
    """The parts of a reference; None if it is none."""
    found = _REF.fullmatch(ref)
    if found is None or any(part.strip(".") == "" for part in found["id"].split("/")):
        return None
    return HubRef(found["id"], found["config"], found["revision"], found["split"])


def hub_parts(ref: HubRef) -> list[HubPart]:
    """The splits of a data set, from the hub or its cache here.

    Raises:
        DataError: It cannot be had, or has no such split.
    """
    import datasets

    revision = ref.revision or (CONVERTED if ref.id in _SCRIPTED else None)
    try:
        loaded = datasets.load_dataset(ref.id, ref.config, revision=revision)
    except (datasets.exceptions.DatasetsError, OSError, ValueError, RuntimeError) as error:
        raise DataError(f"{ref.id}: {_reason(error)}") from None
    if not isinstance(loaded, Mapping):
        raise DataError(f"{ref.id}: is no data set with splits: save it as files and give these")
    if ref.split is not None and ref.split not in loaded:
        raise DataError(
            f"{ref.id}: has no split {ref.split!r} (there are: {', '.join(map(str, loaded))})"
        )
    names = [ref.split] if ref.split is not None else list(loaded)
    return [_part(ref.id, str(name), loaded[name]) for name in names]


def _part(name: str, split: str, data: Dataset) -> HubPart:
    fingerprint = str(getattr(data, "_fingerprint", ""))
    return HubPart(split, len(data), fingerprint, lambda: rows_of(f"{name}#{split}", data))


def rows_of(where: str, data: Dataset) -> Iterator[Row]:
    """The rows, with the names of classes in place of their numbers."""
    from datasets import ClassLabel

    classes = {
        name: feature.names
        for name, feature in data.features.items()
        if isinstance(feature, ClassLabel)
    }
    for number, row in enumerate(data, 1):
        named = {
            name: names[row[name]]
            for name, names in classes.items()
            if isinstance(row[name], int) and 0 <= row[name] < len(names)
        }
        yield Row(f"{where}[{number}]", {**row, **named})


def _reason(error: Exception) -> str:
    """One line with a remedy."""
    from datasets import exceptions
    from huggingface_hub.errors import GatedRepoError, OfflineModeIsEnabled

    said = " ".join(str(error).split())[:200] or type(error).__name__
    if isinstance(error, GatedRepoError) or "gated" in said:
        remedy = "it is gated: accept its terms on its page and run `hf auth login`"
    elif isinstance(error, OfflineModeIsEnabled | ConnectionError) or "offline" in said.lower():
        remedy = "the hub is out of reach: download it elsewhere and give its files with --source"
    elif "script" in said:
        remedy = "it comes as code, which is never run: give its files with --source"
    elif isinstance(error, exceptions.DatasetNotFoundError | FileNotFoundError):
        remedy = "the hub has none of this name: check it, or give files with --source"
    elif isinstance(error, ValueError):
        remedy = "check the part's name (owner/name:part), or give files with --source"
    else:
        remedy = "give its files with --source"
    return f"cannot be had from the hub: {remedy} ({said})"
