"""What runs of the commands come to; the miniature has its own part. No torch here.

The ids of records say which command wrote them, so a run folder needs no other hint.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import cast

from longheads import (
    ablate_report,
    cache_report,
    longbench_report,
    passkey_report,
    perplexity_report,
    trace_report,
)
from papercore.claims import Estimate
from papercore.plots import Figure
from papercore.records import Record
from papercore.stats import exact
from papercore.tables import Table

GENERATE_PREFIX = "generate/"
PREFIXES = (
    GENERATE_PREFIX,
    ablate_report.PREFIX,
    longbench_report.PREFIX,
    passkey_report.PREFIX,
    perplexity_report.PREFIX,
    trace_report.PREFIX,
)
"""How the ids of records of these commands begin."""


def summarise(records: Sequence[Record]) -> dict[str, Estimate]:
    """The metrics of whatever command wrote the records; nothing for records of others."""
    return {
        **_generated(records),
        **cache_report.summarise(records),
        **ablate_report.summarise(records),
        **longbench_report.summarise(records),
        **passkey_report.summarise(records),
        **perplexity_report.summarise(records),
        **trace_report.summarise(records),
    }


def figures(records: Sequence[Record], into: Path) -> list[Figure]:
    """The figures of whatever command wrote the records."""
    return [
        *ablate_report.figures(records, into),
        *longbench_report.figures(records, into),
        *passkey_report.figures(records, into),
        *perplexity_report.figures(records, into),
        *trace_report.figures(records, into),
    ]


def tables(records: Sequence[Record]) -> list[Table]:
    """The tables of whatever command wrote the records."""
    return [*ablate_report.tables(records), *perplexity_report.tables(records)]


def _generated(records: Sequence[Record]) -> dict[str, Estimate]:
    mine = [one for one in records if one.id.startswith(GENERATE_PREFIX) and one.status == "ok"]
    if not mine:
        return {}
    data = mine[0].data
    return {
        "prompt_tok": exact(cast("int", data["prompt_tok"]), 1),
        "new_tok": exact(len(cast("list[int]", data["token_ids"])), 1),
    }
