"""Where cases come from: the installed released files, the sample, or a folder.

cases, digest = load_cases("sample", levels=("clean", "slight"))
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

from papercore.errors import DataError
from papercore.files import cache_dir, read_json
from rotbench.cases import LEVELS, TURNS, Case, Level, Turn
from rotbench.released import SHA256, checksums, read_folder

__all__ = ["MANIFEST", "SAMPLE", "Source", "folder_of", "installed_folder", "load_cases"]

Source: TypeAlias = str
"""`released`, `sample`, or a folder of the released layout."""

SAMPLE = Path(__file__).parent / "sample_data"
MANIFEST = "installed.json"
_UNVERIFIED = "unverified:"


def installed_folder() -> Path:
    """Where `rotbench data --from` puts the released files."""
    return cache_dir() / "data" / "rotbench"


def folder_of(source: Source) -> Path:
    """The folder of a source.

    Raises:
        DataError: There is none.
    """
    if source == "sample":
        return SAMPLE
    if source != "released":
        folder = Path(source).expanduser()
        if folder.is_dir():
            return folder
        raise DataError(f"{source}: no such folder; data is released, sample, or a folder")
    folder = installed_folder()
    if (folder / MANIFEST).is_file():
        return folder
    raise DataError(
        "the released files are not installed: `rotbench data --from FOLDER` checks and installs "
        "them; the sample of our own needs nothing"
    )


def load_cases(
    source: Source, turns: Sequence[Turn] = TURNS, levels: Sequence[Level] = LEVELS
) -> tuple[list[Case], str]:
    """Reads cases.

    Args:
        source: `released`, `sample`, or a folder of the released layout.
        turns: Which turns, in this order.
        levels: Which levels, in this order.

    Returns:
        The cases, disturbed ones with their `origin`, and a hash of the files behind them. It
        starts with `unverified:` if they were installed although their checksums are not known.

    Raises:
        DataError: The files are missing or are not what they should be.
    """
    folder = folder_of(source)
    # Clean cases are always read: they are the origins.
    read = [level for level in LEVELS if level == "clean" or level in levels]
    sums = checksums(folder, turns, read)
    canonical = json.dumps(sorted(sums.items()), separators=(",", ":"))
    digest = hashlib.sha256(canonical.encode()).hexdigest()
    if source == "released" and any(SHA256[name] != found for name, found in sums.items()):
        _check_unverified(folder, sums)
        digest = _UNVERIFIED + digest
    return read_folder(folder, turns, levels), digest


def _check_unverified(folder: Path, sums: Mapping[str, str]) -> None:
    """Files of unknown checksums must still be those that were installed."""
    known = read_json(folder / MANIFEST).get("sha256")
    if not isinstance(known, dict) or any(known.get(name) != found for name, found in sums.items()):
        raise DataError(
            f"{folder}: the files have changed since they were installed: install them again with "
            "`rotbench data --from`"
        )
