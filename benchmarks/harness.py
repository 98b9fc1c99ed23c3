"""Measures ways of doing the same work side by side, and writes down what came out.

A benchmark is a file `benchmarks/<package>_<what>.py`:

    options = read_options()
    rows = measure({"gather": gather, "chunk-major": chunk_major}, options, x=4096)
    ratios = [ratio("gather / chunk-major", rows["gather"], rows["chunk-major"], at_least=10)]
    result = Result("longheads_prefill", claim, tuple(rows.values()), tuple(ratios))
    raise SystemExit(finish(result, options))

The ways are strictly interleaved: every repetition runs each of them once, and every other
repetition in reverse order, so that a machine that slows down slows down all of them. A ratio is
taken within each repetition; its median is reported with its lowest and highest value.

`python benchmarks/harness.py` runs every benchmark here.
"""

from __future__ import annotations

import argparse
import dataclasses
import gc
import json
import os
import platform
import re
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

SCHEMA = 1
HERE = Path(__file__).resolve().parent
CANNOT_RUN = 77
"""Exit code of a benchmark that this machine cannot run; its last line of output says why."""
MISSED = 3
MIN_REPETITIONS = 5
VERSIONS_OF = ("papercore", "torch", "transformers", "numpy", "vllm")

Clock = Literal["cpu", "wall"]


@dataclass(frozen=True)
class Options:
    """How to measure; the same for every benchmark."""

    device: str = "cpu"
    repetitions: int = MIN_REPETITIONS
    quick: bool = False
    """Run everything once on little work, and write nothing."""
    results: Path = HERE / "results"
    elsewhere: bool = False
    """Other processes do the work: wall time then, for which the machine must be free, and no
    memory. A benchmark sets it, nobody who runs one."""

    @property
    def clock(self) -> Clock:
        """CPU seconds of one thread on a CPU, which neighbours do not stretch; else wall time."""
        return "cpu" if self.device == "cpu" and not self.elsewhere else "wall"


@dataclass(frozen=True)
class Row:
    """One way of doing the work, at one size."""

    label: str
    x: float | None
    """Size of the work, the figure's horizontal axis."""
    seconds: tuple[float, ...]
    """One per repetition."""
    peak_bytes: int
    """Most memory held above what was held before; 0 if the system cannot tell."""


@dataclass(frozen=True)
class Ratio:
    """How often one row's time goes into another's, over the repetitions, and what was promised."""

    name: str
    median: float
    lo: float
    hi: float
    n: int
    op: Literal[">=", "<=", ""] = ""
    target: float | None = None

    @property
    def met(self) -> bool:
        """True without a target too."""
        if self.target is None:
            return True
        return self.median >= self.target if self.op == ">=" else self.median <= self.target


@dataclass(frozen=True)
class Result:
    """What a benchmark found."""

    name: str
    """Also the name of its files."""
    claim: str
    """The sentence that the numbers are to support."""
    rows: tuple[Row, ...]
    ratios: tuple[Ratio, ...] = ()
    x_label: str = ""
    notes: tuple[str, ...] = ()
    """What a reader must know: what the peer is, the physical limit, a crossover."""


