"""Lines for a person at a terminal. Text of others is shown with its control characters escaped.

say(f"{shown(tool.name)}: {percent(estimate)}")
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence

from papercore.claims import Estimate

__all__ = ["percent", "say", "shown", "table_lines"]


def say(line: str) -> None:
    """Writes a line of a command's answer to stdout."""
    sys.stdout.write(f"{line}\n")


def shown(text: str, width: int | None = None) -> str:
    """A text that others wrote: control and other unprintable characters become escapes.

    Args:
        width: Cuts it to so many letters.
    """
    plain = "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode()
        for letter in text
    )
    return plain if width is None or len(plain) <= width else f"{plain[: width - 3]}..."


def percent(found: Estimate) -> str:
    """A share with its interval, such as `41.2 % [38.0, 44.5]`."""
    if math.isnan(found.value):
        return "-"
    value = f"{100 * found.value:.1f} %"
    if found.method == "exact" or math.isnan(found.lo):
        return value
    return f"{value} [{100 * found.lo:.1f}, {100 * found.hi:.1f}]"


def table_lines(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A table as lines: the first column to the left, the others, mostly numbers, to the right."""
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    return [
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in [head, *rows]
    ]
