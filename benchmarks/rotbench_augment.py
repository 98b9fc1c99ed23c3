"""RoTTuning's augmentation: trajectories through the noise of five environments, written to a file.

The goal is 100,000 augmented trajectories in a minute on one core. Trajectories are made up: clean
entries of the released third turn where they are at hand, else of the sample, each with its own
query, so that every content is different.
"""

from __future__ import annotations

import json
import os
import tempfile
from functools import partial
from pathlib import Path

from harness import Options, Ratio, Result, Row, finish, measure
from onelayer import cpu_options, load_note
from rotbench.augment import augment_all, survey
from rotbench.config import NoiseRules, Quota
from rotbench.data import SAMPLE
from rotbench.layouts import row

FULL = 100_000
MINUTE = 60.0
SOURCES = 5_000
"""Clean trajectories in the file; the quota uses them again and again."""


def main(options: Options) -> int:
    """Survey, augment and write the paper's mixture, in both modes of noise."""
    total = 200 if options.quick else 10_000
    quota = mixture(total)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "in.jsonl"
        source = write_sources(path, min(SOURCES, total))
        out = Path(folder) / "out"
        ways = {
            "strict noise": partial(write, path, out, quota, NoiseRules()),
            "official noise": partial(write, path, out, quota, NoiseRules(mode="official")),
        }
        rows = measure(ways, options)
    result = Result(
        "rotbench_augment",
        "100,000 augmented trajectories are written in under a minute on one core",
        tuple(rows.values()),
        tuple(minutes(label, one, total) for label, one in rows.items()),
        notes=(
            f"{total} trajectories of the paper's mixture per repetition, from {source}",
            "both passes over the file, the noise and the writing count",
            "the ratio is the time that 100,000 would take, over a minute",
            load_note(),
        ),
    )
    return finish(result, options)


def mixture(total: int) -> Quota:
    """The paper's mixture, scaled; clean takes what rounding leaves."""
    usual = Quota()
    parts = {
        name: getattr(usual, name) * total // usual.total
        for name in ("slight", "medium", "heavy", "union")
    }
    return Quota(clean=total - sum(parts.values()), **parts)


def minutes(label: str, one: Row, total: int) -> Ratio:
    """Time of 100,000 trajectories over a minute."""
    values = sorted(seconds * FULL / total / MINUTE for seconds in one.seconds)
    median = values[len(values) // 2]
    name = f"{label}: 100,000 trajectories / a minute"
    return Ratio(name, median, values[0], values[-1], len(values), "<=", 1.0)


def write(path: Path, out: Path, quota: Quota, rules: NoiseRules) -> None:
    """What the verb does, without its run folder."""
    with out.open("w", encoding="utf-8") as file:
        for one in augment_all(survey([path]), quota, seed=0, rules=rules):
            file.write(json.dumps(row(one), ensure_ascii=False) + "\n")


def write_sources(path: Path, count: int) -> str:
    """Writes clean trajectories, all different; says where they come from."""
    folder = Path(os.environ.get("ROTBENCH_DATA", SAMPLE))
    entries = json.loads((folder / "Third_Turn" / "clean.json").read_text("utf-8"))
    known = [entry for entry in entries if "functions.get_further" not in json.dumps(entry)]
    with path.open("w", encoding="utf-8") as file:
        for index in range(count):
            entry = json.loads(json.dumps(known[index % len(known)]))
            entry["conversations"][1]["value"] = f"{index}: {entry['conversations'][1]['value']}"
            file.write(json.dumps(entry) + "\n")
    return "the sample" if folder == SAMPLE else "the released Third_Turn"


if __name__ == "__main__":
    raise SystemExit(main(cpu_options()))
