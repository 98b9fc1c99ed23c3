"""A ledger of looks at the test questions, so that nobody chooses a checkpoint by them unawares.

    look = note_test(config.data, data=prepared.digest, model="runs/r3/model", run=digest)
    if look.warning: ...

Official code keeps the checkpoint that is best on the test questions. Here dev questions choose,
and the test questions are for one look at the end. Nothing stops a second look, but it is written
down: in `tested.json` beside the model if that is in a run folder of this package, else in the
folder of the prepared data. A look at other weights of the same training run is said aloud.

What counts as one training run: a run folder of ours; another folder, or the folder above it if it
is called `checkpoint-...`; a hub id, an endpoint's model. Weights are told apart by samples of
their bytes. No torch here.
"""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Final, cast

from papercore.errors import DataError
from papercore.files import read_json, write_json
from papercore.refs import directory, parse_ref
from papercore.runs import is_run_folder, read_identity

__all__ = ["LEDGER", "Look", "note_test", "weights_digest"]

logger = logging.getLogger(__name__)

LEDGER: Final = "tested.json"

_SAMPLES = 64
_SAMPLE_BYTES = 64 * 1024
_ABOVE = 3
"""How far above its weights a run folder is looked for: checkpoints/checkpoint-100."""


@dataclass(frozen=True)
class Look:
    """A look at the test questions.

    Attributes:
        ledger: Where it was written down; None where that failed.
        num_before: Looks at these questions with other weights of the same training run.
        warning: What a person should know of them; empty if there were none.
    """

    ledger: Path | None
    num_before: int
    warning: str


def note_test(
    data_folder: Path, *, data: str, model: str, adapter: str | None = None, run: str
) -> Look:
    """Writes a look down, and says what came before it.

    Args:
        data_folder: The prepared data.
        data: Their digest.
        model: Reference of the model.
        adapter: Of an adapter on it.
        run: Hash of the evaluation; gone on with, it is the same look.
    """
    tested = adapter or model
    place = _place_of(tested)
    owner = None if place is None else _run_folder_of(place)
    lineage = tested if place is None else str(owner or _lineage(place))
    entry = {
        "lineage": lineage if owner is None else "this run",  # the folder may move
        "data": data,
        "model": tested,
        "weights": tested if place is None else weights_digest(place),
        "run": run,
    }
    ledger = (owner or data_folder) / LEDGER
    before = _read(ledger)
    others = {
        str(one.get("weights"))
        for one in before
        if (one.get("lineage"), one.get("data")) == (entry["lineage"], data)
    } - {entry["weights"]}
    warning = _warning(len(others), lineage)
    if entry not in before:
        try:
            write_json(ledger, {"schema": 1, "tests": [*before, entry]})
        except OSError as error:
            logger.warning("%s cannot be written: %s", ledger, error.strerror)
            return Look(None, len(others), warning)
    return Look(ledger, len(others), warning)


def weights_digest(folder: Path) -> str:
    """Hash of samples of all safetensors of a folder: their sizes, and bytes all over them."""
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.safetensors")):
        size = path.stat().st_size
        digest.update(f"{path.name} {size} ".encode())
        with path.open("rb") as file:
            for number in range(_SAMPLES):
                file.seek(max(0, size - _SAMPLE_BYTES) * number // (_SAMPLES - 1))
                digest.update(file.read(_SAMPLE_BYTES))
    return digest.hexdigest()


def _warning(num_before: int, lineage: str) -> str:
    if not num_before:
        return ""
    return (
        f"these test questions were looked at before with {num_before} other weights of "
        f"{lineage}: to choose among them by the test is to fit it; choose on dev"
    )


def _place_of(ref: str) -> Path | None:
    """The folder that a reference names, if it names one."""
    found = directory(ref)
    if found is None:
        parsed = parse_ref(ref)
        found = directory(parsed.name) if parsed.kind in ("hf", "vllm") else None
    return None if found is None else found.resolve()


def _run_folder_of(place: Path) -> Path | None:
    for folder in (place, *list(place.parents)[:_ABOVE]):
        if is_run_folder(folder) and read_identity(folder).package == "r3":
            return folder
    return None


def _lineage(place: Path) -> Path:
    return place.parent if place.name.startswith("checkpoint-") else place


def _read(ledger: Path) -> list[dict[str, object]]:
    if not ledger.exists():
        return []
    try:
        found = read_json(ledger).get("tests", [])
    except DataError as error:
        logger.warning("%s: it is begun anew", error)
        return []
    return cast("list[dict[str, object]]", found) if isinstance(found, list) else []
