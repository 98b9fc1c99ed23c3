"""The ten released files: reading, checking, writing.

    cases = read_folder(Path("rotbench"), levels=("clean", "slight"))
    system_text(cases[0])                         # byte for byte what the file has

Data: GitHub `Junjie-Ye/RoTBench`, Apache-2.0, folders `First_Turn` and `Third_Turn`. The files are
untrusted: their sizes are limited, every field is checked, and a message names file, entry, field.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal, NoReturn, TypeAlias, cast, get_args

from pydantic import JsonValue

from papercore.errors import DataError
from rotbench.cases import (
    HALVES,
    LEVELS,
    NUM_SPECIAL,
    SCENARIOS,
    TURNS,
    Call,
    Case,
    CaseKey,
    Level,
    Schema,
    Step,
    Tool,
    Turn,
)
from rotbench.rewrite import call_text

__all__ = [
    "COMMIT",
    "FOLDERS",
    "SHA256",
    "checksums",
    "entry",
    "file_of",
    "read_entry",
    "read_folder",
    "system_text",
]

FOLDERS: Mapping[Turn, str] = {"first": "First_Turn", "third": "Third_Turn"}
LABELS: Mapping[Turn, str] = {"first": "Turn 1: ", "third": "Turn 3: "}
BEGIN = "\nBegin!\n"
"""What the released files put behind a query."""

COMMIT = "637e43ae9a978036774c92bb2ab11a83609e304b"
"""Of GitHub `Junjie-Ye/RoTBench`."""
SHA256: Mapping[str, str] = {
    "First_Turn/clean.json": "a367dc165c0bb09f4002c89ab9a6884ef2383547d8e6d21511c7c0153e7ff1cd",
    "First_Turn/heavy.json": "061ffc421a9fa8b51abacfeab6880d42b86661d529e048f0cb09f2bee527533b",
    "First_Turn/medium.json": "ad73ad3cad2ecd76bd2f0a2c7fb6e8dd3f599d20b6177b07ab5ad5fe6330e4be",
    "First_Turn/slight.json": "a47aee08eec1d6b9519c227829a076ce05e2737455e0d7589921460f8cbe9825",
    "First_Turn/union.json": "61ffacb834ebaac9aa317eb45e1e8b8c3f2c659696139b9dd3b7272491cff911",
    "Third_Turn/clean.json": "dee124e3df46b47cb31afb95454131030c09aaf8bc0296b7e9d15266092c125b",
    "Third_Turn/heavy.json": "75928e4bc969d95418883f335125da4368d67df57a1e34c94c0230b3c2ceda3d",
    "Third_Turn/medium.json": "9119d71cc2371a5fb6f502a7d0298d70a1ae21908437fdd6e0c0365dbd8e3293",
    "Third_Turn/slight.json": "9eb3d65ef1322ae1d1281c508e81c716a8c6531678e8e23ac033e1703488327b",
    "Third_Turn/union.json": "89427db39c7fc0db183494cc8d08746b77c57d3e720d937167635f9adc11c00d",
}
"""Checksums of the files at commit `COMMIT`."""

MAX_FILE_BYTES = 64 << 20
MAX_ENTRIES = 20_000
MAX_TOOLS = 512
MAX_PARAMETERS = 512
MAX_NAME = 512

_GOLD = re.compile(r"Thought:.*?\nAction: ([^\n]*)\nAction Input: (.*)\Z", re.DOTALL)
Role: TypeAlias = Literal["user", "assistant", "function"]
_STEP_ROLES: tuple[Role, ...] = get_args(Role)


def file_of(folder: Path, turn: Turn, level: Level) -> Path:
    """Where a file of the released layout is."""
    return folder / FOLDERS[turn] / f"{level}.json"


def checksums(
    folder: Path, turns: Sequence[Turn] = TURNS, levels: Sequence[Level] = LEVELS
) -> dict[str, str]:
    """Relative path -> sha256 of the files.

    Raises:
        DataError: One is missing or too large.
    """
    files = [file_of(folder, turn, level) for turn in turns for level in levels]
    return {
        f"{file.parent.name}/{file.name}": hashlib.sha256(_bytes(file)).hexdigest()
        for file in files
    }


def read_folder(
    folder: Path, turns: Sequence[Turn] = TURNS, levels: Sequence[Level] = LEVELS
) -> list[Case]:
    """Reads the files of a folder; noisy cases get the clean case of their query as `origin`.

    Raises:
        DataError: A file is missing or is not what it should be.
    """
    cases: list[Case] = []
    for turn in turns:
        clean = _read_file(file_of(folder, turn, "clean"), turn, "clean")
        for level in levels:
            if level == "clean":
                cases += clean
                continue
            file = file_of(folder, turn, level)
            cases += [_with_origin(one, clean, file) for one in _read_file(file, turn, level)]
    return cases


def read_entry(item: object, key: CaseKey, where: str = "entry") -> Case:
    """Reads one entry; noisy ones get no `origin` here.

    Raises:
        DataError: It is not what it should be.
    """
    return _Entry(where).case(item, key)


def system_text(case: Case) -> str:
    """The system's text: the list of tools between the words around it."""
    return case.preamble + json.dumps([_tool_entry(tool) for tool in case.tools]) + case.closing


