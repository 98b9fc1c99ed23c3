"""Rewriting trajectories into noisy environments: RoTTuning's environment augmentation.

    noisy = augment(trajectory, Place("slight", "tool", 0), seed=0, rules=NoiseRules())
    noisy.noise.data["changes"]         # the map of names, which `Changes.from_json` reads

Paper 2401.08326, section on RoTTuning: clean trajectories are rewritten into Slight, Medium, Heavy
and Union environments by the operators of the benchmark. The code for it was not released.

Tools, calls, thoughts, replies and later messages of the user are renamed together by `rewrite`;
the query and the released instruction text stay, as in the released files. Noise depends on the
seed, the trajectory's content and the place alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, cast

from pydantic import JsonValue

from papercore.errors import DataError
from rotbench.cases import Case, CaseKey, Step, Tool
from rotbench.changes import Changes
from rotbench.config import NoiseRules, Quota
from rotbench.noise import disturb
from rotbench.quotas import Place, deal
from rotbench.rewrite import rename_call, rename_step
from rotbench.rotbench_layout import as_rotbench
from rotbench.trajectories import Layout, Move, NoiseTag, Trajectory, digest, read_rows

__all__ = ["Problem", "Survey", "augment", "augment_all", "survey"]

SPECIAL: Final = frozenset({"ask_to_user", "finish"})
"""Names, in one case, of the last tools that are not part of the task proper."""

_KEY = CaseKey("first", "clean", "whole", 0)


@dataclass(frozen=True, slots=True)
class Problem:
    """A row that was left out, and why."""

    place: str
    reason: str


@dataclass(frozen=True)
class Survey:
    """What the first pass over the files found."""

    paths: tuple[Path, ...]
    sources: tuple[bytes, ...]
    """Content hash of every good row, in order."""
    keys: tuple[bytes, ...]
    """The same, told apart where a content occurs again."""
    problems: tuple[Problem, ...]
    layout: Layout | None
    """What the good rows can be written as; None for each as it came."""
    limit: int | None
    stamp: tuple[tuple[int, int], ...]
    """Size and time of the files, so that a change between the passes is noticed."""

    @property
    def data_hash(self) -> str:
        """SHA-256 over the good rows in their order."""
        return hashlib.sha256(b"".join(self.sources)).hexdigest()


def survey(
    paths: Sequence[Path], *, layout: Layout | None = None, limit: int | None = None
) -> Survey:
    """Reads the files once; of each row only a hash stays in memory.

    Args:
        paths: The files.
        layout: Rows that cannot be written in this layout are problems.
        limit: Read only so many rows.

    Raises:
        DataError: A file cannot be read.
    """
    stamp = _stamp(paths)
    sources: list[bytes] = []
    keys: list[bytes] = []
    problems: list[Problem] = []
    seen: dict[bytes, int] = {}
    for item in _clean_rows(paths, layout, limit):
        if isinstance(item, Problem):
            problems.append(item)
            continue
        source = digest(item)
        again = seen.get(source, 0)
        seen[source] = again + 1
        sources.append(source)
        keys.append(source + again.to_bytes(4, "big"))
    return Survey(tuple(paths), tuple(sources), tuple(keys), tuple(problems), layout, limit, stamp)


def augment_all(
    found: Survey, quota: Quota, *, seed: int, rules: NoiseRules
) -> Iterator[Trajectory]:
    """Reads the files again and yields every augmented trajectory, in the order of the files.

    Raises:
        DataError: A file was changed since the survey, or there is no good row.
    """
    dealt = deal(found.keys, quota, seed=seed)
    number = 0
    for item in _clean_rows(found.paths, found.layout, found.limit):
        if isinstance(item, Problem):
            continue
        for place in dealt[number] if number < len(dealt) else ():
            key, source = found.keys[number], found.sources[number]
            yield augment(item, place, seed=seed, rules=rules, key=key, source=source)
        number += 1
    if number != len(dealt) or _stamp(found.paths) != found.stamp:
        raise DataError(f"{found.paths[0]} was changed while it was read: start again")


def augment(
    trajectory: Trajectory,
    place: Place,
    *,
    seed: int,
    rules: NoiseRules,
    key: bytes | None = None,
    source: bytes | None = None,
) -> Trajectory:
    """The trajectory in the environment of a place.

    Args:
        trajectory: A clean one.
        place: Level, half and repetition.
        seed: Another seed gives other noise.
        rules: How names are disturbed.
        key: What the noise depends on beside the seed and the place; its content by default.
        source: Hash of its content, if it is known.
    """
    source = source or digest(trajectory)
    tag: dict[str, JsonValue] = {
        "half": place.half,
        "seed": seed,
        "repetition": place.repetition,
        "source": source.hex(),
    }
    if place.level == "clean":
        data = {**tag, "content": source.hex()}
        return replace(trajectory, noise=NoiseTag("clean", data))
    own = _seed(seed, key or source, place.repetition)
    noised = disturb(_as_case(trajectory), place.level, place.half, seed=own, rules=rules)
    noisy = _renamed(trajectory, noised.case.tools, noised.changes)
    data = {
        **tag,
        "content": digest(noisy).hex(),
        "changes": cast("JsonValue", noised.changes.to_json()),
    }
    return replace(noisy, noise=NoiseTag(place.level, data))


def _clean_rows(
    paths: Iterable[Path], layout: Layout | None, limit: int | None
) -> Iterator[Trajectory | Problem]:
    """Good rows and problems; `limit` counts both, over all files."""
    read = 0
    for path in paths:
        left = None if limit is None else limit - read
        for row in read_rows(path, limit=left):
            read += 1
            problem = row.problem or _unfit(row.trajectory, layout)
            if row.trajectory is None or problem is not None:
                yield Problem(f"{path.name}: {row.place}", str(problem))
            else:
                yield row.trajectory


def _unfit(trajectory: Trajectory | None, layout: Layout | None) -> str | None:
    """Why a trajectory cannot be augmented."""
    if trajectory is None:
        return None
    if trajectory.level != "clean":
        return f"the row: is disturbed already ({trajectory.level})"
    if layout == "rotbench":
        try:
            as_rotbench(trajectory)
        except DataError as error:
            return str(error)
    return None


def _stamp(paths: Iterable[Path]) -> tuple[tuple[int, int], ...]:
    try:
        found = [path.stat() for path in paths]
    except OSError as error:
        raise DataError(f"{error.filename}: cannot be read: {error.strerror}") from None
    return tuple((one.st_size, one.st_mtime_ns) for one in found)


def _seed(seed: int, key: bytes, repetition: int) -> int:
    content = f"{seed}/{repetition}/".encode() + key
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "big")


def _as_case(trajectory: Trajectory) -> Case:
    """What the noise needs to know: tools, and calls as golds; the first one steers it."""
    calls = {(call.name, *call.arguments): call for call in reversed(trajectory.calls)}
    return Case(
        key=_KEY,
        query="",
        scenario=trajectory.scenario,
        preamble="",
        tools=trajectory.tools,
        closing="",
        steps=(),
        golds=tuple(reversed(calls.values())),
        num_special=_num_special(trajectory.tools),
    )


def _num_special(tools: Sequence[Tool]) -> int:
    """How many tools at the end are not part of the task proper. They are clean: names tell."""
    num = 0
    while num < min(len(tools), len(SPECIAL)) and tools[-1 - num].name.casefold() in SPECIAL:
        num += 1
    return num


def _renamed(trajectory: Trajectory, tools: tuple[Tool, ...], changes: Changes) -> Trajectory:
    moves = [
        move if place == 0 and move.role == "user" else _renamed_move(move, changes)
        for place, move in enumerate(trajectory.moves)
    ]
    preamble = trajectory.preamble
    if trajectory.layout == "openai" and preamble:
        preamble = rename_step(Step("user", preamble), changes).text
    extras = trajectory.extras
    if extras:  # the extra noise `order` moves tools
        own = {tool.name: extra for tool, extra in zip(trajectory.tools, extras, strict=True)}
        extras = tuple([own[change.old] for change in changes.tools])
    return replace(trajectory, preamble=preamble, tools=tools, moves=tuple(moves), extras=extras)


def _renamed_move(move: Move, changes: Changes) -> Move:
    # A thought has no call in it, so it is renamed as free text is: like a user's turn.
    step = Step("user" if move.role == "assistant" else move.role, move.text)
    text = rename_step(step, changes, called=move.called).text
    called = move.called
    if called is not None and called in changes.forward:
        called = changes.forward[called].new
    calls = tuple([rename_call(call, changes) for call in move.calls])
    return Move(move.role, text, calls, called)
