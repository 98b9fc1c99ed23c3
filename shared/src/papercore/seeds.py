"""One seed fans out by name, the same in every process."""

from __future__ import annotations

import hashlib

__all__ = ["fan_out"]


def fan_out(seed: int, name: str) -> int:
    """Seed of a named purpose, below 2**63; the same in every process, unlike `hash`."""
    digest = hashlib.blake2b(f"{seed}/{name}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1
