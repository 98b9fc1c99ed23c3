"""Run the miniatures of all installed packages and put what came out on one page.

    python -m papercore.reproduce --seeds 0,1,2

Packages run two at a time, each on one thread; one that fails does not stop the others. A rerun
replaces what an earlier one left. Exit code: 0 if every claim of the first seed held, 3 if one did
not, 1 if a miniature broke.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import IO, Self

from papercore.config import near_miss
from papercore.errors import ConfigError, PaperError
from papercore.overview import Outcome, print_table, read_outcome, write_index

__all__ = ["Job", "discover", "main", "reproduce"]

EXIT_FAILED = 1
EXIT_MISSED = 3
PLAIN_INTERVAL_S = 15.0
_POLL_S = 0.1
_ONE_THREAD = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")


@dataclass(frozen=True)
class Job:
    """One miniature with one seed."""

    package: str
    seed: int
    command: tuple[str, ...]
    folder: Path
    log: Path

    @property
    def name(self) -> str:
        """What progress lines call it."""
        return f"{self.package} seed {self.seed}"


@dataclass
class _Running:
    job: Job
    process: subprocess.Popen[bytes]
    log: IO[bytes]
    started: float


def discover() -> list[str]:
    """Console scripts of installed distributions that build on the core, by name."""
    found = []
    for script in metadata.entry_points(group="console_scripts"):
        needs = (script.dist.requires or []) if script.dist else []
        if script.dist and script.name == script.dist.name and any(map(_is_core, needs)):
            found.append(script.name)
    return sorted(set(found))


def reproduce(
    packages: Sequence[str],
    *,
    seeds: Sequence[int],
    out: Path,
    quick: bool = False,
    jobs: int = 2,
    script: Callable[[str], tuple[str, ...]] | None = None,
) -> list[Outcome]:
    """Run miniatures, write logs and `index.html`.

    Args:
        packages: Names of console scripts.
        seeds: The first one is run first, for all packages.
        out: Folder of the run folders, the logs and the page.
        quick: Hand `--quick` on.
        jobs: How many run at a time.
        script: The command of a package; by default its console script.

    Returns:
        One outcome per package and seed, packages in the given order.
    """
    command = script or _script
    queue = [
        _job(package, seed, out, command(package), quick=quick)
        for seed in seeds
        for package in packages
    ]
    for folder in (out, out / "logs"):
        folder.mkdir(parents=True, exist_ok=True)
    codes = _run_all(queue, jobs)
    outcomes = [
        read_outcome(job.package, job.seed, job.folder, job.log, codes[job.name])
        for package in packages
        for job in queue
        if job.package == package
    ]
    write_index(out, outcomes)
    return outcomes


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    arguments = _parser().parse_args(argv)
    try:
        packages = _chosen(arguments.packages, discover())
        outcomes = reproduce(
            packages,
            seeds=arguments.seeds,
            out=arguments.out,
            quick=arguments.quick,
            jobs=arguments.jobs,
        )
    except PaperError as error:
        sys.stderr.write(f"reproduce: error: {error}\n")
        return error.exit_code
    except KeyboardInterrupt:
        sys.stderr.write("reproduce: interrupted\n")
        return 130
    print_table(outcomes, arguments.out / "index.html")
    return exit_code(outcomes, first_seed=arguments.seeds[0], quick=arguments.quick)


def exit_code(outcomes: Sequence[Outcome], *, first_seed: int, quick: bool) -> int:
    """What `make reproduce` exits with; seeds after the first are reported only."""
    if any(outcome.failure for outcome in outcomes):
        return EXIT_FAILED
    first = [outcome for outcome in outcomes if outcome.seed == first_seed]
    return EXIT_MISSED if not quick and any(outcome.shortfall for outcome in first) else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m papercore.reproduce",
        description="Run the miniatures of all installed packages and put the results on one page.",
    )
    parser.add_argument("--packages", type=_names, default=[], help="such as a,b; default: all")
    parser.add_argument("--seeds", type=_seeds, default=[0], help="such as 0,1,2; default: 0")
    parser.add_argument("--quick", action="store_true", help="touch every line, measure nothing")
    parser.add_argument("--out", type=Path, default=Path("runs/reproduce"), help="folder")
    parser.add_argument("--jobs", type=_count, default=2, help="how many at a time; default: 2")
    return parser


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _seeds(text: str) -> list[int]:
    seeds = list(dict.fromkeys(_names(text)))
    if not seeds or not all(seed.isdecimal() for seed in seeds):
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of seeds such as 0,1,2")
    return [int(seed) for seed in seeds]


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of at least 1")
    return int(text)


def _chosen(wanted: Sequence[str], present: Sequence[str]) -> list[str]:
    if not present:
        raise ConfigError("no package is installed: install one, or run `make setup`")
    for name in wanted:
        if name not in present:
            raise ConfigError(
                f"there is no package {name!r}{near_miss(name, present)}"
                f" (there are: {', '.join(present)})"
            )
    return list(wanted) or list(present)


def _is_core(requirement: str) -> bool:
    name = requirement.removeprefix("papercore")
    return name != requirement and not name[:1].isalnum() and name[:1] not in {"-", "_", "."}


def _script(package: str) -> tuple[str, ...]:
    beside = Path(sys.executable).parent / package
    if beside.exists():
        return (str(beside),)
    found = shutil.which(package)
    if found is None:
        raise ConfigError(f"the command {package!r} is not on PATH: install the package again")
    return (found,)


def _job(package: str, seed: int, out: Path, script: tuple[str, ...], *, quick: bool) -> Job:
    folder = out / package / f"seed{seed}"
    flags = ["--quick"] if quick else []
    command = (*script, "mini", "--seed", str(seed), "--out", str(folder), "--overwrite", *flags)
    return Job(package, seed, command, folder, out / "logs" / f"{package}-seed{seed}.log")


def _run_all(jobs: Sequence[Job], at_once: int) -> dict[str, int]:
    """Exit code of every job, by its name."""
    waiting = deque(jobs)
    running: list[_Running] = []
    codes: dict[str, int] = {}
    with _Display(len(jobs)) as display:
        try:
            while waiting or running:
                while waiting and len(running) < at_once:
                    running.append(_start(waiting.popleft()))
                time.sleep(_POLL_S)
                for task in [task for task in running if task.process.poll() is not None]:
                    running.remove(task)
                    codes[task.job.name] = _finish(task)
                    display.ended(task.job.name, codes[task.job.name], _age_s(task))
                display.show([(task.job.name, _age_s(task)) for task in running], len(codes))
        finally:
            for task in running:
                task.process.terminate()
                _finish(task)
    return codes


def _start(job: Job) -> _Running:
    log = job.log.open("wb")
    try:
        process = subprocess.Popen(
            job.command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=os.environ | dict.fromkeys(_ONE_THREAD, "1"),
        )
    except OSError:
        log.close()
        raise
    return _Running(job, process, log, time.monotonic())


def _finish(task: _Running) -> int:
    code = task.process.wait()
    task.log.close()
    return code


def _age_s(task: _Running) -> float:
    return time.monotonic() - task.started


class _Display:
    """Progress on stderr: live on a terminal, else a line now and then."""

    def __init__(self, total: int) -> None:
        from rich.console import Console
        from rich.live import Live

        self._total = total
        self._console = Console(stderr=True, highlight=False)
        self._live = Live(console=self._console, transient=True, refresh_per_second=4)
        self._shown = time.monotonic()

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._console.is_terminal:
            self._live.stop()

    def ended(self, name: str, code: int, seconds: float) -> None:
        """Say that a job is over."""
        words = {0: "done", EXIT_MISSED: "done, a claim was missed"}
        self._console.print(f"{name}: {words.get(code, f'failed, exit {code}')}, {seconds:.0f} s")

    def show(self, running: Sequence[tuple[str, float]], done: int) -> None:
        """Say what is running."""
        now = ", ".join(f"{name} {seconds:.0f} s" for name, seconds in running)
        line = f"{done} of {self._total} done; running: {now or 'nothing'}"
        if self._console.is_terminal:
            self._live.update(line)
        elif time.monotonic() - self._shown >= PLAIN_INTERVAL_S:
            self._console.print(line)
            self._shown = time.monotonic()


if __name__ == "__main__":
    raise SystemExit(main())
