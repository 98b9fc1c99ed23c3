"""Questions from data references. No torch here.

    items = load_items(["sample", "xstest", "csv:my questions.csv"], limit=100)

A reference is `sample` (our own, part of this package), the name of an installed data set,
`<format>:<path>`, or `world`, the miniature's. `self-cd data` lists the data sets, `formats.py` the
formats.
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from papercore.config import near_miss
from papercore.errors import ConfigError, DataError
from papercore.files import cache_dir, read_json
from self_cd.formats import FORMATS, OWN
from self_cd.items import BadRow, Item, ItemSet, Side
from self_cd.released import LEAKED_SHA256, RELEASED, check, digests
from self_cd.rows import Row, decoded, read_bytes
from self_cd.world import test_items

__all__ = [
    "FORMATS",
    "MANIFEST",
    "SAMPLE",
    "SAMPLE_FILE",
    "WORLD",
    "Source",
    "harmful_sample",
    "installed_folder",
    "load_items",
    "parse",
    "read_rows",
    "resolve",
]

logger = logging.getLogger(__name__)

SAMPLE = "sample"
WORLD = "world"
"""The held-out questions of the miniature's world, for its model alone."""
SAMPLE_FILE = Path(__file__).parent / "sample_data" / "sample.csv"
MANIFEST = "manifest.json"
SHOWN_ROWS = 5
"""Row numbers that a note gives at most."""


@dataclass(frozen=True)
class Source:
    """What a reference stands for.

    Attributes:
        dataset: Name of the data set; the ids of its items begin with it.
        format: How the file is read.
        path: The file.
        sha256: What the file must have; None asks `released.check` instead.
        verified: Whether the file is known to be the released one, or needs no such check.
    """

    dataset: str
    format: str
    path: Path
    sha256: str | None = None
    verified: bool = True


def load_items(refs: Sequence[str], *, limit: int | None = None) -> ItemSet:
    """Reads data sets.

    Args:
        refs: Data references.
        limit: Questions of each side of each data set at most.

    Raises:
        ConfigError: A reference is unknown or there twice, or the limit is below 1.
        DataError: A file is missing, unreadable or not what its format says.
    """
    if limit is not None and limit < 1:
        raise ConfigError(f"limit={limit}: should be 1 or more")
    if not refs:
        raise ConfigError("no data set is given: give one, such as sample")
    sources = [resolve(ref) for ref in refs if ref != WORLD]
    _check_different([ref for ref in refs if ref != WORLD], sources)
    loaded = [_load(source, limit) for source in sources]
    if refs.count(WORLD) > 1:
        raise ConfigError(f"{WORLD!r} is there twice: leave one out")
    if WORLD in refs:
        loaded.append(_world(limit))
    notes = [note for one in loaded for note in one.notes]
    return ItemSet(
        items=tuple(item for one in loaded for item in one.items),
        bad=tuple(bad for one in loaded for bad in one.bad),
        digest=hashlib.sha256("".join(one.digest for one in loaded).encode()).hexdigest(),
        notes=(*notes, *_shared([one.items for one in loaded])),
    )


def harmful_sample(*, limit: int | None = None) -> ItemSet:
    """The harmful half of our sample: requests for harm in invented worlds."""
    sample = load_items([SAMPLE], limit=limit)
    return replace(sample, items=sample.of("harmful"))


def installed_folder(name: str) -> Path:
    """Where `self-cd data` puts a data set."""
    return cache_dir() / "self-cd" / "data" / name


def resolve(ref: str) -> Source:
    """What a reference stands for; the file is not read yet.

    Raises:
        ConfigError: There is no such format or data set.
        DataError: The data set is not installed, or what is installed is damaged.
    """
    name, colon, path = ref.partition(":")
    if colon:
        return _of_path(ref, name, path)
    if ref == SAMPLE:
        return Source(SAMPLE, "csv", SAMPLE_FILE)
    if ref in RELEASED:
        return _installed(ref)
    names = [SAMPLE, WORLD, *RELEASED]
    hint = f"; to read the file give csv:{ref}" if Path(ref).is_file() else ""
    raise ConfigError(
        f"there is no data set {ref!r}{near_miss(ref, names)} (there are: {', '.join(names)}; "
        f"files are given as <format>:<path>){hint}"
    )


