"""The verbs that every package has: `info`, `mini`, `report`.

APP = App(..., verbs=(Verb("passkey", ...), *standard_verbs()))
"""

from __future__ import annotations

from importlib import resources
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, cast

from papercore.cli import App, Verb, load
from papercore.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from rich.console import Console

    from papercore.claims import Bar, Verdict
    from papercore.config import MiniConfig, RunFlags
    from papercore.flags import InfoConfig, ReportConfig
    from papercore.report import Conclusion
    from papercore.runs import Run

__all__ = ["info", "mini", "report", "standard_verbs"]

EXIT_DIFFERS = 1
EXIT_MISSED = 3


def standard_verbs() -> tuple[Verb, ...]:
    """`info`, `mini` and `report`, for the verbs of an `App`."""
    return (
        Verb(
            "mini",
            "train, measure and judge the miniature of this paper, from scratch on a CPU",
            config="papercore.config:MiniConfig",
            run="papercore.verbs:mini",
            with_app=True,
        ),
        Verb(
            "report",
            "rebuild the report of a run folder, or check that it can be rebuilt",
            config="papercore.flags:ReportConfig",
            run="papercore.verbs:report",
            with_app=True,
        ),
        Verb(
            "info",
            "what this is, presets, devices, optional parts, recipes",
            config="papercore.flags:InfoConfig",
            run="papercore.verbs:info",
            with_app=True,
        ),
    )


def info(config: InfoConfig, flags: RunFlags, app: App) -> int:
    """Say what the package is, or print a recipe."""
    del flags
    console = _console()
    text = _recipe(app, config.recipe) if config.recipe else "\n".join(_info_lines(app))
    console.out(text.rstrip("\n"), highlight=False)
    return 0


def mini(config: MiniConfig, flags: RunFlags, app: App) -> int:
    """Run the miniature and judge its claims.

    Returns:
        0 if every claim held or the run was quick, 3 if one did not.
    """
    from papercore.report import conclude
    from papercore.runs import Run

    # Imported before the folder is made, so that a missing part leaves nothing behind.
    run_mini = cast("Callable[[Run, MiniConfig], None]", load(f"{app.package}.mini:run"))
    out = flags.out or Path("runs") / f"{app.name}-mini-seed{config.seed}"
    with Run.open(out, config, flags, package=app.package, version=app.version, verb="mini") as run:
        run_mini(run, config)
    conclusion = conclude(out)
    _show(conclusion, out)
    missed = any(verdict.status != "held" for verdict in conclusion.verdicts)
    return EXIT_MISSED if missed and not config.quick else 0


def report(config: ReportConfig, flags: RunFlags, app: App) -> int:
    """Rebuild a run's report, or check it with `--recheck`.

    Returns:
        0, or 1 if the check found a difference.

    Raises:
        ConfigError: The folder is a run of another package.
    """
    del flags
    from papercore.report import conclude, recheck
    from papercore.runs import read_identity

    identity = read_identity(config.run)
    if identity.package != app.package:
        raise ConfigError(f"{config.run} is a run of {identity.package}: use its own command")
    if not config.recheck:
        _show(conclude(config.run), config.run)
        return 0
    console = _console()
    found = recheck(config.run)
    for line in found:
        console.out(line, highlight=False)
    if found:
        console.out(
            f"{config.run}: a rebuild from records.jsonl differs: records.jsonl or the files above "
            "were edited, or other versions made them (env.json: versions)"
        )
        return EXIT_DIFFERS
    console.out(f"{config.run}: rebuilt from records.jsonl, byte for byte the same")
    return 0


def _show(conclusion: Conclusion, folder: Path) -> None:
    """Print the verdicts, or the metrics of a run that no claim judges."""
    from rich.markup import escape
    from rich.table import Table

    console = _console()
    table = Table(box=None, pad_edge=False, header_style="bold")
    if conclusion.verdicts:
        for column in ("claim", "bar", "measured", "status"):
            table.add_column(column, overflow="fold")
        for verdict in conclusion.verdicts:
            _add_verdict(table.add_row, verdict)
    else:
        table.add_column("metric")
        table.add_column("measured")
        for name, estimate in conclusion.estimates.items():
            table.add_row(escape(name), escape(estimate.text()))
    console.print(table)
    if conclusion.verdicts:
        held = sum(verdict.status == "held" for verdict in conclusion.verdicts)
        quick = " (quick run: claims are not measured)" if conclusion.identity.quick else ""
        console.print(f"{held} of {len(conclusion.verdicts)} claims held{quick}", highlight=False)
    if not conclusion.whole:
        console.out(_unfinished(folder), highlight=False)
    console.out(f"report: {folder / 'report.html'}", highlight=False)


def _unfinished(folder: Path) -> str:
    """That a run is a part of one, and how to get the rest."""
    from papercore.records import read_records

    count = len(read_records(folder / "records.jsonl"))
    return f"unfinished run: its command has not ended; records so far: {count}; --resume goes on"


def _add_verdict(add_row: Callable[..., None], verdict: Verdict) -> None:
    from rich.markup import escape

    styles = {"held": "green", "missed": "bold red", "not_measured": "yellow"}
    shown = f"[{styles[verdict.status]}]{verdict.status.replace('_', ' ')}[/]"
    badge = " (planted)" if verdict.claim.planted else ""
    for index, bar in enumerate(verdict.claim.bars):
        name = f"{verdict.claim.id}{badge}" if index == 0 else ""
        cells = (escape(text) for text in (name, bar.text(), _measured(verdict, bar)))
        add_row(*cells, shown if index == 0 else "")


def _measured(verdict: Verdict, bar: Bar) -> str:
    estimate = verdict.estimates.get(bar.metric)
    return "not measured" if estimate is None else estimate.text()


def _console() -> Console:
    from rich.console import Console

    console = Console(markup=True, emoji=False)
    return console if console.is_terminal else Console(width=120, emoji=False)


def _recipe(app: App, name: str) -> str:
    path = resources.files(app.package) / "recipes" / f"{name}.sh"
    if not path.is_file():
        raise ConfigError(f"{app.name} has no recipe {name!r}")
    return path.read_text(encoding="utf-8")


def _info_lines(app: App) -> list[str]:
    about = app.about
    lines = [
        f"{app.name} {app.version}: {app.summary}",
        "",
        about.what,
        "",
        f"paper    {about.paper} (arXiv:{about.arxiv})",
        f"devices  {about.devices}",
        "",
        "verbs and presets",
    ]
    width = max(len(verb.name) for verb in app.verbs)
    for verb in app.verbs:
        presets = cast("Mapping[str, object]", load(verb.presets) if verb.presets else {})
        named = f" [{', '.join(presets)}]" if presets else ""
        lines.append(f"  {verb.name:<{width}}  {verb.help}{named}")
    if about.optional:
        lines += ["", "optional parts"]
        for module, how in about.optional.items():
            state = "present" if _present(module) else f"missing: {how}"
            lines.append(f"  {module}  {state}")
    return lines


def _present(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # a parent package is missing
        return False
