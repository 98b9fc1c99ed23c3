"""`self-cd data`: which data sets there are, installing one, and what is in them.

    self-cd data
    self-cd data --name xstest --from xstest_prompts.csv
    self-cd data --data sample csv:mine.csv

Questions are never printed: some are offensive by design.
"""

from __future__ import annotations

import logging
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from papercore.config import RunFlags, near_miss
from papercore.errors import ConfigError, DataError
from papercore.files import read_json, write_atomic, write_json
from self_cd.config import DataConfig
from self_cd.data import (
    MANIFEST,
    SAMPLE,
    SAMPLE_FILE,
    installed_folder,
    load_items,
    parse,
    resolve,
)
from self_cd.formats import FORMATS, OWN
from self_cd.items import SIDES, ItemSet
from self_cd.released import RELEASED, attribution, check, digests, sides
from self_cd.rows import read_bytes

__all__ = ["install", "run"]

logger = logging.getLogger(__name__)

HUB = "hf:"
SHOWN_BAD_ROWS = 10


def run(config: DataConfig, flags: RunFlags) -> int:
    """`self-cd data`.

    Raises:
        ConfigError: The flags do not fit together, or there is no such data set.
        DataError: A file is missing or is not what it should be.
    """
    _check_flags(config, flags)
    if config.source is not None and config.name is not None:
        target = install(config.name, config.source, unverified=config.unverified)
        _say(f"installed into {_shown(str(target))}")
        _describe(config.name)
    elif config.name is not None:
        _show(config.name)
    elif config.data:
        for ref in config.data:
            _describe(ref)
    else:
        _list()
    return 0


def install(name: str, source: str, *, unverified: bool = False) -> Path:
    """Checks a released file and puts a copy where `load_items` finds it.

    Args:
        name: Of the data set.
        source: Its file, or `hf:<owner>/<name>/<file>` on the hub.
        unverified: Accept a file that is not the released one; its notes will say so.

    Returns:
        The folder.

    Raises:
        ConfigError: The reference to the hub is wrong.
        DataError: The file cannot be had, or is not the released one.
    """
    file = _from_hub(source) if source.startswith(HUB) else Path(source).expanduser()
    suffix = FORMATS[name].suffix
    if file.suffix.lower() != suffix:
        raise DataError(f"{source}: is no {suffix} file, but {name} is: convert it or get another")
    content = read_bytes(file)
    rows = parse(name, content, source)
    verified = True
    try:
        check(name, content, rows, source)
    except DataError as error:
        if not unverified:
            raise
        logger.warning("%s", error)
        verified = False
    folder = installed_folder(name)
    sha256, md5 = digests(content)
    # The manifest goes last: without it, or with the old one, the new file does not count.
    write_atomic(folder / RELEASED[name].file, content)
    write_atomic(folder / "ATTRIBUTION.txt", attribution(name))
    manifest = {"verified": verified, "sha256": sha256, "md5": md5, "from": file.name}
    write_json(folder / MANIFEST, manifest)
    return folder


def _from_hub(reference: str) -> Path:
    """Downloads a file, or finds it in the hub's cache."""
    parts = reference.removeprefix(HUB).split("/", 2)
    if len(parts) < 3 or not all(parts):
        raise ConfigError(f"{reference}: should be hf:<owner>/<name>/<file>")
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError

    try:
        return Path(hf_hub_download("/".join(parts[:2]), parts[2], repo_type="dataset"))
    except (OSError, ValueError, EntryNotFoundError) as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise DataError(
            f"{reference}: cannot be had from the hub: {_hub_remedy(error)} ({reason})"
        ) from None


def _hub_remedy(error: Exception) -> str:
    from huggingface_hub.errors import (
        EntryNotFoundError,
        GatedRepoError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )

    if isinstance(error, GatedRepoError):
        return "it is gated: accept its terms on its page and run `hf auth login`"
    if isinstance(error, LocalEntryNotFoundError):
        return "there is no network: download it elsewhere and give the file"
    if isinstance(error, (RepositoryNotFoundError, EntryNotFoundError)):
        return "check the names, or run `hf auth login` if it is private"
    return "check the names and the network, or download it elsewhere and give the file"