def entry(case: Case) -> dict[str, JsonValue]:
    """A case as the released files hold it."""
    conversation: list[JsonValue] = [{"from": "system", "value": system_text(case)}]
    conversation += [{"from": step.role, "value": step.text} for step in case.steps]
    golds: list[JsonValue] = [f"Thought:\n{call_text(call)}" for call in case.golds]
    conversation.append({"from": "assistant", "value": golds})
    return {
        "id": LABELS[case.key.turn] + case.query,
        "conversations": conversation,
        "scenario": case.scenario,
    }


def _tool_entry(tool: Tool) -> dict[str, object]:
    return {
        "name": tool.name,
        "description": tool.description,
        "parameters": {
            "type": "object",
            "properties": dict(tool.parameters),
            "required": list(tool.required),
        },
    }


def _with_origin(case: Case, clean: Sequence[Case], file: Path) -> Case:
    """Finds the clean case of a noisy one: the same place, query, and descriptions of tools."""
    index = case.key.index
    where = f"{file}: entry for {case.key}"
    if index >= len(clean) or clean[index].query != case.query:
        raise DataError(f"{where}: clean.json has another query at place {index}")
    origin = clean[index]
    ours = [tool.description for tool in case.tools]
    if ours != [tool.description for tool in origin.tools]:
        raise DataError(f"{where}: the descriptions of its tools are not those of clean.json")
    return replace(case, origin=origin)


