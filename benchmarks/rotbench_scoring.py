"""All that is said of an answer, against the official scorer's three passes alone.

Ours reads each answer (leniently and strictly), scores it by both scorers and with loosely
compared values, and names its error. The peer re-states the official script, whose code we do not
ship: three passes, each of which parses the tools, the golds and the answer again.

The cases are made here and shaped like the released first turn: 8 or 9 tools with 3 parameters, one
gold in four with a second one; a third of the answers are right, the others have one fault each,
and two in seven of all are mended before they can be read.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from dataclasses import replace

from pydantic import JsonValue

from harness import Options, Ratio, Result, Row, cannot_run, finish, measure, ratio, read_options
from rotbench.cases import Call, Case, CaseKey, Tool
from rotbench.grading import Answer, grade
from rotbench.official import react_text
from rotbench.official_reference import passes
from rotbench.released import entry

CASES = 8400
QUICK_CASES = 70
TARGET_PER_S = 5_000.0
OURS = "reading, both scorers, kinds of errors"
OFFICIAL = "official scorer, three passes (re-stated)"
WORDS = ("get", "find", "weather", "price", "route", "city", "day", "stock", "news", "user", "list")
SPECIAL = (
    Tool("ask_to_user", "Asks the user for what is missing.", {"question": {"type": "string"}}),
    Tool("finish", "Gives the answer to the user.", {"answer": {"type": "string"}}),
)


def main(options: Options) -> int:
    """Grade the same answers both ways, in turn, and write the result."""
    if options.device != "cpu":
        raise cannot_run("this is promised for one CPU thread: give --device cpu")
    cases = [make_case(index) for index in range(QUICK_CASES if options.quick else CASES)]
    answers = [make_answer(case) for case in cases]
    entries = [entry(case) for case in cases]
    jobs = list(zip(cases, (Answer(text) for text in answers), strict=True))
    written = list(zip(entries, answers, strict=True))
    check(cases, answers, entries)
    rows = measure(
        {
            OURS: lambda: [grade(case, answer) for case, answer in jobs],
            OFFICIAL: lambda: [passes(item, text) for item, text in written],
        },
        options,
        x=len(cases),
    )
    rates = sorted(len(cases) / seconds for seconds in rows[OURS].seconds)
    middle = rates[len(rates) // 2]
    kinds = Counter(grade(case, answer).error for case, answer in jobs)
    result = Result(
        "rotbench_scoring",
        f"an answer is read, scored by both scorers and explained {TARGET_PER_S:g} times a second",
        tuple(rows.values()),
        (
            Ratio(
                "answers graded per CPU second",
                middle,
                rates[0],
                rates[-1],
                len(rates),
                ">=",
                TARGET_PER_S,
            ),
            ratio("official three passes / all of ours", rows[OFFICIAL], rows[OURS]),
            per_second("answers per CPU second of the official three passes", rows[OFFICIAL]),
        ),
        x_label="answers",
        notes=(
            "the official scores of both are equal on every answer, checked before",
            "kinds: " + ", ".join(f"{kind} {n}" for kind, n in kinds.most_common()),
            "one thread; files are read and cases made before; no JSON is written",
        ),
    )
    return finish(result, options)


def per_second(name: str, row: Row) -> Ratio:
    """A row's answers per second, without a target."""
    assert row.x is not None
    rates = sorted(row.x / seconds for seconds in row.seconds)
    return Ratio(name, rates[len(rates) // 2], rates[0], rates[-1], len(rates))


def check(cases: list[Case], answers: list[str], entries: list[dict[str, JsonValue]]) -> None:
    """The two must say the same before their speed is compared."""
    for case, text, item in zip(cases, answers, entries, strict=True):
        assert tuple(grade(case, Answer(text)).official) == passes(item, text)


def make_case(index: int) -> Case:
    """A case at slight tool noise, with its clean origin."""
    rng = random.Random(index)
    clean = tuple(make_tool(rng) for _ in range(rng.choice((6, 7))))
    noisy = tuple(replace(tool, name=tool.name[:-2] + rng.choice("XYZ")) for tool in clean)
    values = {key: rng.choice(WORDS) for key in clean[0].parameters}
    golds = [Call(clean[0].name, values)] + [Call(clean[1].name, {})] * (index % 4 == 0)
    renamed = [replace(gold, name=noisy[i].name) for i, gold in enumerate(golds)]
    key = CaseKey("first", "clean", "whole", index)
    origin = Case(
        key, "a query", "TG", "Tools:\n", (*clean, *SPECIAL), "\n\nStart now!\n", (), tuple(golds)
    )
    return replace(
        origin,
        key=CaseKey("first", "slight", "tool", index),
        tools=(*noisy, *SPECIAL),
        golds=tuple(renamed),
        origin=origin,
    )


def make_tool(rng: random.Random) -> Tool:
    """A tool with words for names and a description of the released length."""
    name = "_".join(rng.choice(WORDS) for _ in range(3)) + str(rng.randrange(1000))
    keys = [f"{rng.choice(WORDS)}_{i}" for i in range(3)]
    schema = {"type": "string", "description": " ".join(rng.choice(WORDS) for _ in range(12))}
    said = " ".join(rng.choice(WORDS) for _ in range(20))
    return Tool(name, said, dict.fromkeys(keys, schema), tuple(keys[:1]))


def make_answer(case: Case) -> str:
    """The gold, in two of three cases with a fault, in two of seven in need of mending."""
    rng = random.Random(case.key.index)
    gold, name = case.golds[0], case.golds[0].name
    arguments = dict(gold.arguments)
    fault = case.key.index % 12
    if fault in (4, 5):
        name = case.clean.golds[0].name
    elif fault == 6:
        name = case.tools[-3].name
    elif fault == 7:
        name = "search_" + rng.choice(WORDS)
    elif fault == 8:
        arguments.pop(next(iter(arguments)))
    elif fault in (9, 10):
        arguments[next(iter(arguments))] = "another value"
    text = react_text(name, json.dumps(arguments))
    text = text.replace("Thought:", "Thought: The user asks for this, and one tool can do it.", 1)
    if fault == 11:
        return text[:-1]
    return (text, text, text, text + "\nObservation: done", text, text, text.replace("{", "```{"))[
        case.key.index % 7
    ]


if __name__ == "__main__":
    raise SystemExit(main(read_options()))
