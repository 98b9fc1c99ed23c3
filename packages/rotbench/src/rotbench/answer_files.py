"""Answers that were written elsewhere: three layouts, joined to cases by key.

    given = read_answers(Path("answers.jsonl"), cases)
    given["first/clean/whole/000"]               # Answer(...)

* `records.jsonl` of a run, or its folder;
* JSONL with `key` and `text` per line, and `tool_calls` (a list of `name` and `arguments`) if any;
* the official results: a JSON array per turn and level in the order of the data, whose last turn of
  `conversations`, or `result` for NexusRaven, is the answer. Here the place is the key, so lengths
  and, where they are there, the ids must agree with the data.

The files are untrusted: whatever does not fit is refused, naming file and line or entry.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias, cast

from papercore.errors import DataError
from papercore.records import read_lines
from rotbench.cases import Case, CaseKey, Level, Turn
from rotbench.grading import Answer
from rotbench.released import FOLDERS, entry, file_of

__all__ = ["Given", "read_answers"]

Given: TypeAlias = Mapping[str, "Answer | str"]
"""Key of a case -> its answer, or why there is none."""

MAX_BYTES = 1 << 30
_SHOWN = 3


def read_answers(path: Path, cases: Sequence[Case]) -> Given:
    """Reads answers to these cases; those to cases of other turns and levels are left out.

    Raises:
        DataError: The file has none of the layouts, a case has no answer, an answer has no case.
    """
    wanted = {str(case.key): case for case in cases}
    given: dict[str, Answer | str] = {}
    for key, answer in _pairs(path, cases):
        if key in given:
            raise DataError(f"{path}: {key} has two answers")
        given[key] = answer
    chosen = {(case.key.turn, case.key.level) for case in cases}
    extra = [key for key in given if key not in wanted and _belongs(key, chosen, path)]
    missing = [key for key in wanted if key not in given]
    if missing or extra:
        raise DataError(f"{path}: {'; '.join(_complaints(missing, extra))}")
    return {key: given[key] for key in wanted}


def _belongs(key: str, chosen: set[tuple[Turn, Level]], path: Path) -> bool:
    """Whether a key is of the chosen turns and levels."""
    try:
        parsed = CaseKey.parse(key)
    except DataError as error:
        raise DataError(f"{path}: {error}") from None
    return (parsed.turn, parsed.level) in chosen


def _complaints(missing: Sequence[str], extra: Sequence[str]) -> Iterator[str]:
    if missing:
        yield (
            f"{len(missing)} cases have no answer ({_some(missing)}): add them, narrow --turns "
            "and --levels, or give the --data that were answered"
        )
    if extra:
        yield f"{len(extra)} answers are to no case of these data ({_some(extra)})"


def _some(keys: Sequence[str]) -> str:
    more = ", ..." if len(keys) > _SHOWN else ""
    return ", ".join(keys[:_SHOWN]) + more


def _pairs(path: Path, cases: Sequence[Case]) -> Iterator[tuple[str, Answer | str]]:
    if path.is_dir():
        if (path / "records.jsonl").is_file():
            return _from_lines(path / "records.jsonl")
        if any((path / folder).is_dir() for folder in FOLDERS.values()):
            return _from_folder(path, cases)
        raise DataError(f"{path}: holds neither records.jsonl nor {' or '.join(FOLDERS.values())}")
    if not path.is_file():
        raise DataError(f"{path}: no such file or folder")
    if path.stat().st_size > MAX_BYTES:
        raise DataError(f"{path}: is larger than {MAX_BYTES >> 20} MiB")
    if path.suffix != ".json":
        return _from_lines(path)
    cells = {(case.key.turn, case.key.level) for case in cases}
    if len(cells) != 1:
        raise DataError(
            f"{path}: one file of results is one turn and one level: give for instance "
            "--turns first --levels clean, or a folder with First_Turn/clean.json and so on"
        )
    return _from_array(path, cases)


def _from_lines(path: Path) -> Iterator[tuple[str, Answer | str]]:
    for number, line in enumerate(read_lines(path), 1):
        where = f"{path}:{number}"
        if "key" in line:
            yield _text(line, "key", where), _answer(line, where)
        elif "id" in line and "status" in line:
            yield _text(line, "id", where), _of_record(line, where)
        else:
            raise DataError(f"{where}: has neither `key` and `text` nor the fields of a record")


def _of_record(line: Mapping[str, object], where: str) -> Answer | str:
    if line["status"] == "error":
        return str(line.get("error"))
    data = line.get("data")
    if not isinstance(data, dict):
        raise DataError(f"{where}: the record has no data")
    if isinstance(data.get("text"), str) and data.get("text_chars") != len(data["text"]):
        raise DataError(f"{where}: the record holds only the beginning of its answer")
    return _answer(data, where)


def _answer(fields: Mapping[str, object], where: str) -> Answer:
    calls = fields.get("tool_calls", [])
    if not isinstance(calls, list):
        raise DataError(f"{where}: tool_calls is not a list")
    read = [_call(call, where) for call in calls]
    text = fields.get("text") if read else _text(fields, "text", where)
    return Answer(text if isinstance(text, str) else "", tuple(read))


def _call(call: object, where: str) -> tuple[str, str]:
    if not isinstance(call, dict) or not isinstance(call.get("name"), str):
        raise DataError(f"{where}: a tool call is not an object with a name")
    arguments = call.get("arguments", {})
    text = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
    return call["name"], text


def _from_folder(path: Path, cases: Sequence[Case]) -> Iterator[tuple[str, Answer | str]]:
    for turn, level in dict.fromkeys((case.key.turn, case.key.level) for case in cases):
        some = [case for case in cases if (case.key.turn, case.key.level) == (turn, level)]
        yield from _from_array(file_of(path, turn, level), some)


def _from_array(path: Path, cases: Sequence[Case]) -> Iterator[tuple[str, Answer | str]]:
    try:
        items = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise DataError(
            f"{path}: no such file; narrow --turns and --levels to what is there"
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: cannot be read as JSON: {error}") from None
    if not isinstance(items, list) or len(items) != len(cases):
        held = f"{len(items)} results" if isinstance(items, list) else "no array"
        raise DataError(f"{path}: holds {held} for {len(cases)} cases: they are joined by place")
    for number, (item, case) in enumerate(zip(items, cases, strict=True)):
        yield str(case.key), Answer(_result(item, case, f"{path}, entry {number}"))


def _result(item: object, case: Case, where: str) -> str:
    if not isinstance(item, dict):
        raise DataError(f"{where}: is not an object")
    if item.get("id", entry(case)["id"]) != entry(case)["id"]:
        raise DataError(f"{where}: its id is that of another case: {str(item['id'])[:80]!r}")
    if isinstance(item.get("result"), str):
        return cast("str", item["result"])
    try:
        value = item["conversations"][-1]["value"]
    except (KeyError, IndexError, TypeError):
        raise DataError(f"{where}: has neither `result` nor `conversations`") from None
    if not isinstance(value, str):
        raise DataError(
            f"{where}: the last turn is no text: these are the data, not answers to them"
        )
    return value


def _text(fields: Mapping[str, object], name: str, where: str) -> str:
    value = fields.get(name)
    if not isinstance(value, str):
        raise DataError(f"{where}: {name} is missing or is no text")
    return value
