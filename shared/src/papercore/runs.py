"""One folder per run: config, environment, records, metrics, summary; resumable after any death.

    with Run.open(out, config, flags, package="longheads", version="1.0.0", verb="passkey") as run:
        for case in cases:
            if case.id not in run.done:
                run.append(Record(id=case.id, data={"correct": answer(case)}))
        run.finish(summarise(run.records()))

Files: `config.json`, `env.json`, `records.jsonl`, `metrics.jsonl`, `timing.json`, `summary.json`,
`claims.json`. All but the two `.jsonl` are replaced as a whole. One process writes at a time.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self, cast

from papercore import env
from papercore.claims import Estimate, Verdict, claims_document, estimate_to_json
from papercore.config import (
    Config,
    RunFlags,
    config_hash,
    differences,
    operational,
    plain,
)
from papercore.errors import ConfigError, DataError
from papercore.files import read_json, write_json
from papercore.records import (
    Record,
    RecordWriter,
    count_by_status,
    read_lines,
    read_records,
)
from papercore.timing import Timing, has_ended, timing_block

__all__ = [
    "Identity",
    "Run",
    "check_folder",
    "has_run_through",
    "is_run_folder",
    "read_identity",
    "write_claims",
    "write_summary",
]

SCHEMA = 1
"""Version of the layout of a run folder."""

_LOCK = ".lock"


@dataclass(frozen=True)
class Identity:
    """What a run folder is a run of: the content of `config.json`."""

    package: str
    version: str
    verb: str
    hash: str
    data_hash: str | None
    config: dict[str, object]

    @property
    def seed(self) -> int:
        """The config's seed; 0 if it has none."""
        seed = self.config.get("seed", 0)
        return seed if isinstance(seed, int) else 0

    @property
    def quick(self) -> bool:
        """Whether this was a `--quick` run."""
        return self.config.get("quick") is True

    @property
    def limit(self) -> int | None:
        """How many examples the config takes at most; None if it takes all."""
        limit = self.config.get("limit")
        return limit if isinstance(limit, int) else None


