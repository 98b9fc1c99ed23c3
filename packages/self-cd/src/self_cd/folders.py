"""Run folders of this package's commands. No torch here.

with open_run(out, config, flags, verb="sweep", data_hash=items.digest) as folder: ...
"""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

from papercore.config import Config, RunFlags
from papercore.runs import Run

__all__ = ["open_run"]


def open_run(out: Path, config: Config, flags: RunFlags, *, verb: str, data_hash: str) -> Run:
    """Makes the run folder of a command, or goes on with it; as `Run.open`."""
    return Run.open(
        out,
        config,
        flags,
        package="self_cd",
        version=metadata.version("self-cd"),
        verb=verb,
        data_hash=data_hash,
    )
