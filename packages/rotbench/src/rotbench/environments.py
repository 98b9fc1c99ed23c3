"""Environments of tools, and the human queries for them: what `expand` starts from.

environments, data_hash = read_environments(ExpandConfig(tools="released"))
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from papercore.errors import DataError
from rotbench.cases import Tool
from rotbench.config import ExpandConfig
from rotbench.data import load_cases
from rotbench.foreign import parse_json, read_environment

__all__ = ["Environment", "read_environments"]


@dataclass(frozen=True, slots=True)
class Environment:
    """Tools that belong together, and the human queries for them."""

    tools: tuple[Tool, ...]
    human: tuple[str, ...]


def read_environments(config: ExpandConfig) -> tuple[list[Environment], str]:
    """The environments that `--tools` names, and a hash of them.

    Raises:
        DataError: They cannot be read, or queries were given for cases that have their own.
    """
    path = Path(config.tools).expanduser()
    if path.is_file():
        environments = [_of_file(path, config.queries)]
    elif config.queries is not None:
        raise DataError(f"--queries are for a file of tools; {config.tools} has its own")
    else:
        environments = list(_of_cases(config.tools))
    if config.limit is not None:
        environments = environments[: config.limit]
    content = [
        [[[tool.name, tool.description, tool.parameters] for tool in one.tools], one.human]
        for one in environments
    ]
    return environments, hashlib.sha256(json.dumps(content).encode()).hexdigest()


def _of_file(path: Path, queries: Path | None) -> Environment:
    try:
        text = path.read_text("utf-8")
        asked = "" if queries is None else queries.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"{path if queries is None else queries}: cannot be read: {error}"
        ) from None
    tools = read_environment(parse_json(text, str(path)), where=str(path)).case.tools
    human = tuple(line.strip() for line in asked.splitlines() if line.strip())
    return Environment(tools, human)


def _of_cases(source: str) -> Iterator[Environment]:
    """The different environments of the clean first turns, each with all its queries."""
    cases, _ = load_cases(source, turns=("first",), levels=("clean",))
    queries: dict[str, list[str]] = {}
    tools: dict[str, tuple[Tool, ...]] = {}
    for case in cases:
        own = case.tools[: len(case.tools) - case.num_special]
        name = json.dumps([[tool.name, tool.description] for tool in own])
        tools.setdefault(name, own)
        queries.setdefault(name, []).append(case.query)
    for name, own in tools.items():
        yield Environment(own, tuple(queries[name]))
