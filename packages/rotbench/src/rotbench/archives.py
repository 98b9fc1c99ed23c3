"""Getting the ten released files out of a folder, an archive or an https address, safely.

    files = collect("RoTBench-main.zip")          # {"First_Turn/clean.json": b"...", ...}

Nothing is unpacked: only members that end like one of the files are read, into memory, up to a
limit. So neither a path, nor a link, nor a bomb in an archive can do harm.
"""

from __future__ import annotations

import hashlib
import io
import stat
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO

import httpx

from papercore.errors import ConfigError, DataError
from rotbench.released import MAX_FILE_BYTES, SHA256

__all__ = ["collect", "download"]

MAX_ARCHIVE_BYTES = 256 << 20
MAX_UNPACKED_BYTES = 1 << 30
MAX_MEMBERS = 50_000
MAX_REDIRECTS = 5
_TIMEOUT_S = 60.0
_LICENSE = "LICENSE"


def collect(source: str, *, sha256: str | None = None) -> dict[str, bytes]:
    """Finds the files of the released layout, at any depth.

    Args:
        source: A folder, a .zip or .tar archive (compressed or not), or the https address of one.
        sha256: Checksum of the archive; an address needs it.

    Returns:
        `First_Turn/clean.json` and so on -> content; `LICENSE` too if there is one.

    Raises:
        ConfigError: An address without a checksum, or one that is not https.
        DataError: There is no such source, it lacks a file, or its checksum differs.
    """
    scheme, separator, _ = source.partition("://")
    if separator:
        if scheme.lower() != "https":
            raise ConfigError(f"{source}: only https addresses are fetched, not {scheme}")
        if sha256 is None:
            raise ConfigError(f"{source}: an address needs --sha256, the archive's checksum")
        return _from_archive(download(source, sha256), source)
    path = Path(source).expanduser()
    if path.is_dir():
        if sha256 is not None:
            raise ConfigError(f"{source}: is a folder: --sha256 is for an archive")
        return _from_folder(path)
    if not path.is_file():
        raise DataError(f"{source}: no such file or folder")
    if path.stat().st_size > MAX_ARCHIVE_BYTES:
        raise DataError(f"{source}: is larger than {MAX_ARCHIVE_BYTES >> 20} MiB")
    content = path.read_bytes()
    if sha256 is not None:
        _check(content, sha256, source)
    return _from_archive(content, source)


def download(url: str, sha256: str, *, client: httpx.Client | None = None) -> bytes:
    """Fetches a file over https, redirects included, and checks it.

    Raises:
        ConfigError: A redirect leaves https.
        DataError: It cannot be fetched, is too large or has another checksum.
    """
    try:
        with client or httpx.Client(timeout=_TIMEOUT_S) as open_client:
            content = _fetch(open_client, httpx.URL(url))
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise DataError(f"{url}: cannot be fetched: {str(error) or type(error).__name__}") from None
    _check(content, sha256, url)
    return content


def _fetch(client: httpx.Client, url: httpx.URL) -> bytes:
    for _ in range(MAX_REDIRECTS + 1):
        if url.scheme != "https":
            raise ConfigError(f"{url}: the address leads away from https")
        with client.stream("GET", url, follow_redirects=False) as response:
            if response.next_request is not None:
                url = response.next_request.url
                continue
            response.raise_for_status()
            content = bytearray()
            for piece in response.iter_bytes():
                content += piece
                if len(content) > MAX_ARCHIVE_BYTES:
                    raise DataError(f"{url}: is larger than {MAX_ARCHIVE_BYTES >> 20} MiB")
            return bytes(content)
    raise DataError(f"{url}: redirects more than {MAX_REDIRECTS} times")


def _check(content: bytes, sha256: str, name: str) -> None:
    found = hashlib.sha256(content).hexdigest()
    if found != sha256.strip().lower():
        raise DataError(f"{name}: its sha256 is {found}, not {sha256}")


def _from_folder(folder: Path) -> dict[str, bytes]:
    """The files of a folder or of `Data` or another folder within it."""
    found = sorted(
        path.parent.parent
        for path in (*folder.glob("First_Turn/clean.json"), *folder.glob("*/First_Turn/clean.json"))
    )
    if not found:
        raise DataError(f"{folder}: has no First_Turn/clean.json")
    if len(found) > 1:
        raise DataError(f"{folder}: has First_Turn/clean.json more than once: name one of {found}")
    files: dict[str, bytes] = {}
    for name in SHA256:
        file = found[0] / name
        if not file.is_file():
            raise DataError(f"{file}: no such file")
        with file.open("rb") as opened:
            files[name] = _limited(opened, str(file))
    for place in (found[0] / _LICENSE, found[0].parent / _LICENSE):
        if place.is_file():
            with place.open("rb") as opened:
                files.setdefault(_LICENSE, _limited(opened, str(place)))
    return files


def _from_archive(content: bytes, name: str) -> dict[str, bytes]:
    opened = io.BytesIO(content)
    try:
        if zipfile.is_zipfile(opened):
            return _choose(_zip_members(zipfile.ZipFile(opened)), name)
        opened.seek(0)
        return _choose(_tar_members(tarfile.open(fileobj=opened)), name)
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, OSError, RuntimeError) as error:
        raise DataError(f"{name}: is no .zip or .tar archive that can be read: {error}") from None


Member = tuple[str, int, Callable[[], IO[bytes] | None]]
"""Path, size as the archive states it, and how to open it."""


def _zip_members(archive: zipfile.ZipFile) -> Iterator[Member]:
    for info in archive.infolist():
        if not info.is_dir() and not stat.S_ISLNK(info.external_attr >> 16):
            yield info.filename, info.file_size, partial(archive.open, info)


def _tar_members(archive: tarfile.TarFile) -> Iterator[Member]:
    for info in archive:
        if info.isreg():
            yield info.name, info.size, partial(archive.extractfile, info)


def _choose(members: Iterator[Member], name: str) -> dict[str, bytes]:
    """Reads the members that are wanted."""
    files: dict[str, bytes] = {}
    unpacked = 0
    for place, (path, size, opening) in enumerate(members):
        unpacked += size
        if place >= MAX_MEMBERS or unpacked > MAX_UNPACKED_BYTES:
            raise DataError(f"{name}: holds too much to be the released data")
        wanted = _wanted(path)
        if wanted is None or (wanted == _LICENSE and wanted in files):
            continue
        if wanted in files:
            raise DataError(f"{name}: has {wanted} more than once")
        with opening() or io.BytesIO() as opened:
            files[wanted] = _limited(opened, f"{name}: {path}")
    missing = [file for file in SHA256 if file not in files]
    if missing:
        raise DataError(f"{name}: has no {missing[0]}")
    return files


def _wanted(path: str) -> str | None:
    """Which of the files a member of an archive is, by the end of its path."""
    parts = PurePosixPath(path.replace("\\", "/")).parts
    end = "/".join(parts[-2:])
    if end in SHA256:
        return end
    return _LICENSE if parts[-1:] == (_LICENSE,) and len(parts) <= 2 else None


def _limited(opened: IO[bytes], name: str) -> bytes:
    content = opened.read(MAX_FILE_BYTES + 1)
    if len(content) > MAX_FILE_BYTES:
        raise DataError(f"{name}: is larger than {MAX_FILE_BYTES >> 20} MiB")
    return content
