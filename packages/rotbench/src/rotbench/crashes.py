"""The errors that end a run of the official scorer. Ours goes on, and says which it was."""

from typing import Literal, TypeAlias

__all__ = ["Crash", "Crashed"]

Crash: TypeAlias = Literal[
    "IndexError",
    "AttributeError",
    "ValueError",
    "TypeError",
    "RecursionError",
    "MemoryError",
    "too_long",
]
"""`too_long` is ours: beyond our limits nothing is parsed."""


class Crashed(Exception):  # noqa: N818 - the official program has crashed, not ours
    """Here the official scorer dies."""

    def __init__(self, crash: Crash) -> None:
        super().__init__(crash)
        self.crash: Crash = crash
