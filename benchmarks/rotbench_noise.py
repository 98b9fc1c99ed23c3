"""Disturbed versions of cases: ours against the official algorithm, plainly re-stated.

Both take entries of the released layout and give disturbed entries. The released files are used
where `ROTBENCH_DATA` or the user's cache has them, else the sample of the package.
"""

from __future__ import annotations

import json
import os
import random
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

from harness import Options, Ratio, Result, Row, finish, measure, ratio
from onelayer import cpu_options, load_note
from papercore.errors import DataError
from rotbench.cases import HALVES, NOISY_LEVELS, Case, CaseKey, Half, Level
from rotbench.config import NoiseRules
from rotbench.data import SAMPLE, folder_of
from rotbench.noise import disturb
from rotbench.reference import disturb_entry
from rotbench.released import entry, file_of, read_entry, read_folder

COMBINATIONS: list[tuple[Level, Half]] = [
    (level, half) for level in NOISY_LEVELS for half in HALVES[level]
]
PLAIN, OFFICIAL, STRICT = "re-statement", "ours, official", "ours, strict"
CASES = " on parsed cases"
PASSES = 3


def main(options: Options) -> int:
    """Disturb First_Turn at every level and half."""
    folder = find_folder()
    entries = json.loads(file_of(folder, "first", "clean").read_text("utf-8"))
    cases = read_folder(folder, ("first",), ("clean",))
    passes = 1 if options.quick else PASSES
    number = passes * len(entries) * len(COMBINATIONS)
    official, strict = NoiseRules(mode="official"), NoiseRules()
    work: dict[str, Callable[[], None]] = {
        PLAIN: lambda: plain(entries),
        OFFICIAL: lambda: whole(entries, official),
        STRICT: lambda: whole(entries, strict),
        OFFICIAL + CASES: lambda: noise(cases, official),
        STRICT + CASES: lambda: noise(cases, strict),
    }
    ways = {label: repeated(run, passes) for label, run in work.items()}
    rows = measure(ways, options)
    result = Result(
        "rotbench_noise",
        "disturbed versions of released entries, at least as fast as the algorithm written plainly",
        tuple(rows.values()),
        (
            ratio(f"{PLAIN} / {OFFICIAL}", rows[PLAIN], rows[OFFICIAL], at_least=1.0),
            ratio(f"{STRICT} / {PLAIN}", rows[STRICT], rows[PLAIN], at_most=2.0),
            *(rate(label, row, number) for label, row in rows.items()),
        ),
        notes=notes(number, folder),
    )
    return finish(result, options)


def notes(number: int, folder: Path) -> tuple[str, ...]:
    """What a reader must know."""
    source = "the sample" if folder == SAMPLE else "the released First_Turn"
    peer = (
        "the re-statement is written from the algorithm's description (rotbench.reference), with "
        "random.sample, shuffle and choice; it keeps no map of names"
    )
    parsing = (
        "ours parses an entry once and makes its seven versions from there; the re-statement "
        "parses it for each, as the official code does"
    )
    return (f"{number} disturbed entries per repetition, from {source}", peer, parsing, load_note())


def find_folder() -> Path:
    """The released files, else the sample."""
    if chosen := os.environ.get("ROTBENCH_DATA"):
        return Path(chosen)
    try:
        return folder_of("released")
    except DataError:
        return SAMPLE


def repeated(run: Callable[[], None], times: int) -> Callable[[], None]:
    """The work several times, long enough for the clock."""

    def several() -> None:
        for _ in range(times):
            run()

    return several


def plain(entries: list[dict[str, Any]]) -> None:
    """The official algorithm."""
    rng = random.Random(0)
    for one in entries:
        for level, half in COMBINATIONS:
            disturb_entry(one, level, half, rng)


def whole(entries: list[dict[str, Any]], rules: NoiseRules) -> None:
    """Ours from entry to entry."""
    for index, one in enumerate(entries):
        case = read_entry(one, CaseKey("first", "clean", "whole", index))
        for level, half in COMBINATIONS:
            entry(disturb(case, level, half, rules=rules).case)


def noise(cases: list[Case], rules: NoiseRules) -> None:
    """Ours from case to case, as augmentation and fresh noise use it."""
    for case in cases:
        for level, half in COMBINATIONS:
            disturb(case, level, half, rules=rules)


def rate(label: str, row: Row, number: int) -> Ratio:
    """Disturbed cases per second."""
    rates = [number / seconds for seconds in row.seconds]
    return Ratio(f"cases/s, {label}", statistics.median(rates), min(rates), max(rates), len(rates))


if __name__ == "__main__":
    raise SystemExit(main(cpu_options()))
