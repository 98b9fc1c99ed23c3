"""Noise for tools of your own: OpenAI tools and functions, MCP tool lists, BFCL files.

    tools, changes = disturb_tools(my_tools, "slight", "tool")
    reply = client.chat.completions.create(model=..., messages=..., tools=tools)
    call = restore(Call(name, arguments), changes)       # as your own code knows it

What is not a name stays byte for byte: descriptions, types, enums, defaults, fields that we do not
know. Renamed are the tools and the properties on the top level of their schemas, wherever that
level speaks of them: `required`, `dependentRequired`, conditions (`if`, `anyOf` and so on). Names
inside nested objects are part of a value and stay.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NoReturn, TypeAlias, TypeVar, cast

from pydantic import JsonValue

from papercore.errors import ConfigError, DataError
from papercore.terminal import shown
from rotbench.cases import Call, Case, CaseKey, Half, Level, Schema, Tool
from rotbench.changes import Changes, ToolChange
from rotbench.config import NoiseRules
from rotbench.noise import DEFAULT_RULES, added_schema, disturb
from rotbench.released import MAX_NAME, MAX_PARAMETERS, MAX_TOOLS

__all__ = ["Environment", "disturb_tools", "illegal_names", "read_environment", "rewritten"]

Json: TypeAlias = JsonValue
Object: TypeAlias = dict[str, JsonValue]
J = TypeVar("J", bound=JsonValue)

_LISTS = ("tools", "functions", "function")
"""Where a document holds its tools: OpenAI and MCP, older OpenAI, BFCL."""
_SCHEMAS = ("parameters", "inputSchema", "input_schema")
"""Where a tool holds its schema: OpenAI and BFCL, MCP, Anthropic."""
_GOLDS = ("ground_truth", "possible_answer")
_CONDITIONS = ("if", "then", "else", "not", "allOf", "anyOf", "oneOf")
"""Keywords whose schemas, or lists of them, speak of the same object."""
_LEGAL = re.compile(r"[a-zA-Z0-9_-]{1,64}")
"""Names of tools that OpenAI's API takes."""


@dataclass(frozen=True)
class Environment:
    """A document with tools, and its tools as a case."""

    document: Json
    case: Case
    """Without a query; its golds are those of a BFCL row."""


def disturb_tools(
    document: J, level: Level, half: Half, *, seed: int = 0, rules: NoiseRules = DEFAULT_RULES
) -> tuple[J, Changes]:
    """Disturbs the names in a list of tools, or in a document that holds one.

    Args:
        document: Tools as JSON: OpenAI (both forms), MCP, Anthropic, BFCL. It is not changed.
        level: How strongly.
        half: Whose names: one of `rotbench.cases.HALVES[level]`.
        seed: Another seed gives another disturbed version.
        rules: How.

    Returns:
        The document with other names, and the map of names for `restore`.

    Raises:
        ConfigError: The level has no such half, or extra noise is for cases only.
        DataError: The document holds no tools, or is not what it should be.
    """
    check_extra(rules)
    environment = read_environment(document)
    changes = disturb(environment.case, level, half, seed=seed, rules=rules).changes
    return cast("J", rewritten(environment, changes)), changes


def check_extra(rules: NoiseRules) -> None:
    """Only names are disturbed in documents of others.

    Raises:
        ConfigError: The rules ask for more.
    """
    more = [extra for extra in rules.extra if extra != "casing"]
    if more:
        raise ConfigError(
            f"extra noise {more[0]!r} is for cases: tools of your own can have casing"
        )


def read_environment(document: Json, *, index: int = 0, where: str = "tools") -> Environment:
    """Finds the tools of a document, and its golds if it is a BFCL row that has them.

    Args:
        document: As for `disturb_tools`.
        index: Number of the document; its noise depends on it.
        where: What to call the document in a message.

    Raises:
        DataError: It holds no tools, or is not what it should be.
    """
    check = _Check(where)
    tools = [check.tool(item, i) for i, item in enumerate(check.items(document)) if _is_tool(item)]
    if not tools:
        check.fail("holds no tools with a name")
    golds = check.golds(document)
    key = CaseKey("first", "clean", "whole", index)
    case = Case(key, "", "", "", tuple(tools), "", (), golds, num_special=0)
    return Environment(document, case)


