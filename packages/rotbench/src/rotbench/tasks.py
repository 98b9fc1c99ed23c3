"""Which cases a run answers, and what its records are called.

    tasks, data_hash = plan(EvalConfig(data="sample", levels=("clean", "union")))

A task is a case and a name: its key, and behind it `/n<seed>` if the noise is fresh. Queries come
first and levels second, so that `--limit` takes whole queries with all their disturbed versions.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from papercore.errors import ConfigError
from rotbench.cases import HALVES, LEVELS, TURNS, Case, Half, Level
from rotbench.changes import Changes
from rotbench.config import EvalConfig
from rotbench.data import load_cases
from rotbench.noise import disturb
from rotbench.observe import observed
from rotbench.operators import Operator

__all__ = ["Task", "order", "plan"]

HALF_ORDER: Sequence[Half] = ("whole", "tool", "parameter")


@dataclass(frozen=True, slots=True)
class Task:
    """One case to answer."""

    name: str
    """Id of its record."""
    case: Case
    noise_seed: int | None = None
    """Of fresh noise."""
    changes: Changes | None = None
    """What the fresh noise did; of stored noise it is read off where it is needed."""

    def operators(self) -> list[Operator]:
        """What hit the names in the first accepted call, each operator once."""
        if self.case.origin is None:
            return []
        changes = self.changes or observed(self.case)
        gold = self.case.clean.golds[0]
        change = changes.forward.get(gold.name)
        if change is None:
            return []
        used = [name.operator for name in change.parameters if name.old in gold.arguments]
        added: list[Operator] = ["addendum"] if change.addendum else []
        hits = [change.operator, *used, *added]
        return list(dict.fromkeys(hit for hit in hits if hit is not None))


def plan(config: EvalConfig) -> tuple[list[Task], str]:
    """The tasks of a run, and the hash of the data behind them.

    Raises:
        DataError: The data are missing or broken.
        ConfigError: There is nothing to do.
    """
    if config.noise == "stored":
        cases, data_hash = load_cases(config.data, config.turns, config.levels)
        tasks = [Task(str(case.key), case) for case in cases]
    else:
        cases, data_hash = load_cases(config.data, config.turns, ("clean",))
        tasks = [task for case in cases for task in _freshly(case, config)]
    if not tasks:
        raise ConfigError(f"{config.data} has no case of these turns and levels")
    return _limited(sorted(tasks, key=order), config.limit), data_hash


def order(task: Task) -> tuple[int, int, int, int, int]:
    """Sorts tasks by turn, query, level, half, seed."""
    key = task.case.key
    level, half = LEVELS.index(key.level), HALF_ORDER.index(key.half)
    return TURNS.index(key.turn), key.index, level, half, task.noise_seed or 0


def _freshly(case: Case, config: EvalConfig) -> Iterator[Task]:
    for level in config.levels:
        if level == "clean":
            yield Task(str(case.key), case)
            continue
        for half in HALVES[level]:
            for seed in config.noise_seeds:
                yield _disturbed(case, level, half, seed, config)


def _disturbed(case: Case, level: Level, half: Half, seed: int, config: EvalConfig) -> Task:
    made = disturb(case, level, half, seed=seed, rules=config.rules)
    return Task(f"{made.case.key}/n{seed}", made.case, seed, made.changes)


def _limited(tasks: list[Task], limit: int | None) -> list[Task]:
    """The tasks of the first queries."""
    if limit is None:
        return tasks
    queries = list(dict.fromkeys(task.case.key.query for task in tasks))[:limit]
    return [task for task in tasks if task.case.key.query in queries]
