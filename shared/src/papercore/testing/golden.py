"""Golden values of the RL maths: the tests of every package that trains read the same file.

    for case in golden("gae"):
        found = gae(*(torch.tensor(case.given[name]) for name in (...)))
        assert found.tolist() == pytest.approx(case.expected["advantages_BG"])

They were computed by slow loops over plain numbers, `shared/tests/test_rl_golden.py`, which also
writes the file anew.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Literal, TypeAlias, cast

__all__ = ["FILE", "GoldenCase", "GoldenName", "Value", "golden"]

GoldenName: TypeAlias = Literal[
    "token_rewards", "gae", "whiten", "kl", "policy_loss", "value_loss", "token_weights"
]
Value: TypeAlias = (
    str | float | list[float] | list[bool] | list[list[float]] | list[list[bool]] | None
)
"""A number, a vector or a padded table; masks are boolean."""

FILE = "golden_rl.json"


@dataclass(frozen=True)
class GoldenCase:
    """What a function is given, and what must come out.

    Attributes:
        name: What is special about it.
        given: Arguments by name; shape suffixes say which are tables.
        expected: Results by name, 0 where a mask leaves them out.
    """

    name: str
    given: dict[str, Value]
    expected: dict[str, Value]


def golden(name: GoldenName) -> tuple[GoldenCase, ...]:
    """The cases of one function."""
    return tuple(
        GoldenCase(
            cast("str", case["name"]),
            cast("dict[str, Value]", case["given"]),
            cast("dict[str, Value]", case["expected"]),
        )
        for case in _document()[name]
    )


@cache
def _document() -> dict[str, list[dict[str, object]]]:
    text = files("papercore.testing").joinpath(FILE).read_text("utf-8")
    document: dict[str, list[dict[str, object]]] = json.loads(text)
    return document