def _read_file(file: Path, turn: Turn, level: Level) -> list[Case]:
    try:
        document: object = json.loads(_bytes(file))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{file}: is not JSON: {error}") from None
    if not isinstance(document, list) or not 0 < len(document) <= MAX_ENTRIES:
        raise DataError(f"{file}: should hold a list of 1 to {MAX_ENTRIES} entries")
    halves = HALVES[level]
    size, rest = divmod(len(document), len(halves))
    if rest:
        raise DataError(f"{file}: has {len(document)} entries, which do not divide into halves")
    return [
        read_entry(
            item,
            CaseKey(turn, level, halves[place // size], place % size),
            f"{file}: entry {place}",
        )
        for place, item in enumerate(document)
    ]


def _bytes(file: Path) -> bytes:
    try:
        if file.stat().st_size > MAX_FILE_BYTES:
            raise DataError(f"{file}: is larger than {MAX_FILE_BYTES >> 20} MiB")
        return file.read_bytes()
    except FileNotFoundError:
        raise DataError(f"{file}: no such file") from None
    except OSError as error:
        raise DataError(f"{file}: cannot be read: {error.strerror}") from None


class _Entry:
    """One entry of a file while it is checked."""

    def __init__(self, where: str) -> None:
        self.where = where

    def fail(self, field: str, problem: str) -> NoReturn:
        raise DataError(f"{self.where}: {field}: {problem}")

    def text(self, value: object, field: str, longest: int | None = None) -> str:
        if not isinstance(value, str):
            self.fail(field, f"should be a text, not {type(value).__name__}")
        if longest is not None and len(value) > longest:
            self.fail(field, f"is longer than {longest} characters")
        return value

    def table(self, value: object, field: str, keys: Sequence[str] = ()) -> dict[str, object]:
        if not isinstance(value, dict):
            self.fail(field, f"should be an object, not {type(value).__name__}")
        if keys and set(value) != set(keys):
            self.fail(field, f"should have {', '.join(keys)} and nothing else")
        return cast("dict[str, object]", value)

    def list(self, value: object, field: str, longest: int) -> list[object]:
        if not isinstance(value, list):
            self.fail(field, f"should be a list, not {type(value).__name__}")
        if len(value) > longest:
            self.fail(field, f"has more than {longest} items")
        return value

    def case(self, item: object, key: CaseKey) -> Case:
        top = self.table(item, "entry", ("id", "conversations", "scenario"))
        title = self.text(top["id"], "id")
        label = LABELS[key.turn]
        if not title.startswith(label):
            self.fail("id", f"should start with {label!r}")
        scenario = self.text(top["scenario"], "scenario")
        if scenario not in SCENARIOS:
            self.fail("scenario", f"should be one of {', '.join(SCENARIOS)}")
        turns = self.list(top["conversations"], "conversations", 1_000)
        if len(turns) < 3:
            self.fail("conversations", "should have at least three turns")
        steps = tuple(
            self.step(turn, f"conversations[{place}]")
            for place, turn in enumerate(turns[1:-1], start=1)
        )
        query = title.removeprefix(label)
        if steps[0].role != "user" or steps[0].text != query + BEGIN:
            self.fail("conversations[1]", "should be the user's query as the id has it")
        preamble, tools, closing = self.system(turns[0])
        return Case(
            key,
            query,
            scenario,
            preamble,
            tools,
            closing,
            steps,
            self.golds(turns[-1], f"conversations[{len(turns) - 1}]"),
        )

    def step(self, item: object, field: str) -> Step:
        turn = self.table(item, field, ("from", "value"))
        if turn["from"] not in _STEP_ROLES:
            self.fail(f"{field}.from", f"should be one of {', '.join(_STEP_ROLES)}")
        return Step(turn["from"], self.text(turn["value"], f"{field}.value"))

    def system(self, item: object) -> tuple[str, tuple[Tool, ...], str]:
        field = "conversations[0]"
        turn = self.table(item, field, ("from", "value"))
        if turn["from"] != "system":
            self.fail(f"{field}.from", "should be system")
        text = self.text(turn["value"], f"{field}.value")
        start = text.find("\n[{") + 1
        if not start:
            self.fail(f"{field}.value", "has no line with a list of tools")
        try:
            tools, end = json.JSONDecoder().raw_decode(text, start)
        except (ValueError, RecursionError) as error:
            self.fail(f"{field}.value", f"its list of tools is not JSON: {error}")
        items = self.list(tools, f"{field}.value", MAX_TOOLS)
        if len(items) < NUM_SPECIAL:
            self.fail(f"{field}.value", "should end with the two special tools")
        read = tuple(self.tool(one, f"tools[{place}]") for place, one in enumerate(items))
        return text[:start], read, text[end:]

    def tool(self, item: object, field: str) -> Tool:
        tool = self.table(item, field, ("name", "description", "parameters"))
        schema = self.table(
            tool["parameters"], f"{field}.parameters", ("type", "properties", "required")
        )
        properties = self.table(schema["properties"], f"{field}.parameters.properties")
        if len(properties) > MAX_PARAMETERS:
            self.fail(f"{field}.parameters.properties", f"more than {MAX_PARAMETERS}")
        for name, definition in properties.items():
            inner = f"{field}.parameters.properties.{name[:80]}"
            self.text(name, inner, MAX_NAME)
            self.table(definition, inner)
        required = self.list(schema["required"], f"{field}.parameters.required", MAX_PARAMETERS)
        return Tool(
            self.text(tool["name"], f"{field}.name", MAX_NAME),
            self.text(tool["description"], f"{field}.description"),
            cast("Mapping[str, Schema]", properties),
            tuple(self.text(name, f"{field}.parameters.required") for name in required),
        )

    def golds(self, item: object, field: str) -> tuple[Call, ...]:
        turn = self.table(item, field, ("from", "value"))
        if turn["from"] != "assistant":
            self.fail(f"{field}.from", "should be assistant: the last turn holds the answers")
        values = self.list(turn["value"], f"{field}.value", 100)
        if not values:
            self.fail(f"{field}.value", "holds no answer")
        return tuple(self.gold(one, f"{field}.value[{i}]") for i, one in enumerate(values))

    def gold(self, item: object, field: str) -> Call:
        found = _GOLD.match(self.text(item, field))
        if found is None:
            self.fail(field, "should have a Thought, an Action and an Action Input")
        try:
            arguments: object = json.loads(found[2])
        except (ValueError, RecursionError) as error:
            self.fail(field, f"its Action Input is not JSON: {error}")
        return Call(found[1], cast("Mapping[str, JsonValue]", self.table(arguments, field)))