def read_rows(source: Source) -> tuple[list[Row], bytes]:
    """The rows of a file, checked against what was released, and its bytes.

    Raises:
        DataError: The file is not what it should be.
    """
    content = read_bytes(source.path)
    where = str(source.path)
    if source.sha256 is not None and digests(content)[0] != source.sha256:
        raise DataError(
            f"{where}: was changed after it was installed: install {source.dataset} again"
        )
    rows = parse(source.format, content, where)
    if source.format in RELEASED and source.sha256 is None:
        check(source.format, content, rows, where)
    return rows, content


def parse(format_name: str, content: bytes, where: str) -> list[Row]:
    """The rows of a file in a format.

    Raises:
        DataError: The file is not in this format, or holds no question.
    """
    rows = FORMATS[format_name].read(decoded(content, where), where)
    if not any(row.problem is None for row in rows):
        first = f"; row {rows[0].number} {rows[0].problem}" if rows else ""
        raise DataError(f"{where}: holds no question{first}")
    return rows


def _of_path(ref: str, name: str, path: str) -> Source:
    if name not in FORMATS:
        raise ConfigError(
            f"{ref}: there is no format {name!r}{near_miss(name, FORMATS)}"
            f" (there are: {', '.join(FORMATS)})"
        )
    if not path.strip():
        raise ConfigError(f"{ref}: names no file: give {name}:<path>")
    file = Path(path).expanduser()
    if name not in OWN:
        return Source(name, name, file)
    dataset = re.sub(r"[^\w.-]+", "-", file.stem)
    if dataset == SAMPLE or dataset in RELEASED:
        raise ConfigError(f"{ref}: {dataset!r} is the name of another data set: rename the file")
    return Source(dataset, name, file)


def _installed(name: str) -> Source:
    folder = installed_folder(name)
    released = RELEASED[name]
    if not (folder / MANIFEST).is_file():
        raise DataError(
            f"{name}: is not installed: get {released.file} from {released.source}, then run "
            f"`self-cd data --name {name} --from FILE`, or give {name}:<path>"
        )
    manifest = read_json(folder / MANIFEST)
    sha256, verified = manifest.get("sha256"), manifest.get("verified")
    if not isinstance(sha256, str) or not isinstance(verified, bool):
        raise DataError(f"{folder / MANIFEST}: is damaged: install {name} again")
    return Source(name, name, folder / released.file, sha256, verified)


def _check_different(refs: Sequence[str], sources: Sequence[Source]) -> None:
    """No two references may give the same ids."""
    first: dict[str, str] = {}
    for ref, source in zip(refs, sources, strict=True):
        if source.dataset in first:
            before = first[source.dataset]
            what = (
                f"data reference {ref!r} is there twice: leave one out"
                if before == ref
                else f"{before!r} and {ref!r} are both the data set {source.dataset!r}: leave one "
                "out, or rename its file"
            )
            raise ConfigError(what)
        first[source.dataset] = ref


def _world(limit: int | None) -> ItemSet:
    """What the model of seed 0 was tested on; its words are all that the model knows."""
    items = test_items(0, WORLD, most=limit)
    digest = hashlib.sha256("".join(item.query for item in items).encode()).hexdigest()
    return ItemSet(items, digest=digest)


