"""Whether there is no way to the hub.

    if hub.unreachable():
        ...  # what is in the cache of the hub is all there is

The hub's client tries again for half a minute, and warns each time, where there is no network:
that is right for a network that is slow, and no use where nobody knows the hub's name or where
nothing leads to it. Imports nothing heavy before it is called.
"""

from __future__ import annotations

import errno
import socket
import time
from functools import cache

__all__ = ["unreachable"]

TIMEOUT_S = 10.0
PAUSE_S = 1.0

_NO_WAY = frozenset({errno.ECONNREFUSED, errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN})


def unreachable() -> bool:
    """Whether there is no way to the hub; tried once per process.

    True only if its name is unknown or nothing leads to it, twice. A hub that is slow, or that
    answers with an error, is there: its client knows best how often to try again. With
    `HF_HUB_OFFLINE` nothing is tried: then the client answers at once by itself.
    """
    from huggingface_hub import constants

    return not constants.is_offline_mode() and not _found(constants.ENDPOINT)


@cache
def _found(address: str) -> bool:
    if _leads_there(address):
        return True
    time.sleep(PAUSE_S)  # a name server may have been lost for a moment
    return _leads_there(address)


def _leads_there(address: str) -> bool:
    from huggingface_hub import get_session

    try:
        get_session().head(address, timeout=TIMEOUT_S)
    except Exception as error:  # noqa: BLE001 - each version of the hub's client has its own errors
        return not _is_no_way(error)
    return True


def _is_no_way(error: BaseException) -> bool:
    """Whether an error was raised over one of the system's that tells of no way at all."""
    over: BaseException | None = error
    while over is not None:
        if isinstance(over, socket.gaierror):
            return True
        if isinstance(over, OSError) and over.errno in _NO_WAY:
            return True
        over = over.__cause__ or over.__context__
    return False