class Run:
    """An open run folder; make one with `Run.open` and use it as a context manager."""

    def __init__(self, folder: Path, identity: Identity, flags: RunFlags, lock: int) -> None:
        """Use `Run.open` instead."""
        self.folder = folder
        self.identity = identity
        self.flags = flags
        self._lock = lock
        self._finished = False
        self._timing = Timing(folder / "timing.json")
        self._records = RecordWriter(folder / "records.jsonl")
        self._metrics = RecordWriter(folder / "metrics.jsonl")
        self._status = {r.id: r.status for r in read_records(folder / "records.jsonl")}
        self._logged = {_metric_key(line) for line in read_lines(folder / "metrics.jsonl")}

    @classmethod
    def open(
        cls,
        out: Path,
        config: Config,
        flags: RunFlags,
        *,
        package: str,
        version: str,
        verb: str,
        data_hash: str | None = None,
    ) -> Run:
        """Make a run folder, or go on with one.

        Args:
            out: The folder.
            config: What to run.
            flags: `resume` goes on with the same run, `overwrite` deletes it first.
            package: Import name of the package.
            version: Its version.
            verb: The command.
            data_hash: Hash of the data, if the config does not fix it.

        Raises:
            ConfigError: The folder holds something and the flags do not say what to do with it, it
                holds another run than the one to resume, or another process writes to it.
        """
        digest = config_hash(config, version=version, data_hash=data_hash)
        identity = Identity(package, version, verb, digest, data_hash, plain(config))
        check_folder(out, flags)
        with _writable(out):
            out.mkdir(parents=True, exist_ok=True)
        lock = _take_lock(out)
        try:
            if flags.overwrite:
                _empty(out)
            otherwise: list[str] = []
            if (out / "config.json").exists():
                otherwise = _check_resumable(out, identity, flags, operational(config))
                if not has_run_through(out):  # what it reported is of a part, and says so
                    (out / "report.html").unlink(missing_ok=True)
            else:
                write_json(out / "config.json", _identity_document(identity))
            _write_env(out, package, version, otherwise)
            return cls(out, identity, flags, lock)
        except BaseException:
            os.close(lock)
            raise

    @property
    def done(self) -> frozenset[str]:
        """Ids of the records that are there, whatever their status."""
        return frozenset(self._status)

    @property
    def failed(self) -> frozenset[str]:
        """Ids of the records that are errors: these may be tried again."""
        return frozenset(name for name, status in self._status.items() if status == "error")

    def append(self, record: Record) -> None:
        """Add a record; one with the id of an error supersedes it.

        Raises:
            DataError: There is one with this id that is no error.
        """
        if self._status.get(record.id, "error") != "error":
            raise DataError(f"record {record.id!r} was already written: skip the ids in run.done")
        self._records.append(record)
        self._status[record.id] = record.status
        self._timing.tick()

    def records(self) -> list[Record]:
        """All records so far, read back from the file."""
        return read_records(self.folder / "records.jsonl")

    def log(self, step: int, **metrics: float) -> None:
        """Add the metrics of a training step; a step that is already there is not added again."""
        line: dict[str, object] = {"step": step, **metrics}
        if _metric_key(line) not in self._logged:
            self._metrics.append_line(line)
            self._logged.add(_metric_key(line))
            self._timing.tick()

    def timed(self, name: str) -> AbstractContextManager[None]:
        """Add the wall and CPU seconds of a block to the phase `name`."""
        return self._timing.phase(name)

    def count(self, **amounts: int) -> None:
        """Add to the counts of the timing block, for instance `tokens=`."""
        self._timing.count(**amounts)

    def note(self, **facts: str | float | bool | None) -> None:
        """Put facts into `env.json`: device, dtype, anything that was done otherwise than asked."""
        document = read_json(self.folder / "env.json")
        notes = cast("dict[str, object]", document.get("notes", {}))
        write_json(self.folder / "env.json", {**document, "notes": {**notes, **facts}})

    def finish(self, estimates: Mapping[str, Estimate], verdicts: Sequence[Verdict] = ()) -> None:
        """Write `summary.json`, and `claims.json` if there are verdicts."""
        self._records.sync()
        self._metrics.sync()
        self._timing.save()
        self._finished = True  # the summary holds this timing: it must not change any more
        write_summary(self.folder, estimates)
        if verdicts:
            write_claims(self.folder, verdicts)

    def close(self) -> None:
        """Close the files and let another process in; a second call does nothing."""
        self._close(ended=True)

    def _close(self, *, ended: bool) -> None:
        if self._lock < 0:
            return
        self._records.close()
        self._metrics.close()
        if not self._finished:
            self._timing.save()
        if ended:
            self._timing.end()
        os.close(self._lock)
        self._lock = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if isinstance(error, KeyboardInterrupt):
            error.add_note(self._left())  # the command line says it
        self._close(ended=kind is None)

    def _left(self) -> str:
        """What an interrupt leaves, in words."""
        count = len(self._status)
        if not count:
            return f"what was done is in {self.folder}, --resume goes on"
        held = "1 record is" if count == 1 else f"{count} records are"
        return f"{held} in {self.folder}, --resume goes on"


def check_folder(out: Path, flags: RunFlags) -> None:
    """Whether a run may go there: nothing that is not a run of ours is written into or deleted.

    `Run.open` asks the same. Ask first where something slow stands before it, such as a model.

    Raises:
        ConfigError: The folder cannot be made or written, or it holds something and the flags do
            not say what to do with it.
    """
    with _writable(out):
        if out.exists() and not out.is_dir():
            raise ConfigError(f"{out} is a file: give another --out")
        _try_writing(out)
    if not _contents(out):
        return
    if not is_run_folder(out):
        raise ConfigError(f"{out} is not empty and is not a run folder: give another --out")
    if not (flags.resume or flags.overwrite):
        raise ConfigError(
            f"{out} holds a run: --resume goes on with it, --overwrite deletes it first"
        )


@contextmanager
def _writable(out: Path) -> Iterator[None]:
    """Says that a folder cannot be made or written, and why.

    Raises:
        ConfigError: The system refused.
    """
    try:
        yield
    except OSError as error:
        raise ConfigError(
            f"{out} cannot be written ({error.strerror}): give another --out"
        ) from None


def _try_writing(out: Path) -> None:
    """Make and remove a folder there, or in what is there of its parents.

    Rights alone do not tell: no user may write into /proc, and some disks cannot be written.
    """
    there = next((path for path in (out, *out.absolute().parents) if path.exists()), out)
    Path(tempfile.mkdtemp(prefix=".", suffix=".tmp", dir=there)).rmdir()


def is_run_folder(folder: Path) -> bool:
    """Whether `Run.open` made this folder."""
    try:
        return "run_schema" in read_json(folder / "config.json")
    except DataError:
        return False


