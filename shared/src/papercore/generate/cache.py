"""Replies on disk: one file per request, keyed by a hash of everything that was asked.

    cache = ReplyCache(folder)
    key = cache_key(base_url, route, body, sample)
    reply = cache.get(key)

Files are JSON and hold no key of an endpoint. A file that cannot be read counts as absent.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from pathlib import Path

from pydantic import ValidationError

from papercore.config import Config
from papercore.errors import DataError
from papercore.files import read_json, write_atomic
from papercore.generate.types import Completion

__all__ = ["CachedReply", "ReplyCache", "cache_key"]

logger = logging.getLogger(__name__)

VERSION = 1
"""Of the files; one of another version counts as absent."""


class CachedReply(Config):
    """A reply as it lies in the cache. The id in it is that of the request that was sent."""

    version: int = VERSION
    key: str
    model: str | None = None
    """What the endpoint called its model."""
    fingerprint: str | None = None
    """What the endpoint said about its configuration."""
    completion: Completion


class ReplyCache:
    """A folder of replies; several processes may use one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.expanduser()

    def get(self, key: str) -> CachedReply | None:
        """The reply to a request, if there is a sound one."""
        path = self._path(key)
        if not path.is_file():
            return None
        try:
            found = CachedReply.model_validate_json(json.dumps(read_json(path)))
        except (DataError, ValidationError) as error:
            logger.warning("ignored a broken reply in the cache: %s: %s", path.name, _first(error))
            return None
        if found.version != VERSION or found.key != key:
            logger.warning("ignored a reply in the cache: %s is not what it should be", path.name)
            return None
        return found

    def put(self, reply: CachedReply) -> None:
        """Keeps a reply; a folder that cannot be written gives a warning, not an error."""
        if reply.completion.finish_reason == "error":
            raise ValueError("an error is no reply to keep")
        path = self._path(reply.key)
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_atomic(path, reply.model_dump_json(indent=1) + "\n")
        except OSError as error:
            logger.warning("a reply could not be kept in the cache: %s", error.strerror)

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.json"


def cache_key(base_url: str, route: str, body: Mapping[str, object], sample: int) -> str:
    """SHA-256 over endpoint, route, body and number of the sample.

    The order of the body's own fields does not count. That of objects within them does: a model
    reads the parameters of a tool in the order in which they are sent.

    Args:
        sample: Which of several equal requests this is.

    Raises:
        ValueError: A text in the body cannot be encoded as UTF-8.
    """
    content = [base_url, route, sorted(body.items()), sample]
    canonical = json.dumps(content, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


def _first(error: Exception) -> str:
    return str(error).splitlines()[0]