def _check_flags(config: DataConfig, flags: RunFlags) -> None:
    if flags.out is not None or flags.resume or flags.overwrite:
        raise ConfigError("`data` writes no run folder: leave --out, --resume, --overwrite out")
    if config.source is not None and config.name is None:
        raise ConfigError("--from needs --name: which data set is it?")
    if config.unverified and config.source is None:
        raise ConfigError("--unverified goes with --name and --from")
    if config.name is not None and config.data:
        raise ConfigError("give --name or --data, not both")
    names = [SAMPLE, *RELEASED]
    if config.name is not None and config.name not in names:
        raise ConfigError(
            f"there is no data set {config.name!r}{near_miss(config.name, names)}"
            f" (there are: {', '.join(names)})"
        )
    if config.name == SAMPLE and config.source is not None:
        raise ConfigError(f"{SAMPLE} is a part of this package: there is nothing to install")


def _list() -> None:
    head = ["data set", "rows", "licence", "state", "where"]
    ours = dict(Counter(item.side for item in load_items([SAMPLE]).items))
    sample = [sides(ours), "Apache-2.0", "part of this package", SAMPLE_FILE.name]
    rows = [
        [name, sides(one.rows), one.licence, _state(name), f"{one.source}: {one.file}"]
        for name, one in RELEASED.items()
    ]
    mine = [[f"{name}:<path>", "yours", "yours", "", FORMATS[name].layout] for name in OWN]
    _say_table([head, [SAMPLE, *sample], *rows, *mine])
    _say("")
    _say("install: self-cd data --name NAME --from FILE, or --from hf:<owner>/<name>/<file>")
    _say("without installing: --data NAME:<path>")


def _show(name: str) -> None:
    """One data set: where it is from, and what is in it if it is here."""
    if name == SAMPLE:
        _describe(name)
        return
    released = RELEASED[name]
    for line in attribution(name).splitlines():
        _say(line)
    _say(f"rows: {sides(released.rows)}; layout: {FORMATS[name].layout}")
    _say(f"sha256: {released.sha256 or 'not known: rows are counted instead'}")
    _say(f"state: {_state(name)}")
    if _state(name) == "not installed":
        _say(f"install: self-cd data --name {name} --from {released.file}")
    else:
        _describe(name)


def _state(name: str) -> str:
    manifest = installed_folder(name) / MANIFEST
    if not manifest.is_file():
        return "not installed"
    try:
        verified = read_json(manifest).get("verified")
    except DataError:
        return "damaged: install it again"
    return "installed" if verified is True else "installed, unverified"


def _describe(ref: str) -> None:
    """What is in a data set, without its texts."""
    source = resolve(ref)
    items = load_items([ref])
    path = SAMPLE_FILE.name if ref == SAMPLE else str(source.path)
    sha256, md5 = digests(read_bytes(source.path))
    _say(f"{_shown(ref)}: {_shown(path)}")
    _say(f"sha256 {sha256}, md5 {md5}")
    _say_table([["side", "type", "questions"], *_counts(items)])
    for note in items.notes:
        _say(f"note: {_shown(note)}")
    for bad in items.bad[:SHOWN_BAD_ROWS]:
        _say(f"bad row: {_shown(bad.problem)}")
    if len(items.bad) > SHOWN_BAD_ROWS:
        _say(f"and {len(items.bad) - SHOWN_BAD_ROWS} more bad rows")


def _counts(items: ItemSet) -> list[list[str]]:
    """Questions of each side and type, in the order of the file."""
    found = Counter((item.side, item.kind or "") for item in items.items)
    rows = []
    for side in SIDES:
        here = [(kind, number) for (of, kind), number in found.items() if of == side]
        if here:
            rows.append([side, "all", str(sum(number for _, number in here))])
        if any(kind for kind, _ in here):
            rows += [["", _shown(kind or "without a type"), str(number)] for kind, number in here]
    return rows


def _say_table(rows: Sequence[Sequence[str]]) -> None:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        _say("  ".join(cells).rstrip())


def _shown(text: str) -> str:
    """A text of others: unprintable characters become escapes."""
    plain = "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode()
        for letter in text
    )
    return plain if len(plain) <= 200 else f"{plain[:197]}..."


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