def rewritten(environment: Environment, changes: Changes) -> Json:
    """The document with the names that the noise gave."""
    rest = iter(changes.tools)

    def rename(item: Json) -> Json:
        return _rewritten_tool(cast("Object", item), next(rest)) if _is_tool(item) else item

    document = _map_items(environment.document, rename)
    if isinstance(document, dict):
        for field in _GOLDS:
            if field in document:
                document[field] = renamed_golds(document[field], changes)
    return document


def renamed_golds(golds: Json, changes: Changes) -> Json:
    """BFCL's accepted calls with the names that the noise gave."""
    return [
        {
            _new_name(name, changes): _renamed_answer(
                cast("Object", arguments), changes.forward.get(name)
            )
            for name, arguments in cast("Object", gold).items()
        }
        for gold in cast("list[Json]", golds)
    ]


def with_golds(environment: Environment, golds: Json, where: str) -> Environment:
    """The environment with accepted calls from elsewhere: BFCL keeps them in a file of their own.

    Raises:
        DataError: They are not what they should be.
    """
    calls = _Check(where).calls(golds)
    return replace(environment, case=replace(environment.case, golds=calls))


def illegal_names(names: Sequence[str]) -> list[str]:
    """Names that OpenAI's API refuses: other characters, too long, empty, or given twice."""
    return [
        name
        for place, name in enumerate(names)
        if not _LEGAL.fullmatch(name) or name in names[:place]
    ]


def _new_name(name: str, changes: Changes) -> str:
    change = changes.forward.get(name)
    return name if change is None else change.new


def _renamed_answer(arguments: Object, change: ToolChange | None) -> Object:
    if change is None:
        return arguments
    renamed = {change.forward.get(key, key): value for key, value in arguments.items()}
    if change.addendum is not None:
        renamed[change.addendum.name] = [change.addendum.value]
    return renamed


def _is_tool(item: Json) -> bool:
    """Whether an item of a list of tools is a function; others, such as a search, have no name."""
    if not isinstance(item, dict):
        return True  # so that the check complains about it
    return "name" in item or "function" in item


def _map_items(document: Json, rename: Callable[[Json], Json]) -> Json:
    """A copy of the document with every tool replaced."""
    if isinstance(document, list):
        return [rename(item) for item in document]
    assert isinstance(document, dict), "the document was read before"
    result = document.get("result")
    if isinstance(result, dict) and not any(name in document for name in _LISTS):
        # A reply of an MCP server as it came, with its JSON-RPC envelope.
        inner = {name: value for name, value in result.items() if name != "result"}
        return {**document, "result": {**result, **cast("Object", _map_items(inner, rename))}}
    field = next((name for name in _LISTS if name in document), None)
    if field is None:
        return rename(document)
    value = document[field]
    if not isinstance(value, list):
        return rename(document) if field == "function" else document
    return {**document, field: [rename(item) for item in value]}


def _rewritten_tool(item: Object, change: ToolChange) -> Object:
    inner = item.get("function")
    if isinstance(inner, dict):
        return {**item, "function": _rewritten_tool(inner, change)}
    new: Object = {**item, "name": change.new}
    field = next((name for name in _SCHEMAS if isinstance(item.get(name), dict)), None)
    if field is not None:
        new[field] = _rewritten_schema(cast("Object", item[field]), change)
    elif change.addendum is not None:
        name = next((one for one in _SCHEMAS if one in item), _SCHEMAS[0])
        new[name] = _rewritten_schema({"type": "object"}, change)
    return new


def _rewritten_schema(schema: Object, change: ToolChange) -> Object:
    new = _renamed_object(schema, change.forward)
    if change.addendum is not None:
        added = cast("Object", new.get("properties") or {})
        definition = cast("Json", dict(added_schema(change.addendum)))
        new["properties"] = {**added, change.addendum.name: definition}
        required = new.get("required")
        new["required"] = [*(required if isinstance(required, list) else []), change.addendum.name]
    return new


def _renamed_object(schema: Object, names: Mapping[str, str]) -> Object:
    """A schema of the object of arguments, or a condition on it, with other names of properties."""
    new = dict(schema)
    properties = schema.get("properties")
    if isinstance(properties, dict):
        new["properties"] = {names.get(key, key): value for key, value in properties.items()}
    for field in _CONDITIONS:
        if field in schema:
            new[field] = _renamed_condition(schema[field], names)
    for field in ("required", "dependentRequired", "dependentSchemas", "dependencies"):
        if field in schema:
            new[field] = _renamed_keys(schema[field], names)
    return new


def _renamed_condition(value: Json, names: Mapping[str, str]) -> Json:
    if isinstance(value, list):
        return [_renamed_condition(item, names) for item in value]
    return _renamed_object(value, names) if isinstance(value, dict) else value


