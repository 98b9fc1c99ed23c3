"""What the records of `longheads perplexity` come to: table, figure, documents. No torch here.

Every document weighs alike: the perplexity of a length is exp of the mean over documents of the
loss per counted token. A document has fewer long windows than short ones, so a mean over all tokens
gives its documents other weights at every length, and differences between lengths are then partly
differences between documents. That mean, exp(sum of losses / counted tokens), is what published
tables mean; it is there too, as `perplexity_by_token`.

All windows of a length count the same number of tokens, so means over windows are means over
tokens; bounds go through exp as they are.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import cast

import numpy as np

from papercore.claims import Estimate
from papercore.plots import Figure, Frame, lines_with_intervals
from papercore.records import Record
from papercore.stats import bootstrap_mean
from papercore.tables import Table

PREFIX = "perplexity/"
"""How the ids of these records begin."""
DOCUMENT_PREFIX = "perplexity/document/"
"""How the ids of those begin that describe a document."""


def summarise(records: Sequence[Record]) -> dict[str, Estimate]:
    """Perplexity per length, documents alike and by token; intervals by bootstrap over documents.

    Windows that failed are left out; they are counted in the summary beside the metrics.
    """
    done = _done(records)
    by_length = {length: _of(done, length) for length in _lengths(done)}
    return {
        **{f"perplexity/{length}": _over_documents(mine) for length, mine in by_length.items()},
        **{f"perplexity_by_token/{length}": _by_token(mine) for length, mine in by_length.items()},
    }


def figures(records: Sequence[Record], into: Path) -> list[Figure]:
    """Perplexity against length."""
    done = _done(records)
    if not done:
        return []
    frame = Frame(
        "perplexity",
        "Perplexity, by length of the context",
        f"{_counting(done[0])} Documents weigh alike. Band: 95 %, bootstrap over documents.",
        x="tokens",
        y="perplexity",
        log_x=True,
    )
    line = {float(length): _over_documents(_of(done, length)) for length in _lengths(done)}
    return [lines_with_intervals(into, frame, {str(done[0].data["method"]): line})]


def tables(records: Sequence[Record]) -> list[Table]:
    """Perplexity of every document."""
    done = _done(records)
    names = {
        _int(record.id.removeprefix(DOCUMENT_PREFIX)): str(record.data["name"])
        for record in records
        if record.id.startswith(DOCUMENT_PREFIX)
    }
    rows = []
    for length in _lengths(done):
        for document, windows in _by_document(_of(done, length)).items():
            found = _perplexity(bootstrap_mean(_means(windows)))
            rows.append((length, names[document], len(windows), found.value, found.lo, found.hi))
    if not rows:
        return []
    caption = (
        f"{_counting(done[0])} Interval: 95 %, bootstrap over the windows of the document; "
        "neighbours are alike, so it is a little narrow."
    )
    header = ("tokens", "document", "windows", "perplexity", "from", "to")
    return [Table("perplexity_documents", "Perplexity of every document", caption, header, rows)]


def perplexity_table(records: Sequence[Record], reading: str) -> list[str]:
    """The perplexities as lines of text.

    Args:
        records: of a run.
        reading: which windows were read, in words (`windows.described`).
    """
    windows = [record for record in records if _is_window(record)]
    if not windows:
        return []
    header = (
        f"{'tokens':>8}  {'perplexity':>10}  {'95 % interval':<18}  {'by token':>8}  "
        f"{'documents':>9}  {'windows':>8}  {'counted':>10}  failed"
    )
    lines = [_about(records, windows[0], reading), header]
    lines += [_line(windows, length) for length in _lengths(windows)]
    if _differ(windows):
        lines.append(
            "other documents at other lengths (--min-tok, or windows that failed): these numbers "
            "differ by documents too"
        )
    return lines


def _about(records: Sequence[Record], window: Record, reading: str) -> str:
    described = [record for record in records if record.id.startswith(DOCUMENT_PREFIX)]
    skipped = sum(record.status == "skipped" for record in described)
    return (
        f"method {window.data['method']}, scheme {window.data['scheme']}, {reading}; "
        f"{len(described) - skipped} documents, {skipped} too short"
    )


def _line(windows: Sequence[Record], length: int) -> str:
    mine = _of(_done(windows), length)
    found, failed = _over_documents(mine), len(_of(windows, length)) - len(mine)
    counted = sum(_int(record.data["scored_tok"]) for record in mine)
    span = "-" if np.isnan(found.lo) else f"{found.lo:.4g} to {found.hi:.4g}"
    return (
        f"{length:>8}  {_shown(found.value):>10}  {span:<18}  {_shown(_by_token(mine).value):>8}  "
        f"{found.n:>9}  {len(mine):>8}  {counted:>10}  {failed:>6}"
    )


def _shown(value: float) -> str:
    return "-" if np.isnan(value) else f"{value:.4g}"


def _differ(windows: Sequence[Record]) -> bool:
    """Whether some length has windows of other documents than another."""
    done = _done(windows)
    sets = [set(_by_document(_of(done, length))) for length in _lengths(windows)]
    return any(one != sets[0] for one in sets)


def _counting(record: Record) -> str:
    if record.data["scheme"] == "block":
        return "Scheme block: tokens with half to all of the length before them count."
    return f"Scheme window: the last {record.data['scored_tok']} tokens of every window count."


def _over_documents(windows: Sequence[Record]) -> Estimate:
    """Every document weighs alike, however many windows it has."""
    groups = _by_document(windows).values()
    return _perplexity(bootstrap_mean([float(np.mean(_means(mine))) for mine in groups]))


def _by_token(windows: Sequence[Record]) -> Estimate:
    """Every token weighs alike, so long documents weigh more."""
    documents = [_int(record.data["document"]) for record in windows]
    return _perplexity(bootstrap_mean(_means(windows), groups=documents))


def _by_document(windows: Sequence[Record]) -> dict[int, list[Record]]:
    found: dict[int, list[Record]] = {}
    for record in windows:
        found.setdefault(_int(record.data["document"]), []).append(record)
    return dict(sorted(found.items()))


def _perplexity(loss: Estimate) -> Estimate:
    with np.errstate(over="ignore"):  # a broken model's is beyond all floats
        value, low, high = (float(np.exp(bound)) for bound in (loss.value, loss.lo, loss.hi))
    return Estimate(value, low, high, loss.n, loss.method)


def _means(windows: Sequence[Record]) -> list[float]:
    """Loss per counted token of each window."""
    return [cast("float", r.data["nll"]) / cast("int", r.data["scored_tok"]) for r in windows]


def _is_window(record: Record) -> bool:
    return record.id.startswith(PREFIX) and not record.id.startswith(DOCUMENT_PREFIX)


def _done(records: Sequence[Record]) -> list[Record]:
    return [record for record in records if _is_window(record) and record.status == "ok"]


def _of(records: Sequence[Record], length: int) -> list[Record]:
    return [record for record in records if record.data["length"] == length]


def _lengths(records: Sequence[Record]) -> list[int]:
    return sorted({_int(record.data["length"]) for record in records})


def _int(value: object) -> int:
    return int(str(value))
