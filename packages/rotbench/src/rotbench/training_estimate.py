"""What `train` and `expand` will need, for `--dry-run`. No torch here, and nothing is sent."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from itertools import chain, islice
from pathlib import Path

from papercore.errors import DataError
from papercore.generate.spend import estimate
from rotbench.augment_command import paths_of
from rotbench.config import ExpandConfig, Quota, TrainConfig
from rotbench.environments import read_environments
from rotbench.expand import State, requests_of
from rotbench.rotbench_layout import as_rotbench, spoken, system_text
from rotbench.rouge import Pool
from rotbench.trajectories import Trajectory, read_rows

__all__ = ["expand", "train"]

CHARS_PER_TOK = 4
"""Of English text and JSON. Source: our own rule of thumb."""
USUAL_TOK = 2_000
"""Of a trajectory, where there is no file to count in. Source: our own guess."""
KEPT = 0.5
"""Share of the written queries that are new enough. Source: our own guess."""
FLOPS = 990e12
"""bfloat16 operations per second of one H100; 40 % of it is what training reaches."""
UTILISATION = 0.4
_MAX_ROWS = 50_000
"""A dry run should answer in seconds."""
_SIZE = re.compile(r"(?<![a-z0-9.])(\d+(?:\.\d+)?)b(?![a-z0-9])", re.IGNORECASE)


def train(config: TrainConfig) -> Mapping[str, str]:
    """Estimates of `rotbench train`: sequences, tokens, steps, memory and time."""
    try:
        rows, tokens = _count(config)
        known = f"{rows:,} trajectories, about {tokens:,} tokens"
    except DataError as error:
        rows = Quota().of("clean") if config.clean_only else Quota().total
        tokens = rows * USUAL_TOK
        known = f"{error}; assumed: {rows:,} trajectories of about {USUAL_TOK:,} tokens"
    steps = config.max_steps or math.ceil(rows / config.batch * config.epochs)
    read = tokens / max(1, rows) * steps * config.batch
    found = {"data": known, "steps": f"{steps:,} of {config.batch} sequences"}
    found["tokens read"] = f"about {read:,.0f}"
    parameters = _parameters(config.base)
    if parameters is None:
        return {**found, "memory": f"unknown: the size of {config.base} is not known here"}
    hours = _work(config, parameters) * read / (FLOPS * UTILISATION) / 3600
    return {
        **found,
        "memory": f"about {_bytes(config, parameters) / 2**30:.0f} GiB and the activations",
        "time": f"about {hours:.1f} hours on one H100 at {UTILISATION:.0%} (estimated)",
    }


def expand(config: ExpandConfig) -> Mapping[str, str]:
    """Estimates of `rotbench expand`: environments, prompts, tokens and money."""
    try:
        environments, _ = read_environments(config)
    except DataError as error:
        return {"tools": str(error)}
    human = sum(len(one.human) for one in environments)
    prompts = config.count / (config.per_prompt * KEPT)
    state = State(Pool())
    requests = [
        request
        for wave in range(math.ceil(prompts / config.wave))
        for request in requests_of(wave, environments, state, config)
    ]
    return {
        "tools": f"{len(environments)} environments with {human} human queries",
        "kept": f"assumed: {KEPT:.0%} of what is written",
        **estimate(requests, config.endpoint),
        **({} if config.model.startswith("openai:") else {"cost": "your own machine"}),
    }


def _count(config: TrainConfig) -> tuple[int, int]:
    """Trajectories and their tokens, by their length in characters."""
    rows = characters = 0
    read = chain.from_iterable(read_rows(path) for path in paths_of(config.data))
    for row in islice(read, config.limit or _MAX_ROWS):
        found = row.trajectory
        if found is not None and not (config.clean_only and found.level != "clean"):
            rows += 1
            characters += _length(found)
    return rows, characters // CHARS_PER_TOK


def _length(trajectory: Trajectory) -> int:
    try:
        trajectory = as_rotbench(trajectory)
    except DataError:
        return len(system_text(trajectory))
    return len(system_text(trajectory)) + sum(len(spoken(move)) for move in trajectory.moves)


def _parameters(base: str) -> float | None:
    """By the weights of a directory, else by what the name says: `7b` is 7e9."""
    files = list(Path(base).expanduser().glob("*.safetensors"))
    if files:
        return sum(file.stat().st_size for file in files) / 2
    named = _SIZE.search(base)
    return float(named[1]) * 1e9 if named else None


def _work(config: TrainConfig, parameters: float) -> float:
    """Operations per token: forward 2, backward 2, weights' gradients 2, forward again 2."""
    passes = 4 + 2 * (config.tune == "full") + 2 * config.gradient_checkpointing
    return passes * parameters


def _bytes(config: TrainConfig, parameters: float) -> float:
    """bfloat16 weights; or float32 weights, their gradients and Adam's two averages."""
    return (16 if config.tune == "full" else 2) * parameters