def _load(source: Source, limit: int | None) -> ItemSet:
    rows, content = read_rows(source)
    notes: list[str] = []
    if not source.verified:
        notes.append("is not the released file (installed with --unverified)")
    if source.format == "oktest-heldout":
        rows = _without_leaked(rows, notes)
    rows = list(_limited(_without_duplicates(rows, notes), limit))
    absent = [row.number for row in rows if row.focus and not _has_focus(row)]
    if absent:
        notes.append(f"the focus is not in the question as it stands: {_numbered(absent)}")
    items = tuple(_item(source, row) for row in rows if row.problem is None)
    bad = tuple(_bad(source, row) for row in rows if row.problem is not None)
    if source.format in RELEASED:
        licence, caveat = RELEASED[source.format].licence, RELEASED[source.format].caveat
        logger.info("%s: %d questions; licence: %s", source.dataset, len(items), licence)
        if caveat:
            notes.append(caveat)
    digest = f"{source.dataset}:{hashlib.sha256(content).hexdigest()};"
    return ItemSet(items, bad, digest, tuple(f"{source.dataset}: {note}" for note in notes))


def _without_leaked(rows: Sequence[Row], notes: list[str]) -> list[Row]:
    """Held-out rows that the test set has, too, are no held-out rows."""
    kept: list[Row] = []
    leaked: list[Row] = []
    for row in rows:
        known = hashlib.sha256(_plain(row.query).encode()).hexdigest() in LEAKED_SHA256
        (leaked if known else kept).append(row)
    if leaked:
        notes.append(f"left out {_numbered([row.number for row in leaked])}, which oktest has, too")
    return kept


def _without_duplicates(rows: Sequence[Row], notes: list[str]) -> list[Row]:
    """Each question once; questions that differ only in white space are the same."""
    first: dict[str, Row] = {}
    kept, same, contrary = [], [], []
    for row in rows:
        before = first.setdefault(_plain(row.query), row) if row.problem is None else row
        if before is row:
            kept.append(row)
        elif before.side == row.side:
            same.append(row.number)
        else:
            contrary.append(row.number)
    if same:
        notes.append(f"left out {_numbered(same)}: the question was there before")
    if contrary:
        notes.append(f"left out {_numbered(contrary)}: the question was there on another side")
    return kept


def _limited(rows: Sequence[Row], limit: int | None) -> Iterator[Row]:
    """The first questions of each side, and the bad rows that stand before the last of them."""
    seen: Counter[Side] = Counter()
    for row in rows:
        if limit is None or seen[row.side] < limit:
            seen[row.side] += row.problem is None
            yield row


def _shared(sets: Sequence[Sequence[Item]]) -> list[str]:
    """A note for each two data sets that have questions in common; both keep them."""
    notes = []
    queries = [{_plain(item.query) for item in items} for items in sets]
    for later in range(len(sets)):
        for earlier in range(later):
            common = len(queries[earlier] & queries[later])
            if common:
                names = f"{sets[earlier][0].dataset} and {sets[later][0].dataset}"
                notes.append(f"{names}: both have the same {common} questions; both keep them")
    return notes


def _plain(query: str) -> str:
    return " ".join(query.split())


def _has_focus(row: Row) -> bool:
    return row.focus is not None and row.focus.casefold() in row.query.casefold()


def _numbered(rows: Sequence[int]) -> str:
    """`3 rows (1, 5, 9)`."""
    shown = ", ".join(str(number) for number in rows[:SHOWN_ROWS])
    more = ", ..." if len(rows) > SHOWN_ROWS else ""
    return f"{len(rows)} row{'s' * (len(rows) != 1)} ({shown}{more})"


def _item(source: Source, row: Row) -> Item:
    return Item(
        id=f"{source.dataset}/{row.number}",
        dataset=source.dataset,
        side=row.side,
        query=row.query,
        kind=row.kind,
        focus=row.focus,
    )


def _bad(source: Source, row: Row) -> BadRow:
    return BadRow(
        id=f"{source.dataset}/{row.number}",
        dataset=source.dataset,
        side=row.side,
        problem=f"{source.path}: row {row.number} {row.problem}",
    )
