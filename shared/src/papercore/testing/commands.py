"""Running what a user would run.

    done = run_cli(["longheads", "info"])

The command sees one thread, no hub and no terminal.
"""

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path


def run_cli(
    argv: Sequence[str | Path],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    timeout_s: float = 300.0,
) -> subprocess.CompletedProcess[str]:
    """Runs a console script of this environment; its exit code is for the caller to judge."""
    scripts = str(Path(sys.executable).parent)
    script = shutil.which(str(argv[0]), path=scripts) or str(argv[0])
    plain = {
        "COLUMNS": "100",
        "HF_HUB_OFFLINE": "1",
        "NO_COLOR": "1",
        "OMP_NUM_THREADS": "1",
        "PATH": os.pathsep.join([scripts, os.environ.get("PATH", "")]),
    }
    return subprocess.run(
        [script, *map(str, argv[1:])],
        cwd=cwd,
        env={**os.environ, **plain, **(env or {})},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )


def free_port() -> int:
    """A local TCP port that nobody listened on a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
