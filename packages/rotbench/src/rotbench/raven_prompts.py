"""Prompts for NexusRaven-13B: tools as Python signatures, calls as Python calls.

    raven_prompt(case, 2)

The marks between the parts are those that the models were trained with; the sentences are ours.

Source: official prompt converter and the models' pages: `OPTION:` blocks with start and end marks
    and argument types (version 1), `Function:` blocks with optional arguments marked (version 2).
Deviation: the converter ignores the third turn; here the steps so far stand behind the query.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import JsonValue

from rotbench.cases import Call, Case, Tool
from rotbench.predictions import read_react

__all__ = ["python_call", "raven_prompt"]


def raven_prompt(case: Case, version: Literal[1, 2]) -> str:
    """A case as a prompt of this version of the model."""
    query = case.query + _history(case)
    if version == 1:
        options = "".join(_option(tool) for tool in case.tools)
        ask = "Choose the one function above that answers the query best and fill in its arguments."
        return f"<human>:\n{options}User Query: Question: {query}\n\n{ask}<human_end>"
    functions = "".join(_function(tool) for tool in case.tools)
    return f"{functions}User Query: {query}<human_end>\n\n"


def python_call(call: Call) -> str:
    """A call as these models write it: `f(city='Rome', days=3)`."""
    given = ", ".join(f"{key}={_literal(value)}" for key, value in call.arguments.items())
    return f"{call.name}({given})"


def _literal(value: JsonValue) -> str:
    return repr(value)


def _signature(tool: Tool) -> str:
    given = ", ".join(f"{name} : {_type(schema)}" for name, schema in tool.parameters.items())
    return f"def {tool.name}({given})"


def _type(schema: object) -> str:
    kind = schema.get("type") if isinstance(schema, dict) else None
    return kind if isinstance(kind, str) else "string"


def _option(tool: Tool) -> str:
    lines = [
        f"{name} ({_type(schema)}) : {schema.get('description', '')}"
        for name, schema in tool.parameters.items()
    ]
    return (
        f"OPTION:\n<func_start>{_signature(tool)}<func_end>\n"
        f"<docstring_start>\n{_docstring(tool, lines)}<docstring_end>\n\n"
    )


def _function(tool: Tool) -> str:
    lines = [
        f"{name}{'' if name in tool.required else ' (Optional)'}: {schema.get('description', '')}"
        for name, schema in tool.parameters.items()
    ]
    return f"Function:\n{_signature(tool)}:\n{_docstring(tool, lines)}\n"


def _docstring(tool: Tool, lines: Sequence[str]) -> str:
    arguments = "".join(f"{line}\n" for line in ["", "Args:", *lines]) if lines else ""
    return f'"""\n{tool.description}\n{arguments}"""\n'


def _history(case: Case) -> str:
    """The steps behind the query, as calls and what came back."""
    lines = [_line(step.role, step.text) for step in case.steps[1:]]
    return "".join(f"\n{line}" for line in ["", "Steps so far:", *lines]) if lines else ""


def _line(role: str, text: str) -> str:
    if role != "assistant":
        return f"{'Result' if role == 'function' else 'User'}: {text.strip()}"
    read = read_react(text)
    if read.name is None or read.arguments is None:
        return f"Call: {text.strip()}"
    return f"Call: {python_call(Call(read.name, read.arguments))}"
