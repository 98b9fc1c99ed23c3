"""How a cache on the host did in a run, from its records. No torch here."""

from collections.abc import Sequence
from typing import cast

from papercore.claims import Estimate
from papercore.records import Record
from papercore.stats import exact

METRIC = "cache_hit_rate"


def summarise(records: Sequence[Record]) -> dict[str, Estimate]:
    """Share of the pages read while decoding that were on the device; empty without offloading."""
    told = [cast("dict[str, int]", record.data.get("cache") or {}) for record in records]
    hits, misses = (sum(facts.get(name, 0) for facts in told) for name in ("hits", "misses"))
    asked = hits + misses
    return {METRIC: exact(hits / asked, asked)} if asked else {}


def lines(records: Sequence[Record]) -> list[str]:
    """The same for the person at the terminal."""
    return [
        f"cache on the host: {found.value:.2f} of {found.n} pages were on the device when read"
        for found in summarise(records).values()
    ]
