"""CPU seconds until `longheads --help` has answered, each time in a new process.

Help must not import torch: that alone takes longer than the whole answer may.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from harness import Options, Ratio, Result, Row, finish, ratio
from onelayer import cpu_options, load_note

LIMIT_S = 1.0
HELP, TORCH, PYTHON = "longheads --help", "python -c 'import torch'", "python -c pass"


def main(options: Options) -> int:
    """Start each command in turn, write the result."""
    script = Path(sys.executable).with_name("longheads")
    commands = {
        HELP: (str(script), "--help"),
        TORCH: (sys.executable, "-c", "import torch"),
        PYTHON: (sys.executable, "-c", "pass"),
    }
    seconds: dict[str, list[float]] = {label: [] for label in commands}
    for command in commands.values():
        child_seconds(command)
    for repetition in range(options.repetitions):
        order = list(commands) if repetition % 2 == 0 else list(commands)[::-1]
        for label in order:
            seconds[label].append(child_seconds(commands[label]))
    rows = {label: Row(label, None, tuple(s), 0) for label, s in seconds.items()}
    spent = seconds[HELP]
    result = Result(
        "longheads_cli_help",
        f"longheads --help answers in less than {LIMIT_S:g} CPU second",
        tuple(rows.values()),
        (
            Ratio(
                "CPU seconds of longheads --help",
                statistics.median(spent),
                min(spent),
                max(spent),
                len(spent),
                "<=",
                LIMIT_S,
            ),
            ratio("importing torch / longheads --help", rows[TORCH], rows[HELP]),
        ),
        notes=("user and system seconds of the process; files were read before", load_note()),
    )
    return finish(result, options)


def child_seconds(command: Sequence[str]) -> float:
    """CPU seconds of a process.

    Raises:
        subprocess.CalledProcessError: It failed.
    """
    before = os.times()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    after = os.times()
    return (
        after.children_user - before.children_user + after.children_system - before.children_system
    )


if __name__ == "__main__":
    raise SystemExit(main(cpu_options()))
