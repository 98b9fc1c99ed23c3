"""`rotbench expand`: new queries for environments of tools, as the first step of RoTTuning.

Paper 2401.08326, section on RoTTuning: a model sees the tools of an environment and a mix of human
and generated queries, and writes new ones, which go back into the pool if their Rouge-L with every
other query is below 0.55. The paper's prompt was not released; ours is `prompt_of`.

Prompts are sent in waves. What a prompt shows depends on the seed, its number and the queries of
earlier waves, so a killed run goes on to the same queries, if the model answers as before.

The second step, solving each query with real tools, needs somebody who runs the tools, and is not
part of this package: `augment` takes trajectories from wherever they were made.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Final, cast

from pydantic import JsonValue

from papercore.config import RunFlags
from papercore.files import write_atomic
from papercore.generate.types import Completion, Generator, Message, Request, SamplingParams
from papercore.log import progress
from papercore.records import Record
from papercore.report import conclude
from papercore.runs import Run, check_folder
from papercore.terminal import say, shown
from rotbench.cases import Tool
from rotbench.config import ExpandConfig
from rotbench.environments import Environment, read_environments
from rotbench.query_list import read_queries
from rotbench.rouge import Pool
from rotbench.training_report import EXPAND_PREFIX

__all__ = ["State", "expand", "prompt_of", "requests_of", "run"]

FILE: Final = "queries.jsonl"
FOLDER = Path("runs") / "expand"
EXIT_UNFINISHED = 1

SYSTEM = (
    "You invent requests that people might make of an assistant which can call tools. Each one is "
    "realistic, complete in itself, and can be met with the tools that you are shown, most often "
    "with one or two of them."
)
"""Ours; the paper's was not released."""


@dataclass
class State:
    """The queries so far."""

    pool: Pool
    """All queries of all environments, human and generated."""
    generated: dict[int, list[str]] = field(default_factory=dict)
    """Environment -> its generated queries."""

    @property
    def count(self) -> int:
        """How many queries were generated."""
        return sum(map(len, self.generated.values()))

    def add(self, environment: int, query: str) -> None:
        """Takes a query in."""
        self.pool.add(query)
        self.generated.setdefault(environment, []).append(query)


def run(config: ExpandConfig, flags: RunFlags) -> int:
    """`rotbench expand`.

    Returns:
        0, or 1 if fewer queries than wanted came together.

    Raises:
        ConfigError: The folder is in use, or an option does not fit the model.
        DataError: The tools or queries cannot be read.
        ModelError: The model cannot be loaded or used.
    """
    from papercore.generate.backends import generator_for

    out = flags.out or FOLDER
    check_folder(out, flags)
    environments, data_hash = read_environments(config)
    generator = generator_for(
        config.model,
        endpoint=config.endpoint if config.model.startswith("openai:") else None,
        device=flags.device,
        dtype=config.dtype,
        seed=config.seed,
    )
    with Run.open(
        *(out, config, flags),
        package="rotbench",
        version=metadata.version("rotbench"),
        verb="expand",
        data_hash=data_hash,
    ) as opened:
        state, reason = expand(opened, generator, environments, config)
        write_atomic(out / FILE, _lines(opened.records(), environments))
    conclude(out)
    say(f"{state.count} of {config.count} new queries: {shown(str(out / FILE))}")
    if reason:
        say(f"stopped: {reason}")
    return EXIT_UNFINISHED if state.count < config.count else 0


def expand(
    opened: Run, generator: Generator, environments: Sequence[Environment], config: ExpandConfig
) -> tuple[State, str]:
    """Sends waves of prompts until there are enough queries, or until it leads nowhere.

    Args:
        opened: Gets one record per prompt; those that are there already are not sent again.
        generator: Writes.
        environments: For which.
        config: How many, and how.

    Returns:
        The queries, and why it stopped early, if it did.
    """
    state = State(Pool(query for one in environments for query in one.human))
    # A prompt that failed is not sent again: later ones have seen the pool without its queries.
    known = {record.id: record for record in opened.records()}
    idle, wave = 0, 0
    shown_count = iter(progress(range(config.count), "expand"))
    while state.count < config.count:
        before = state.count
        requests = requests_of(wave, environments, state, config)
        missing = [one for one in requests if one.id not in known]
        answered = {one.id: one for one in generator.generate(missing)} if missing else {}
        for number, request in enumerate(requests, start=wave * config.wave):
            record = known.get(request.id)
            if record is None:
                record = _record(answered[request.id], number % len(environments), state, config)
                opened.append(record)
            _replay(record, state)
        for _ in range(before, min(state.count, config.count)):
            next(shown_count, None)
        stopped = _stopped(list(answered.values()))
        if stopped:
            return state, stopped
        idle = 0 if state.count > before else idle + 1
        if idle >= config.patience:
            return state, f"{idle} waves of {config.wave} prompts brought no new query"
        wave += 1
    return state, ""