def read_options(arguments: list[str] | None = None) -> Options:
    """Options from the command line; on a CPU, torch is set to one thread."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:1")
    parser.add_argument("--repetitions", type=int, default=MIN_REPETITIONS)
    parser.add_argument("--quick", action="store_true", help=Options.__doc__)
    parser.add_argument("--results", type=Path, default=Options.results)
    given = parser.parse_args(arguments)
    if given.repetitions < MIN_REPETITIONS:
        parser.error(f"--repetitions must be at least {MIN_REPETITIONS}")

    import torch

    from papercore.device import choose_device

    device = str(choose_device(given.device).value)
    if device == "cpu":
        torch.set_num_threads(1)
    repetitions = 1 if given.quick else given.repetitions
    return Options(device, repetitions, given.quick, given.results)


def cannot_run(reason: str) -> SystemExit:
    """To be raised by a benchmark that needs what this machine lacks."""
    print(reason)
    return SystemExit(CANNOT_RUN)


def measure(
    ways: Mapping[str, Callable[[], object]],
    options: Options,
    *,
    x: float | None = None,
    warmups: int = 1,
) -> dict[str, Row]:
    """Time the ways, interleaved.

    Args:
        ways: Label -> what to run. Preparation belongs outside.
        options: Device and repetitions.
        x: Size of the work.
        warmups: Runs of each way that do not count.
    """
    for run in ways.values():
        for _ in range(warmups):
            run()
    seconds: dict[str, list[float]] = {label: [] for label in ways}
    peaks = dict.fromkeys(ways, 0)
    for repetition in range(options.repetitions):
        order = list(ways) if repetition % 2 == 0 else list(ways)[::-1]
        for label in order:
            time_s, peak_bytes = _once(ways[label], options)
            seconds[label].append(time_s)
            peaks[label] = max(peaks[label], peak_bytes)
    return {label: Row(label, x, tuple(seconds[label]), peaks[label]) for label in ways}


def ratio(
    name: str, over: Row, under: Row, *, at_least: float | None = None, at_most: float | None = None
) -> Ratio:
    """Time of one row over the time of another, repetition by repetition.

    Raises:
        ValueError: The rows were not measured together, or both targets are given.
    """
    if len(over.seconds) != len(under.seconds):
        raise ValueError(f"{name}: the rows have different numbers of repetitions")
    if at_least is not None and at_most is not None:
        raise ValueError(f"{name}: a ratio has one target")
    values = [a / b for a, b in zip(over.seconds, under.seconds, strict=True)]
    op: Literal[">=", "<=", ""] = "" if at_least is at_most else ">=" if at_most is None else "<="
    target = at_least if at_least is not None else at_most
    return Ratio(name, statistics.median(values), min(values), max(values), len(values), op, target)


def finish(result: Result, options: Options) -> int:
    """Print the result, write it unless it is a quick one, and give the exit code."""
    print(describe(result, options))
    if options.quick:
        return 0
    folder = options.results / device_slug(options.device)
    folder.mkdir(parents=True, exist_ok=True)
    document = to_json(result, options)
    text = json.dumps(document, indent=2, ensure_ascii=False) + "\n"
    (folder / f"{result.name}.json").write_text(text, "utf-8")
    draw(result, options, folder / f"{result.name}.png")
    return 0 if all(r.met for r in result.ratios) else MISSED


def describe(result: Result, options: Options) -> str:
    """The result as lines for a person."""
    lines = [f"{result.name} on {device_slug(options.device)}: {result.claim}"]
    for row in result.rows:
        size = "" if row.x is None else f" {row.x:g}"
        peak = f", peak {row.peak_bytes / 2**20:.1f} MiB" if row.peak_bytes else ""
        lines.append(f"  {row.label}{size}: {statistics.median(row.seconds):.4g} s{peak}")
    for r in result.ratios:
        promise = f" (promised {r.op} {r.target:g}: {'met' if r.met else 'MISSED'})" if r.op else ""
        lines.append(f"  {r.name}: {r.median:.3g} [{r.lo:.3g}, {r.hi:.3g}]{promise}")
    return "\n".join(lines + [f"  {note}" for note in result.notes])


def to_json(result: Result, options: Options) -> dict[str, object]:
    """The committed form of a result: numbers, versions and the machine, but never its name."""
    rows = [
        dataclasses.asdict(row) | {"median_s": statistics.median(row.seconds)}
        for row in result.rows
    ]
    ratios = [dataclasses.asdict(r) | {"met": r.met} for r in result.ratios]
    return {
        "schema": SCHEMA,
        "name": result.name,
        "claim": result.claim,
        "clock": options.clock,
        "repetitions": options.repetitions,
        "ratios": ratios,
        "rows": rows,
        "x_label": result.x_label,
        "notes": list(result.notes),
        "machine": machine(options.device),
        "versions": versions(result.name.partition("_")[0]),
    }


def device_slug(device: str) -> str:
    """Folder of a device's results: `cpu-2core`, or the GPU's name in lower case with dashes."""
    if device == "cpu":
        return f"cpu-{_num_cores()}core"
    return re.sub(r"[^a-z0-9]+", "-", _gpu_name(device).lower()).strip("-")


def machine(device: str) -> dict[str, object]:
    """What the numbers depend on."""
    import psutil
    import torch

    facts: dict[str, object] = {
        "device": device_slug(device),
        "processor": _processor(),
        "cores": _num_cores(),
        "threads": torch.get_num_threads(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30),
        "system": f"{platform.system()} {platform.machine()}",
    }
    if device != "cpu":
        facts["gpu"] = _gpu_name(device)
        facts["gpu_memory_gib"] = round(
            torch.cuda.get_device_properties(device).total_memory / 2**30
        )
        facts["cuda"] = str(torch.version.cuda)
    return facts


def versions(package: str) -> dict[str, str]:
    """Versions of what takes part, and of Python."""
    found = {"python": platform.python_version()}
    for name in (package, *VERSIONS_OF):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def draw(result: Result, options: Options, path: Path) -> None:
    """The figure: time against size where there are sizes, else one bar per way."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(6.4, 4.0), layout="constrained")
    labels = list(dict.fromkeys(row.label for row in result.rows))
    sized = len({row.x for row in result.rows}) > 1
    for index, label in enumerate(labels):
        rows = [row for row in result.rows if row.label == label]
        medians = [statistics.median(row.seconds) for row in rows]
        low = [m - min(row.seconds) for m, row in zip(medians, rows, strict=True)]
        high = [max(row.seconds) - m for m, row in zip(medians, rows, strict=True)]
        if sized:
            sizes = [float("nan") if row.x is None else row.x for row in rows]
            axes.errorbar(sizes, medians, yerr=[low, high], marker="o", capsize=3, label=label)
        else:
            axes.barh(index, medians[0], xerr=[low, high], capsize=3, label=label)
    axes.set_title(result.name)
    clock = "CPU seconds, one thread" if options.clock == "cpu" else "seconds"
    if sized:
        axes.set(xscale="log", yscale="log", xlabel=result.x_label, ylabel=clock)
        axes.legend()
    else:
        axes.set(xlabel=clock, yticks=range(len(labels)), yticklabels=labels)
        axes.invert_yaxis()
    figure.savefig(path, dpi=120)
    plt.close(figure)


