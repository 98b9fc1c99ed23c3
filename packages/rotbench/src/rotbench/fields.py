"""Fields of untrusted rows, checked one by one; a message begins with the field that is wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NoReturn, TypeAlias, cast

from pydantic import JsonValue

from papercore.errors import DataError
from rotbench.cases import Call, Schema, Tool

__all__ = ["Extras", "Fields", "as_call", "as_list", "as_table", "as_text", "as_tools", "fail"]

Fields: TypeAlias = Mapping[str, object]
Extras: TypeAlias = tuple[Mapping[str, JsonValue], ...]
"""Per tool, what its schema of parameters has beside properties and required."""

MAX_TOOLS = 512
MAX_NAME = 512
_SCHEMA = ("type", "properties", "required")


def fail(field: str, problem: str) -> NoReturn:
    """Refuses a row.

    Raises:
        DataError: Always.
    """
    raise DataError(f"{field}: {problem}")


def as_table(value: object, field: str) -> Fields:
    """The value, if it is an object."""
    if not isinstance(value, dict):
        fail(field, f"should be an object, not {_kind(value)}")
    return cast("Fields", value)


def as_list(value: object, field: str) -> Sequence[object]:
    """The value, if it is a list."""
    if not isinstance(value, list):
        fail(field, f"should be a list, not {_kind(value)}")
    return cast("Sequence[object]", value)


def as_text(value: object, field: str, longest: int | None = None) -> str:
    """The value, if it is a text."""
    if not isinstance(value, str):
        fail(field, f"should be a text, not {_kind(value)}")
    if longest is not None and len(value) > longest:
        fail(field, f"is longer than {longest} characters")
    return value


def as_call(name: str, arguments: object, field: str) -> Call:
    """A call of these arguments, if they are an object."""
    return Call(name, cast("Mapping[str, JsonValue]", as_table(arguments, field)))


def as_tools(value: object, field: str) -> tuple[tuple[Tool, ...], Extras]:
    """The tools of a list, bare or as OpenAI wraps them, and what their schemas have besides.

    The second is empty if no schema has anything besides.
    """
    items = as_list(value, field)
    if not 0 < len(items) <= MAX_TOOLS:
        fail(field, f"should hold 1 to {MAX_TOOLS} tools, not {len(items)}")
    read = [_tool(item, f"{field}[{place}]") for place, item in enumerate(items)]
    extras = tuple([extra for _, extra in read])
    return tuple([tool for tool, _ in read]), extras if any(extras) else ()


def _tool(value: object, field: str) -> tuple[Tool, Mapping[str, JsonValue]]:
    fields = as_table(value, field)
    if "function" in fields:
        field += ".function"
        fields = as_table(fields["function"], field)
    schema = as_table(fields.get("parameters") or {}, f"{field}.parameters")
    inner = f"{field}.parameters.properties"
    properties = as_table(schema.get("properties") or {}, inner)
    for name, definition in properties.items():
        as_text(name, inner, MAX_NAME)
        as_table(definition, f"{inner}.{name:.40}")
    required = as_list(schema.get("required") or [], f"{field}.parameters.required")
    tool = Tool(
        as_text(fields.get("name"), f"{field}.name", MAX_NAME),
        as_text(fields.get("description") or "", f"{field}.description"),
        cast("Mapping[str, Schema]", properties),
        tuple([as_text(name, f"{field}.parameters.required") for name in required]),
    )
    extra = {key: cast("JsonValue", item) for key, item in schema.items() if key not in _SCHEMA}
    return tool, extra


def _kind(value: object) -> str:
    names = {"dict": "an object", "list": "a list", "str": "a text", "NoneType": "nothing"}
    return names.get(type(value).__name__, f"{value!r:.40}")