def _renamed_keys(value: Json, names: Mapping[str, str]) -> Json:
    """A list of properties, or what follows from each: more properties, or a condition."""
    if isinstance(value, list):
        return [names.get(key, key) if isinstance(key, str) else key for key in value]
    if isinstance(value, dict):
        return {
            names.get(key, key): _renamed_condition(then, names)
            if isinstance(then, dict)
            else _renamed_keys(then, names)
            for key, then in value.items()
        }
    return value


class _Check:
    """Checks one document; a message names it, the tool, and what to do."""

    def __init__(self, where: str) -> None:
        self.where = where

    def fail(self, problem: str) -> NoReturn:
        raise DataError(f"{self.where}: {problem}")

    def items(self, document: Json) -> list[Json]:
        """The tools of the document; one tool alone is a list of one."""
        found: list[Json] = []

        def note(item: Json) -> Json:
            found.append(item)
            return item

        if isinstance(document, list | dict):
            _map_items(document, note)
        if not found:
            self.fail(
                "holds no list of tools: give OpenAI tools or functions, an MCP tools/list result "
                "or BFCL rows"
            )
        if len(found) > MAX_TOOLS:
            self.fail(f"has {len(found)} tools: at most {MAX_TOOLS} are taken")
        return found

    def tool(self, item: Json, place: int) -> Tool:
        where = f"tool {place + 1}"
        if not isinstance(item, dict):
            self.fail(f"{where}: should be an object, not {type(item).__name__}")
        inner = item.get("function", item)
        if not isinstance(inner, dict):
            self.fail(f"{where}: its function should be an object, not {type(inner).__name__}")
        name = inner.get("name")
        if not isinstance(name, str) or not name:
            self.fail(f"{where}: has no name: every tool needs one")
        if len(name) > MAX_NAME:
            self.fail(f"{where}: its name is longer than {MAX_NAME} characters")
        where = f"tool {place + 1} ('{shown(name, 60)}')"
        schema = next((inner[f] for f in _SCHEMAS if inner.get(f) is not None), {})
        if not isinstance(schema, dict):
            self.fail(f"{where}: its parameters should be a JSON schema, an object")
        properties = schema.get("properties")
        if properties is None:
            properties = {}
        if not isinstance(properties, dict):
            self.fail(f"{where}: its properties should be an object")
        if len(properties) > MAX_PARAMETERS or any(len(key) > MAX_NAME for key in properties):
            self.fail(f"{where}: has too many parameters ({MAX_PARAMETERS}) or too long names")
        required = schema.get("required") or []
        if not isinstance(required, list) or not all(isinstance(one, str) for one in required):
            self.fail(f"{where}: its required should be a list of names")
        parameters: dict[str, Schema] = {
            key: value if isinstance(value, dict) else {} for key, value in properties.items()
        }
        description = inner.get("description")
        text = description if isinstance(description, str) else ""
        return Tool(name, text, parameters, tuple(cast("list[str]", required)))

    def golds(self, document: Json) -> tuple[Call, ...]:
        """The accepted calls in a BFCL row."""
        if not isinstance(document, dict):
            return ()
        field = next((name for name in _GOLDS if name in document), None)
        return () if field is None else self.calls(document[field])

    def calls(self, golds: Json) -> tuple[Call, ...]:
        wanted = "should be a list of objects such as {name: {argument: [values]}}"
        if not isinstance(golds, list):
            self.fail(f"its accepted calls: {wanted}")
        calls: list[Call] = []
        for gold in golds:
            if not isinstance(gold, dict) or not all(isinstance(a, dict) for a in gold.values()):
                self.fail(f"its accepted calls: {wanted}; leave calls written as text out")
            calls += [Call(name, cast("Object", arguments)) for name, arguments in gold.items()]
        return tuple(calls)


def parse_json(text: str, where: str) -> Json:
    """Reads strict JSON: no NaN, no key twice, no bottomless nesting.

    Raises:
        DataError: It is none.
    """
    try:
        return cast("Json", json.loads(text, object_pairs_hook=_unique, parse_constant=_no_number))
    except (ValueError, RecursionError) as error:
        reason = "is nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise DataError(f"{where}: is not JSON: {shown(reason, 200)}") from None


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for place, key in enumerate(keys) if key in keys[:place])
        raise ValueError(f"key '{shown(twice, 60)}' stands twice in one object")
    return found


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")