def read_identity(folder: Path) -> Identity:
    """What a run folder is a run of.

    Raises:
        DataError: It is no run folder.
    """
    if not is_run_folder(folder):
        raise DataError(f"{folder} is not a run folder: it has no config.json of a run")
    document = read_json(folder / "config.json")
    if document["run_schema"] != SCHEMA:
        raise DataError(f"{folder} has run schema {document['run_schema']}, this reads {SCHEMA}")
    data_hash = document.get("data_hash")
    return Identity(
        package=str(document["package"]),
        version=str(document["version"]),
        verb=str(document["verb"]),
        hash=str(document["hash"]),
        data_hash=None if data_hash is None else str(data_hash),
        config=cast("dict[str, object]", document["config"]),
    )


def has_run_through(folder: Path) -> bool:
    """Whether the command of a run folder ended by itself; one that is still running has not."""
    return has_ended(folder / "timing.json")


def write_summary(
    source: Path, estimates: Mapping[str, Estimate], *, into: Path | None = None
) -> None:
    """Write `summary.json` of the run in `source`, from its records and its stored timing."""
    document = {
        "schema": SCHEMA,
        "metrics": {name: estimate_to_json(estimate) for name, estimate in estimates.items()},
        "counts": count_by_status(read_records(source / "records.jsonl")),
        "timing": timing_block(source / "timing.json"),
    }
    write_json((into or source) / "summary.json", document)


def write_claims(source: Path, verdicts: Sequence[Verdict], *, into: Path | None = None) -> None:
    """Write `claims.json` of the run in `source`."""
    identity = read_identity(source)
    document = claims_document(
        verdicts,
        package=identity.package,
        version=identity.version,
        seed=identity.seed,
        quick=identity.quick,
    )
    write_json((into or source) / "claims.json", document)


def _identity_document(identity: Identity) -> dict[str, object]:
    return {
        "run_schema": SCHEMA,
        "package": identity.package,
        "version": identity.version,
        "verb": identity.verb,
        "hash": identity.hash,
        "data_hash": identity.data_hash,
        "config": identity.config,
    }


def _contents(folder: Path) -> list[Path]:
    """What is in a folder, apart from what a dead process leaves before a run exists."""
    if not folder.is_dir():
        return []
    return [path for path in folder.iterdir() if path.name != _LOCK and not _is_temporary(path)]


def _is_temporary(path: Path) -> bool:
    return path.name.startswith(".") and path.name.endswith(".tmp")


def _check_resumable(
    out: Path, identity: Identity, flags: RunFlags, operational: Collection[str]
) -> list[str]:
    """Refuses another run; says what is only run in another way than before (`Config.how`)."""
    if not flags.resume:  # another process made it between the first look and the lock
        raise ConfigError(f"{out} holds a run: --resume goes on with it")
    old = read_identity(out)
    if (old.hash, old.package, old.verb) == (identity.hash, identity.package, identity.verb):
        return differences(old.config, identity.config)
    changed = [
        line
        for line in differences(_identifying(old), _identifying(identity))
        if line.partition(":")[0] not in operational
    ]
    raise ConfigError(
        f"{out} holds another run, {'; '.join(changed)}: "
        "use the same settings, another --out, or --overwrite"
    )


def _identifying(identity: Identity) -> dict[str, object]:
    return {
        "package": identity.package,
        "verb": identity.verb,
        "version": identity.version,
        "data_hash": identity.data_hash,
        **identity.config,
    }


def _take_lock(out: Path) -> int:
    """Lock a folder until the descriptor is closed or the process dies, however it dies."""
    descriptor = os.open(out / _LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise ConfigError(f"{out} is being written by another process: wait for it") from None
    return descriptor


def _empty(out: Path) -> None:
    """Delete a run, its config last, so that a death on the way leaves a run folder."""
    contents = sorted(_contents(out), key=lambda path: path.name == "config.json")
    for path in contents:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def _write_env(out: Path, package: str, version: str, otherwise: Sequence[str]) -> None:
    """The environment of the first session; a later one is added only where it differs."""
    now = env.describe(package, version)
    path = out / "env.json"
    if not path.exists():
        write_json(path, now)
        return
    first = read_json(path)
    changed = [*differences({key: first.get(key) for key in now}, now), *otherwise]
    if changed:
        resumed = cast("list[object]", first.get("resumed", []))
        write_json(path, {**first, "resumed": [*resumed, changed]})


def _metric_key(line: Mapping[str, object]) -> tuple[object, ...]:
    return (line.get("step"), *sorted(key for key in line if key != "step"))