def requests_of(
    wave: int, environments: Sequence[Environment], state: State, config: ExpandConfig
) -> list[Request]:
    """The prompts of a wave; environments take turns."""
    first = wave * config.wave
    return [
        _request(number, environments, state, config)
        for number in range(first, first + config.wave)
    ]


def _request(
    number: int, environments: Sequence[Environment], state: State, config: ExpandConfig
) -> Request:
    place = number % len(environments)
    environment = environments[place]
    draw = random.Random(_digest(f"{config.seed}/{number}"))
    generated = state.generated.get(place, [])
    examples = _some(draw, environment.human, config.human)
    examples += _some(draw, generated, config.generated)
    draw.shuffle(examples)
    messages = (
        Message(role="system", content=SYSTEM),
        Message(role="user", content=prompt_of(environment.tools, examples, config.per_prompt)),
    )
    params = SamplingParams(
        max_new_tokens=config.max_new_tokens,
        temperature=config.temperature,
        seed=_digest(f"{config.seed}/{number}/sampling") >> 33,  # endpoints take 31 bits
    )
    return Request(id=f"{EXPAND_PREFIX}{number:06d}", messages=messages, params=params)


def prompt_of(tools: Sequence[Tool], examples: Sequence[str], count: int) -> str:
    """What is asked: the tools, examples if there are any, and a numbered list of new queries."""
    listed = "\n".join(_described(tool) for tool in tools)
    shown_examples = "\n".join(f"- {example}" for example in examples)
    asked = f"Requests that were made before:\n{shown_examples}\n\n" if examples else ""
    return (
        f"The tools:\n{listed}\n\n{asked}"
        f"Write {count} new requests. Each differs from the others, and from those above, in what "
        "it is about and in how it is said; it names concrete places, dates, titles or numbers "
        "where a tool needs them; and it mentions no tool by name. Answer with a numbered list of "
        "the requests and nothing else."
    )


def _described(tool: Tool) -> str:
    needs = ", ".join(tool.required)
    return f"- {tool.name}: {tool.description}" + (f" (needs {needs})" if needs else "")


def _some(draw: random.Random, queries: Sequence[str], count: int) -> list[str]:
    return draw.sample(list(queries), min(count, len(queries)))


def _digest(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def _record(completion: Completion, environment: int, state: State, config: ExpandConfig) -> Record:
    """What came of a prompt. The pool is not changed: `_replay` does that for old and new ones."""
    if completion.finish_reason == "error":
        kind = completion.error_kind or "backend"
        data: dict[str, JsonValue] = {"environment": environment, "kind": kind}
        return Record(id=completion.id, status="error", error=completion.error or kind, data=data)
    accepted: list[JsonValue] = []
    rejected: list[JsonValue] = []
    own = Pool()
    for query in read_queries(completion.text, complete=completion.finish_reason == "stop"):
        near = max(state.pool.nearest(query), own.nearest(query), key=lambda near: near.score)
        entry: dict[str, JsonValue] = {
            "query": query,
            "rouge": round(near.score, 4),
            "nearest": near.text,
        }
        if near.score < config.rouge:
            own.add(query)
            accepted.append(entry)
        else:
            rejected.append(entry)
    return Record(
        id=completion.id,
        data={
            "environment": environment,
            "accepted": accepted,
            "rejected": rejected,
            "characters": len(completion.text),
            "finish": completion.finish_reason,
            "tokens": completion.usage.total_tokens,
        },
    )


def _replay(record: Record, state: State) -> None:
    for entry in cast("list[Mapping[str, str]]", record.data.get("accepted", [])):
        state.add(cast("int", record.data["environment"]), entry["query"])


def _stopped(completions: Sequence[Completion]) -> str:
    """Why no further wave can bring anything: the budget is spent, or every prompt failed."""
    failed = [one for one in completions if one.finish_reason == "error"]
    for one in failed:
        if one.error_kind in ("budget", "refused", "replay"):
            return f"{one.error_kind}: {one.error}"
    if failed and len(failed) == len(completions):
        return f"every prompt of a wave failed, the first with: {failed[0].error}"
    return ""


def _lines(records: Sequence[Record], environments: Sequence[Environment]) -> str:
    """The queries: human ones of every environment first, then the generated ones as they came."""
    lines: list[dict[str, object]] = [
        {"query": query, "environment": place, "origin": "human"}
        for place, one in enumerate(environments)
        for query in one.human
    ]
    for record in records:
        lines += [
            {**entry, "environment": record.data["environment"], "origin": "generated"}
            for entry in cast("list[Mapping[str, object]]", record.data.get("accepted", []))
        ]
    return "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
