"""Files that are either old or new, never half-written, and the folder where things are kept."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from papercore.errors import DataError

__all__ = ["cache_dir", "read_json", "replace_folder", "write_atomic", "write_json", "writing"]


def cache_dir() -> Path:
    """`$PAPERCORE_CACHE`, else `papercore` in the user's cache directory."""
    if chosen := os.environ.get("PAPERCORE_CACHE"):
        return Path(chosen).expanduser()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "papercore"


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Says which file could not be written, and why, such as a disk without room.

    Raises:
        DataError: The system refused to write.
    """
    try:
        yield
    except OSError as error:
        raise DataError(
            f"{path} cannot be written ({error.strerror}): make room, then go on with --resume"
        ) from None


def write_atomic(path: Path, content: bytes | str) -> None:
    """Replace a file by way of a temporary one beside it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    data = content.encode() if isinstance(content, str) else content
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def replace_folder(new: Path, target: Path) -> None:
    """Puts a folder in the place of another, which goes only when the new one is there."""
    if not target.exists():
        new.rename(target)
        return
    old = target.with_name(f".{target.name}.{os.getpid()}.old")
    target.rename(old)
    try:
        new.rename(target)
    except OSError:
        old.rename(target)
        raise
    shutil.rmtree(old)


def write_json(path: Path, document: Mapping[str, object]) -> None:
    """Write strict, readable JSON atomically."""
    write_atomic(path, json.dumps(document, indent=2, allow_nan=False) + "\n")


def read_json(path: Path) -> dict[str, object]:
    """Read a JSON object.

    Raises:
        DataError: The file is missing or holds something else.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read as JSON: {error}") from None
    if not isinstance(document, dict):
        raise DataError(f"{path}: should hold a JSON object")
    return document
