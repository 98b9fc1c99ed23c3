"""Run folders of this package's commands. No torch here.

with open_run(out, config, flags, verb="eval", data_hash=prepared.digest) as run: ...
"""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

from papercore.config import Config, RunFlags
from papercore.runs import Run

__all__ = ["open_run"]


def open_run(
    out: Path, config: Config, flags: RunFlags, *, verb: str, data_hash: str | None
) -> Run:
    """Makes the run folder of a command, or goes on with it; as `Run.open`."""
    return Run.open(
        out,
        config,
        flags,
        package="r3",
        version=metadata.version("r3"),
        verb=verb,
        data_hash=data_hash,
    )
