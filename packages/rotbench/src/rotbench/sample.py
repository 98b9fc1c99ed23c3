"""The miniature set that ships with the package: released schema, all written by us.

Its sources are in `sample_data/source.json`; the files beside it are what the commands read, and

    python -m rotbench.sample

writes them anew: clean ones from the sources, disturbed ones by our `strict` noise with seed 0.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import cast

from papercore.files import read_json, write_atomic
from rotbench.cases import HALVES, LEVELS, TURNS, Call, Case, CaseKey, Level, Step, Tool, Turn
from rotbench.noise import disturb
from rotbench.released import BEGIN, entry, file_of
from rotbench.rewrite import call_text

__all__ = ["FOLDER", "build", "clean_cases", "write"]

FOLDER = Path(__file__).parent / "sample_data"
SEED = 0

Table = Mapping[str, object]


def clean_cases(turn: Turn) -> list[Case]:
    """The undisturbed cases, from the sources."""
    source = read_json(FOLDER / "source.json")
    special = _tools(source["special"])
    cases: list[Case] = []
    for environment, query in _queries(source):
        text = str(query["query"])
        steps = [Step("user", text + BEGIN)]
        golds = query["golds"]
        if turn == "third":
            if "third" not in query:
                continue
            history = cast("Table", query["third"])
            steps += map(_step, cast("Sequence[Sequence[object]]", history["steps"]))
            golds = history["golds"]
        cases.append(
            Case(
                CaseKey(turn, "clean", "whole", len(cases)),
                text,
                str(environment["scenario"]),
                str(source["preamble"]),
                _tools(environment["tools"]) + special,
                str(source["closing"]),
                tuple(steps),
                tuple(_call(*one) for one in cast("Sequence[Sequence[object]]", golds)),
            )
        )
    return cases


def build(turn: Turn, level: Level) -> str:
    """The text of one file."""
    cases = [
        disturb(case, level, half, seed=SEED).case
        for half in HALVES[level]
        for case in clean_cases(turn)
    ]
    return json.dumps([entry(case) for case in cases], indent=1, ensure_ascii=False) + "\n"


def write(folder: Path = FOLDER) -> None:
    """Writes all ten files."""
    for turn in TURNS:
        for level in LEVELS:
            write_atomic(file_of(folder, turn, level), build(turn, level))


def _queries(source: Table) -> Iterator[tuple[Table, Table]]:
    """Environment and query; each environment has two, as the released ones share theirs too."""
    for environment in cast("Sequence[Table]", source["environments"]):
        for query in cast("Sequence[Table]", environment["queries"]):
            yield environment, query


def _tools(listed: object) -> tuple[Tool, ...]:
    return tuple(
        Tool(
            str(tool["name"]),
            str(tool["description"]),
            {
                name: {"type": "string", "description": description}
                for name, description in cast("Mapping[str, str]", tool["parameters"]).items()
            },
            tuple(cast("Sequence[str]", tool["required"])),
        )
        for tool in cast("Sequence[Table]", listed)
    )


def _call(name: object, arguments: object) -> Call:
    return Call(str(name), cast("dict[str, str]", arguments))


def _step(listed: Sequence[object]) -> Step:
    if listed[0] == "assistant":
        return Step("assistant", "Thought:\n" + call_text(_call(listed[1], listed[2])))
    assert listed[0] in ("user", "function"), listed
    return Step("user" if listed[0] == "user" else "function", str(listed[1]))


if __name__ == "__main__":
    write()
