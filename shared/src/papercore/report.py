"""From a run folder to its summary, verdicts, figures and `report.html`.

Everything is rebuilt from `records.jsonl` and what the run noted about itself, so the same folder
always gives the same bytes:

    conclusion = conclude(folder)     # writes summary.json, claims.json, figures/, report.html
    recheck(folder)                   # [] if a rebuild elsewhere gives the same bytes
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, cast

from papercore.claims import Claim, Estimate, Verdict, judge_all
from papercore.config import differences
from papercore.files import read_json, write_atomic, write_json
from papercore.pages import data_uri, render
from papercore.records import Record, count_by_status, read_records
from papercore.runs import (
    Identity,
    has_run_through,
    read_identity,
    write_claims,
    write_summary,
)
from papercore.tables import Table, write_table
from papercore.timing import timing_block

if TYPE_CHECKING:
    from papercore.plots import Figure

__all__ = ["Conclusion", "conclude", "flatten", "recheck"]

JUDGED_VERBS = frozenset({"mini"})
"""Verbs whose runs are measured against the package's claims."""

MAX_ERRORS_SHOWN = 20


@dataclass(frozen=True)
class Conclusion:
    """What a run comes to."""

    identity: Identity
    estimates: dict[str, Estimate]
    verdicts: tuple[Verdict, ...]
    """Empty if the verb is not one that claims are judged by."""
    whole: bool = True
    """Whether the command ended by itself; what a killed one leaves is a part of its run."""

    @property
    def extent(self) -> str:
        """How much of a run this is, in words; empty if there is nothing to say."""
        words = [] if self.whole else ["unfinished run"]
        if self.identity.quick:
            words.append("quick run: claims are not measured")
        elif self.identity.verb in JUDGED_VERBS and self.whole:
            words.append("full run")
        if self.identity.limit is not None:
            words.append(f"limited to {self.identity.limit}")
        return ", ".join(words)


def conclude(folder: Path, *, into: Path | None = None) -> Conclusion:
    """Summarise, judge and report a run.

    Finds the package's `report.summarise`, `report.figures`, `report.tables` (which it need not
    have) and `claims.CLAIMS` by the package's name in `config.json`.

    Args:
        folder: A run folder that nobody is writing.
        into: Where the results go; the run folder itself if None.

    Raises:
        DataError: It is no run folder, or its records cannot be read.
    """
    target = into or folder
    identity = read_identity(folder)
    records = read_records(folder / "records.jsonl")
    package = import_module(f"{identity.package}.report")
    summarise = cast("Callable[[list[Record]], dict[str, Estimate]]", package.summarise)
    draw = cast("Callable[[list[Record], Path], list[Figure]]", package.figures)
    estimates = summarise(records)
    verdicts = _verdicts(identity, estimates)
    conclusion = Conclusion(identity, estimates, verdicts, has_run_through(folder))
    write_summary(folder, estimates, into=target)
    if conclusion.verdicts:
        write_claims(folder, conclusion.verdicts, into=target)
    figures = draw(records, target / "figures")
    _list_figures(target, figures)
    tables = _tables(package, records)
    for table in tables:
        write_table(table, target / "tables")
    page = _page(folder, conclusion, records, figures, tables)
    write_atomic(target / "report.html", page)
    return conclusion


def recheck(folder: Path) -> list[str]:
    """Rebuild the results of a run elsewhere and compare.

    Returns:
        One line per file that differs, is missing or should not be there; empty if all is the same.

    Raises:
        DataError: It is no run folder, or its records cannot be read.
    """
    with tempfile.TemporaryDirectory() as temporary:
        rebuilt = Path(temporary)
        conclude(folder, into=rebuilt)
        made = {path.relative_to(rebuilt) for path in rebuilt.rglob("*") if path.is_file()}
        stored = {Path(name) for name in ("summary.json", "claims.json", "report.html")}
        for name in ("figures", "tables"):
            stored |= {path.relative_to(folder) for path in (folder / name).glob("*")}
        present = {path for path in stored if (folder / path).exists()}
        compared = [_compare(folder, rebuilt, path) for path in sorted(made | present)]
    return [line for line in compared if line]


def flatten(data: Mapping[str, object], prefix: str = "") -> list[tuple[str, str]]:
    """Nested data as rows of a table: dotted key, text."""
    rows: list[tuple[str, str]] = []
    for key, value in data.items():
        if isinstance(value, Mapping):
            rows += flatten(value, f"{prefix}{key}.")
        elif isinstance(value, list):
            rows.append((f"{prefix}{key}", ", ".join(str(item) for item in value)))
        elif value is not None:
            rows.append((f"{prefix}{key}", str(value)))
    return rows


def _verdicts(identity: Identity, estimates: Mapping[str, Estimate]) -> tuple[Verdict, ...]:
    if identity.verb not in JUDGED_VERBS:
        return ()
    claims = cast("tuple[Claim, ...]", import_module(f"{identity.package}.claims").CLAIMS)
    return judge_all(claims, estimates, quick=identity.quick)


def _tables(package: ModuleType, records: list[Record]) -> list[Table]:
    make = cast("Callable[[list[Record]], list[Table]] | None", getattr(package, "tables", None))
    return make(records) if make else []


def _list_figures(target: Path, figures: list[Figure]) -> None:
    listed = [
        {
            "name": figure.name,
            "title": figure.title,
            "caption": figure.caption,
            "png": f"figures/{figure.png.name}",
            "csv": f"figures/{figure.csv.name}",
        }
        for figure in figures
    ]
    write_json(target / "figures" / "figures.json", {"figures": listed})


def _page(
    folder: Path,
    conclusion: Conclusion,
    records: list[Record],
    figures: list[Figure],
    tables: list[Table],
) -> str:
    shown = [
        {
            "name": figure.name,
            "title": figure.title,
            "caption": figure.caption,
            "image": data_uri(figure.png.read_bytes()),
            "table": f"figures/{figure.csv.name}",
        }
        for figure in figures
    ]
    counts = count_by_status(records)
    content = {
        "identity": conclusion.identity,
        "extent": conclusion.extent,
        "whole": conclusion.whole,
        "verdicts": conclusion.verdicts,
        "estimates": conclusion.estimates,
        "figures": shown,
        "tables": tables,
        "counts": list(counts.items()),
        "num_failed": counts["error"],
        "errors": [record for record in records if record.error][:MAX_ERRORS_SHOWN],
        "timing": flatten(timing_block(folder / "timing.json")),
        "config": flatten(conclusion.identity.config),
        "environment": flatten(read_json(folder / "env.json")),
    }
    return render("report.html.jinja", content)


def _compare(folder: Path, rebuilt: Path, path: Path) -> str:
    """How a file of the folder differs from the rebuilt one; empty if it does not."""
    old, new = folder / path, rebuilt / path
    if not old.exists():
        return f"{path}: is missing"
    if not new.exists():
        return f"{path}: is not what this run makes"
    if old.read_bytes() == new.read_bytes():
        return ""
    if path.suffix != ".json":
        return f"{path}: differs"
    changes = differences(read_json(old), read_json(new))
    return f"{path}: {'; '.join(changes[:5]) or 'differs in layout'}"
