"""Where an endpoint is and how to get in: its address, its key, and a client that keeps both safe.

    access = Access.of("https://api.openai.com/v1", config)
    async with access.client(config) as client:
        ...

The key comes from the environment alone and is taken out of every message.
"""

from __future__ import annotations

import importlib.util
import ipaddress
import os
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from papercore.errors import ModelError
from papercore.generate.endpoint import EndpointConfig

if TYPE_CHECKING:
    from openai import AsyncOpenAI

__all__ = ["Access"]

CONNECT_S = 10.0
"""Longest time to wait for a connection."""

_NO_KEY = "none"
"""What is sent where no key is set: the client wants one, and local servers ignore it."""
_LIKE_A_KEY = re.compile(r"\b(sk|key|Bearer)([-_ ])[A-Za-z0-9._*-]{8,}")


@dataclass(frozen=True)
class Access:
    """Address and key of an endpoint."""

    base_url: str
    key: str | None = field(default=None, repr=False)

    @classmethod
    def of(cls, base_url: str, config: EndpointConfig) -> Access:
        """Address and key, checked.

        Raises:
            ModelError: The client is not installed, the key is missing, or it would travel in the
                clear.
        """
        if importlib.util.find_spec("openai") is None:
            raise ModelError("endpoints need the openai client: pip install 'papercore[api]'")
        url = urlsplit(base_url)
        if url.scheme not in ("http", "https") or not url.hostname:
            raise ModelError(f"{base_url!r} is no http(s) address of an endpoint")
        if url.username or url.password or url.query:
            raise ModelError(
                f"the address of {url.hostname} holds more than a path: "
                "give a key by an environment variable, see api_key_env"
            )
        name = config.api_key_env
        key = (os.environ.get(name, "").strip() or None) if name else None
        if key is not None and url.scheme == "http" and not _is_loopback(url.hostname):
            raise ModelError(
                f"the key in {name} would travel to {url.hostname} in the clear: use https, "
                "or set api_key_env to an empty text if this endpoint needs no key"
            )
        if key is None and name and url.scheme == "https" and not config.replay:
            raise ModelError(
                f"{url.hostname} needs a key: set the environment variable {name}, "
                "or set api_key_env to an empty text if it needs none"
            )
        return cls(base_url.rstrip("/"), key)

    def redact(self, text: str) -> str:
        """The text without the key, and without what looks like one."""
        hidden = text if self.key is None else text.replace(self.key, "***")
        return _LIKE_A_KEY.sub(r"\1\2***", hidden)

    @asynccontextmanager
    async def client(self, config: EndpointConfig) -> AsyncIterator[AsyncOpenAI]:
        """A client that neither retries nor follows redirects, open for one event loop."""
        from openai import AsyncOpenAI, DefaultAsyncHttpxClient, Timeout

        timeout = Timeout(config.timeout_s, connect=min(CONNECT_S, config.timeout_s))
        host = urlsplit(self.base_url).hostname or ""
        http = DefaultAsyncHttpxClient(
            follow_redirects=False,  # a redirect could lead requests to another host
            timeout=timeout,
            trust_env=not _is_loopback(host),  # no proxy between this machine and itself
        )
        client = AsyncOpenAI(
            api_key=self.key or _NO_KEY,
            base_url=self.base_url,
            max_retries=0,
            timeout=timeout,
            http_client=http,
        )
        if host != "api.openai.com":
            # The client takes these from the environment; other hosts have no business with them.
            client.organization = client.project = None
        async with client:
            yield client


def _is_loopback(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
