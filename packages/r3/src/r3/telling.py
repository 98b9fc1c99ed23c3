"""Lines for a person at a terminal. No torch here.

say(f"{shown(demo.id)}: {percent(estimate)}")
"""

from __future__ import annotations

import math
import sys

from papercore.claims import Estimate

__all__ = ["percent", "say", "shown"]


def say(line: str) -> None:
    """Writes a line of a command's answer to stdout."""
    sys.stdout.write(f"{line}\n")


def shown(text: str, width: int | None = None) -> str:
    """A text that others wrote, with control characters as escapes, cut to a width."""
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
