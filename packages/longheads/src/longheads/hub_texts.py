"""Texts of data sets on the hub, streamed through the library `datasets`, which is optional.

    source = find("pg19")
    for name, text in stream(source):
        ...

`datasets` runs no loading scripts any more, and both of the paper's sets come as one. So they are
read from where the same texts lie as plain files:

| name | read from | licence, as its page says |
|---|---|---|
| pg19, deepmind/pg19 | emozilla/pg19-test, a parquet copy of the 100 test books | Apache-2.0 |
| proof-pile, hoskinson-center/proof-pile | its file test/proofpile_test.jsonl.gz | Apache-2.0 |

Without the hub: `gsutil -m cp -r gs://deepmind-gutenberg/test pg19` and `--data pg19`, or download
the file of Proof-pile and give its path. No torch here.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import cast

from papercore import hub
from papercore.errors import DataError

__all__ = ["NAMED", "HubTexts", "find", "proper", "stream"]

_REF = re.compile(
    r"(?P<id>[\w.-]+/[\w.-]+)(?::(?P<config>[\w.-]+))?(?:@(?P<revision>[\w./-]+))?"
    r"(?:#(?P<split>\w+))?"
)


@dataclass(frozen=True)
class HubTexts:
    """One split of a data set that has a column `text`.

    Attributes:
        id: owner and name.
        config: its part; None: the only one.
        revision: branch or commit; None: the main branch.
        split: its split.
        file: the one JSON file that is read; None: what the library finds.
        licence: what its page says.
        of: the data set that this is a copy of.
    """

    id: str
    config: str | None = None
    revision: str | None = None
    split: str = "test"
    file: str | None = None
    licence: str | None = None
    of: str | None = None

    @property
    def origin(self) -> str:
        """Where the texts come from, in words."""
        copy = f", a copy of {self.of}" if self.of else ""
        where = f"{self.id}@{self.revision}" if self.revision else self.id
        return f"{where}#{self.split}{copy} (licence: {self.licence or 'see its page'})"


_PG19 = HubTexts("emozilla/pg19-test", licence="Apache-2.0", of="deepmind/pg19")
_PROOF_PILE = HubTexts(
    "hoskinson-center/proof-pile", file="test/proofpile_test.jsonl.gz", licence="Apache-2.0"
)

NAMED: Mapping[str, HubTexts] = MappingProxyType(
    {
        "pg19": _PG19,
        "deepmind/pg19": _PG19,
        "proof-pile": _PROOF_PILE,
        "hoskinson-center/proof-pile": _PROOF_PILE,
    }
)
"""The paper's data sets, by the names that are used for them."""


def find(name: str) -> HubTexts | None:
    """The data set that a name stands for; None if it is no such name.

    Raises:
        DataError: It asks for a part of pg19 that the copy does not have.
    """
    if name in NAMED:
        return NAMED[name]
    found = _REF.fullmatch(name)
    if found is None or any(part.strip(".") == "" for part in found["id"].split("/")):
        return None
    known = NAMED.get(found["id"])
    if known is None:
        return HubTexts(found["id"], found["config"], found["revision"], found["split"] or "test")
    if found["config"] or (found["split"] or known.split) != known.split or known.of:
        raise DataError(
            f"{name}: of {found['id']} only the test texts are read: leave the rest out"
        )
    return replace(known, revision=found["revision"])


def stream(source: HubTexts) -> Iterator[tuple[str, str]]:
    """Names and texts, as they come over the network.

    Raises:
        DataError: They cannot be had, or a row has no text.
    """
    rows = iter(_rows(source))
    number = 0
    while True:
        try:
            row = next(rows, None)
        except Exception as error:  # noqa: BLE001 - network, parquet and JSON have no common error
            raise DataError(f"{source.id}: {_reason(error)}") from None
        if row is None:
            return
        number += 1
        where = f"{source.id}#{source.split}[{number}]"
        text = row.get("text")
        if not isinstance(text, str):
            raise DataError(f"{where}: has no column `text` with a string")
        title = row.get("short_book_title")
        yield (f"{where} {title}" if isinstance(title, str) else where), proper(where, text)


def proper(where: str, text: str) -> str:
    """The text, if it can be written in UTF-8.

    Raises:
        DataError: It holds half a character.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise DataError(f"{where}: character {error.start} is half of one, not text") from None
    return text


def _rows(source: HubTexts) -> Iterable[Mapping[str, object]]:
    try:
        import datasets
    except ModuleNotFoundError:
        raise DataError(
            f"{source.id}: the library `datasets` is not installed: `pip install datasets`, or "
            "give files"
        ) from None
    if hub.unreachable():  # the library would try for half a minute, with warnings
        raise DataError(f"{source.id}: {_reason(ConnectionError('no way to it was found'))}")
    try:
        if source.file is not None:
            path = f"hf://datasets/{source.id}@{source.revision or 'main'}/{source.file}"
            loaded = datasets.load_dataset(
                "json", data_files={source.split: path}, split=source.split, streaming=True
            )
        else:
            loaded = datasets.load_dataset(
                source.id,
                source.config,
                split=source.split,
                revision=source.revision,
                streaming=True,
            )
    except Exception as error:  # noqa: BLE001 - the library hands on errors of many others
        raise DataError(f"{source.id}: {_reason(error)}") from None
    return cast("Iterable[Mapping[str, object]]", loaded)


def _reason(error: Exception) -> str:
    """One line with a remedy."""
    said = " ".join(str(error).split())[:200] or type(error).__name__
    lowered = f"{type(error).__name__} {said}".lower()
    if "gated" in lowered:
        remedy = "it is gated: accept its terms on its page and run `hf auth login`"
    elif "offline" in lowered or isinstance(error, ConnectionError):
        remedy = "the hub is out of reach: download its files elsewhere and give these"
    elif "script" in lowered:
        remedy = "it comes as code, which is never run: give its files"
    elif isinstance(error, FileNotFoundError):
        remedy = "the hub has none of this name: check it, or give files"
    elif isinstance(error, ValueError):
        remedy = "check part and split (owner/name:part#split), or give files"
    else:
        remedy = "give its files"
    return f"cannot be had from the hub: {remedy} ({said})"