def run_all(arguments: list[str]) -> int:
    """Run every benchmark in its own process, one after the other, and sum up."""
    files = sorted(HERE.glob("*_*.py"))
    if not files:
        print("there are no benchmarks yet")
    outcomes: list[tuple[str, str]] = []
    for file in files:
        environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
        command = [sys.executable, str(file), *arguments]
        done = subprocess.run(
            command, env=environment, stdout=subprocess.PIPE, text=True, check=False
        )
        print(done.stdout, end="", flush=True)
        reason = (done.stdout.strip().splitlines() or [""])[-1]
        told = {0: "done", MISSED: "a target was missed", CANNOT_RUN: f"not here: {reason}"}
        outcomes.append((file.stem, told.get(done.returncode, f"failed ({done.returncode})")))
    for name, outcome in outcomes:
        print(f"{name}: {outcome}")
    return 0 if all(o == "done" or o.startswith("not here") for _, o in outcomes) else 1


def _once(run: Callable[[], object], options: Options) -> tuple[float, int]:
    """Seconds and peak bytes of one run."""
    from papercore.device import peak_memory, reset_peak_memory, timed

    gc.collect()
    counted = not options.elsewhere and reset_peak_memory(options.device)
    before = peak_memory(options.device)
    with timed(options.device) as timer:
        run()
    peak_bytes = max(0, peak_memory(options.device) - before) if counted else 0
    return (timer.cpu_s if options.clock == "cpu" else timer.wall_s), peak_bytes


def _num_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _gpu_name(device: str) -> str:
    import torch

    return torch.cuda.get_device_name(device)


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    text = info.read_text("utf-8", "replace") if info.exists() else ""
    model = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return model.group(1).strip() if model else platform.processor() or platform.machine()


if __name__ == "__main__":
    raise SystemExit(run_all(sys.argv[1:]))
