"""Which statements of a program ran: a store into a byte array before each of them.

    tree, statements = instrumented(ast.parse(source))
    hits = bytearray(len(statements))
    exec(compile(tree, "<program>", "exec"), {PROBE: hits, ...})

Expressions are left alone, docstrings and `from __future__` stay first, and line numbers stay, so
that tracebacks are right.
"""

from __future__ import annotations

import ast
from typing import Any, Final

__all__ = ["PROBE", "Place", "instrumented"]

PROBE: Final = "__statement_ran__"
"""Name of the byte array among the program's globals."""

Place = tuple[int, int, int, int]
"""First line, first column, last line and column behind the last, in bytes, as in `ast`; a compound
statement ends where its body begins."""

_BLOCKS = ("body", "orelse", "finalbody")
_PARTS = ("handlers", "cases")


def instrumented(tree: ast.Module) -> tuple[ast.Module, list[Place]]:
    """The tree, changed in place, and the place of each statement in the order of `PROBE`."""
    places: list[Place] = []
    left: list[ast.AST] = [tree]
    while left:  # a long chain of elif is as deep as it is long
        node = left.pop()
        for name in _PARTS:
            left += getattr(node, name, ())
        for name in _BLOCKS:
            block = getattr(node, name, None)
            if isinstance(block, list) and block:
                setattr(node, name, _with_probes(block, places, first=_is_headed(node, name)))
                left += block
    return tree, places


def _is_headed(node: ast.AST, name: str) -> bool:
    """Whether a docstring may stand first."""
    headed = ast.Module | ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
    return name == "body" and isinstance(node, headed)


def _with_probes(block: list[ast.stmt], places: list[Place], *, first: bool) -> list[ast.stmt]:
    made: list[ast.stmt] = []
    for index, statement in enumerate(block):
        is_doc = first and index == 0 and _is_text(statement)
        if not is_doc and not _is_future(statement):
            made.append(_probe(len(places), statement))
            places.append(_place(statement))
        made.append(statement)
    return made


def _is_text(statement: ast.stmt) -> bool:
    return (
        isinstance(statement, ast.Expr)
        and isinstance(statement.value, ast.Constant)
        and isinstance(statement.value.value, str)
    )


def _is_future(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.ImportFrom) and statement.module == "__future__"


def _place(statement: ast.stmt) -> Place:
    last, column = statement.end_lineno, statement.end_col_offset
    assert last is not None
    assert column is not None, "it was parsed"
    if isinstance(statement, ast.Match):
        first = statement.cases[0].pattern
        last, column = first.lineno, first.col_offset
    elif body := getattr(statement, "body", None):
        last, column = body[0].lineno, body[0].col_offset
    heads = [statement, *getattr(statement, "decorator_list", ())]
    line = min(one.lineno for one in heads)
    return line, statement.col_offset, last, column  # where the statement stands, `@` does too


def _probe(index: int, statement: ast.stmt) -> ast.stmt:
    where: dict[str, Any] = {
        "lineno": statement.lineno,
        "col_offset": statement.col_offset,
        "end_lineno": statement.lineno,
        "end_col_offset": statement.col_offset,
    }
    array = ast.Name(PROBE, ast.Load(), **where)
    target = ast.Subscript(array, ast.Constant(index, **where), ast.Store(), **where)
    return ast.Assign([target], ast.Constant(1, **where), **where)
