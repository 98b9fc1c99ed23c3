"""`r3 rollouts`: what was generated in training, on the terminal or on a page. No torch here."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

from papercore.config import RunFlags
from papercore.errors import ConfigError, DataError
from papercore.terminal import percent, say, shown
from r3.config import RolloutsConfig
from r3.dump import FILE, Dumped, grade
from r3.viewer import MAX_ON_PAGE, Choice, Depth, View, collect, write_page

__all__ = ["run"]

_HEAD = ("depth", "given", "rollouts", "right", "partial", "truncated", "failed", "tokens", "KL")
_INDENT = " " * 12


def run(config: RolloutsConfig, flags: RunFlags) -> int:
    """Counts the chosen rollouts by depth and shows some, or writes all to a page.

    Returns:
        0.

    Raises:
        ConfigError: The page would overwrite the dump, or `--out` is given.
        DataError: The run has no rollouts, or its file is damaged.
    """
    if flags.out is not None:
        raise ConfigError(f"--out {flags.out}: rollouts makes no run folder: use --html for a page")
    path = _file(config.run)
    if config.html is not None and config.html.is_dir():
        raise ConfigError(f"--html {config.html} is a folder: name a file in it")
    if config.html is not None and config.html.exists() and config.html.samefile(path):
        raise ConfigError(f"--html {config.html} is the dump itself: name another file")
    choice = Choice(steps=config.steps, depth=config.depth, only=config.only, text=config.text)
    limit = config.limit if config.html is None else MAX_ON_PAGE
    view = collect(path, choice, limit=limit)
    say(f"{view.matching:,} of {view.total:,} rollouts in {shown(str(path))}")
    for line in _table(view.depths):
        say(line)
    if config.html is not None:
        write_page(config.html, view, title=f"Rollouts of {_name(config.run)}")
        say(f"page with {_num_shown(view)}: {shown(str(config.html))}")
        return 0
    for row in view.rows:
        say("")
        for line in _card(row):
            say(line)
    if view.matching > len(view.rows):
        say(f"\nshown: {_num_shown(view)}; --limit shows more, --html makes a page of them")
    return 0


def _file(run: Path) -> Path:
    """The dump of a run folder, or the file itself."""
    if not run.exists():
        raise DataError(f"{run}: there is no such run folder or file")
    path = run / FILE if run.is_dir() else run
    if not path.is_file():
        raise DataError(f"{run} has no {FILE}: give a run of `r3 train` that has done a step")
    return path


def _name(run: Path) -> str:
    return run.resolve().name if run.is_dir() else run.name


def _num_shown(view: View) -> str:
    num = f"{len(view.rows):,}"
    return f"all {num}" if len(view.rows) == view.matching else f"{num}, evenly taken"


def _table(depths: tuple[Depth, ...]) -> list[str]:
    """Success by depth, in columns."""
    if not depths:
        return []
    rows = [_HEAD, *(_cells(one) for one in depths)]
    widths = [max(len(row[place]) for row in rows) for place in range(len(_HEAD))]
    return [
        "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def _cells(one: Depth) -> tuple[str, ...]:
    return (
        str(one.depth),
        f"{100 * one.share:.0f} %",
        f"{one.num:,}",
        percent(one.success),
        str(one.partial),
        str(one.truncated),
        str(one.failed),
        f"{one.length:.1f}",
        _number(one.kl),
    )


def _card(row: Dumped) -> Iterator[str]:
    """One rollout: what is known about it, and its three texts."""
    ended = "" if row.ended else ", cut off"
    yield (
        f"step {row.step}  depth {row.depth} ({100 * row.share:.0f} % given)  {grade(row)}  "
        f"reward {_number(row.reward)}  {row.length} tokens{ended}  KL {_number(row.kl)}  "
        f"{shown(row.demo)}"
    )
    yield from _block("question", row.prompt)
    if row.prefix:
        yield from _block("given", row.prefix)
    yield from _block("written", row.response)
    read = "no answer could be read" if row.parsed is None else f"read {shown(row.parsed)}"
    yield f"  {'answer':<{len(_INDENT) - 2}}{read}; right is {shown(row.gold)}"
    if row.error is not None:
        yield f"  {'error':<{len(_INDENT) - 2}}{shown(row.error)}"


def _block(name: str, text: str) -> Iterator[str]:
    """A text of several lines, with its control characters as escapes."""
    for number, line in enumerate(text.rstrip("\n").split("\n")):
        lead = f"  {name}".ljust(len(_INDENT)) if number == 0 else _INDENT
        yield f"{lead}{shown(line)}".rstrip()


def _number(value: float | None) -> str:
    return "-" if value is None or math.isnan(value) else f"{value:.3g}"
