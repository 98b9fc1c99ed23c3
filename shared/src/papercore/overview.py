"""What several miniatures came to: the index page and the final table of `make reproduce`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, cast

from papercore.claims import Verdict, verdict_from_json
from papercore.errors import DataError
from papercore.files import read_json, write_atomic
from papercore.pages import data_uri, render

if TYPE_CHECKING:
    from papercore.cli import About

__all__ = ["Outcome", "print_table", "read_outcome", "write_index"]

_GOOD_EXITS = (0, 3)


@dataclass(frozen=True)
class Outcome:
    """How one miniature ended."""

    package: str
    seed: int
    folder: Path
    log: Path
    import_name: str = ""
    quick: bool = False
    verdicts: tuple[Verdict, ...] = ()
    wall_s: float = 0.0
    cpu_s: float = 0.0
    failure: str = ""
    """Why there is no result; empty if there is one."""

    @property
    def shortfall(self) -> bool:
        """Whether there is anything that did not reproduce."""
        return bool(self.failure) or any(v.status != "held" for v in self.verdicts)

    @property
    def status(self) -> str:
        """`failed`, `missed`, `not_measured` or `held`."""
        if self.failure:
            return "failed"
        found = {verdict.status for verdict in self.verdicts}
        return next((s for s in ("missed", "not_measured") if s in found), "held")

    @property
    def summary(self) -> str:
        """A few words on how it went."""
        if self.failure:
            return "failed"
        held = sum(verdict.status == "held" for verdict in self.verdicts)
        words = f"{held} of {len(self.verdicts)} held"
        return f"quick run, {len(self.verdicts)} not measured" if self.quick else words


def read_outcome(package: str, seed: int, folder: Path, log: Path, code: int) -> Outcome:
    """What a miniature left in its run folder; `code` is what it exited with."""
    if code not in _GOOD_EXITS:
        return Outcome(package, seed, folder, log, failure=f"exit {code}: {_last_line(log)}")
    try:
        claims = read_json(folder / "claims.json")
        timing = cast("Mapping[str, float]", read_json(folder / "summary.json")["timing"])
        verdicts = cast("list[Mapping[str, object]]", claims["claims"])
        return Outcome(
            package,
            seed,
            folder,
            log,
            import_name=str(claims["package"]),
            quick=claims["mode"] == "quick",
            verdicts=tuple(verdict_from_json(verdict) for verdict in verdicts),
            wall_s=timing.get("wall_s", 0.0),
            cpu_s=timing.get("cpu_s", 0.0),
        )
    except (DataError, KeyError) as error:
        return Outcome(package, seed, folder, log, failure=f"left no readable result: {error}")


def write_index(out: Path, outcomes: Sequence[Outcome]) -> Path:
    """Write `index.html`, one section per package, in the given order."""
    papers = [
        _paper(name, list(runs), out)
        for name, runs in groupby(outcomes, key=lambda outcome: outcome.package)
    ]
    first_seed = outcomes[0].seed if outcomes else 0
    page = render("index.html.jinja", {"papers": papers, "first_seed": first_seed})
    write_atomic(out / "index.html", page)
    return out / "index.html"


def print_table(outcomes: Sequence[Outcome], page: Path) -> None:
    """The last thing that `make reproduce` says."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    styles = {"held": "green", "missed": "bold red", "failed": "bold red", "not_measured": "yellow"}
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("package", "seed", "result", "seconds", "not held"):
        table.add_column(column, overflow="fold")
    for outcome in outcomes:
        unheld = [v.claim.id for v in outcome.verdicts if v.status != "held"]
        detail = outcome.failure or ("" if outcome.quick else ", ".join(unheld))
        table.add_row(
            outcome.package,
            str(outcome.seed),
            f"[{styles[outcome.status]}]{outcome.summary}[/]",
            f"{outcome.wall_s:.0f}",
            escape(detail),
        )
    console = Console(emoji=False)
    console = console if console.is_terminal else Console(width=120, emoji=False)
    console.print(table)
    console.out(f"page: {page}", highlight=False)


def _paper(name: str, runs: Sequence[Outcome], out: Path) -> dict[str, object]:
    """One section of the page."""
    about = _about(next((run.import_name for run in runs if run.import_name), ""))
    return {
        "name": name,
        "title": about.paper if about else "",
        "arxiv": about.arxiv if about else "",
        "status": runs[0].status,
        "summary": runs[0].summary,
        "shortfall": any(run.shortfall for run in runs),
        "runs": [_run(run, out) for run in runs],
    }


def _run(run: Outcome, out: Path) -> dict[str, object]:
    return {
        "seed": run.seed,
        "quick": run.quick,
        "failure": run.failure,
        "shortfall": run.shortfall,
        "verdicts": run.verdicts,
        "time": f"{run.wall_s:.0f} s, {run.cpu_s:.0f} s of CPU",
        "report": (run.folder / "report.html").relative_to(out).as_posix(),
        "log": run.log.relative_to(out).as_posix() if run.log.exists() else "",
        "figure": None if run.failure else _first_figure(run.folder),
    }


def _first_figure(folder: Path) -> dict[str, str] | None:
    try:
        listed = read_json(folder / "figures" / "figures.json")["figures"]
    except (DataError, KeyError):
        return None
    figures = cast("list[dict[str, str]]", listed)
    if not figures:
        return None
    first = figures[0]
    image = data_uri((folder / first["png"]).read_bytes())
    return {"title": first["title"], "caption": first["caption"], "image": image}


def _about(import_name: str) -> About | None:
    """The package's own words on its paper, if it can be asked."""
    from papercore.cli import App, load

    if not import_name:
        return None
    try:
        app = load(f"{import_name}.cli:APP")
    except (ImportError, AttributeError):
        return None
    return app.about if isinstance(app, App) else None


def _last_line(log: Path) -> str:
    """The last thing a process said."""
    if not log.exists():
        return "it left no log"
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1].strip() if lines else "it said nothing"
