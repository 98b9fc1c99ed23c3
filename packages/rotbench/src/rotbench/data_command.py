"""`rotbench data`: check the released files, install them, say what is wrong with them."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

from papercore.config import RunFlags
from papercore.errors import ConfigError, DataError
from papercore.files import read_json, replace_folder, write_json
from papercore.terminal import say, shown, table_lines
from rotbench.archives import collect
from rotbench.cases import LEVELS, TURNS, Case
from rotbench.config import DataConfig
from rotbench.data import MANIFEST, SAMPLE, folder_of, installed_folder, load_cases
from rotbench.defects import KINDS, defects, table
from rotbench.released import COMMIT, SHA256, read_folder

ATTRIBUTION = f"""\
RoTBench: the ten data files of GitHub Junjie-Ye/RoTBench, commit {COMMIT},
folders Data/First_Turn and Data/Third_Turn, unchanged. Apache License 2.0.
The queries and tools derive from GitHub Junjie-Ye/ToolEyes (Apache License 2.0).
Paper: arXiv 2401.08326, EMNLP 2024.
"""


def run(config: DataConfig, flags: RunFlags) -> int:
    """`rotbench data`.

    Raises:
        ConfigError: The flags do not fit together.
        DataError: The files are missing or are not the released ones.
    """
    _check_flags(config, flags)
    if config.write_sample is not None:
        _write_sample(config.write_sample)
        return 0
    if config.source is not None:
        target = flags.out or installed_folder()
        install(
            collect(config.source, sha256=config.sha256),
            target,
            unverified=config.unverified,
            overwrite=flags.overwrite,
        )
        say(f"installed into {shown(str(target))}")
        cases, digest = read_folder(target), None
        verified = read_json(target / MANIFEST)["verified"] is True
    else:
        cases, digest = load_cases(config.data)
        say(f"{config.data}: {shown(str(folder_of(config.data)))}")
        verified = config.data == "released" and not digest.startswith("unverified:")
    _describe(
        cases, verified=verified, released=config.source is not None or config.data == "released"
    )
    if digest is not None:
        say(f"hash of the data: {digest}")
    return 0


def install(
    files: Mapping[str, bytes], target: Path, *, unverified: bool = False, overwrite: bool = False
) -> None:
    """Checks the files and puts them into a folder, all or none.

    Args:
        files: From `archives.collect`.
        target: The folder; an earlier installation there is replaced.
        unverified: Accept files whose checksums are not known; the folder remembers it.
        overwrite: Replace a folder that is no installation too.

    Raises:
        ConfigError: The folder holds something else.
        DataError: A checksum or the schema is wrong.
    """
    sums = {name: hashlib.sha256(files[name]).hexdigest() for name in SHA256}
    changed = [name for name, digest in sums.items() if digest != SHA256[name]]
    if changed and not unverified:
        raise DataError(
            f"{changed[0]}: its sha256 is {sums[changed[0]]}, but the released file has "
            f"{SHA256[changed[0]]} ({len(changed)} of {len(sums)} files differ): get commit "
            f"{COMMIT[:12]}, or accept them with --unverified"
        )
    taken = target.exists() and (not target.is_dir() or any(target.iterdir()))
    if taken and not (target / MANIFEST).is_file() and not (overwrite and target.is_dir()):
        raise ConfigError(f"{target}: holds something else: give another --out, or --overwrite")
    target.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        for name in SHA256:
            (staging / name).parent.mkdir(exist_ok=True)
            (staging / name).write_bytes(files[name])
        (staging / "LICENSE").write_bytes(files.get("LICENSE") or _license())
        (staging / "ATTRIBUTION.txt").write_text(ATTRIBUTION, "utf-8")
        _check_schema(staging)
        write_json(
            staging / MANIFEST,
            {"commit": None if changed else COMMIT, "verified": not changed, "sha256": sums},
        )
        staging.chmod(0o755)
        replace_folder(staging, target)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _check_schema(folder: Path) -> None:
    try:
        read_folder(folder)
    except DataError as error:
        raise DataError(str(error).replace(f"{folder}{os.sep}", "")) from None


def _license() -> bytes:
    """The text of the Apache licence from our own distribution: the data's is the same."""
    try:
        text = metadata.distribution("rotbench").read_text("licenses/LICENSE")
    except metadata.PackageNotFoundError:
        text = None
    return (text or "Apache License 2.0: https://www.apache.org/licenses/LICENSE-2.0\n").encode()


def _check_flags(config: DataConfig, flags: RunFlags) -> None:
    if config.source is None and (config.unverified or config.sha256 or flags.out):
        raise ConfigError("--unverified, --sha256 and --out go with --from")
    if flags.resume:
        raise ConfigError("there is nothing to --resume: `data` installs all files or none")
    if config.source is not None and (config.data != "released" or config.write_sample):
        raise ConfigError("--from installs the released files: leave --data, --write-sample out")


def _write_sample(folder: Path) -> None:
    if folder.exists():
        raise ConfigError(f"{folder}: is there already: give a new folder")
    shutil.copytree(SAMPLE, folder)
    say(f"the sample is in {shown(str(folder))}: edit it, and give that folder as --data")


def _describe(cases: list[Case], *, verified: bool, released: bool) -> None:
    """Numbers of cases, and the defects as a table."""
    if released:
        state = "the released bytes" if verified else "NOT the released bytes (--unverified)"
        say(f"checksums: {state}")
    found = defects(cases)
    counts = table(found)
    for turn in TURNS:
        head = [f"{turn} turn", *LEVELS]
        here = [case.key.level for case in cases if case.key.turn == turn]
        rows = [["cases", *(str(here.count(level)) for level in LEVELS)]]
        for kind in KINDS:
            numbers = [counts.get((f"{turn}/{level}", kind), 0) for level in LEVELS]
            if any(numbers):
                rows.append([f"  {kind}", *(str(number or "") for number in numbers)])
        for line in table_lines(head, rows):
            say(line)
    with_defect = len({one.key for one in found})
    say(f"{len(cases)} cases, {with_defect} of them with a defect; all are used as they are")
